//! Key value namespaces as the admin commands see them: Identify, Format NVM, deletion, features, protection.

use upcie_nvme::{
    Controller, DmaBuf, KeyValue, Refusal, ResetKind,
    spec::{
        AttachNamespace, Cns, CommandSetActiveNamespaces, CommandSetCombinations, CreateNamespace, Csi,
        DeleteNamespace, FormatNvm, IdentifyData, IndependentNamespace, KeyValueConfiguration, Status,
        StoreOptions,
    },
};
use upcie_tests::{
    keys::{key, keys, open, refusal, status},
    says,
};

/// A protected namespace takes no changes.
#[test]
fn a_protected_namespace_takes_no_changes() {
    let keys = open("size=64K,kv=true,ro=true").1;
    assert_eq!(status(keys.store_bytes(key(b"a"), b"1", StoreOptions::empty())), Status::WRITE_PROTECTED);
    assert_eq!(status(keys.delete(key(b"a"))), Status::WRITE_PROTECTED);
    assert_eq!(keys.identify().attributes & 1, 1);
    assert!(!keys.exists(key(b"a")).unwrap());
}

/// Feature 20h decides whether a missing key can be deleted, of each namespace, and stays over a reset.
#[test]
fn the_feature_decides_whether_a_missing_key_can_be_deleted() {
    let (controller, keys) = open("size=64K,namespaces=2,kv=true");
    let query = |nsid| upcie_nvme::FeatureQuery { nsid, ..Default::default() };
    let read = |nsid| {
        let value: KeyValueConfiguration = controller.feature_with(&query(nsid)).unwrap();
        value.error_on_missing_key()
    };
    assert!(!read(1) && !read(2));
    keys.delete(key(b"missing")).unwrap();
    let error = KeyValueConfiguration::new().with_error_on_missing_key(true);
    let update = upcie_nvme::FeatureUpdate { nsid: 1, ..Default::default() };
    controller.set_feature_with(&error, &update).unwrap();
    assert!(read(1) && !read(2));
    assert_eq!(status(keys.delete(key(b"missing"))), Status::KEY_DOES_NOT_EXIST);
    controller.reset().unwrap();
    assert!(read(1) && !read(2));
    keys.store_bytes(key(b"missing"), b"", StoreOptions::empty()).unwrap();
    keys.delete(key(b"missing")).unwrap();
    let plain = Controller::open("emu:size=1M").unwrap();
    assert!(plain.feature_with::<KeyValueConfiguration>(&query(1)).is_err());
}

/// Format NVM, Sanitize and the deletion of a namespace remove its keys, and those of no other.
#[test]
fn erasing_a_namespace_removes_its_keys() {
    let (controller, first) = open("size=64K,namespaces=3,kv=true+true+false,nn=4");
    let second = || controller.namespace(2).unwrap().keys().unwrap();
    let put = |keys: &KeyValue| keys.store_bytes(key(b"a"), b"1", StoreOptions::empty()).unwrap();
    put(&first);
    put(&second());
    controller.execute(&FormatNvm { nsid: 1, ..Default::default() }).unwrap();
    says(&first.exists(key(b"a")).unwrap_err(), &["get the namespace again"]);
    let first = keys(&controller);
    assert!(!first.exists(key(b"a")).unwrap() && second().exists(key(b"a")).unwrap());
    let wrong = controller.execute(&FormatNvm { nsid: 1, format: 1, ..Default::default() });
    assert_eq!(status(wrong), Status::INVALID_FORMAT);
    assert!(second().exists(key(b"a")).unwrap());

    // Another one in its place, of half the size, and one with blocks.
    controller.execute(&DeleteNamespace { nsid: 2 }).unwrap();
    let nsid = controller.execute(&CreateNamespace::key_value(32 << 10)).unwrap();
    let controllers = vec![controller.identify().cntlid];
    controller.execute(&AttachNamespace { nsid, controllers: controllers.clone() }).unwrap();
    assert_eq!(nsid, 2);
    assert_eq!((second().size(), second().exists(key(b"a")).unwrap()), (32 << 10, false));
    put(&second());
    let nsid = controller.execute(&CreateNamespace::new(64, 0)).unwrap();
    controller.execute(&AttachNamespace { nsid, controllers }).unwrap();
    let blocks = controller.namespace(nsid).unwrap();
    assert_eq!((blocks.command_set(), blocks.blocks()), (Csi::NVM, 64));
    blocks.write(0, &mut controller.alloc(512).unwrap()).unwrap();
    assert!(second().exists(key(b"a")).unwrap());
}

