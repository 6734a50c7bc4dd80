//! Admin commands of several threads: they run beside each other, each with its own deadline.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};
use upcie_nvme::{
    Controller, DmaBuf, Error, ErrorKind, Failure, FeatureQuery, IdentifyQuery, LogQuery,
    spec::{
        ActiveNamespaces, AdminOpcode, Arbitration, Cns, Command, ErrorLog, FeatureId, FeatureSelect,
        FirmwareSlotLog, IdentifyController, IdentifyNamespace, LogPageId, NamespaceDescriptorList,
        NumberOfQueues, SmartLog, Status, TemperatureThreshold, Timestamp,
    },
};
use upcie_tests::{Device, bent::Bent, deadline, io::create, on_each_device, process, says, scaled};

/// The embedded controller's own command: holds back the completions of an opcode.
const HOLD: u8 = 0xc1;
const SELF_TEST: u8 = 0x14;
/// A deadline that a held command misses.
const BRIEF: Duration = Duration::from_millis(50);

/// Holds back the completions of admin commands with this opcode, or lets them go.
fn hold(controller: &Controller, opcode: u8, hold: bool) -> Result<(), Error> {
    let mut command = Command::admin(AdminOpcode(HOLD), 0);
    (command.cdw10, command.cdw11) = (opcode.into(), hold.into());
    // SAFETY: the embedded controller's command has no data; on another controller it is an invalid opcode.
    unsafe { controller.admin_raw(&command, DmaBuf::empty()) }.map(drop)
}

/// Holds back an opcode, where the device can.
fn hold_or_note(device: &mut Device, controller: &Controller, opcode: u8) -> bool {
    match hold(controller, opcode, true) {
        Ok(()) => true,
        Err(error) => {
            assert!(error.status().is_some(), "{error}");
            device.lacks("slow admin commands", &error);
            false
        }
    }
}

fn identify() -> Command {
    Command::identify(Cns::CONTROLLER, 0, 0)
}

/// A Format that takes minutes blocks no queue, no namespace handle and no drop.
#[test]
fn a_slow_command_holds_up_no_other() {
    on_each_device(|device| {
        let controller = device.open();
        for opcode in [SELF_TEST, AdminOpcode::FORMAT_NVM.0] {
            if !hold_or_note(device, &controller, opcode) {
                return;
            }
            let changes = opcode == AdminOpcode::FORMAT_NVM.0;
            let slow = {
                let controller = controller.clone();
                let command = Command::admin(AdminOpcode(opcode), 1);
                thread::spawn(move || controller.admin_within(&command, &mut [], 20 * deadline()))
            };
            let end = Instant::now() + deadline();
            while changes && controller.namespace(1).is_ok() {
                assert!(Instant::now() < end, "the format does not begin");
            }
            // Each of these needs admin commands.
            let queues: Vec<_> = (0..2).map(|_| create::<u64>(controller.queue_pair().depth(4))).collect();
            assert_eq!(controller.namespace_ids().unwrap().first(), Some(&1));
            queues.into_iter().for_each(|queue| drop(queue.close().unwrap()));
            match controller.namespace(1) {
                Ok(_) => assert!(!changes, "a handle while the format is under way"),
                Err(error) => {
                    assert!(changes && matches!(error.failure(), Failure::InUse { .. }), "{error}");
                    says(&error, &[controller.name(), "Format NVM (80h) is not answered yet"]);
                    // Blocks may have any size now.
                    let read = Command::read(1, 0, 1);
                    let error = controller.io(&read, &mut [0; 512], deadline()).unwrap_err();
                    assert!(matches!(error.failure(), Failure::InUse { .. }), "{error}");
                    says(&error, &[controller.name(), "Format NVM (80h) is not answered yet"]);
                }
            }
            assert!(!slow.is_finished(), "held");
            hold(&controller, opcode, false).unwrap();
            // Its own answer: the format is carried out, and there is no self-test of code 0.
            let status = slow.join().unwrap().err().and_then(|error| error.status());
            let expected = (!changes).then_some(Status::INVALID_FIELD.with_do_not_retry());
            assert_eq!(status, expected, "its own answer");
            controller.namespace(1).unwrap().flush().unwrap();
        }
    });
}

