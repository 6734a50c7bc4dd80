//! Faults of a plan (docs/faults.md), as the driver and its programs see them.

use std::time::{Duration, Instant};
use upcie_core::irq::wait_readable;
use upcie_nvme::{
    Controller, Error, Events, Failure, Namespace, QueueGroup, QueuePair, Refusal, Wait,
    emu::{Fault, FaultPlan, FaultRule, spawn_with_faults},
    spec::{EventKind, NoticeEvent, NvmOpcode, Status},
};
use upcie_tests::{
    bent::Bent,
    deadline,
    futures::in_one_thread,
    io::{finish, only},
    process::{Directory, within},
    says,
};

/// The time for which reads are in flight while a fault strikes.
const DELAY: Duration = Duration::from_millis(30);

/// A plan that delays reads, and whose fault the first Flush triggers.
fn plan(fault: Fault) -> FaultPlan {
    let late = FaultRule::new(Fault::Delay(DELAY)).opcode(NvmOpcode::READ.0);
    FaultPlan::new(1).rule(late).rule(FaultRule::new(fault).opcode(NvmOpcode::FLUSH.0).count(1))
}

fn open(options: &str, plan: &FaultPlan) -> Controller {
    let device = spawn_with_faults(&options.parse().unwrap(), plan).unwrap();
    Controller::builder().from_device(device).unwrap()
}

/// Sends a Flush, and returns the error that ends the wait for it.
fn cut_off(controller: &Controller, namespace: &Namespace) -> Error {
    let mut queue = controller.queue_pair().interrupt(1).create::<u64>().unwrap();
    queue.turn().unwrap().flush(namespace, 1).unwrap();
    // Far beyond any deadline of a test: a wait that the fault does not end fails the test.
    within(deadline(), move || queue.wait(Wait::Interrupt, 20 * deadline()).unwrap_err())
}

#[test]
fn a_closed_connection_ends_waits_and_the_next_client_is_served() {
    let bent = Bent::planned("size=1M", &plan(Fault::CloseConnection));
    let controller = Controller::open(bent.address()).unwrap();
    let namespace = controller.namespace(1).unwrap();
    namespace.write_at(0, &[7; 512]).unwrap();
    says(&cut_off(&controller, &namespace), &["vfio-user:", "gone"]);
    assert!(namespace.flush().is_err() && controller.namespace_ids().is_err());
    drop((namespace, controller));
    let namespace = Controller::open(bent.address()).unwrap().namespace(1).unwrap();
    namespace.flush().unwrap();
    let mut data = [0; 512];
    namespace.read_at(0, &mut data).unwrap();
    assert_eq!(data, [7; 512]);
}

#[test]
fn a_closed_connection_to_a_device_of_the_process_is_its_end() {
    let controller = open("size=1M", &plan(Fault::CloseConnection));
    let namespace = controller.namespace(1).unwrap();
    says(&cut_off(&controller, &namespace), &["emu", "gone"]);
}

/// A controller whose namespace 1 changes while reads are in flight.
struct Changing {
    controller: Controller,
    namespace: Namespace,
    queue: QueuePair<u64>,
    events: Events,
}

impl Changing {
    fn new(fault: Fault) -> Self {
        let controller = open("size=1M,namespaces=2", &plan(fault));
        let events = controller.events().unwrap();
        let namespace = controller.namespace(1).unwrap();
        let queue = controller.queue_pair().depth(16).create().unwrap();
        namespace.write_at(0, &[7; 8192]).unwrap();
        Self { controller, namespace, queue, events }
    }

