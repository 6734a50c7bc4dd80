//! Commands that the controller does not complete in time, in a stream that is never empty: the stuck command is
//! noticed, and each reaction keeps its slot and buffer until the controller has let go of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use upcie_nvme::{
    Controller, Error, Failure, Io, Namespace, QueuePair, Wait,
    emu::{Fault, FaultPlan, FaultRule, spawn_with_faults},
    queue::OnTimeout,
    spec::{AdminOpcode, Command, ControllerStatus, NvmOpcode, ShutdownStatus, Status, offset},
};
use upcie_tests::{
    deadline,
    io::only,
    odd::{self, Registers},
    process::within,
    says,
};

/// The deadline of commands, which other commands keep on a busy machine.
const LIMIT: Duration = Duration::from_millis(400);
/// The block whose first write is stuck.
const STUCK: u64 = 99;
const DEPTH: u32 = 16;

/// A controller whose first write to [`STUCK`] has a fault.
struct Stuck {
    controller: Controller,
    namespace: Namespace,
    queue: QueuePair<u64>,
}

fn stuck(fault: Fault, abort: Option<Fault>, reaction: OnTimeout) -> Stuck {
    let write = FaultRule::new(fault).opcode(NvmOpcode::WRITE.0).lba(STUCK..=STUCK).count(1);
    let mut plan = FaultPlan::new(1).rule(write);
    if let Some(fault) = abort {
        plan = plan.rule(FaultRule::new(fault).queue(0).opcode(AdminOpcode::ABORT.0));
    }
    let device = spawn_with_faults(&"size=1M".parse().unwrap(), &plan).unwrap();
    let controller = Controller::builder().from_device(device).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let builder = controller.queue_pair().depth(DEPTH).command_timeout(LIMIT).on_timeout(reaction);
    let queue = builder.create().unwrap();
    Stuck { controller, namespace, queue }
}

impl Stuck {
    /// Sends the write that gets stuck, then reads with all other slots and polls, until the queue has an error or the
    /// write is completed: then returns its status.
    fn run(&mut self) -> Result<Result<(), Status>, Error> {
        let buffer = self.controller.alloc(512).unwrap();
        self.queue.turn()?.write(&self.namespace, STUCK, buffer, STUCK).unwrap();
        let mut idle: Vec<_> = (2..DEPTH).map(|_| self.controller.alloc(512).unwrap()).collect();
        let end = Instant::now() + deadline();
        loop {
            assert!(Instant::now() < end, "the stuck command is not noticed");
            let mut turn = self.queue.turn()?;
            for done in turn.by_ref() {
                let (tag, result, buffer) = done.into_parts();
                if tag == STUCK {
                    return Ok(result);
                }
                result.unwrap();
                idle.push(buffer);
            }
            for buffer in idle.drain(..) {
                turn.read(&self.namespace, 0, buffer, 0).unwrap();
            }
        }
    }

    /// Returns the results of commands that came back, the stuck one's alone.
    fn close(self) -> Vec<Option<Result<(), Status>>> {
        let all = self.queue.close().unwrap().into_iter().map(upcie_nvme::Returned::into_parts);
        all.filter(|(tag, ..)| *tag == STUCK)
            .map(|(_, result, buffer)| {
                assert_eq!(buffer.len(), 512);
                result
            })
            .collect()
    }
}

#[test]
fn a_report_names_the_command_and_leaves_it_in_flight() {
    let mut stuck = stuck(Fault::Drop, None, OnTimeout::Report);
    let error = stuck.run().unwrap_err();
    assert!(matches!(error.failure(), Failure::Overdue { qid: 1, after, .. } if *after >= LIMIT), "{error}");
    says(&error, &[stuck.controller.name(), "queue 1", "is not completed after", "stays in flight"]);
    let late: Vec<u64> = stuck
        .queue
        .overdue()
        .map(|(tag, age)| {
            assert!(age >= LIMIT);
            *tag
        })
        .collect();
    assert_eq!(late, [STUCK]);
    // It is reported once, and the queue goes on.
    let end = Instant::now() + 2 * LIMIT;
    while Instant::now() < end {
        stuck.queue.turn().unwrap().for_each(drop);
    }
    assert_eq!(stuck.queue.in_flight(), 1);
    assert_eq!(stuck.close(), [None]);
}