/// A handle of a namespace that has blocks now is stale: its commands would have another meaning there.
#[test]
fn a_namespace_that_has_blocks_now_makes_handles_stale() {
    let (controller, keys) = open("size=64K,namespaces=2,kv=true+false");
    controller.execute(&DeleteNamespace { nsid: 1 }).unwrap();
    let nsid = controller.execute(&CreateNamespace::new(64, 0)).unwrap();
    let controllers = vec![controller.identify().cntlid];
    controller.execute(&AttachNamespace { nsid, controllers }).unwrap();
    assert_eq!(nsid, 1);
    assert_eq!(refusal(keys.retrieve(key(b"a"), &mut DmaBuf::empty())), Refusal::StaleNamespace);
    // A handle that is as it was stays good over resets.
    let (controller, keys) = open("size=64K,kv=true");
    keys.store_bytes(key(b"a"), b"1", StoreOptions::empty()).unwrap();
    for kind in [ResetKind::Controller, ResetKind::Function, ResetKind::Subsystem] {
        controller.reset_by(kind).unwrap();
        assert_eq!(keys.retrieve_bytes(key(b"a")).unwrap(), b"1", "{kind:?}");
    }
}

/// The Identify data of a controller with three command sets, and of its namespaces.
#[test]
fn identify_data_tells_the_command_sets() {
    let options =
        "size=1M,namespaces=3,kv=false+true+false,zoned=false+false+true,zone-size=64K,kv-key=8,kv-value=4K";
    let (controller, keys) = open(options);
    let query = |nsid| upcie_nvme::IdentifyQuery { nsid, ..Default::default() };
    let page = |cns, csi, nsid| controller.identify_bytes(cns, csi, &query(nsid));
    let id = keys.identify();
    assert_eq!((id.size, id.utilization, id.formats().len()), (1 << 20, 0, 1));
    let format = id.formats()[0];
    assert_eq!((format.max_key_length, format.max_value_length, format.max_keys), (8, 4096, 0));
    for (csi, nsid) in [(Csi::NVM, 1), (Csi::KEY_VALUE, 2), (Csi::ZONED, 3)] {
        assert_eq!(controller.namespace(nsid).unwrap().command_set(), csi);
        let list = page(Cns::COMMAND_SET_ACTIVE_NAMESPACES, csi, 0).unwrap();
        let list = CommandSetActiveNamespaces::from_page(&list);
        assert_eq!(list.0.above(0).collect::<Vec<_>>(), [nsid]);
        for other in [1, 2, 3] {
            let found = page(Cns::COMMAND_SET_NAMESPACE, csi, other);
            let expected = if other == nsid { Status::SUCCESS } else { Status::INVALID_FIELD };
            assert_eq!(status(found), expected, "{csi} of namespace {other}");
        }
        let independent: IndependentNamespace = controller.identify_as(&query(nsid)).unwrap();
        assert_eq!(independent.status, 1);
    }
    // No data of the controller, and none of blocks.
    assert_eq!(*page(Cns::COMMAND_SET_CONTROLLER, Csi::KEY_VALUE, 0).unwrap(), [0; 4096]);
    for cns in [Cns::NAMESPACE, Cns::ALLOCATED_NAMESPACE] {
        assert_eq!(status(page(cns, Csi::NVM, 2)), Status::INVALID_COMMAND_SET);
        page(cns, Csi::NVM, 1).unwrap();
    }
    let sets: CommandSetCombinations = controller.identify_as(&query(0)).unwrap();
    let set = sets.used()[0];
    assert!(set.nvm() && set.key_value() && set.zoned(), "{sets}");
    let plain = Controller::open("emu:size=1M").unwrap();
    let lacks = plain.identify_bytes(Cns::COMMAND_SET_NAMESPACE, Csi::KEY_VALUE, &query(1));
    assert_eq!(status(lacks), Status::INVALID_FIELD);
}