    /// Sends reads of these blocks, and a Flush after them; returns the status of each read.
    fn run(&mut self, blocks: &[u64]) -> Vec<Result<(), Status>> {
        let mut turn = self.queue.turn().unwrap();
        for (tag, &block) in (0..).zip(blocks) {
            turn.read(&self.namespace, block, self.controller.alloc(512).unwrap(), tag).unwrap();
        }
        turn.flush(&self.namespace, u64::MAX).unwrap();
        drop(turn);
        let mut done: Vec<_> = finish(&mut self.queue).into_iter().map(|done| done.into_parts()).collect();
        assert_eq!(done.len(), blocks.len() + 1);
        done.sort_unstable_by_key(|(tag, ..)| *tag);
        done.into_iter().take(blocks.len()).map(|(_, result, _)| result).collect()
    }

    /// Checks that the driver was told, and that the old handle is stale.
    fn is_told(&mut self) {
        let event = self.events.wait(deadline()).unwrap().expect("an event");
        assert_eq!(event.kind(), EventKind::Notice(NoticeEvent::NAMESPACE_ATTRIBUTES));
        assert_eq!(event.changed_namespaces(), Some(vec![1]));
        let error = self.namespace.flush().unwrap_err();
        assert!(
            matches!(error.failure(), Failure::Refused { reason: Refusal::StaleNamespace, .. }),
            "{error}"
        );
    }
}

#[test]
fn a_removed_namespace_is_gone_for_commands_in_flight_and_new_handles() {
    let mut changing = Changing::new(Fault::RemoveNamespace(None));
    assert_eq!(changing.run(&[0, 1, 2]), [Err(Status::INVALID_FIELD); 3]);
    changing.is_told();
    let controller = &changing.controller;
    assert_eq!(controller.namespace_ids().unwrap(), [2]);
    says(&controller.namespace(1).unwrap_err(), &["no namespace 1", "[2]"]);
    controller.namespace(2).unwrap().flush().unwrap();
}

#[test]
fn a_resized_namespace_refuses_blocks_beyond_its_new_end() {
    let mut changing = Changing::new(Fault::ResizeNamespace { target: None, blocks: 8 });
    assert_eq!(
        changing.run(&[7, 8, 2047]),
        [Ok(()), Err(Status::LBA_OUT_OF_RANGE), Err(Status::LBA_OUT_OF_RANGE)]
    );
    changing.is_told();
    let namespace = changing.controller.namespace(1).unwrap();
    assert_eq!(namespace.blocks(), 8);
    let mut data = [0; 4096];
    namespace.read_at(0, &mut data).unwrap();
    assert_eq!(data, [7; 4096], "its blocks keep their data");
}

#[test]
fn a_reformatted_namespace_has_other_blocks_and_no_old_data() {
    let mut changing = Changing::new(Fault::ReformatNamespace { target: None, block_size: 4096 });
    assert_eq!(changing.run(&[0, 1, 2]), [Err(Status::FORMAT_IN_PROGRESS); 3]);
    changing.is_told();
    let namespace = changing.controller.namespace(1).unwrap();
    assert_eq!((namespace.block_size(), namespace.blocks()), (4096, 256));
    let mut data = [1; 8192];
    namespace.read_at(0, &mut data).unwrap();
    assert_eq!(data, [0; 8192]);
}

/// Uses of a namespace, each of which ends before it would look at the controller.
#[derive(Debug, Clone, Copy)]
enum Use {
    Calls,
    Turns,
    Waits,
    Group,
    Tasks,
}

/// A busy queue, and calls of less than 50 ms, never saw an event: the handles of a changed namespace stayed good.
#[test]
fn a_busy_program_notices_a_changed_namespace() {
    for using in [Use::Calls, Use::Turns, Use::Waits, Use::Group, Use::Tasks] {
        let resize = Fault::ResizeNamespace { target: None, blocks: 8 };
        let plan = FaultPlan::new(1).rule(FaultRule::new(resize).opcode(NvmOpcode::READ.0));
        let controller = open(&format!("size=1M,serial=BUSY-{using:?}"), &plan);
        let _events = controller.events().unwrap();
        let namespace = controller.namespace(1).unwrap();
        namespace.read_at(0, &mut [0; 512]).unwrap();
        let reason = match using {
            Use::Calls => of_calls(&namespace),
            Use::Tasks => of_tasks(&controller, &namespace),
            _ => of_turns(&controller, &namespace, using),
        };
        assert_eq!(reason, Refusal::StaleNamespace, "{using:?}");
    }
}

