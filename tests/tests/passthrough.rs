//! Admin commands of a program: commands that change namespaces or queues are refused while a queue could
//! notice.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};
use upcie_nvme::{
    Controller, DmaBuf, Error, Failure, Refusal, Wait,
    spec::{AdminOpcode, Command, CommandsSupportedLog, FeatureId, FeatureSelect, Status},
};
use upcie_tests::{
    bent::Bent,
    deadline,
    device::namespaces,
    io::{create, only},
    on_each_device,
    process::Directory,
    says,
};

/// Commands that need a subsystem without queue pairs: opcode, dword 10 and bytes of data.
const CHANGES: [(u8, u32, usize); 14] = [
    // Namespace Management: Create, Delete.
    (0x0d, 0, 4096),
    (0x0d, 1, 0),
    // Firmware Commit: activate now, and at the next reset.
    (0x10, 3 << 3, 0),
    (0x10, 1 << 3, 0),
    (0x15, 0, 4096),
    (0x1c, 0, 0),
    (0x20, 0, 0),
    (0x24, 0, 0),
    (0x80, 0, 0),
    (0x84, 0, 0),
    (0x8c, 0, 0),
    // Set Features: Host Behavior Support, I/O Command Set Profile, Flexible Data Placement.
    (0x09, 0x16, 512),
    (0x09, 0x19, 0),
    (0x09, 0x1d, 0),
];

/// Commands that belong to the driver or give the controller memory: opcode and dword 10.
const NEVER: [(u8, u32); 16] = [
    (0x00, 1),
    (0x01, 1),
    (0x04, 1),
    (0x05, 1),
    (0x08, 0),
    (0x0c, 0),
    // Track Send, Migration Send, Controller Data Queue.
    (0x3d, 0),
    (0x41, 0),
    (0x45, 0),
    (0x7c, 0),
    (0xc0, 0),
    // Set Features: Number of Queues, Host Memory Buffer, Performance Characteristics, Controller Data Queue, a
    // vendor's.
    (0x09, 0x07),
    (0x09, 0x0d),
    (0x09, 0x1c),
    (0x09, 0x21),
    (0x09, 0xc0),
];

fn command(opcode: u8, cdw10: u32) -> Command {
    let mut command = Command::admin(AdminOpcode(opcode), 1);
    command.cdw10 = cdw10;
    command
}

/// Returns `true` for a command that is in the controller's log page Commands Supported and Effects.
fn says_that_it_has(controller: &Controller, opcode: u8) -> bool {
    let page = controller.log::<CommandsSupportedLog>().unwrap();
    page.admin_commands[usize::from(opcode)].supported()
}

/// A Format NVM that asks for the format that the namespace has.
fn format(controller: &Controller) -> Command {
    let index = controller.namespace(1).unwrap().identify().format_index();
    command(AdminOpcode::FORMAT_NVM.0, index as u32)
}

/// Returns true if a command was sent: it succeeded, or the controller refused it.
fn was_sent(outcome: Result<u32, Error>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(error) if error.status().is_some() => true,
        Err(error) if matches!(error.failure(), Failure::InUse { .. }) => false,
        Err(error) => panic!("{error:?}"),
    }
}

/// After a Format while a turn is open, an honest device would write past the end of a buffer.
#[test]
fn changes_are_refused_while_a_turn_is_open() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).remove(0);
        let mut queue = create::<u64>(controller.queue_pair().depth(4));
        let mut turn = queue.turn().unwrap();
        for (opcode, cdw10, len) in CHANGES {
            let error = controller.admin(&command(opcode, cdw10), &mut vec![0; len]).unwrap_err();
            if matches!(error.failure(), Failure::Argument { .. }) {
                // The controller says that it has no such command.
                assert!(!says_that_it_has(&controller, opcode), "{opcode:02x}h: {error:?}");
                says(&error, &[controller.name(), "Commands Supported and Effects (05h)", "admin_raw"]);
                continue;
            }
            assert!(matches!(error.failure(), Failure::InUse { .. }), "{opcode:02x}h: {error:?}");
            says(&error, &[controller.name(), "was not sent", "close first: queue pair 1 of"]);
        }
        for (opcode, cdw10) in NEVER {
            let error = controller.admin(&command(opcode, cdw10), &mut []).unwrap_err();
            assert!(matches!(error.failure(), Failure::Argument { .. }), "{opcode:02x}h: {error:?}");
            says(&error, &[controller.name()]);
        }
        // A refused command has made no handle stale.
        turn.read(&namespace, 0, controller.alloc(namespace.block_size()).unwrap(), 1).unwrap();
        drop(turn);
        only(&mut queue);
        // Reading and setting what queues don't rely on goes on.
        let get = Command::get_features(FeatureId::ARBITRATION, FeatureSelect::CURRENT);
        let weights = controller.admin(&get, &mut []).unwrap();
        let set = Command::set_features(FeatureId::ARBITRATION, weights);
        assert!(was_sent(controller.admin(&set, &mut [])), "some controllers refuse it, the driver does not");
        queue.close().unwrap();
        let sent = controller.admin(&format(&controller), &mut []);
        assert!(was_sent(sent), "the last queue pair is closed");
    });
}

