//! Two controllers of one NVM subsystem, of the embedded controller and of `nvme-emu`: each has what the other's host has stored.
//! (`host_reservations` has the blocks and their reservations.)

use std::ops::ControlFlow;
use upcie_nvme::{
    Controller, FeatureUpdate, Io, Placement, ResetKind, emu,
    spec::{
        BootPartitionWriteProtection, CommitAction, FirmwareCommit, NamespaceWriteProtection, Status,
        StoreOptions,
    },
};
use upcie_tests::{keys, process::Server, says};

/// Runs a check on two controllers of this process, and of a server.
fn on_each(options: &str, check: impl Fn(&Controller, &Controller)) {
    println!("emu:{options}");
    let devices = emu::spawn_subsystem(&options.parse().unwrap(), 2).unwrap();
    let open = |device| Controller::builder().from_device(device).unwrap();
    let all: Vec<_> = devices.into_iter().map(open).collect();
    check(&all[0], &all[1]);
    println!("nvme-emu {options}");
    let server = Server::start_several(options, 2);
    let all: Vec<_> =
        server.addresses().into_iter().map(|address| Controller::open(address).unwrap()).collect();
    check(&all[0], &all[1]);
}

#[test]
fn keys_and_values_are_those_of_both() {
    on_each("size=64K,kv=true", |first, second| {
        let (mine, theirs) = (keys::keys(first), keys::keys(second));
        let (key, value) = (keys::key(b"shared"), keys::value(5000, 1));
        mine.store_bytes(key, &value, StoreOptions::empty()).unwrap();
        assert_eq!(theirs.retrieve_bytes(key).unwrap(), value);
        theirs.delete(key).unwrap();
        assert_eq!(keys::status(mine.retrieve_bytes(key)), Status::KEY_DOES_NOT_EXIST);
    });
}

#[test]
fn a_protected_namespace_is_so_for_both() {
    on_each("size=1M", |first, second| {
        let namespace = second.namespace(1).unwrap();
        let mut buffer = second.alloc(4096).unwrap();
        let mut written = || namespace.write(0, &mut buffer).err().and_then(|error| error.status());
        assert_eq!(written(), None);
        let update = FeatureUpdate { nsid: 1, ..Default::default() };
        for (state, status) in [(1, Some(Status::WRITE_PROTECTED)), (0, None)] {
            let value = NamespaceWriteProtection::new().with_state(state);
            first.set_feature_with(&value, &update).unwrap();
            assert_eq!(written(), status, "state {state}");
        }
    });
}

/// Returns the blocks that are left in the unit of a placement identifier.
fn left(placement: &Placement, identifier: u16) -> u64 {
    let handles = placement.handles().unwrap();
    let found = handles.iter().find(|handle| handle.placement_identifier == identifier);
    found.unwrap().available_media_writes
}

#[test]
fn reclaim_units_are_those_of_both() {
    on_each("size=1M,fdp=true,fdp-unit=64K", |first, second| {
        let namespace = first.namespace(1).unwrap();
        let (mine, theirs) =
            (namespace.placement().unwrap(), second.namespace(1).unwrap().placement().unwrap());
        let identifier = mine.identifier(0, 2);
        let whole = left(&theirs, identifier);
        let mut buffer = first.alloc(namespace.block_size()).unwrap();
        buffer.fill(7);
        namespace.run(Io::write(&namespace, 0).placement(identifier), &mut buffer).unwrap();
        assert_eq!(left(&theirs, identifier), whole - 1);
        assert_eq!(theirs.statistics().unwrap().host_bytes(), namespace.block_size() as u128);
        theirs.update(&[identifier]).unwrap();
        assert_eq!(left(&mine, identifier), whole, "another, empty unit");
    });
}

#[test]
fn boot_partitions_are_those_of_both() {
    on_each("size=1M,boot-partitions=128K", |first, second| {
        let image: Vec<u8> = (0..8192_u32).map(|at| (at % 251) as u8).collect();
        // State 1: unlocked.
        first.set_feature(&BootPartitionWriteProtection::new().with_partition_0(1)).unwrap();
        let state: BootPartitionWriteProtection = second.feature().unwrap();
        assert_eq!((state.partition_0(), state.partition_1()), (1, 2));
        assert!(second.download_firmware(&image, |_| ControlFlow::Continue(())).unwrap().is_continue());
        for (action, boot_partition) in
            [(CommitAction::REPLACE_BOOT_PARTITION, 0), (CommitAction::ACTIVATE_BOOT_PARTITION, 1)]
        {
            second.execute(&FirmwareCommit { slot: 0, action, boot_partition }).unwrap();
        }
        let mut read = vec![0; image.len()];
        first.read_boot_partition(0, 0, &mut read).unwrap();
        assert!(read == image);
        assert_eq!(first.boot_partitions().unwrap().unwrap().active, 1);
    });
}

/// A reset of the NVM subsystem would be one of both controllers.
#[test]
fn neither_host_resets_the_subsystem() {
    on_each("size=1M", |first, second| {
        for controller in [first, second] {
            let error = controller.reset_by(ResetKind::Subsystem).unwrap_err();
            says(&error, &[controller.name(), "no NVM subsystem reset", "CAP.NSSRS"]);
            controller.reset().unwrap();
        }
        for controller in [first, second] {
            controller.namespace(1).unwrap().flush().unwrap();
        }
    });
}
