//! Plays a case, and checks its properties after every step.

mod checks;
mod commands;
mod deadlines;
mod events;
mod resets;

use crate::{
    case::{BLOCKS, Case, Class, Io, Limit, Op, QUEUES},
    ledger::{Ledger, Ticket},
    model::{Flush, Model, Moment, Read},
    world::World,
};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use upcie_core::clock::Clock;
use upcie_nvme::{
    Controller, Events, Namespace, QueuePair, Wait,
    emu::{Lockstep, Machine, Options},
};

/// Deadline of an admin command and of a blocking call, in simulated time.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time of a step that waits for the controller: some commands one after another, or its disabling.
const STEP: Duration = Duration::from_secs(20);
/// The longest lateness of a wait with a deadline: a tenth of it, and this.
const LATE: Duration = Duration::from_millis(60);

/// The end of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The hash of everything that has happened.
    pub digest: u64,
    /// The trace.
    pub lines: Vec<String>,
    /// The property that failed, if one did.
    pub failure: Option<String>,
}

/// A broken property.
type Broken = String;

/// A command in flight.
#[derive(Debug)]
struct Pending {
    queue: usize,
    io: Io,
    /// The version that a write brings, and the moment of its submission.
    version: u64,
    since: Moment,
    read: Option<Read>,
    flush: Option<Flush>,
    /// The device address of the buffer.
    iova: u64,
    /// The time of its submission.
    sent: Duration,
}

/// A run under way.
struct Run<'c> {
    case: &'c Case,
    world: Arc<World>,
    open: Option<(Controller, Namespace)>,
    events: Option<Events>,
    queues: [Option<QueuePair<Ticket>>; QUEUES],
    limits: [Option<Limit>; QUEUES],
    /// The controller was reset since it has created the queue.
    over: [bool; QUEUES],
    /// The controller was given up.
    is_down: bool,
    /// A notice may have made the namespace handle stale.
    is_stale: bool,
    /// Events that the controller was asked to raise.
    raised: usize,
    pending: BTreeMap<u64, Pending>,
    model: Model,
    ledger: Arc<Ledger>,
    next: u64,
}

/// Plays a case. With `verbose` the trace has the controller's single actions, too.
pub fn run(case: &Case, verbose: bool) -> Outcome {
    let world = match world(case, verbose) {
        Ok(world) => world,
        Err(error) => {
            return Outcome { digest: 0, lines: Vec::new(), failure: Some(format!("setting up: {error}")) };
        }
    };
    let played = catch_unwind(AssertUnwindSafe(|| Run::new(case, world.clone()).play()));
    let failure = match played {
        Ok(Ok(())) => None,
        Ok(Err(broken)) => Some(broken),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
            Some(format!("panic: {text}"))
        }
    };
    let (digest, lines) = world.finish();
    Outcome { digest, lines, failure }
}

fn world(case: &Case, verbose: bool) -> Result<Arc<World>, upcie_nvme::Error> {
    // Each run has an NVM subsystem of its own: a notice makes the handles of a whole subsystem stale.
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let mut options: Options = case.options.parse()?;
    options.serial = RUNS.fetch_add(1, Ordering::Relaxed).to_string();
    let machine = Machine::new(&options)?.with_faults(&case.plan)?;
    let device = Lockstep::over(machine, "emu:simulated")?;
    Ok(Arc::new(World::new(device, case.seed, case.laziness, verbose)))
}

impl<'c> Run<'c> {
    fn new(case: &'c Case, world: Arc<World>) -> Self {
        Self {
            case,
            world,
            open: None,
            events: None,
            queues: [const { None }; QUEUES],
            limits: [None; QUEUES],
            over: [false; QUEUES],
            is_down: false,
            is_stale: false,
            raised: 0,
            pending: BTreeMap::new(),
            model: Model::new(BLOCKS),
            ledger: Arc::default(),
            next: 0,
        }
    }