/// The log page Commands Supported and Effects of the embedded controller has no Get LBA Status.
#[test]
fn a_controllers_word_on_its_commands_counts() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let error = controller.admin(&command(0x86, 0), &mut [0; 4]).unwrap_err();
    assert!(matches!(error.failure(), Failure::Argument { .. }), "{error:?}");
    says(&error, &[controller.name(), "Get LBA Status", "opcode 86h", "(05h)", "the unsafe `admin_raw`"]);
    // It is asked again after a reset, and after a command whose effects are not known.
    controller.reset().unwrap();
    says(&controller.admin(&command(0x86, 0), &mut [0; 4]).unwrap_err(), &["opcode 86h"]);
    // SAFETY: the command has no data here: the controller refuses it.
    let sent = unsafe { controller.admin_raw(&command(0x86, 0), DmaBuf::empty()) };
    assert_eq!(sent.unwrap_err().status(), Some(Status::INVALID_OPCODE), "the way round a wrong page");
}

/// Another controller's queues see the change as well.
#[test]
fn a_second_controller_of_the_subsystem_counts() {
    let directory = Directory::new();
    let open = |file: &str, serial: &str| {
        let path = directory.path().join(file);
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        let address = format!("emu:file={},serial={serial}", path.display());
        Controller::open(address).unwrap()
    };
    let (one, two, other) = (open("a", "SHARED"), open("b", "SHARED"), open("c", "OWN"));
    assert_eq!(one.identify().subsystem_name(), two.identify().subsystem_name());
    let mut queue = create::<u64>(one.queue_pair().depth(4));
    let old = one.namespace(1).unwrap();
    let mut turn = queue.turn().unwrap();
    let error = two.admin(&format(&two), &mut []).unwrap_err();
    assert!(matches!(error.failure(), Failure::InUse { .. }), "{error:?}");
    says(&error, &[two.name(), &format!("queue pair 1 of {}", one.name())]);
    turn.flush(&old, 1).unwrap();
    drop(turn);
    only(&mut queue);
    // A controller of another subsystem is not affected.
    assert!(was_sent(other.admin(&format(&other), &mut [])));
    drop(queue);
    assert!(was_sent(two.admin(&format(&two), &mut [])));
    // The handles of both are stale.
    let mut queue = create::<u64>(one.queue_pair().depth(4));
    let refused = queue.turn().unwrap().flush(&old, 1).unwrap_err();
    assert_eq!(refused.reason, Refusal::StaleNamespace);
    one.namespace(1).unwrap().flush().unwrap();
}

#[test]
fn memory_of_another_emulator_is_another_subsystem() {
    let open = || Controller::open("emu:size=1M").unwrap();
    let (one, two) = (open(), open());
    assert_eq!(one.identify().sn, two.identify().sn);
    assert_ne!(one.identify().subsystem_name(), two.identify().subsystem_name());
    let _queue = create::<u64>(one.queue_pair());
    assert!(was_sent(two.admin(&format(&two), &mut [])));
}