#[test]
fn a_wait_reports_too() {
    let mut stuck = stuck(Fault::Drop, None, OnTimeout::Report);
    let buffer = stuck.controller.alloc(512).unwrap();
    stuck.queue.turn().unwrap().write(&stuck.namespace, STUCK, buffer, STUCK).unwrap();
    let error = stuck.queue.wait(Wait::Poll, deadline()).unwrap_err();
    assert!(matches!(error.failure(), Failure::Overdue { .. }), "{error}");
    assert_eq!(stuck.close(), [None]);
}

#[test]
fn an_aborted_command_completes_with_its_tag() {
    let mut stuck = stuck(Fault::Drop, None, OnTimeout::Abort);
    let status = stuck.run().unwrap().unwrap_err();
    assert_eq!(status, Status::ABORT_REQUESTED);
    assert!(stuck.close().is_empty());
}

#[test]
fn a_refused_abort_resets_the_controller() {
    let refuse = Fault::Status(Status::ABORT_LIMIT_EXCEEDED);
    // Refused; not found; never answered.
    for (fault, abort) in
        [(Fault::Drop, Some(refuse)), (Fault::LoseCompletion, None), (Fault::Drop, Some(Fault::Drop))]
    {
        let mut stuck = stuck(fault, abort, OnTimeout::Abort);
        let error = stuck.run().unwrap_err();
        assert!(matches!(error.failure(), Failure::Reset { qid: Some(1), .. }), "{error}");
        let all = stuck.queue.recover().unwrap();
        assert_eq!(
            all.iter().filter(|returned| *returned.tag() == STUCK && returned.result().is_none()).count(),
            1
        );
        drop(all);
        stuck.queue.turn().unwrap().flush(&stuck.namespace, 5).unwrap();
        assert_eq!(only(&mut stuck.queue).0, 5);
    }
}

#[test]
fn a_completion_that_overtakes_its_abort_is_matched() {
    let late = LIMIT + LIMIT / 2;
    let mut stuck = stuck(Fault::Delay(late), Some(Fault::Drop), OnTimeout::Abort);
    assert_eq!(stuck.run().unwrap(), Ok(()));
    // The Abort is never answered, and helps nobody any more: no reset follows.
    let end = Instant::now() + 2 * LIMIT;
    while Instant::now() < end {
        stuck.queue.turn().unwrap().for_each(drop);
    }
    assert!(stuck.close().is_empty());
}

#[test]
fn a_reset_on_timeout_gives_the_command_back() {
    let mut stuck = stuck(Fault::Drop, None, OnTimeout::Reset);
    let error = stuck.run().unwrap_err();
    assert!(matches!(error.failure(), Failure::Reset { qid: Some(1), .. }), "{error}");
    let all = stuck.queue.recover().unwrap();
    assert_eq!(all.iter().filter(|returned| *returned.tag() == STUCK).count(), 1);
    // The fault strikes once.
    drop(all);
    let buffer = stuck.controller.alloc(512).unwrap();
    stuck.queue.turn().unwrap().write(&stuck.namespace, STUCK, buffer, STUCK).unwrap();
    assert_eq!(only(&mut stuck.queue).0, STUCK);
}

#[test]
fn a_controller_that_is_given_up_is_down() {
    let mut stuck = stuck(Fault::Drop, None, OnTimeout::GiveUp);
    let error = stuck.run().unwrap_err();
    assert!(matches!(error.failure(), Failure::Down { .. }), "{error}");
    says(&error, &["is down", "given up", "is not completed after", "open it again"]);
    for error in [stuck.queue.recover().unwrap_err(), stuck.namespace.flush().unwrap_err()] {
        assert!(matches!(error.failure(), Failure::Down { .. }), "{error}");
    }
    assert_eq!(stuck.close(), [None], "the controller was stopped, so the buffer is free");
}

