//! Two controllers of one NVM subsystem, of the embedded controller and of `nvme-emu`: each has what the other's host has stored.
//! (`host_reservations` has the blocks and their reservations.)

use std::ops::ControlFlow;
use upcie_nvme::{
    Controller, DmaBuf, FeatureUpdate, Io, LogQuery, Placement, ResetKind, emu,
    spec::{
        AccessLog, AccessState, AdminOpcode, AsyncEvent, AsyncEventType, BootPartitionWriteProtection,
        Command, CommitAction, EventKind, FirmwareCommit, LogPageId, NamespaceWriteProtection, NoticeEvent,
        Status, StoreOptions,
    },
};
use upcie_tests::{deadline, keys, process::Server, says};

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

/// Lets an embedded controller have its namespaces in another state, and raise the notice of it.
fn set_access(controller: &Controller, state: AccessState) {
    let notice = NoticeEvent::ASYMMETRIC_NAMESPACE_ACCESS.0;
    let event = AsyncEvent::new().with_kind(AsyncEventType::NOTICE).with_information(notice);
    let event = event.with_log_page(LogPageId::ASYMMETRIC_NAMESPACE_ACCESS);
    let mut command = Command::admin(AdminOpcode(0xc0), 0);
    (command.cdw10, command.cdw11) = (event.into_bits(), state.0.into());
    // SAFETY: the embedded controller's command has no data.
    unsafe { controller.admin_raw(&command, DmaBuf::empty()) }.unwrap();
}

/// Commands through a controller that can't reach the namespaces fail by their path; those through the other one go on.
#[test]
fn each_controller_has_a_path_of_its_own() {
    on_each("size=1M,ana=optimized,serial=PATHS", |first, second| {
        let id = first.identify();
        assert_eq!((id.cmic & 1 << 3, id.anacap, id.anatt), (1 << 3, 0x5f, 10));
        assert_eq!((id.anagrpmax, id.nanagrpid), (1, 1));
        assert_eq!(first.namespace(1).unwrap().identify().anagrpid, 1);
        let access = |controller: &Controller| {
            let query = LogQuery { retain_event: false, ..Default::default() };
            let log: AccessLog = controller.log_with(&query).unwrap();
            let (group, namespaces) = log.groups().next().unwrap();
            assert_eq!((group.group_id, namespaces), (1, vec![1]));
            assert_eq!(log.header.change_count, group.change_count);
            (group.state(), group.change_count)
        };
        let statuses = |controller: &Controller| {
            let namespace = controller.namespace(1).unwrap();
            let mut buffer = controller.alloc(4096).unwrap();
            [
                namespace.write(0, &mut buffer),
                namespace.read(0, &mut buffer),
                namespace.flush(),
                namespace.write_zeroes(8, 8),
            ]
            .map(|done| done.err().and_then(|error| error.status()))
        };
        assert_eq!(access(first), (AccessState::OPTIMIZED, 0));
        let mut events = first.events().unwrap();
        assert!(events.try_next().unwrap().is_none());
        let states = [
            (AccessState::NON_OPTIMIZED, None),
            (AccessState::INACCESSIBLE, Some(Status::ANA_INACCESSIBLE)),
            (AccessState::CHANGE, Some(Status::ANA_TRANSITION)),
            (AccessState::PERSISTENT_LOSS, Some(Status::ANA_PERSISTENT_LOSS)),
            (AccessState::OPTIMIZED, None),
        ];
        for (changes, (state, status)) in (1..).zip(states) {
            set_access(first, state);
            let event = events.wait(deadline()).unwrap().expect("an event");
            assert_eq!(event.kind(), EventKind::Notice(NoticeEvent::ASYMMETRIC_NAMESPACE_ACCESS));
            // The read of the page lets the next event come.
            assert_eq!(access(first), (state, changes));
            assert_eq!(statuses(first), [status; 4], "{state}");
            assert_eq!((access(second), statuses(second)), ((AccessState::OPTIMIZED, 0), [None; 4]));
        }
    });
    on_each("size=1M,zoned=true,zone-size=64K,ana=inaccessible,serial=LOST", |first, _| {
        let namespace = first.namespace(1).unwrap();
        let error = namespace.write(0, &mut first.alloc(4096).unwrap()).unwrap_err();
        assert_eq!(error.status(), Some(Status::ANA_INACCESSIBLE));
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
