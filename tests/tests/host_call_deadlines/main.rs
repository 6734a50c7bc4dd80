//! One deadline for each call, however many commands it sends: a controller answers each of them just in time, not at all, or fails, by
//! a simulated clock.

mod rows;

use rows::{admin_rows, io_rows};
use std::{error::Error, ops::ControlFlow, sync::Arc, time::Duration};
use upcie_core::{
    clock::Clock,
    deadline::{Backoff, Stopwatch},
};
use upcie_nvme::{
    Controller, Failure, ResetKind,
    emu::{Fault, FaultPlan, FaultRule},
    spec::{AdminOpcode, Cns, Command, DatasetRange, NvmOpcode, Status},
};
use upcie_tests::{says, stepping::Stepping};

/// The controller's timeout: the default.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The time until each answer: just before a deadline of its own.
const EACH: Duration = Duration::from_secs(29);
/// Time beside the deadline: a wait that has timed out looks once more, and a controller that is reset becomes ready.
const SLACK: Duration = Duration::from_secs(1);

type Outcome = Result<(), Box<dyn Error>>;
type Call = Box<dyn FnMut() -> Outcome>;

/// A call of several commands.
struct Row {
    name: &'static str,
    options: &'static str,
    /// The faults while it runs.
    rules: Vec<FaultRule>,
    /// Its deadline in seconds.
    deadline: u64,
    /// Makes the handles, before there are faults.
    prepare: fn(&Controller) -> Call,
}

fn call(run: impl FnMut() -> Outcome + 'static) -> Call {
    Box::new(run)
}

/// Delays each command of the admin queue.
fn admin() -> FaultRule {
    FaultRule::new(Fault::Delay(EACH)).queue(0)
}

/// Delays each command of the I/O queues.
fn io() -> FaultRule {
    FaultRule::new(Fault::Delay(EACH))
}

fn plan(rules: impl IntoIterator<Item = FaultRule>) -> FaultPlan {
    rules.into_iter().fold(FaultPlan::new(0), FaultPlan::rule)
}

/// Opens a controller of an NVM subsystem of its own.
fn open(options: &str, number: usize) -> (Arc<Stepping>, Controller) {
    let clock = Stepping::new(&format!("{options},serial=CALLS{number}"), ());
    let controller = clock.open(Controller::builder());
    (clock, controller)
}

/// Makes the call of a row on a controller of its own; returns its result, and the time that it took.
fn played(row: Row, number: usize) -> (Outcome, Duration) {
    let (clock, controller) = open(row.options, number);
    let mut call = (row.prepare)(&controller);
    clock.device.inject(&plan(row.rules)).unwrap();
    let start = clock.now();
    let result = call();
    (result, clock.now() - start)
}

/// Each command had a deadline, and the call had none: these took a multiple of the timeout.
#[test]
fn calls_end_though_each_answer_is_just_in_time() {
    for (number, row) in admin_rows().into_iter().chain(io_rows()).enumerate() {
        let (name, deadline) = (row.name, row.deadline);
        let (result, took) = played(row, number);
        let text = result.expect_err(name).to_string();
        println!("{name}: after {took:?}: {text}");
        assert!(text.contains("no answer within"), "{name}: {text}");
        assert!(took >= EACH && took <= Duration::from_secs(deadline) + SLACK, "{name}: {took:?}: {text}");
    }
}

/// A controller that fails during a call ends it at once, not by its deadline.
#[test]
fn calls_end_when_their_controller_fails() {
    for (fault, first) in [(Fault::AllOnes(None), 700), (Fault::Fatal, 800)] {
        let (mut failed, mut rows) = (0, 0);
        for (number, mut row) in (first..).zip(admin_rows().into_iter().chain(io_rows())) {
            let name = row.name;
            // With the first command that the controller fetches.
            row.rules = vec![FaultRule::new(fault), FaultRule::new(fault).queue(0)];
            let (result, took) = played(row, number);
            println!("{fault:?}, {name}: after {took:?}: {result:?}");
            assert!(took <= SLACK, "{fault:?}, {name}: {took:?}: {result:?}");
            (failed, rows) = (failed + usize::from(result.is_err()), rows + 1);
        }
        // The fault comes after the first command of the admin queue, which may be the only one.
        assert!(failed > rows / 2, "{fault:?}: {failed} of {rows}");
    }
}