#[test]
fn a_command_has_a_limit_of_its_own() {
    let plan = FaultPlan::new(1).rule(FaultRule::new(Fault::Drop).opcode(NvmOpcode::WRITE.0).count(2));
    let device = spawn_with_faults(&"size=1M".parse().unwrap(), &plan).unwrap();
    let controller = Controller::builder().from_device(Arc::clone(&device)).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair().create::<u64>().unwrap();
    let mut turn = queue.turn().unwrap();
    turn.write(&namespace, 0, controller.alloc(512).unwrap(), 1).unwrap();
    turn.submit_within(Io::write(&namespace, 1), controller.alloc(512).unwrap(), 2, LIMIT).unwrap();
    drop(turn);
    let error = queue.wait(Wait::Poll, deadline()).unwrap_err();
    assert!(matches!(error.failure(), Failure::Overdue { .. }), "{error}");
    assert_eq!(queue.overdue().map(|(tag, _)| *tag).collect::<Vec<_>>(), [2]);
    assert!(!queue.wait(Wait::Poll, LIMIT).unwrap(), "the other has no limit");
    assert_eq!(queue.close().unwrap().len(), 2);
}

/// Only transfers had a limit of their own, and a controller had no default.
#[test]
fn a_command_of_any_kind_has_a_limit() {
    let plan = FaultPlan::new(1).rule(FaultRule::new(Fault::Drop).opcode(NvmOpcode::FLUSH.0));
    let device = spawn_with_faults(&"size=1M".parse().unwrap(), &plan).unwrap();
    let controller = Controller::builder().from_device(device).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair().depth(4).create::<u64>().unwrap();
    for tag in 0..2 {
        queue.turn().unwrap().read(&namespace, 0, controller.alloc(512).unwrap(), tag).unwrap();
        only(&mut queue);
        // It was reaped.
        queue.turn().unwrap().limit_last(LIMIT);
    }
    let mut turn = queue.turn().unwrap();
    turn.flush(&namespace, 3).unwrap();
    // The last entry of the ring.
    turn.flush(&namespace, 4).unwrap();
    turn.limit_last(LIMIT);
    drop(turn);
    let error = queue.wait(Wait::Poll, deadline()).unwrap_err();
    assert!(matches!(error.failure(), Failure::Overdue { .. }), "{error}");
    assert_eq!(queue.overdue().map(|(tag, _)| *tag).collect::<Vec<_>>(), [4]);
    assert!(!queue.wait(Wait::Poll, LIMIT).unwrap(), "the other has no limit");
    assert_eq!(queue.close().unwrap().len(), 2);
}

#[test]
fn a_controller_has_a_default_limit_of_commands() {
    let plan = FaultPlan::new(1).rule(FaultRule::new(Fault::Drop).opcode(NvmOpcode::FLUSH.0));
    let device = spawn_with_faults(&"size=1M".parse().unwrap(), &plan).unwrap();
    let controller = Controller::builder().command_timeout(LIMIT).from_device(device).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair().create::<u64>().unwrap();
    let mut patient = controller.queue_pair().command_timeout(Duration::MAX).create::<u64>().unwrap();
    for queue in [&mut queue, &mut patient] {
        queue.turn().unwrap().flush(&namespace, 1).unwrap();
    }
    let error = queue.wait(Wait::Poll, deadline()).unwrap_err();
    assert!(matches!(error.failure(), Failure::Overdue { .. }), "{error}");
    assert!(!patient.wait(Wait::Poll, 2 * LIMIT).unwrap(), "it has another limit");
}

