//! Identify data that the driver's bring-up does not ask for: of a block format, of allocated namespaces; and the firmware that a
//! Firmware Commit has changed.

use std::ops::ControlFlow;
use upcie_nvme::{
    Controller, IdentifyQuery,
    spec::{
        AdminOpcode, AttachNamespace, Cns, CommandSetActiveNamespaces, CommandSetAllocatedNamespaces,
        CommandsSupportedLog, CommitAction, Csi, DetachNamespace, FirmwareCommit, IdentifyController,
        IdentifyData, IdentifyNamespace, IndependentNamespace, NvmNamespace, Status, ZonedNamespace,
    },
};
use upcie_tests::keys::status;

fn open(options: &str) -> Controller {
    Controller::open(format!("emu:{options}")).unwrap()
}

/// Returns the Identify data of a block format (CNS 09h, 0Ah).
fn of_format<S: IdentifyData>(controller: &Controller, cns: Cns, index: u16) -> Result<S, upcie_nvme::Error> {
    let query = IdentifyQuery { specific_id: index, ..Default::default() };
    controller.identify_bytes(cns, S::CSI, &query).map(|page| S::from_page(&page))
}

/// Identify data of a format: those of each namespace, without what is a namespace's own.
#[test]
fn a_format_has_what_all_namespaces_have() {
    let controller = open("size=1M,ms=8");
    let namespace = controller.namespace(1).unwrap();
    let id = namespace.identify();
    assert_ne!(id.flbas, 0, "not the first format");
    let query = IdentifyQuery { nsid: 1, ..Default::default() };
    let of_blocks: NvmNamespace = controller.identify_as(&query).unwrap();
    let count = id.format_count() as u16;
    for index in 0..count {
        let common: IdentifyNamespace = of_format(&controller, Cns::FORMAT_NAMESPACE, index).unwrap();
        assert_eq!((common.nsze, common.flbas, common.nvmcap), (0, 0, [0; 16]));
        assert_eq!((common.nlbaf, common.mc, common.dpc), (id.nlbaf, id.mc, id.dpc));
        assert_eq!((common.rescap, common.dlfeat, common.mcl), (id.rescap, id.dlfeat, id.mcl));
        assert_eq!(common.lbaf, id.lbaf);
        let cns = Cns::COMMAND_SET_FORMAT_NAMESPACE;
        let common: NvmNamespace = of_format(&controller, cns, index).unwrap();
        assert_eq!(common.storage_tag_mask, 0);
        assert_eq!(common.extended_formats, of_blocks.extended_formats);
    }
    for cns in [Cns::FORMAT_NAMESPACE, Cns::COMMAND_SET_FORMAT_NAMESPACE] {
        let beyond = of_format::<NvmNamespace>(&controller, cns, count);
        assert_eq!(status(beyond), Status::INVALID_FIELD, "{cns}");
    }
    // No zones.
    let zoned = of_format::<ZonedNamespace>(&controller, Cns::COMMAND_SET_FORMAT_NAMESPACE, 0);
    assert_eq!(status(zoned), Status::INVALID_FIELD);
}

/// Counts of blocks depend on the format.
#[test]
fn zones_have_the_blocks_of_a_format() {
    let controller = open("size=1M,zoned=true,zone-size=64K,zrwa=8K");
    let namespace = controller.namespace(1).unwrap();
    let id = namespace.identify();
    for index in 0..id.format_count() {
        let block = id.lbaf[index].block_size().unwrap();
        let cns = Cns::COMMAND_SET_FORMAT_NAMESPACE;
        let zoned: ZonedNamespace = of_format(&controller, cns, index as u16).unwrap();
        assert_eq!(u64::from(zoned.random_write_area_size) * block, 8 << 10, "format {index}");
        assert_eq!(zoned.format_extensions[index].zone_size * block, 64 << 10, "format {index}");
    }
    let none = of_format::<ZonedNamespace>(&controller, Cns::COMMAND_SET_FORMAT_NAMESPACE, u16::MAX);
    assert_eq!(status(none), Status::INVALID_FIELD);
}

