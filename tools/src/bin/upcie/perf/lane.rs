//! A queue pair that is measured: its turns.
//!
//! The clock is read once per turn of the queue, before the turn reaps. A command's latency is the time between the
//! readings of the turn that submitted it and of the turn that reaped it: right to the length of a turn (some
//! nanoseconds per I/O in it), which it errs by on the long side. Nothing is allocated per I/O.

use super::{
    breakdown::Breakdown,
    pace::Pace,
    shared::Shared,
    tally::{Faults, Tally},
    verify::Ledger,
    workload::{Op, Source},
};
use crate::signal;
use upcie_nvme::{DmaBuf, Namespace, QueuePair, Refused, Turn, spec::DatasetRange};

/// What goes with a command: when its turn began (or when it was to start), and what it is.
#[derive(Debug, Clone, Copy)]
pub struct Tag {
    at: u64,
    op: Op,
    /// Its number in the breakdown.
    number: u32,
}

/// A queue pair, its buffers and its part of the namespace.
pub struct Lane {
    /// The place of its device.
    pub device: usize,
    /// The queue pair.
    pub queue: QueuePair<Tag>,
    /// Buffers of each size, as many of each as I/Os may be in flight.
    pub idle: Vec<Vec<DmaBuf>>,
    /// Bytes of each size.
    pub bytes: Vec<u64>,
    /// Blocks are deallocated: the buffers hold their ranges.
    pub trims: bool,
    /// I/Os that may be in flight.
    pub depth: u32,
    /// The namespace.
    pub namespace: Namespace,
    /// The first block of its part.
    pub slba: u64,
    /// Blocks of its part.
    pub blocks: u64,
    /// What comes next.
    pub source: Source,
    /// When, unless it is as soon as there is room.
    pub pace: Option<Pace>,
    /// What its part should hold, when that is looked at.
    pub ledger: Option<Ledger>,
    /// Where the time goes, when that is looked at.
    pub breakdown: Option<Breakdown>,
    /// What went wrong, in all phases.
    pub faults: Faults,
    /// How far it is in this phase.
    pub at: At,
}

/// How far a queue pair is in a phase.
#[derive(Debug, Clone, Copy, Default)]
pub struct At {
    /// There is something left to do.
    pub running: bool,
    /// New I/Os are submitted.
    issue: bool,
    /// I/Os in flight.
    pub in_flight: u32,
    /// When no more are submitted.
    until: u64,
    /// The last time that something completed, or that the first of what is in flight was submitted.
    pub last: u64,
    /// When it was last looked whether it is quiet.
    looked: u64,
    /// For how long it had been, then.
    quiet: u64,
    /// When the last I/O completed.
    pub end: u64,
}

/// The most that counts between two looks at a queue pair, of which there are about ten in a second.
const LONGEST_LOOK: u64 = 500_000_000;

impl At {
    fn look(&mut self, now: u64) -> u64 {
        let passed = now.saturating_sub(self.looked).min(LONGEST_LOOK);
        let quiet = now.saturating_sub(self.last).min(self.quiet + passed);
        self.looked = now;
        self.quiet = if self.in_flight == 0 { 0 } else { quiet };
        self.quiet
    }
}

impl Lane {
    /// Begins a phase that submits until a time on the run's clock.
    pub fn start(&mut self, now: u64, until: u64) {
        // With nothing to do it has ended: its first I/O would be due after all others.
        let has = !self.source.is_empty();
        self.at = At { running: has, issue: has, until, last: now, looked: now, end: now, ..At::default() };
        if let Some(pace) = &mut self.pace {
            pace.start(now);
        }
    }

    /// When it has something to do though nothing completes; `None` if never.
    pub fn due(&self) -> Option<u64> {
        let pace = self.pace.as_ref()?;
        let waits = self.at.running && self.at.issue && self.at.in_flight < self.depth;
        waits.then(|| if signal::interrupted() { 0 } else { pace.next().min(self.at.until) })
    }

    /// Whether a turn has something to do.
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

    /// Reaps what is there and submits what may be. `EXTRA`: what only some workloads need.
    #[inline(always)]
    pub fn turn<const EXTRA: bool>(
        &mut self,
        tally: &mut Tally,
        now: u64,
        shared: &Shared<'_>,
    ) -> anyhow::Result<()> {
        // Taken apart, so that the open turn leaves the rest to be used.
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
                && let Err(mismatch) = ledger.end(op, status.is_success(), &buffer)
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
                    // Its end is known before the next one is due.
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

    /// For how long nothing has completed though something is in flight. What passed since the last look counts up to
    /// a limit: with a process that was stopped, the device may have been.
    pub fn quiet(&mut self, now: u64) -> u64 {
        self.at.look(now)
    }

    /// An end without waiting for what is in flight.
    pub fn give_up(&mut self) {
        (self.at.running, self.at.end) = (false, self.at.last);
    }
}

/// What is to be written goes into `buffer`.
#[inline(always)]
fn fill(ledger: &mut Option<Ledger>, op: Op, buffer: &mut DmaBuf) -> Op {
    match ledger {
        None => op,
        Some(ledger) => ledger.begin(op, buffer),
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

/// Deallocates `bytes` bytes, by a range in `buffer`.
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
    anyhow::Error::from(refused.reason).context(format!("the I/O at block {slba} was not taken"))
}

#[cfg(test)]
mod tests {
    use super::At;

    #[test]
    fn a_time_without_looks_is_not_a_quiet_one() {
        let mut at = At { in_flight: 1, ..At::default() };
        assert_eq!(at.look(100_000_000), 100_000_000);
        // The process was stopped for a minute.
        assert_eq!(at.look(60_000_000_000), 600_000_000);
        assert_eq!(at.look(60_100_000_000), 700_000_000);
        at.last = 60_050_000_000;
        assert_eq!(at.look(60_200_000_000), 150_000_000);
        at.in_flight = 0;
        assert_eq!(at.look(60_300_000_000), 0);
    }
}
