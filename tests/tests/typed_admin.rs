//! Admin commands that are structures, and features that are set: what the driver refuses, what the controller does, and what
//! it means for handles.

use std::time::{Duration, Instant};
use upcie_nvme::{
    Controller, Error, Failure, FeatureUpdate, IdentifyQuery, Namespace, Refusal,
    spec::{
        AdminCommand, AllocatedNamespaces, Arbitration, AttachNamespace, Command, CreateNamespace,
        DeleteNamespace, DetachNamespace, DirectiveReceive, FormatNvm, HostBehaviorSupport,
        IdentifyNamespace, ManagementReceive, NumberOfQueues, NvmOpcode, Sanitize, SanitizeAction,
        SanitizeStatusLog, SecureErase, SelfTest, SelfTestCode, SelfTestLog, Status, TemperatureThreshold,
        VirtualizationAction, VirtualizationManagement,
    },
};
use upcie_tests::{Device, data::Pattern, deadline, device::namespaces, io::create, on_each_device, says};

/// Runs a command, or notes that the device lacks it: the driver says so by Identify data, or the controller by a status.
fn run<C: AdminCommand>(device: &Device, controller: &Controller, command: &C) -> Option<C::Answer> {
    match controller.execute_within(command, 4 * deadline()) {
        Ok(answer) => Some(answer),
        Err(error) => {
            let by_identify = matches!(error.failure(), Failure::Argument { .. });
            assert!(by_identify || error.status().is_some(), "{error:?}");
            device.lacks(&C::OPCODE.to_string(), &error);
            None
        }
    }
}

#[track_caller]
fn is_stale(namespace: &Namespace) {
    let error = namespace.flush().unwrap_err();
    let refused = matches!(error.failure(), Failure::Refused { reason: Refusal::StaleNamespace, .. });
    assert!(refused, "{error:?}");
}

#[track_caller]
fn in_use(error: &Error, controller: &Controller) {
    assert!(matches!(error.failure(), Failure::InUse { .. }), "{error:?}");
    says(error, &[controller.name(), "close first: queue pair"]);
}

/// Asks until the answer is yes.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + 4 * deadline();
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn features_are_set_typed() {
    on_each_device(|device| {
        let controller = device.open();
        let before = controller.feature::<TemperatureThreshold>().unwrap();
        let higher = TemperatureThreshold::new().with_tmpth(before.tmpth() + 1);
        controller.set_feature(&higher).unwrap();
        assert_eq!(controller.feature::<TemperatureThreshold>().unwrap().tmpth(), higher.tmpth());
        // A reset of the driver's own sets it again.
        controller.reset().unwrap();
        assert_eq!(controller.feature::<TemperatureThreshold>().unwrap().tmpth(), higher.tmpth());
        controller.set_feature(&TemperatureThreshold::new().with_tmpth(before.tmpth())).unwrap();
        // What is the driver's own stays so.
        let error = controller.set_feature(&NumberOfQueues::of(1, 1)).unwrap_err();
        assert!(matches!(error.failure(), Failure::Argument { .. }), "{error:?}");
        says(&error, &[controller.name(), "Set Features (09h) of Number of Queues", "the driver's own"]);
        let saved = FeatureUpdate { save: true, ..Default::default() };
        let arbitration = controller.feature::<Arbitration>().unwrap();
        if let Err(error) = controller.set_feature_with(&arbitration, &saved) {
            let by_identify = matches!(error.failure(), Failure::Argument { .. });
            assert!(by_identify || error.status().is_some(), "{error:?}");
            device.lacks("saved features", &error);
        }
    });
}

#[test]
fn a_feature_that_queues_rely_on_waits_for_their_end() {
    on_each_device(|device| {
        let controller = device.open();
        let behavior = match controller.feature::<HostBehaviorSupport>() {
            Ok(behavior) => behavior,
            Err(error) => return device.lacks("Host Behavior Support", &error),
        };
        let (namespace, _) = namespaces(&controller).remove(0);
        let queue = create::<u64>(controller.queue_pair().depth(4));
        in_use(&controller.set_feature(&behavior).unwrap_err(), &controller);
        namespace.flush().unwrap();
        queue.close().unwrap();
        controller.set_feature(&behavior).unwrap();
        is_stale(&namespace);
        assert_eq!(controller.feature::<HostBehaviorSupport>().unwrap(), behavior);
    });
}

