//! Drives one queue pair of a run: reaps, records latencies and submits.
//!
//! The clock is read once per turn of the queue, before the turn reaps. A command's latency is the difference
//! between the reading of the turn that submitted it and the reading of the turn that reaped it. The result
//! is too long by at most the length of a turn, some nanoseconds per I/O in it. Nothing is allocated per I/O.

use super::{
    breakdown::Breakdown,
    pace::Pace,
    shared::Shared,
    tally::{Faults, Tally},
    verify::Ledger,
    workload::{Op, Source},
};
use crate::signal;
use std::time::Duration;
use upcie_core::deadline::Stopwatch;
use upcie_nvme::{DmaBuf, Namespace, QueuePair, Refused, Turn, queue::GroupMember, spec::DatasetRange};

/// Tag of a command: the start of its turn (or its scheduled start), and the operation.
#[derive(Debug, Clone, Copy)]
pub struct Tag {
    at: u64,
    op: Op,
    /// Its number in the breakdown.
    number: u32,
}

/// A queue pair, its buffers and its part of the namespace.
pub struct Lane {
    /// Index of the device.
    pub device: usize,
    pub queue: QueuePair<Tag>,
    /// Idle buffers of each size; `depth` of each are allocated.
    pub idle: Vec<Vec<DmaBuf>>,
    /// Bytes of each size.
    pub bytes: Vec<u64>,
    /// True if blocks are deallocated: the buffers then hold the ranges.
    pub trims: bool,
    /// Maximum number of I/Os in flight.
    pub depth: u32,
    pub namespace: Namespace,
    /// First block of the queue pair's part.
    pub slba: u64,
    /// Number of blocks in the part.
    pub blocks: u64,
    /// Source of the next operations.
    pub source: Source,
    /// Schedule of the submissions; `None` to submit whenever an I/O may be in flight.
    pub pace: Option<Pace>,
    /// Record of the data that the part should hold, with `--verify`.
    pub ledger: Option<Ledger>,
    /// Times of an I/O's parts, with `--latency-breakdown`.
    pub breakdown: Option<Breakdown>,
    /// Failures and mismatches of all phases.
    pub faults: Faults,
    /// Progress in this phase.
    pub at: At,
}

/// Progress of a queue pair in a phase.
#[derive(Debug, Clone, Copy, Default)]
pub struct At {
    /// True until the last I/O of the phase has completed.
    pub running: bool,
    /// True while new I/Os are submitted.
    issue: bool,
    /// I/Os in flight.
    pub in_flight: u32,
    /// Time after which none is submitted.
    until: u64,
    /// Time of the last completion, or of the first submission after an idle time.
    pub last: u64,
    /// Value of `last` at the last idle check, and the time since the first one that saw it.
    seen: u64,
    quiet: Stopwatch<'static>,
    /// Time of the last completion of the phase.
    pub end: u64,
}

impl GroupMember for Lane {
    type Tag = Tag;

    #[inline]
    fn queue_pair(&mut self) -> Option<&mut QueuePair<Tag>> {
        self.at.running.then_some(&mut self.queue)
    }
}

impl Lane {
    /// Begins a phase that submits until a time on the run's clock.
    pub fn start(&mut self, now: u64, until: u64) {
        // Without I/Os the lane has ended already; otherwise it would wait for a first I/O that is never due.
        let has = !self.source.is_empty();
        self.at = At { running: has, issue: has, until, last: now, end: now, ..At::default() };
        if let Some(pace) = &mut self.pace {
            pace.start(now);
        }
    }

    /// Returns the time of the next submission; `None` if only a completion can make one possible.
    pub fn due(&self) -> Option<u64> {
        let pace = self.pace.as_ref()?;
        let waits = self.at.running && self.at.issue && self.at.in_flight < self.depth;
        waits.then(|| if signal::interrupted() { 0 } else { pace.next().min(self.at.until) })
    }

    /// Returns true if a turn has something to reap or submit.
    #[inline(always)]
    pub fn wants_turn<const EXTRA: bool>(&self, shared: &Shared<'_>) -> bool {
        if self.queue.is_ready() {
            return true;
        }
        if EXTRA && self.pace.is_some() {
            return self.due().is_some_and(|due| due <= shared.now());
        }
        self.at.in_flight == 0
    }