/// A controller whose CSTS.RDY is stuck has the time that it states for each step: CAP.TO, 5 s at least.
#[test]
fn resets_and_drops_end_though_the_controller_is_stuck() {
    const STEP: Duration = Duration::from_secs(5);
    // `None`: the drop of the last handle.
    let rows: [(Fault, Option<ResetKind>, u32); 7] = [
        // To become ready, and once more after a reset of the function.
        (Fault::NeverReady, Some(ResetKind::Controller), 2),
        (Fault::NeverReady, Some(ResetKind::Function), 1),
        (Fault::StuckStart, Some(ResetKind::Controller), 1),
        (Fault::StuckStart, Some(ResetKind::Function), 0),
        // To stop; the reset of the function heals it.
        (Fault::AlwaysReady, Some(ResetKind::Controller), 1),
        (Fault::AlwaysReady, Some(ResetKind::Function), 0),
        (Fault::AlwaysReady, None, 1),
    ];
    for (number, (fault, kind, steps)) in (900..).zip(rows) {
        let (clock, controller) = open("size=1M", number);
        clock.device.inject(&plan([FaultRule::new(fault).opcode(NvmOpcode::FLUSH.0)])).unwrap();
        controller.namespace(1).unwrap().flush().unwrap();
        let start = clock.now();
        let outcome = match kind {
            Some(kind) => controller.reset_by(kind),
            None => {
                drop(controller);
                Ok(())
            }
        };
        let (took, least) = (clock.now() - start, STEP * steps);
        println!("{fault:?}, {kind:?}: after {took:?}: {outcome:?}");
        assert!(took >= least && took <= least * 11 / 10 + SLACK, "{fault:?}, {kind:?}: {took:?}");
        assert_eq!(outcome.is_ok(), fault != Fault::NeverReady, "{fault:?}, {kind:?}");
    }
}

/// A call that has used up its time names its whole deadline.
#[test]
fn the_whole_deadline_is_named() {
    let (clock, controller) = open("size=8M,namespaces=2", 100);
    let namespace = controller.namespace(1).unwrap();
    clock.device.inject(&plan([admin()])).unwrap();
    says(&controller.namespace(1).unwrap_err(), &["Identify", "no answer within 30s"]);
    says(&controller.namespaces().unwrap_err(), &["Identify", "no answer within 32s"]);
    clock.device.inject(&plan([io()])).unwrap();
    // Late answers to the commands above.
    clock.sleep(TIMEOUT);
    let error = namespace.read_at(0, &mut vec![0; 3 << 20]).unwrap_err();
    says(&error, &["Read", "no answer within 33s"]);
}

/// A long call has time for its data: a second for each MiB, each namespace, or each command.
#[test]
fn data_gives_a_call_more_time() {
    let each = |millis| FaultRule::new(Fault::Delay(Duration::from_millis(millis)));
    let rows = [
        Row {
            name: "8 MiB, each in 4 s",
            options: "size=16M",
            rules: vec![each(4000)],
            deadline: 38,
            prepare: |controller| {
                let (namespace, mut bytes) = (controller.namespace(1).unwrap(), vec![0; 8 << 20]);
                call(move || Ok(namespace.read_at(0, &mut bytes)?))
            },
        },
        Row {
            name: "zeroes of 40 zones, one after the other",
            options: "size=4M,zoned=true,zone-size=64K",
            rules: vec![each(1000)],
            deadline: 70,
            prepare: |controller| {
                let namespace = controller.namespace(1).unwrap();
                call(move || Ok(namespace.write_zeroes(0, 40 * 128)?))
            },
        },
        Row {
            name: "40 commands of ranges, 31 at a time",
            options: "size=16M",
            rules: vec![each(29_000)],
            deadline: 70,
            prepare: |controller| {
                let namespace = controller.namespace(1).unwrap();
                let ranges = vec![DatasetRange::new(0, 8); 40 * DatasetRange::MOST];
                call(move || Ok(namespace.deallocate(&ranges)?))
            },
        },
        Row {
            name: "40 namespaces, of three commands each",
            options: "size=4K,namespaces=40",
            rules: vec![each(300).queue(0)],
            deadline: 70,
            prepare: |controller| {
                let controller = controller.clone();
                call(move || Ok(controller.namespaces().map(drop)?))
            },
        },
    ];
    for (number, row) in (200..).zip(rows) {
        let (name, deadline) = (row.name, row.deadline);
        let (result, took) = played(row, number);
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(took > TIMEOUT && took <= Duration::from_secs(deadline), "{name}: {took:?}");
    }
}