    fn play(mut self) -> Result<(), Broken> {
        self.open()?;
        for op in &self.case.ops {
            self.world.note(op);
            let start = self.world.now();
            self.step(op).map_err(|broken| format!("{op}: {broken}"))?;
            if self.is_down {
                self.replace().map_err(|broken| format!("{op}, then a new start: {broken}"))?;
            }
            let took = self.world.now() - start;
            let limit = match op {
                Op::PowerCut => 4 * STEP,
                _ => self.longest_step(),
            };
            if took > limit {
                return Err(format!("{op}: it took {took:?}, more than its limit, {limit:?}"));
            }
        }
        self.world.note("end");
        self.end()
    }

    fn step(&mut self, op: &Op) -> Result<(), Broken> {
        match op {
            Op::Create { queue, depth, interrupt, limit } => self.create(*queue, *depth, *interrupt, *limit),
            Op::Close { queue } => self.close(*queue),
            Op::Turn { queue, commands, reset } => self.turn(*queue, commands, *reset).map(drop),
            Op::Wait { queue, timeout } => self.wait(*queue, *timeout),
            Op::Spin { queue, time } => self.spin(*queue, *time),
            Op::Busy { queue } => self.busy(*queue),
            Op::Reset { kind } => self.reset(*kind),
            Op::Event { notice, take } => self.event(*notice, *take),
            Op::Stale { queue } => self.try_stale(*queue),
            Op::Blocking(io) => self.blocking(*io),
            Op::Idle { actions } => {
                self.world.act(*actions);
                Ok(())
            }
            Op::PowerCut => self.lose_power(),
        }
    }

    /// Returns the longest time of a step that waits for the controller.
    fn longest_step(&self) -> Duration {
        if self.case.is_slow() { 4 * STEP } else { STEP }
    }

    /// Returns the error as a broken property, unless the case's faults explain it.
    fn excuse(&self, error: &dyn std::error::Error) -> Result<(), Broken> {
        self.world.note(format_args!("  {}", upcie_core::Chain(error)));
        if self.case.may_fail_anywhere() {
            return Ok(());
        }
        Err(format!("an error without a cause: {}", upcie_core::Chain(error)))
    }

    /// Opens the controller.
    fn open(&mut self) -> Result<(), Broken> {
        let clock = self.world.clone();
        let builder =
            Controller::builder().timeout(TIMEOUT).clock(clock).pages(upcie_core::memory::PageSize::Small);
        let builder = builder.retries(self.case.retries);
        let opened = builder.from_device(self.world.device.clone());
        match opened.and_then(|controller| Ok((controller.namespace(1)?, controller))) {
            Ok((namespace, controller)) => {
                let events = self.case.events.then(|| controller.events()).transpose();
                self.open = Some((controller, namespace));
                match events {
                    Ok(events) => self.events = events,
                    Err(error) => self.excuse(&error)?,
                }
                Ok(())
            }
            Err(error) => self.excuse(&error),
        }
    }

    fn create(&mut self, at: usize, depth: u32, interrupt: bool, limit: Option<Limit>) -> Result<(), Broken> {
        let Some((controller, _)) = self.open.as_ref().filter(|_| self.queues[at].is_none()) else {
            return Ok(());
        };
        let mut builder = controller.queue_pair().depth(depth);
        if interrupt {
            builder = builder.interrupt(if self.case.options.contains("intx") { 0 } else { at as u16 + 1 });
        }
        if let Some(Limit { time, policy }) = limit {
            builder = builder.command_timeout(time).on_timeout(policy);
        }
        match builder.create() {
            Ok(queue) => {
                (self.queues[at], self.limits[at], self.over[at]) = (Some(queue), limit, false);
                Ok(())
            }
            Err(error) => self.excuse(&error),
        }
    }