    /// Reaps completions and submits new I/Os. `EXTRA` compiles in the features of `Worker::extra`.
    #[inline(always)]
    pub fn turn<const EXTRA: bool>(
        &mut self,
        tally: &mut Tally,
        now: u64,
        shared: &Shared<'_>,
    ) -> anyhow::Result<()> {
        // Borrow the fields one by one: the open turn borrows `queue` only.
        let Self { queue, idle, bytes, namespace, ledger, source, pace, breakdown, faults, at, .. } = self;
        let (slba, depth, trims) = (self.slba, self.depth, EXTRA && self.trims);
        let mut issue = at.issue & (now < at.until) & !signal::interrupted();
        let mut in_flight = at.in_flight;
        let mut reaped = false;
        let mut turn = queue.turn()?;
        while let Some(completion) = turn.next() {
            let status = completion.status();
            let (tag, _, mut buffer) = completion.into_parts();
            let op = tag.op;
            reaped = true;
            in_flight -= 1;
            if EXTRA && let Some(breakdown) = breakdown {
                breakdown.end(tag.number, now, shared.now());
            }
            if status.is_success() {
                tally.latency[usize::from(op.write)].saturating_record(now - tag.at);
                if EXTRA {
                    tally.bytes[usize::from(op.write)] += bytes[usize::from(op.size)];
                }
            } else {
                tally.errors += 1;
                faults.fail(status);
            }
            if let Some(ledger) = ledger
                && let Err(mismatch) = ledger.end(op, status.is_success(), buffer.as_slice().expect(OURS))
            {
                tally.errors += 1;
                faults.mismatch(mismatch);
            }
            if !EXTRA && issue {
                if let Some(op) = source.next() {
                    let op = fill(ledger, op, &mut buffer);
                    send(&mut turn, namespace, slba, buffer, Tag { at: now, op, number: 0 })?;
                    in_flight += 1;
                    continue;
                }
                issue = false;
            }
            idle[usize::from(op.size)].push(buffer);
        }
        while issue && in_flight < depth {
            let start = match pace {
                Some(pace) if EXTRA => {
                    // The source can be empty long before the next I/O is due.
                    issue = !source.is_empty();
                    if !issue || pace.next() > now {
                        break;
                    }
                    pace.take()
                }
                _ => now,
            };
            let next = if EXTRA { source.next_of_many() } else { source.next() };
            let Some((op, mut buffer)) = next.and_then(|op| Some((op, idle[usize::from(op.size)].pop()?)))
            else {
                issue = false;
                break;
            };
            let number = match breakdown {
                Some(breakdown) if EXTRA => breakdown.begin(shared.now()),
                _ => 0,
            };
            let op = fill(ledger, op, &mut buffer);
            let tag = Tag { at: start, op, number };
            if trims {
                trim(&mut turn, namespace, slba, bytes[usize::from(op.size)], buffer, tag)?;
            } else {
                send(&mut turn, namespace, slba, buffer, tag)?;
            }
            in_flight += 1;
        }
        drop(turn);
        if EXTRA && let Some(breakdown) = breakdown {
            breakdown.rung(shared.now());
        }
        if reaped || at.in_flight == 0 {
            at.last = now;
        }
        at.in_flight = in_flight;
        at.issue = issue;
        if in_flight == 0 && !issue {
            (at.running, at.end) = (false, now);
        }
        Ok(())
    }

    /// Returns the time without a completion while I/Os are in flight, without stops of this process. It counts from the
    /// first call after a completion.
    pub fn quiet(&mut self) -> Duration {
        let At { last, seen, quiet, in_flight, .. } = &mut self.at;
        if seen != last || *in_flight == 0 {
            (*seen, *quiet) = (*last, Stopwatch::new());
        }
        quiet.waited()
    }

    /// Ends the phase without waiting for the I/Os in flight.
    pub fn give_up(&mut self) {
        (self.at.running, self.at.end) = (false, self.at.last);
    }
}

/// The reason why a buffer of a run with a ledger has a slice.
const OURS: &str = "memory of this process alone";

/// Fills `buffer` with the data of a write, if there is a ledger.
#[inline(always)]
fn fill(ledger: &mut Option<Ledger>, op: Op, buffer: &mut DmaBuf) -> Op {
    match ledger {
        None => op,
        Some(ledger) => ledger.begin(op, buffer.as_mut_slice().expect(OURS)),
    }
}

#[inline(always)]
fn send(
    turn: &mut Turn<'_, Tag>,
    namespace: &Namespace,
    slba: u64,
    buffer: DmaBuf,
    tag: Tag,
) -> anyhow::Result<()> {
    let slba = slba + tag.op.block;
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

/// Deallocates `bytes` bytes; `buffer` holds the range.
fn trim(
    turn: &mut Turn<'_, Tag>,
    namespace: &Namespace,
    slba: u64,
    bytes: u64,
    mut buffer: DmaBuf,
    tag: Tag,
) -> anyhow::Result<()> {
    let slba = slba + tag.op.block;
    let range = DatasetRange::new(slba, (bytes / namespace.block_size() as u64) as u32);
    buffer.write_at(0, &range.to_bytes());
    turn.deallocate(namespace, buffer, 1, tag).map_err(|refused| refusal(refused, slba))
}

#[cold]
#[inline(never)]
fn refusal(refused: Refused<Tag>, slba: u64) -> anyhow::Error {
    anyhow::Error::from(refused.reason).context(format!("the I/O at block {slba} was refused"))
}