/// The time in a program's own code is not the call's.
#[test]
fn the_time_in_a_callback_does_not_count() {
    let (clock, controller) = open("size=1M", 300);
    let image = vec![0x5a; 512 << 10];
    let done = controller.download_firmware(&image, |_| {
        let mut wait = Backoff::new(Stopwatch::of(&*clock), TIMEOUT);
        while wait.pause() {}
        ControlFlow::Continue(())
    });
    assert!(done.unwrap().is_continue());
    assert!(clock.now() > 4 * TIMEOUT, "four parts");
}

/// Both deletions of a queue pair have 5 s each, and a deletion that goes on is no reason for another call to wait.
#[test]
fn a_deletion_does_not_hold_up_its_call() {
    let (clock, controller) = open("size=1M,queues=1", 400);
    let namespace = controller.namespace(1).unwrap();
    let took = |since: Duration| clock.now() - since;
    for closes in [true, false] {
        let (slow, start) = (admin().opcode(AdminOpcode::DELETE_SQ.0).count(1), clock.now());
        if closes {
            let queue = controller.queue_pair().create::<u64>().unwrap();
            clock.device.inject(&plan([slow])).unwrap();
            let error = queue.close().unwrap_err();
            assert!(matches!(error.failure(), Failure::Undeleted { .. }), "{error}");
        } else {
            // The queue pair of the blocking calls makes room.
            namespace.flush().unwrap();
            clock.device.inject(&plan([slow])).unwrap();
            let error = controller.queue_pair().create::<u64>().unwrap_err();
            says(&error, &["all 1 I/O queue pairs", "has not confirmed"]);
        }
        let limit = Duration::from_secs(5);
        assert!(took(start) >= limit && took(start) < limit + SLACK, "{:?}", took(start));
        clock.sleep(EACH);
        // The answer frees the id.
        controller.queue_pair().create::<u64>().unwrap().close().unwrap();
    }
}

/// The deletion of a queue pair that others have left ends with the command beside which it goes on.
#[test]
fn a_deletion_beside_a_command_ends_with_it() {
    let (clock, controller) = open("size=1M", 600);
    let queue = controller.queue_pair().create::<u64>().unwrap();
    let slow = |opcode: AdminOpcode| admin().opcode(opcode.0).count(1);
    clock.device.inject(&plan([slow(AdminOpcode::DELETE_SQ), slow(AdminOpcode::DELETE_CQ)])).unwrap();
    queue.close().unwrap_err();
    // The answer to the first command lets it go on.
    clock.sleep(EACH);
    let (start, most) = (clock.now(), Duration::from_secs(2));
    let identify = Command::identify(Cns::CONTROLLER, 0, 0);
    controller.admin_within(&identify, &mut [0; 4096], most).unwrap();
    let took = clock.now() - start;
    assert!(took > most / 2 && took < most + SLACK, "{took:?}");
}

/// A queue pair that the controller refused to create again has a deadline of its own in the second try.
#[test]
fn the_second_recovery_has_its_own_deadline() {
    let (clock, controller) = open("size=1M", 500);
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair().create::<u64>().unwrap();
    queue.turn().unwrap().flush(&namespace, 7).unwrap();
    controller.reset().unwrap();
    let slow =
        |opcode: AdminOpcode| FaultRule::new(Fault::Delay(Duration::from_secs(14))).queue(0).opcode(opcode.0);
    let refuses = FaultRule::new(Fault::Status(Status::INTERNAL_ERROR)).queue(0);
    let refuses = refuses.opcode(AdminOpcode::CREATE_SQ.0).count(1);
    let rules = [slow(AdminOpcode::CREATE_CQ), slow(AdminOpcode::CREATE_SQ), refuses];
    clock.device.inject(&plan(rules)).unwrap();
    let start = clock.now();
    assert_eq!(queue.recover().unwrap_err().status(), Some(Status::INTERNAL_ERROR));
    let returned = queue.recover().unwrap();
    assert_eq!(returned.iter().map(|command| *command.tag()).collect::<Vec<_>>(), [7]);
    let took = clock.now() - start;
    assert!(took > TIMEOUT && took < 2 * TIMEOUT, "{took:?}");
}