/// The blocking calls' own queue is no queue pair of the program's, and their calls end before a change begins.
#[test]
fn blocking_calls_go_on_beside_changes() {
    on_each_device(|device| {
        let controller = device.open();
        let (stop, change) = (AtomicBool::new(false), format(&controller));
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut read, mut stale) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    let namespace = match controller.namespace(1) {
                        Ok(namespace) => namespace,
                        // In the midst of a change.
                        Err(error) if matches!(error.failure(), Failure::InUse { .. }) => continue,
                        Err(error) => panic!("{error:?}"),
                    };
                    let mut buffer = controller.alloc(namespace.block_size()).unwrap();
                    match namespace.read(0, &mut buffer) {
                        Ok(()) => read += 1,
                        Err(error)
                            if matches!(
                                error.failure(),
                                Failure::Refused { reason: Refusal::StaleNamespace, .. }
                            ) =>
                        {
                            stale += 1;
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                    assert_eq!(buffer.len(), namespace.block_size());
                }
                (read, stale)
            });
            let mut sent = 0;
            for _ in 0..upcie_tests::scaled(200) {
                sent += usize::from(was_sent(controller.admin(&change, &mut [])));
            }
            stop.store(true, Ordering::Relaxed);
            let (read, _) = reader.join().unwrap();
            assert_eq!(sent, upcie_tests::scaled(200), "no change was refused; {read} reads meanwhile");
        });
        controller.namespace(1).unwrap().flush().unwrap();
    });
}

/// A change that was not answered in time may happen at any time: no handle is good before it is answered.
#[test]
fn an_unanswered_change_forbids_handles() {
    let bent = Bent::start("size=1M");
    let options = Controller::builder().timeout(Duration::from_secs(1));
    let controller = options.open(bent.address()).unwrap();
    let change = format(&controller);
    // The driver knows now what the controller says of its commands, and asks no more.
    assert!(was_sent(controller.admin(&change, &mut [])));
    let old = controller.namespace(1).unwrap();
    bent.faults.hang(true);
    let error = controller.admin(&change, &mut []).unwrap_err();
    assert!(matches!(error.failure(), Failure::Timeout { .. }), "{error}");
    bent.faults.hang(false);
    // Answered by now, perhaps, but nobody has looked.
    let error = controller.namespace(1).unwrap_err();
    assert!(matches!(error.failure(), Failure::InUse { .. }), "{error}");
    says(&error, &["Format NVM", "not answered yet", "open the controller again"]);
    let refused = old.flush().unwrap_err();
    assert!(
        matches!(refused.failure(), Failure::Refused { reason: Refusal::StaleNamespace, .. }),
        "{refused}"
    );
    controller.namespace_ids().unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue = create::<u64>(controller.queue_pair());
    queue.turn().unwrap().flush(&namespace, 1).unwrap();
    assert!(queue.wait(Wait::Poll, deadline()).unwrap());
}

/// Programs in other languages send raw commands: a host's identifier was forgotten, and it was another host to
/// reservations.
#[test]
fn features_set_by_raw_commands_are_set_again() {
    let controller = Controller::open("emu:size=1M,serial=RAW-FEATURES").unwrap();
    let send = |command: &Command, buffer: DmaBuf| {
        // SAFETY: the command's data, if it has any, is in the buffer; features change no namespace.
        unsafe { controller.admin_raw(command, buffer) }
    };
    let set = Command::set_features(FeatureId::TEMPERATURE_THRESHOLD, 351);
    send(&set, DmaBuf::empty()).unwrap();
    let id: Vec<u8> = (1..=16).collect();
    let mut data = controller.alloc(4096).unwrap();
    data.write_at(0, &id);
    let mut name = Command::set_features(FeatureId::HOST_IDENTIFIER, 1);
    name.set_data_pointer(data.iova(0), 0);
    send(&name, data).unwrap();
    // A value that the controller refuses is not set.
    let refused = Command::set_features(FeatureId::POWER_MANAGEMENT, 1);
    assert!(send(&refused, DmaBuf::empty()).unwrap_err().status().is_some());
    for _ in 0..2 {
        controller.reset().unwrap();
        let get = |feature, data: &mut [u8]| {
            let mut command = Command::get_features(feature, FeatureSelect::CURRENT);
            command.cdw11 = u32::from(!data.is_empty());
            controller.admin(&command, data).unwrap()
        };
        assert_eq!(get(FeatureId::TEMPERATURE_THRESHOLD, &mut []) & 0xffff, 351);
        let mut now = [0; 16];
        get(FeatureId::HOST_IDENTIFIER, &mut now);
        assert_eq!(now[..], id[..]);
    }
}
