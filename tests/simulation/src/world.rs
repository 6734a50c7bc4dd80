//! Time, and the order in which the controller gets to run.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use upcie_core::{clock::Clock, device::Device, testing::Random};
use upcie_nvme::emu::{Action, Lockstep};

/// The most lines that a trace keeps: the last ones.
const LINES: usize = 100_000;

/// The longest time of a run: a wait without an end would go on for ever.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// The place of the doorbells in BAR 0, and the bytes from one to the next (CAP.DSTRD of the embedded controller).
const DOORBELLS: u64 = 0x1000;
const DOORBELL_BYTES: u64 = 32;

/// A clock whose sleep lets the controller act, in an order that a seed decides.
pub struct World {
    now: AtomicU64,
    pub device: Arc<Lockstep>,
    schedule: Mutex<Schedule>,
}

/// The order of things.
struct Schedule {
    random: Random,
    /// One sleep of so many lets the controller act.
    laziness: usize,
    /// The hash of everything that has happened.
    digest: u64,
    /// The lines have the controller's single actions, too.
    verbose: bool,
    lines: Vec<String>,
    /// The commands that the controller has fetched, by submission queue.
    fetched: BTreeMap<u16, u64>,
}

impl World {
    /// Makes a world for `device`.
    pub fn new(device: Arc<Lockstep>, seed: u64, laziness: usize, verbose: bool) -> Self {
        let (random, lines, fetched) = (Random(seed), Vec::new(), BTreeMap::new());
        let schedule = Schedule { random, laziness, digest: 0, verbose, lines, fetched };
        Self { now: AtomicU64::new(0), device, schedule: Mutex::new(schedule) }
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an event for the trace and its digest.
    pub fn note(&self, event: impl fmt::Display) {
        let now = self.now();
        self.schedule().note(now, &event, true);
    }

    /// Lets the controller take at most `most` actions.
    pub fn act(&self, most: usize) {
        for _ in 0..most {
            let now = self.now();
            let actions = self.device.actions(now);
            if actions.is_empty() {
                return;
            }
            let mut schedule = self.schedule();
            let action = actions[schedule.random.below(actions.len())];
            let took = schedule.random.within(50..2000);
            schedule.note(now, &action, false);
            if let Action::Fetch { sq } = action {
                *schedule.fetched.entry(sq).or_default() += 1;
            }
            drop(schedule);
            self.device.act(action, now);
            for strike in self.device.take_strikes() {
                self.schedule().note(now, &format_args!("  fault: {strike}"), true);
            }
            self.now.fetch_add(took, Ordering::Relaxed);
        }
    }

    /// Returns the number of commands that the controller has fetched from other queues than `known`.
    pub fn fetched_beside(&self, known: &[u16]) -> u64 {
        let schedule = self.schedule();
        schedule.fetched.iter().filter(|(sq, _)| !known.contains(sq)).map(|(_, count)| count).sum()
    }

    /// Returns `true` if a doorbell of the queue pair `qid` has another value than after a reset.
    pub fn is_rung(&self, qid: u16) -> Result<bool, upcie_core::Error> {
        let bar = self.device.bar(0)?;
        let at = |doorbell: u64| DOORBELLS + (2 * u64::from(qid) + doorbell) * DOORBELL_BYTES;
        Ok(bar.read_u32(at(0))? != 0 || bar.read_u32(at(1))? != 0)
    }

    /// Cuts the device's power.
    pub fn lose_power(&self) {
        let mut random = Random(self.schedule().random.next());
        self.device.lose_power(&mut || random.next());
    }

    /// Returns the digest and the lines of the trace.
    pub fn finish(&self) -> (u64, Vec<String>) {
        let mut schedule = self.schedule();
        (schedule.digest, std::mem::take(&mut schedule.lines))
    }
}

impl Schedule {
    fn note(&mut self, now: Duration, event: &dyn fmt::Display, always: bool) {
        let line = format!("{:>12} {event}", format!("{:.3} us", now.as_nanos() as f64 / 1e3));
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if always || self.verbose {
            if self.lines.len() >= LINES {
                self.lines.drain(..LINES / 2);
            }
            self.lines.push(line);
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated time {:?}", self.now())
    }
}

impl Clock for World {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.now.load(Ordering::Relaxed))
    }

    fn sleep(&self, time: Duration) {
        let start = self.now();
        let end = start + time;
        let acts = {
            let mut schedule = self.schedule();
            let laziness = schedule.laziness;
            if schedule.random.one_in(laziness) { schedule.random.below(6) } else { 0 }
        };
        self.act(acts);
        let late = end.saturating_sub(self.now());
        self.now.fetch_add(late.as_nanos() as u64, Ordering::Relaxed);
        // At most once: destructors of a thread that panics sleep, too.
        assert!(start > LONGEST || self.now() <= LONGEST, "a wait does not end");
    }

    fn runs(&self) -> bool {
        false
    }
}