/// A detached namespace is none of the active ones, and has its data among the allocated ones.
#[test]
fn a_detached_namespace_is_still_allocated() {
    let controller = open("size=64K,namespaces=2,kv=true+false,nn=4,serial=DETACHED");
    let independent = |cns| {
        let query = IdentifyQuery { nsid: 2, ..Default::default() };
        IndependentNamespace::from_page(&controller.identify_bytes(cns, Csi::NVM, &query).unwrap())
    };
    let lists = |csi| {
        let page = |cns| controller.identify_bytes(cns, csi, &IdentifyQuery::default()).unwrap();
        let active = CommandSetActiveNamespaces::from_page(&page(Cns::COMMAND_SET_ACTIVE_NAMESPACES));
        let all = CommandSetAllocatedNamespaces::from_page(&page(Cns::COMMAND_SET_ALLOCATED_NAMESPACES));
        [active.0, all.0].map(|list| list.above(0).collect::<Vec<_>>())
    };
    let attached = independent(Cns::INDEPENDENT_NAMESPACE);
    assert_eq!((attached.status, lists(Csi::NVM)), (1, [vec![2], vec![2]]));
    assert!(attached == independent(Cns::INDEPENDENT_ALLOCATED_NAMESPACE));

    let controllers = vec![controller.identify().cntlid];
    controller.execute(&DetachNamespace { nsid: 2, controllers: controllers.clone() }).unwrap();
    assert_eq!(lists(Csi::NVM), [vec![], vec![2]]);
    assert_eq!(lists(Csi::KEY_VALUE), [vec![1], vec![1]]);
    let [active, allocated] =
        [Cns::INDEPENDENT_NAMESPACE, Cns::INDEPENDENT_ALLOCATED_NAMESPACE].map(independent);
    assert_eq!((active.reservation_capabilities, active.status), (0, 0));
    let capabilities = allocated.reservation_capabilities;
    assert_eq!((capabilities, allocated.status), (attached.reservation_capabilities, 0));
    assert_ne!(capabilities, 0);
    controller.execute(&AttachNamespace { nsid: 2, controllers }).unwrap();
    assert!(attached == independent(Cns::INDEPENDENT_NAMESPACE));

    let unknown = controller.identify_bytes(
        Cns::COMMAND_SET_ALLOCATED_NAMESPACES,
        Csi::ZONED,
        &IdentifyQuery::default(),
    );
    assert_eq!(status(unknown), Status::INVALID_FIELD);
}

/// The controller says that a Firmware Commit may change it (CCC); the driver looks, and goes on with what has not changed.
#[test]
fn a_firmware_commit_may_change_the_controller() {
    let controller = open("size=1M,serial=COMMITTED");
    let said = || {
        let log: CommandsSupportedLog = controller.log().unwrap();
        log.admin_commands[usize::from(AdminOpcode::FIRMWARE_COMMIT.0)]
    };
    assert!(said().controller_capability_change());
    let image = [&b"9.9-test"[..], &[0; 4088]].concat();
    let downloaded = controller.download_firmware(&image, |_| ControlFlow::Continue(()));
    assert!(downloaded.unwrap().is_continue());
    let store = FirmwareCommit { slot: 2, action: CommitAction::STORE, boot_partition: 0 };
    controller.execute(&store).unwrap();
    controller.execute(&FirmwareCommit { action: CommitAction::ACTIVATE_NOW, ..store }).unwrap();
    let now: IdentifyController = controller.identify_as(&IdentifyQuery::default()).unwrap();
    assert_eq!([now.firmware(), controller.identify().firmware()], ["9.9-test", "1.0"]);
    assert!(said().controller_capability_change(), "the page is read again");
    // Neither the controller nor the namespace has gone.
    let namespace = controller.namespace(1).unwrap();
    namespace.read(0, &mut controller.alloc(4096).unwrap()).unwrap();
}