/// Each command ends by its own deadline, and a late answer is taken for no other's.
#[test]
fn each_command_has_a_deadline_of_its_own() {
    on_each_device(|device| {
        let controller = device.open();
        if !hold_or_note(device, &controller, AdminOpcode::IDENTIFY.0) {
            return;
        }
        let patient = {
            let controller = controller.clone();
            thread::spawn(move || {
                let mut page = [0; 4096];
                controller.admin_within(&identify(), &mut page, 20 * deadline()).map(|_| page)
            })
        };
        for _ in 0..3 {
            let error = controller.admin_within(&identify(), &mut [0; 4096], BRIEF).unwrap_err();
            // The end of the time may be met by the driver's look at the controller: then the error names that.
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            says(&error, &[controller.name(), "50ms"]);
        }
        let (mut raw, buffer) = (identify(), controller.alloc(4096).unwrap());
        raw.set_data_pointer(buffer.iova(0), 0);
        // SAFETY: the data is in the buffer, and the command changes nothing.
        let error = unsafe { controller.admin_entry_within(&raw, buffer, BRIEF) }.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        says(&error, &[controller.name(), "50ms"]);
        hold(&controller, AdminOpcode::IDENTIFY.0, false).unwrap();
        let page = patient.join().unwrap().unwrap();
        assert_eq!(page[4..24], controller.identify().sn, "its own data");
        assert_eq!(controller.namespace_ids().unwrap().first(), Some(&1));
    });
}

/// The last handle is dropped while a command is unanswered: the next open finds a controller that works.
#[test]
fn a_controller_with_a_held_command_is_dropped() {
    on_each_device(|device| {
        for _ in 0..2 {
            let controller = device.open();
            if !hold_or_note(device, &controller, AdminOpcode::IDENTIFY.0) {
                return;
            }
            let error = controller.admin_within(&identify(), &mut [0; 4096], BRIEF).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            process::within(deadline(), move || drop(controller));
        }
    });
}

#[test]
fn threads_share_the_admin_queue() {
    on_each_device(|device| {
        let controller = device.open();
        let ids = controller.namespace_ids().unwrap();
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for thread in 0..8 {
                let (controller, start, ids) = (&controller, &start, &ids);
                scope.spawn(move || {
                    start.wait();
                    for round in 0..scaled(100) {
                        if (thread + round) % 4 == 0 {
                            // With fewer queues granted than threads this may be refused: that is its answer.
                            drop(controller.queue_pair().depth(4).create::<u64>());
                        } else {
                            assert_eq!(controller.namespace_ids().unwrap(), *ids);
                        }
                    }
                });
            }
        });
        let all = controller.max_queue_pairs().min(8);
        let queues: Vec<_> = (0..all).map(|_| create::<u64>(controller.queue_pair().depth(4))).collect();
        assert_eq!(queues.len(), usize::from(all), "all ids are back");
    });
}

/// More threads than the admin queue has room for: the others wait for room, within their deadlines.
#[test]
fn commands_beyond_the_queue_wait_for_room() {
    let bent = Bent::start("size=1M");
    let controller = Controller::builder().timeout(20 * deadline()).open(bent.address()).unwrap();
    bent.faults.hang(true);
    let threads: Vec<_> = (0..40)
        .map(|_| {
            let controller = controller.clone();
            thread::spawn(move || controller.namespace_ids())
        })
        .collect();
    // One that ends by its own deadline, wherever it waits.
    let error = controller.admin_within(&identify(), &mut [0; 4096], BRIEF).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    bent.faults.hang(false);
    for thread in threads {
        assert_eq!(process::within(deadline(), || thread.join().unwrap()).unwrap(), [1]);
    }
}