#[test]
fn a_format_waits_for_queues_and_loses_the_data() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).pop().unwrap();
        let nsid = namespace.nsid();
        let block = namespace.block_size();
        let index = namespace.identify().format_index() as u8;
        let format = |format| FormatNvm { nsid, format, ..FormatNvm::default() };
        let mut data = controller.alloc(4096).unwrap();
        Pattern::of(&namespace).fill(&mut data, 0, 7);
        namespace.write(0, &mut data).unwrap();
        let queue = create::<u64>(controller.queue_pair().depth(4));
        in_use(&controller.execute(&format(index)).unwrap_err(), &controller);
        namespace.read(0, &mut data).unwrap();
        queue.close().unwrap();
        // Refused by what Identify says; nothing is sent, and no handle is stale.
        for (command, part) in [
            (FormatNvm { nsid: controller.identify().nn + 1, ..format(index) }, "(NN)"),
            (FormatNvm { protection: 4, ..format(index) }, "a type up to 3"),
        ] {
            says(&controller.execute(&command).unwrap_err(), &[controller.name(), "Format NVM (80h)", part]);
        }
        namespace.flush().unwrap();
        // Another block size, where there is one, and back.
        let formats = || (0_u8..).zip(namespace.identify().lbaf).take(namespace.identify().format_count());
        let other = formats().find(|(_, format)| {
            format.ms() == 0 && format.block_size().is_some_and(|size| size != block as u64)
        });
        for (format_index, size) in other
            .map(|(index, format)| (index, format.block_size()))
            .into_iter()
            .chain([(index, Some(block as u64))])
        {
            if run(device, &controller, &format(format_index)).is_none() {
                return;
            }
            let new = controller.namespace(nsid).unwrap();
            assert_eq!(Some(new.block_size() as u64), size);
            let mut read = controller.alloc(4096).unwrap();
            read.fill(0xff);
            new.read(0, &mut read).unwrap();
            assert_ne!(read.to_vec(), data.to_vec(), "the data is gone");
        }
        is_stale(&namespace);
        assert_eq!(controller.namespace(nsid).unwrap().blocks(), namespace.blocks());
    });
}

/// A namespace that is detached and attached again keeps its data; handles from before do not count.
#[test]
fn a_namespace_is_detached_and_attached() {
    on_each_device(|device| {
        let controller = device.open();
        let all = controller.namespace_ids().unwrap();
        let (namespace, _) = namespaces(&controller).pop().unwrap();
        let nsid = namespace.nsid();
        let mut data = controller.alloc(4096).unwrap();
        Pattern::of(&namespace).fill(&mut data, 0, 9);
        namespace.write(0, &mut data).unwrap();
        let controllers = vec![controller.identify().cntlid];
        let detach = DetachNamespace { nsid, controllers: controllers.clone() };
        let queue = create::<u64>(controller.queue_pair().depth(4));
        if controller.identify().optional_admin().contains(upcie_nvme::spec::OptionalAdmin::NAMESPACES) {
            in_use(&controller.execute(&detach).unwrap_err(), &controller);
        }
        queue.close().unwrap();
        if run(device, &controller, &detach).is_none() {
            return;
        }
        is_stale(&namespace);
        assert!(!controller.namespace_ids().unwrap().contains(&nsid));
        says(&controller.namespace(nsid).unwrap_err(), &[controller.name(), &format!("no namespace {nsid}")]);
        controller.execute(&AttachNamespace { nsid, controllers }).unwrap();
        assert_eq!(controller.namespace_ids().unwrap(), all);
        let mut read = controller.alloc(4096).unwrap();
        controller.namespace(nsid).unwrap().read(0, &mut read).unwrap();
        assert_eq!(read.to_vec(), data.to_vec());
    });
}