fn reason(error: &Error) -> Refusal {
    match error.failure() {
        Failure::Refused { reason, .. } => *reason,
        _ => panic!("{error}"),
    }
}

/// Makes blocking calls until one is refused.
fn of_calls(namespace: &Namespace) -> Refusal {
    let end = Instant::now() + deadline();
    loop {
        assert!(Instant::now() < end, "the handle stays good");
        if let Err(error) = namespace.flush() {
            return reason(&error);
        }
    }
}

/// Awaits commands until one is refused.
fn of_tasks(controller: &Controller, namespace: &Namespace) -> Refusal {
    let mut refused = None;
    in_one_thread(async {
        let queue = controller.queue_pair().depth(4).create_async().unwrap();
        let driver = tokio::task::spawn_local(queue.drive_polled());
        let error = loop {
            if let Err(error) = queue.flush(namespace).await.0 {
                break error;
            }
        };
        refused = Some(reason(&error));
        drop(queue);
        driver.await.unwrap().unwrap();
    });
    refused.unwrap()
}

/// Submits commands until one is refused, by turns of which none is empty.
fn of_turns(controller: &Controller, namespace: &Namespace, using: Use) -> Refusal {
    let mut queue = controller.queue_pair().depth(4).create::<()>().unwrap();
    let mut group = QueueGroup::new();
    let end = Instant::now() + deadline();
    loop {
        let mut turn = queue.turn().unwrap();
        turn.by_ref().for_each(|done| done.result().map(drop).unwrap());
        if let Err(refused) = turn.flush(namespace, ()) {
            return refused.reason;
        }
        drop(turn);
        match using {
            Use::Waits => assert!(queue.wait(Wait::Poll, deadline()).unwrap()),
            Use::Group => assert!(group.wait(&mut [&mut queue], Wait::Poll, deadline()).unwrap()),
            _ => {
                while !queue.is_ready() {
                    assert!(Instant::now() < end, "no completion");
                    std::thread::yield_now();
                }
            }
        }
        assert!(Instant::now() < end, "the handle stays good");
    }
}

#[test]
fn a_storm_of_events_loses_none_and_io_goes_on() {
    const NUMBER: usize = 40;
    let controller = open("size=1M", &plan(Fault::EventStorm(NUMBER as u32)));
    let mut events = controller.events().unwrap();
    let namespace = controller.namespace(1).unwrap();
    namespace.flush().unwrap();
    let mut kinds = Vec::new();
    for number in 0..NUMBER {
        let event =
            events.wait(deadline()).unwrap().unwrap_or_else(|| panic!("event {number} does not come"));
        assert!(event.log().is_some(), "{event}");
        if !kinds.contains(&event.kind()) {
            kinds.push(event.kind());
        }
        namespace.write_at(0, &[number as u8; 512]).unwrap();
    }
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    // The controller has answered this command after any further event.
    controller.namespace_ids().unwrap();
    assert_eq!(events.try_next().unwrap(), None);
}

/// A queue with an interrupt; each of its reads of block 0 has a fault, and no others.
fn interrupted(faults: &[Fault]) -> (Controller, Namespace, QueuePair<u64>) {
    let rules = faults.iter().map(|&fault| FaultRule::new(fault).opcode(NvmOpcode::READ.0).lba(0..=0));
    let controller = open("size=1M,vectors=3", &rules.fold(FaultPlan::new(1), FaultPlan::rule));
    let namespace = controller.namespace(1).unwrap();
    let queue = controller.queue_pair().depth(8).interrupt(2).create().unwrap();
    (controller, namespace, queue)
}