/// Several commands that are each answered within a call's deadline, and together are not.
#[test]
fn calls_of_several_commands_have_one_deadline() {
    const EACH: Duration = Duration::from_secs(2);
    let slow = |opcode: AdminOpcode| FaultRule::new(Fault::Delay(EACH)).queue(0).opcode(opcode.0);
    let plan = FaultPlan::new(1).rule(slow(AdminOpcode::CREATE_CQ)).rule(slow(AdminOpcode::CREATE_SQ));
    let device = spawn_with_faults(&"size=1M".parse().unwrap(), &plan).unwrap();
    let controller = Controller::builder().timeout(EACH * 3 / 2).from_device(device).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let is_late = |error: Error| {
        assert!(matches!(error.failure(), Failure::Timeout { .. }), "{error}");
    };
    is_late(controller.queue_pair().create::<u64>().map(drop).unwrap_err());
    // The first blocking call makes the queue pair of such calls.
    is_late(namespace.flush().unwrap_err());
    let flush = Command::flush(1);
    is_late(controller.io(&flush, &mut [], EACH * 3 / 2).unwrap_err());
    // The caller's deadline covers the creation, too.
    controller.io(&flush, &mut [], deadline()).unwrap();
}

#[test]
fn a_bring_up_of_slow_commands_has_one_deadline() {
    const EACH: Duration = Duration::from_secs(2);
    let slow = |opcode: AdminOpcode| FaultRule::new(Fault::Delay(EACH)).queue(0).opcode(opcode.0);
    let plan = FaultPlan::new(1).rule(slow(AdminOpcode::IDENTIFY)).rule(slow(AdminOpcode::SET_FEATURES));
    let device = spawn_with_faults(&"size=1M".parse().unwrap(), &plan).unwrap();
    let opened = Controller::builder().timeout(EACH * 3 / 2).from_device(device);
    let error = opened.map(drop).unwrap_err();
    assert!(matches!(error.failure(), Failure::Timeout { .. }), "{error}");
}

/// Registers that answer reads of CSTS late from a time on, and tell of a shutdown that never ends.
struct NeverShutDown(Arc<AtomicBool>);

impl Registers for NeverShutDown {
    fn read(&mut self, at: u64, data: &mut [u8]) {
        if at != offset::CSTS as u64 || !self.0.load(Ordering::Relaxed) {
            return;
        }
        // Slow on purpose: the register's own deadline is kept.
        thread::sleep(Duration::from_millis(200));
        odd::change(data, |bits| {
            ControllerStatus::from_bits(bits).with_shst(ShutdownStatus::OCCURRING).into_bits()
        });
    }
}

/// Regression: the last handle's drop read the clock after 1000 looks only, which takes minutes here.
#[test]
fn slow_registers_do_not_stretch_a_drop() {
    let is_slow = Arc::new(AtomicBool::new(false));
    let controller = odd::open("size=1M", NeverShutDown(is_slow.clone()), deadline()).unwrap();
    is_slow.store(true, Ordering::Relaxed);
    let start = Instant::now();
    within(4 * deadline(), move || drop(controller));
    // Ten seconds for the shutdown; then it is disabled, which works.
    assert!(start.elapsed() < deadline(), "{:?}", start.elapsed());
}

/// A reset's deadline is the sum of this one and the times that the controller states.
#[test]
fn the_longest_timeout_is_taken() {
    let controller = Controller::builder().timeout(Duration::MAX).open("emu:size=1M").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair().command_timeout(Duration::MAX).create::<u64>().unwrap();
    controller.reset().unwrap();
    assert!(queue.recover().unwrap().is_empty());
    queue.turn().unwrap().flush(&namespace, 5).unwrap();
    assert!(queue.wait(Wait::Poll, Duration::MAX).unwrap());
    assert_eq!(only(&mut queue).0, 5);
    namespace.flush().unwrap();
    controller.io(&Command::flush(1), &mut [], Duration::MAX).unwrap();
    assert!(queue.close().unwrap().is_empty());
}