#[test]
fn namespaces_are_created_and_deleted() {
    let controller = Controller::open("emu:size=1M,namespaces=2,nn=4").unwrap();
    let old = controller.namespace(2).unwrap();
    let queue = create::<u64>(controller.queue_pair().depth(4));
    in_use(&controller.execute(&DeleteNamespace { nsid: 2 }).unwrap_err(), &controller);
    in_use(&controller.execute(&CreateNamespace::new(8, 0)).unwrap_err(), &controller);
    old.flush().unwrap();
    queue.close().unwrap();
    controller.execute(&DeleteNamespace { nsid: 2 }).unwrap();
    is_stale(&old);
    assert_eq!(controller.namespace_ids().unwrap(), [1]);
    let nsid = controller.execute(&CreateNamespace::new(64, 1)).unwrap();
    assert_eq!((nsid, controller.namespace_ids().unwrap()), (2, vec![1]), "it is detached");
    let allocated = controller.identify_as::<AllocatedNamespaces>(&IdentifyQuery::default()).unwrap();
    assert_eq!(allocated.0.above(0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(controller.allocated_namespace_ids().unwrap(), [1, 2]);
    let controllers = vec![controller.identify().cntlid];
    controller.execute(&AttachNamespace { nsid, controllers }).unwrap();
    let namespace = controller.namespace(nsid).unwrap();
    assert_eq!((namespace.blocks(), namespace.block_size()), (64, 4096));
    namespace.write_at(63 * 4096, &[7; 4096]).unwrap();
    // More than the medium has, by the controller's own words.
    let error = controller.execute(&CreateNamespace::new(1 << 40, 0)).unwrap_err();
    assert_eq!(error.status(), Some(Status::NAMESPACE_INSUFFICIENT_CAPACITY.with_do_not_retry()));
    // A refused creation has made the handle stale, too: the controller may have done anything.
    is_stale(&namespace);
}

#[test]
fn a_sanitize_fails_io_until_it_has_ended() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let old = controller.namespace(1).unwrap();
    old.write_at(0, &[7; 4096]).unwrap();
    let queue = create::<u64>(controller.queue_pair().depth(4));
    let overwrite = Sanitize { passes: 0, ..Sanitize::new(SanitizeAction::OVERWRITE) };
    in_use(&controller.execute(&overwrite).unwrap_err(), &controller);
    queue.close().unwrap();
    let missing = Sanitize::new(SanitizeAction(6));
    assert!(controller.execute(&missing).unwrap_err().status().is_some());
    controller.execute(&overwrite).unwrap();
    is_stale(&old);
    let log = controller.log::<SanitizeStatusLog>().unwrap();
    assert_eq!(log.status.operation(), 2, "{log}");
    let error = controller.execute(&FormatNvm { nsid: 1, ..FormatNvm::default() }).unwrap_err();
    assert_eq!(error.status(), Some(Status::SANITIZE_IN_PROGRESS));
    until("the sanitize does not end", || {
        controller.log::<SanitizeStatusLog>().unwrap().status.operation() == 1
    });
    let mut data = [7; 4096];
    controller.namespace(1).unwrap().read_at(0, &mut data).unwrap();
    assert_eq!(data, [0; 4096]);
}

#[test]
fn a_self_test_runs_beside_io() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).remove(0);
        let queue = create::<u64>(controller.queue_pair().depth(4));
        if run(device, &controller, &SelfTest { nsid: 0, code: SelfTestCode::SHORT }).is_none() {
            return;
        }
        namespace.flush().unwrap();
        until("the self-test does not end", || {
            controller.log::<SelfTestLog>().unwrap().current_operation & 0xf == 0
        });
        let log = controller.log::<SelfTestLog>().unwrap();
        let result = log.results().first().expect("a result");
        assert_eq!((result.status.test(), result.status.result()), (1, 0), "{log}");
        queue.close().unwrap();
    });
}