fn read(controller: &Controller, queue: &mut QueuePair<u64>, namespace: &Namespace, block: u64) {
    queue.turn().unwrap().read(namespace, block, controller.alloc(512).unwrap(), block).unwrap();
}

#[test]
fn a_wait_for_a_lost_interrupt_finds_the_completion() {
    let (controller, namespace, mut queue) = interrupted(&[Fault::LostInterrupt]);
    for block in [0, 1] {
        queue.arm().unwrap();
        read(&controller, &mut queue, &namespace, block);
        let end = Instant::now() + deadline();
        while !queue.is_ready() {
            assert!(Instant::now() < end);
        }
        // The controller raises an interrupt before it takes this command.
        controller.namespace_ids().unwrap();
        let came = wait_readable(queue.completion_fd().unwrap(), Duration::ZERO).unwrap();
        assert_eq!(came, block == 1, "block {block}");
        assert_eq!(only(&mut queue).0, block);
    }
    for _ in 0..5 {
        read(&controller, &mut queue, &namespace, 0);
        let start = Instant::now();
        assert!(queue.wait(Wait::Interrupt, 20 * deadline()).unwrap());
        assert!(start.elapsed() < deadline(), "only the deadline ended the wait");
        assert_eq!(only(&mut queue).0, 0);
    }
}

#[test]
fn spurious_interrupts_end_no_wait_and_do_not_prolong_it() {
    let (controller, namespace, mut queue) =
        interrupted(&[Fault::SpuriousInterrupts(3), Fault::LoseCompletion]);
    queue.arm().unwrap();
    read(&controller, &mut queue, &namespace, 0);
    assert!(wait_readable(queue.completion_fd().unwrap(), deadline()).unwrap(), "no interrupt comes");
    assert!(!queue.is_ready());
    for how in [Wait::Interrupt, Wait::Adaptive(Duration::from_micros(50))] {
        let (woken, back) = within(deadline(), move || (queue.wait(how, 3 * DELAY).unwrap(), queue));
        assert!(!woken, "{how:?}: there is no completion");
        queue = back;
        // A real one is found.
        read(&controller, &mut queue, &namespace, 1);
        assert!(queue.wait(how, deadline()).unwrap(), "{how:?}");
        assert_eq!(queue.turn().unwrap().next().unwrap().into_parts().0, 1);
    }
}

#[test]
fn a_power_cut_leaves_flushed_data_in_the_file() {
    let directory = Directory::new();
    let file = directory.path().join("disk");
    let cut = FaultRule::new(Fault::PowerCut).opcode(NvmOpcode::WRITE.0).lba(100..=100);
    let mut lost = 0;
    for seed in 0..8 {
        let options = format!("size=1M,file={}", file.display());
        let controller = open(&options, &FaultPlan::new(seed).cache(64 << 10).rule(cut.clone()));
        let namespace = controller.namespace(1).unwrap();
        namespace.write_at(0, &[1; 16384]).unwrap();
        namespace.flush().unwrap();
        namespace.write_at(8192, &[2; 8192]).unwrap();
        let error = namespace.write_at(51200, &[3; 512]).unwrap_err();
        says(&error, &["CSTS.RDY is 0"]);
        drop((namespace, controller));
        let reopened = Controller::open(format!("emu:file={}", file.display())).unwrap();
        let mut data = [0; 16384];
        reopened.namespace(1).unwrap().read_at(0, &mut data).unwrap();
        assert_eq!(data[..8192], [1; 8192], "seed {seed}: flushed");
        for block in data[8192..].chunks(512) {
            assert!(matches!(block[0], 1 | 2) && block.iter().all(|byte| *byte == block[0]), "{block:?}");
            lost += usize::from(block[0] == 1);
        }
    }
    assert!((1..128).contains(&lost), "{lost} of 128 blocks were lost");
}