    fn wait(&mut self, at: usize, timeout: Duration) -> Result<(), Broken> {
        let longest = self.longest_step();
        let Some(queue) = &mut self.queues[at] else { return Ok(()) };
        let how = if queue.completion_fd().is_some() { Wait::Interrupt } else { Wait::Poll };
        let start = self.world.now();
        let waited = queue.wait(how, timeout);
        let took = self.world.now() - start;
        // A reaction to a late command takes its own time.
        let reaction = if waited.is_err() { longest } else { Duration::ZERO };
        let limit = timeout + timeout / 10 + LATE + reaction;
        if took > limit {
            return Err(format!("it took {took:?}, more than its limit, {limit:?}"));
        }
        match waited {
            Ok(ready) => {
                self.world.note(if ready { "  ready" } else { "  not ready" });
                if ready && !queue.is_ready() {
                    return Err("a wait says that there is a completion, and there is none".into());
                }
                if ready { Ok(()) } else { self.check_late(at, took) }
            }
            Err(error) => self.trouble(at, &error),
        }
    }

    fn close(&mut self, at: usize) -> Result<(), Broken> {
        let Some(queue) = self.queues[at].take() else { return Ok(()) };
        let closed = match queue.close() {
            Ok(all) => self.returned(at, all),
            Err(error) => {
                // The controller keeps their memory.
                self.forget(|pending| pending.queue == at);
                self.excuse(&error)
            }
        };
        (self.limits[at], self.over[at]) = (None, false);
        closed
    }

    /// Waits for all commands of a queue pair.
    fn drain(&mut self, at: usize) -> Result<(), Broken> {
        while self.pending.values().any(|pending| pending.queue == at) {
            let before = self.pending.len();
            let start = self.world.now();
            self.wait(at, TIMEOUT)?;
            let waited = self.world.now() - start;
            self.turn(at, &[], false)?;
            // A wait may end early, to report a late command.
            if self.pending.len() == before && waited >= TIMEOUT {
                return Err(format!(
                    "queue {at}: no command came back in {TIMEOUT:?}, and {before} are in flight"
                ));
            }
        }
        Ok(())
    }

    /// Forgets commands in flight that the controller works on no more: their writes may have been done.
    fn forget(&mut self, which: impl Fn(&Pending) -> bool) {
        let (gone, rest) =
            std::mem::take(&mut self.pending).into_iter().partition(|(_, pending)| which(pending));
        self.pending = rest;
        let gone: BTreeMap<u64, Pending> = gone;
        for pending in gone.into_values() {
            self.ended(pending, false);
        }
    }

    /// Drops everything: the controller works on nothing after that.
    fn drop_all(&mut self) {
        self.queues = [const { None }; QUEUES];
        (self.limits, self.over, self.is_down) = ([None; QUEUES], [false; QUEUES], false);
        (self.events, self.open) = (None, None);
    }

    fn lose_power(&mut self) -> Result<(), Broken> {
        self.world.lose_power();
        self.pending.clear();
        self.model.lose_power();
        self.drop_all();
        self.check_balance()?;
        self.open()?;
        self.check_blocks()
    }

    fn end(&mut self) -> Result<(), Broken> {
        if self.case.completes_all() && self.case.seed.is_multiple_of(2) {
            (0..QUEUES).try_for_each(|at| self.drain(at))?;
        }
        let start = self.world.now();
        (0..QUEUES).try_for_each(|at| self.close(at))?;
        self.forget(|_| true);
        let closed = self.world.now() - start;
        let is_honest = !self.case.may_fail_anywhere();
        // A controller that is opened anew has the same blocks, but opening it takes a third of a run.
        if is_honest && !self.case.seed.is_multiple_of(4) {
            self.renew_namespace()?;
            self.check_blocks()?;
        }
        let start = self.world.now();
        self.drop_all();
        let took = closed + (self.world.now() - start);
        if took > 4 * self.longest_step() {
            return Err(format!("dropping everything took {took:?}"));
        }
        self.check_balance()?;
        if !is_honest || !self.case.seed.is_multiple_of(4) {
            return Ok(());
        }
        self.open()?;
        self.check_blocks()?;
        self.drop_all();
        self.check_balance()
    }
}