#[test]
fn directives_and_virtualization_answer_or_are_refused() {
    on_each_device(|device| {
        let controller = device.open();
        let parameters = DirectiveReceive { nsid: 1, operation: 1, len: 4096, ..Default::default() };
        if let Some((_, data)) = run(device, &controller, &parameters) {
            assert_eq!(data[0] & 1, 1, "the directive Identify is there");
        }
        // An operation whose data is not known here is refused, whatever the controller has.
        let odd = DirectiveReceive { operation: 0x77, ..parameters };
        let error = controller.execute(&odd).unwrap_err();
        assert!(matches!(error.failure(), Failure::Argument { .. }), "{error:?}");
        let error = controller.execute(&ManagementReceive { dwords: [0; 6], len: 64 }).unwrap_err();
        assert!(matches!(error.failure(), Failure::Argument { .. }), "{error:?}");
        // No controller has this identifier.
        let offline = VirtualizationManagement {
            action: VirtualizationAction::SECONDARY_OFFLINE,
            controller: 0xfff0,
            ..Default::default()
        };
        let error = controller.execute(&offline).unwrap_err();
        let by_identify = matches!(error.failure(), Failure::Argument { .. });
        assert!(by_identify || error.status().is_some(), "{error:?}");
    });
}

#[test]
fn a_secure_erase_needs_a_controller_that_has_it() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).pop().unwrap();
        let (nsid, format) = (namespace.nsid(), namespace.identify().format_index() as u8);
        let has = controller.identify().fna & 1 << 2 != 0;
        let erase = FormatNvm { nsid, format, erase: SecureErase::CRYPTOGRAPHIC, ..FormatNvm::default() };
        match run(device, &controller, &erase) {
            Some(()) => assert!(has, "FNA says that there is none"),
            None => assert!(!has, "FNA says that there is one"),
        }
        let query = IdentifyQuery { nsid, ..Default::default() };
        let id = controller.identify_as::<IdentifyNamespace>(&query).unwrap();
        assert_eq!(id.format_index(), usize::from(format));
    });
}

#[test]
fn io_commands_are_passed_through() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).remove(0);
        let (nsid, block) = (namespace.nsid(), namespace.block_size());
        // More than two pages: a list of pages.
        let blocks = 5 * 4096 / block;
        let mut data = vec![0; blocks * block];
        data.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 7) as u8);
        let sent = data.clone();
        controller.io(&Command::write(nsid, 3, blocks as u32), &mut data, deadline()).unwrap();
        data.fill(0);
        controller.io(&Command::read(nsid, 3, blocks as u32), &mut data, deadline()).unwrap();
        assert!(data == sent, "what was written is read");
        namespace.read_at(3 * block as u64, &mut data).unwrap();
        assert!(data == sent, "other commands see it");
        controller.io(&Command::flush(nsid), &mut [], deadline()).unwrap();
        let beyond = Command::read(nsid, namespace.blocks(), 1);
        let error = controller.io(&beyond, &mut data[..block], deadline()).unwrap_err();
        assert_eq!(
            error.status().map(Status::with_do_not_retry),
            Some(Status::LBA_OUT_OF_RANGE.with_do_not_retry())
        );
        for (command, len, part) in [
            (Command::read(nsid, 0, 1), block - 1, "bytes here"),
            (Command::io(NvmOpcode(0x18), nsid), 0, "not known here"),
            (Command::io(NvmOpcode(0xff), nsid), 0, "not known here"),
        ] {
            let error = controller.io(&command, &mut vec![0; len], deadline()).unwrap_err();
            assert!(matches!(error.failure(), Failure::Argument { .. }), "{error:?}");
            says(&error, &[controller.name(), part]);
        }
        // Each call has given its queue pair back.
        let all = controller.max_queue_pairs().min(8);
        let queues: Vec<_> = (0..all).map(|_| create::<u64>(controller.queue_pair().depth(4))).collect();
        assert_eq!(queues.len(), usize::from(all));
    });
}
