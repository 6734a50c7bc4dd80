//! The measuring loop: one queue pair, on a thread of its own.
//!
//! The clock is read once per turn of the queue, before the turn reaps. A command's latency is the time between the
//! readings of the turn that submitted it and of the turn that reaped it: right to the length of a turn (some
//! nanoseconds per I/O in it), which it errs by on the long side. Nothing is allocated per I/O.

use super::{
    stats::Stats,
    verify::Ledger,
    workload::{Op, Source},
};
use crate::signal;
use anyhow::{Context, bail};
use nix::time::{ClockId, clock_gettime};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};
use upcie_nvme::{DmaBuf, Namespace, QueuePair, Refused, Turn, Wait};

/// How often a wait looks whether it should go on.
const PATIENCE: Duration = Duration::from_millis(100);
/// Looks at the queue before the clock is asked.
const SPINS: u32 = 512;

/// What goes with a command: when its turn began, and what it is.
#[derive(Debug, Clone, Copy)]
pub struct Tag {
    at: u64,
    op: Op,
}

/// What the workers of a run share.
#[derive(Debug)]
pub struct Shared {
    epoch: Instant,
    /// A worker has failed: the others needn't go on.
    failed: AtomicBool,
    /// Per worker, for the progress bar.
    pub live: Vec<Live>,
}

/// What a worker tells while it runs: written by it alone, now and then.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Live {
    /// I/Os that succeeded.
    pub done: AtomicU64,
    /// The sum of their latencies.
    pub latency_ns: AtomicU64,
    /// I/Os that failed.
    pub errors: AtomicU64,
}

impl Shared {
    /// For `workers` workers; the run's clock starts.
    pub fn new(workers: usize) -> Self {
        let live = (0..workers).map(|_| Live::default()).collect();
        Self { epoch: Instant::now(), failed: AtomicBool::new(false), live }
    }

    /// Nanoseconds since the clock was started.
    #[inline(always)]
    pub fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Ends the run of all workers.
    pub fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    #[inline(always)]
    fn ends(&self) -> bool {
        signal::interrupted() || self.failed.load(Ordering::Relaxed)
    }
}

/// A queue pair, its buffers and its part of the namespace.
pub struct Worker {
    /// Its place among the workers.
    pub index: usize,
    /// The queue pair.
    pub queue: QueuePair<Tag>,
    /// As many as I/Os may be in flight, of one unit each.
    pub idle: Vec<DmaBuf>,
    /// The namespace.
    pub namespace: Namespace,
    /// The first block of its part.
    pub slba: u64,
    /// Blocks of a unit.
    pub blocks_per_unit: u64,
    /// What its part should hold, when that is looked at.
    pub ledger: Option<Ledger>,
    /// How to wait.
    pub wait: Wait,
    /// How long a device may complete nothing.
    pub timeout: Duration,
}

impl Worker {
    /// Runs I/Os until `source` or the time (`until` on the run's clock) is up or an end was asked for, and waits for
    /// those in flight.
    pub fn run(&mut self, shared: &Shared, mut source: Source, until: u64) -> anyhow::Result<Stats> {
        let cpu = cpu_time()?;
        let live = &shared.live[self.index];
        let all = self.idle.len();
        let mut stats = Stats::new(shared.now())?;
        let (mut done, mut latency_sum, mut issue) = (0_u64, 0_u64, true);
        loop {
            if self.idle.len() < all {
                self.ready(shared)?;
            }
            let now = shared.now();
            issue &= now < until && !shared.ends();
            // Taken apart, so that the open turn leaves the rest to be used.
            let Self { queue, idle, namespace, ledger, .. } = self;
            let (slba, blocks) = (self.slba, self.blocks_per_unit);
            let mut turn = queue.turn()?;
            while let Some(completion) = turn.next() {
                let status = completion.status();
                let (Tag { at, op }, _, mut buffer) = completion.into_parts();
                if status.is_success() {
                    stats.record(op.write, now - at);
                    done += 1;
                    latency_sum += now - at;
                } else {
                    stats.fail(status);
                }
                if let Some(ledger) = ledger
                    && let Err(mismatch) = ledger.end(op, status.is_success(), &buffer)
                {
                    stats.mismatch(mismatch);
                }
                match if issue { next(&mut source, ledger, &mut buffer) } else { None } {
                    Some(op) => {
                        send(&mut turn, namespace, slba + op.unit * blocks, buffer, Tag { at: now, op })?
                    }
                    None => idle.push(buffer),
                }
            }
            while issue && let Some(mut buffer) = idle.pop() {
                let Some(op) = next(&mut source, ledger, &mut buffer) else {
                    issue = false;
                    idle.push(buffer);
                    break;
                };
                send(&mut turn, namespace, slba + op.unit * blocks, buffer, Tag { at: now, op })?;
            }
            drop(turn);
            let over = self.idle.len() == all;
            if over || stats.samples.is_due(now) {
                stats.samples.push(now, done);
                live.done.store(done, Ordering::Relaxed);
                live.latency_ns.store(latency_sum, Ordering::Relaxed);
                live.errors.store(stats.errors(), Ordering::Relaxed);
            }
            if over {
                stats.end_ns = now;
                stats.cpu_ns = (cpu_time()? - cpu).as_nanos() as u64;
                return Ok(stats);
            }
        }
    }

    /// Waits for a completion.
    #[inline(always)]
    fn ready(&mut self, shared: &Shared) -> anyhow::Result<()> {
        if self.queue.is_ready() {
            return Ok(());
        }
        if self.wait == Wait::Poll {
            for _ in 0..SPINS {
                if self.queue.is_ready() {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
        }
        self.wait_long(shared)
    }

    #[cold]
    #[inline(never)]
    fn wait_long(&mut self, shared: &Shared) -> anyhow::Result<()> {
        let start = shared.now();
        while !self.queue.wait(self.wait, PATIENCE)? {
            if shared.failed.load(Ordering::Relaxed) {
                bail!("queue {}: given up, since another failed", self.queue.id());
            }
            if Duration::from_nanos(shared.now() - start) >= self.timeout {
                bail!(
                    "queue {}: no completion within {:?}, {} commands are in flight: the device may hang, or need \
                     more time (--timeout)",
                    self.queue.id(),
                    self.timeout,
                    self.queue.in_flight()
                );
            }
        }
        Ok(())
    }
}

/// The next I/O, its data in `buffer`.
#[inline(always)]
fn next(source: &mut Source, ledger: &mut Option<Ledger>, buffer: &mut DmaBuf) -> Option<Op> {
    let op = source.next()?;
    Some(match ledger {
        None => op,
        Some(ledger) => ledger.begin(op, buffer),
    })
}

#[inline(always)]
fn send(
    turn: &mut Turn<'_, Tag>,
    namespace: &Namespace,
    slba: u64,
    buffer: DmaBuf,
    tag: Tag,
) -> anyhow::Result<()> {
    let sent = if tag.op.write {
        turn.write(namespace, slba, buffer, tag)
    } else {
        turn.read(namespace, slba, buffer, tag)
    };
    match sent {
        Ok(()) => Ok(()),
        Err(refused) => Err(refusal(refused, slba)),
    }
}

#[cold]
#[inline(never)]
fn refusal(refused: Refused<Tag>, slba: u64) -> anyhow::Error {
    anyhow::Error::from(refused.reason).context(format!("the I/O at block {slba} was not taken"))
}

/// CPU time of this thread.
fn cpu_time() -> anyhow::Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("reading the thread's CPU time")?;
    Ok(time.into())
}