/// Log pages come whole, whatever the pieces.
#[test]
fn log_pages_are_read_typed() {
    on_each_device(|device| {
        let controller = device.open();
        let smart = controller.log::<SmartLog>().unwrap();
        assert!(smart.temperature() > 200 && smart.to_string().contains("composite temperature"), "{smart}");
        let firmware = controller.log::<FirmwareSlotLog>().unwrap();
        // QEMU's log has another revision than its Identify data.
        let revision = firmware.revision(firmware.active_slot());
        assert!(revision.is_some_and(|revision| !revision.is_empty()), "{firmware}");
        // This command fails, and a controller that notes errors has it first.
        let unknown = IdentifyQuery { nsid: 1, ..Default::default() };
        let error = controller.identify_bytes(Cns(0xff), Default::default(), &unknown).unwrap_err();
        assert_eq!(
            error.status().map(Status::with_do_not_retry),
            Some(Status::INVALID_FIELD.with_do_not_retry())
        );
        let log = controller.log::<ErrorLog>().unwrap();
        assert_eq!(log.entries.len(), usize::from(controller.identify().elpe) + 1);
        assert!(log.errors().next().is_none_or(|entry| entry.sqid == 0 && !entry.status().is_success()));
        // By steps of 64 bytes it is the same page, where the controller takes offsets.
        let whole = log.entries.len() * 64;
        let step = |read: &[u8], _: &_| (read.len() + 64).min(whole) as u64;
        let pieces = controller.log_bytes(LogPageId::ERROR_INFORMATION, &LogQuery::default(), step).unwrap();
        let page =
            controller.log_bytes(LogPageId::ERROR_INFORMATION, &LogQuery::default(), |_, _| whole as u64);
        assert!(pieces == page.unwrap(), "the pieces make the page");
        let absurd =
            controller.log_bytes(LogPageId::SMART, &LogQuery::default(), |_, _| u64::MAX).unwrap_err();
        assert!(matches!(absurd.failure(), Failure::Protocol { .. } | Failure::Argument { .. }), "{absurd}");
        says(&absurd, &[controller.name(), "SMART / Health Information (02h)"]);
    });
}

#[test]
fn identify_data_is_read_typed() {
    on_each_device(|device| {
        let controller = device.open();
        let first = *controller.namespace_ids().unwrap().first().expect("a namespace");
        let id = controller.identify_as::<IdentifyController>(&IdentifyQuery::default()).unwrap();
        assert_eq!((id.sn, id.mn, id.nn), {
            let id = controller.identify();
            (id.sn, id.mn, id.nn)
        });
        let of_first = IdentifyQuery { nsid: first, ..Default::default() };
        let namespace = controller.identify_as::<IdentifyNamespace>(&of_first).unwrap();
        assert_eq!(namespace.nsze, controller.namespace(first).unwrap().blocks());
        let list = controller.identify_as::<ActiveNamespaces>(&IdentifyQuery::default()).unwrap();
        assert_eq!(list.0.above(0).next(), Some(first));
        match controller.identify_as::<NamespaceDescriptorList>(&of_first) {
            Ok(list) => assert!(list.descriptors().count() > 0, "{list}"),
            Err(error) => device.lacks("namespace descriptors", &error),
        }
    });
}

#[test]
fn features_are_read_typed() {
    on_each_device(|device| {
        let controller = device.open();
        let queues = controller.feature::<NumberOfQueues>().unwrap();
        assert!(queues.submission_queues() >= controller.max_queue_pairs().into(), "{queues}");
        let arbitration = controller.feature::<Arbitration>().unwrap();
        let default = FeatureQuery { select: FeatureSelect::DEFAULT, ..Default::default() };
        match controller.feature_with::<Arbitration>(&default) {
            Ok(default) => assert_eq!(default.ab(), arbitration.ab(), "nobody changed it"),
            Err(error) => device.lacks("default values of features", &error),
        }
        // Dword 11 chooses the threshold below which it is too cold.
        let under = TemperatureThreshold::new().with_thsel(1).into_bits();
        let cold = FeatureQuery { dword11: Some(under), ..Default::default() };
        let cold = controller.feature_with::<TemperatureThreshold>(&cold).unwrap();
        assert!(cold.tmpth() < controller.feature::<TemperatureThreshold>().unwrap().tmpth(), "{cold}");
        assert!(controller.feature_capabilities(FeatureId::TEMPERATURE_THRESHOLD).is_ok());
        // The selection whose answer is no value, and a feature that may be missing.
        let select = FeatureQuery { select: FeatureSelect::SUPPORTED, ..Default::default() };
        let error = controller.feature_with::<Arbitration>(&select).unwrap_err();
        says(&error, &[controller.name(), "Arbitration (01h)", "feature_capabilities"]);
        match controller.feature::<Timestamp>() {
            Ok(timestamp) => assert!(timestamp.to_string().contains("timestamp:"), "{timestamp}"),
            Err(error) => assert!(error.status().is_some(), "{error}"),
        }
        // What the passthrough refuses stays refused.
        let error = controller
            .feature_bytes(FeatureId::NAMESPACE_ADMIN_LABEL, 2, &FeatureQuery::default())
            .unwrap_err();
        assert!(matches!(error.failure(), Failure::Argument { .. }), "{error}");
    });
}
