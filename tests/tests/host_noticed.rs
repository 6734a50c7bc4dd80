//! A fault is noticed within 100 ms, whatever the program waits for, by simulated time.

use std::{sync::Arc, time::Duration};
use upcie_core::{clock::Clock, device::Device};
use upcie_nvme::{
    AsyncQueue, Controller, Error, Events, Namespace, QueueGroup, QueuePair, Result, Wait,
    emu::{Fault, FaultPlan, FaultRule},
    spec::NvmOpcode,
};
use upcie_tests::{
    futures::poll_once,
    io::{create, only},
    stepping::Stepping,
};

const LIMIT: Duration = Duration::from_millis(100);
/// Far beyond that.
const PATIENCE: Duration = Duration::from_secs(30);
/// The time between two turns of a program that polls.
const POLL: Duration = Duration::from_micros(10);

/// A program with everything that it can wait for. Its controller fails when it fetches a Flush.
struct Program {
    clock: Arc<Stepping>,
    controller: Controller,
    namespace: Namespace,
    queue: QueuePair<u64>,
    tasks: AsyncQueue,
    events: Events,
}

type Use = fn(&mut Program) -> Result<()>;

const USES: [(&str, Use); 9] = [
    ("a blocking call", |program| program.namespace.read_at(0, &mut [0; 512])),
    ("a list of namespaces", |program| program.controller.namespace_ids().map(drop)),
    ("a namespace handle", |program| program.controller.namespace(1).map(drop)),
    ("a new queue pair", |program| program.controller.queue_pair().create::<u64>().map(drop)),
    ("a wait for events", |program| program.events.wait(PATIENCE).map(drop)),
    ("a wait for completions", |program| program.queue.wait(Wait::Poll, PATIENCE).map(drop)),
    ("a group", group),
    ("turns", turns),
    ("tasks", tasks),
];

fn group(program: &mut Program) -> Result<()> {
    let members = std::slice::from_mut(&mut program.queue);
    QueueGroup::new().wait(members, Wait::Poll, PATIENCE).map(drop).map_err(Error::from)
}

fn turns(program: &mut Program) -> Result<()> {
    let end = program.clock.now() + PATIENCE;
    while program.clock.now() < end {
        drop(program.queue.turn()?);
        program.clock.sleep(POLL);
    }
    Ok(())
}

fn tasks(program: &mut Program) -> Result<()> {
    let mut flush = program.tasks.flush(&program.namespace);
    assert!(poll_once(&mut flush).is_pending());
    let end = program.clock.now() + PATIENCE;
    while program.clock.now() < end {
        program.tasks.progress()?;
        program.clock.sleep(POLL);
    }
    Ok(())
}

impl Program {
    fn new(fault: Option<Fault>) -> Self {
        let clock = Stepping::new("size=1M,serial=NOTICED", ());
        let rule = fault.map(|fault| FaultRule::new(fault).opcode(NvmOpcode::FLUSH.0));
        let plan = rule.into_iter().fold(FaultPlan::new(0), FaultPlan::rule);
        clock.device.inject(&plan).unwrap();
        let controller = clock.open(Controller::builder());
        let namespace = controller.namespace(1).unwrap();
        let mut queue = create(controller.queue_pair().depth(8));
        let tasks = controller.queue_pair().depth(8).create_async().unwrap();
        let events = controller.events().unwrap();
        // Both have made progress a moment ago.
        namespace.read_at(0, &mut [0; 512]).unwrap();
        queue.turn().unwrap().read(&namespace, 0, controller.alloc(512).unwrap(), 0).unwrap();
        only(&mut queue);
        Self { clock, controller, namespace, queue, tasks, events }
    }

    /// Lets the controller fail, with a command of the queue in flight.
    fn fail(&mut self, fault: Option<Fault>) {
        if fault.is_none() {
            // SAFETY: the driver's commands name memory of its own, and only requests for events are in flight.
            unsafe { self.clock.device.reset() }.unwrap();
        }
        self.queue.turn().unwrap().flush(&self.namespace, 1).unwrap();
        self.clock.sleep(POLL);
    }
}

#[test]
fn every_call_notices_a_fault_within_100_ms() {
    // Without a fault: a reset by somebody else.
    for fault in [Some(Fault::Fatal), Some(Fault::AllOnes(None)), None] {
        for (name, call) in USES {
            let mut program = Program::new(fault);
            let start = program.clock.now();
            program.fail(fault);
            let error = call(&mut program).expect_err(name);
            let took = program.clock.now() - start;
            assert!(took <= LIMIT, "{fault:?}, {name}: after {took:?}: {error}");
        }
    }
}
