//! Drives one queue pair of a run: reaps, records latencies and submits.
//!
//! The clock is read once per turn of the queue, before the turn reaps. A command's latency is the difference
//! between the reading of the turn that submitted it and the reading of the turn that reaped it. The result
//! is too long by at most the length of a turn, some nanoseconds per I/O in it. Nothing is allocated per I/O.

use super::{
    breakdown::Breakdown,
    pace::Pace,
    places::Places,
    plan::{Device, Plan, RANGES, block},
    random::mix,
    shared::Shared,
    tag::{Numbered, Numbers, Tag},
    tally::{Faults, Tally},
    verify::Ledger,
    workload::{Share, Source},
};
use crate::{contents, prinfo, signal};
use anyhow::Context;
use std::time::Duration;
use upcie_core::deadline::Stopwatch;
use upcie_nvme::{
    Direction, DmaBuf, Io, Namespace, QueuePair, Refused, Turn, protection::Protect, queue::GroupMember,
    spec::DatasetRange,
};

/// I/Os that a turn of the plain loop submits at most. A turn rings the doorbell at its end: in a turn of all I/Os in
/// flight the controller runs out of commands, and once both sides are about as fast every turn is such a turn.
const TURN: u64 = 32;

/// A queue pair, its buffers and its part of the namespace.
pub struct Lane {
    /// Index of the device.
    pub device: usize,
    pub queue: QueuePair<Tag>,
    /// Idle buffers of each size; `depth` of each are allocated.
    idle: Vec<Vec<DmaBuf>>,
    /// Bytes of each size.
    bytes: Vec<u64>,
    /// True if blocks are deallocated: the buffers then hold the ranges.
    trims: bool,
    /// Maximum number of I/Os in flight.
    depth: u32,
    pub namespace: Namespace,
    /// First block of the queue pair's part.
    slba: u64,
    /// Number of blocks in the part.
    pub blocks: u64,
    /// Source of the next operations.
    pub source: Source,
    /// Placement identifiers of writes, with `--placement`.
    places: Option<Places>,
    /// Protection of all commands, with `--prinfo`.
    protect: Option<Protect>,
    /// Force unit access of all commands, with `--fua`.
    fua: bool,
    /// Schedule of the submissions; `None` to submit whenever an I/O may be in flight.
    pub pace: Option<Pace>,
    /// Record of the data that the part should hold, with `--verify`.
    ledger: Option<Ledger>,
    /// Times of an I/O's parts, with `--latency-breakdown`.
    pub breakdown: Option<Breakdown>,
    /// I/Os in flight, except those of the plain loop.
    numbers: Numbers,
    /// Failures and mismatches of all phases.
    pub faults: Faults,
    /// Completions of all phases.
    pub reaped: u64,
    /// Progress in this phase.
    pub phase: Phase,
}

/// Progress of a queue pair in a phase.
#[derive(Debug, Clone, Copy, Default)]
pub struct Phase {
    /// True until the last I/O of the phase has completed.
    pub running: bool,
    /// True while new I/Os are submitted.
    issue: bool,
    /// I/Os in flight.
    pub in_flight: u32,
    /// Time after which none is submitted.
    until: u64,
    /// Time of the last completion, or of the first submission after an idle time.
    moved: u64,
    /// Value of `moved` at the last idle check, and the time since the first one that saw it.
    seen: u64,
    quiet: Stopwatch<'static>,
    /// Time of the last completion of the phase.
    pub end: u64,
}

impl GroupMember for Lane {
    type Tag = Tag;

    #[inline]
    fn queue_pair(&mut self) -> Option<&mut QueuePair<Tag>> {
        self.phase.running.then_some(&mut self.queue)
    }
}

impl Lane {
    /// Makes queue pair `pair` of device `place`, which has `vectors` interrupts to use; 0 to poll.
    pub fn new(plan: &Plan, place: usize, pair: u64, vectors: u16) -> anyhow::Result<Self> {
        let Device { controller, namespace, offset, part, .. } = &plan.devices[place];
        let mut builder = controller.queue_pair().depth(plan.depth + 1);
        if vectors > 0 {
            // Vector 0 is shared with the admin queue: use it only if there is no other.
            let others = u64::from(vectors) - 1;
            builder = builder.interrupt(if others > 0 { 1 + (pair % others) as u16 } else { 0 });
        }
        let queue = builder
            .create()
            .with_context(|| format!("creating queue pair {} of {}", pair + 1, plan.pairs()))?;
        let buffers = |bytes: u64| {
            let buffers = (0..plan.depth).map(|_| controller.alloc(bytes as usize)).collect::<Result<_, _>>();
            buffers.with_context(|| format!("{} buffers of {bytes} bytes", plan.depth))
        };
        let sizes = &plan.mixture.sizes;
        let trims = plan.mixture.rw.trims();
        let bytes = |share: &Share| if trims { RANGES } else { share.bytes };
        let idle = sizes.shares().iter().map(|share| buffers(bytes(share))).collect::<Result<_, _>>()?;
        let block = block(namespace);
        let slba = offset / block + pair * part;
        let index = pair * plan.devices.len() as u64 + place as u64;
        // Rotated, so that the sequences of the lanes are far apart in SplitMix64's one cycle.
        let seed = mix(plan.seed ^ index.rotate_right(8));
        let each = sizes.largest() / block;
        let ledger = || Ledger::new(part / each, plan.seed, slba, each, block as usize);
        Ok(Self {
            device: place,
            queue,
            idle,
            bytes: sizes.shares().iter().map(|share| share.bytes).collect(),
            trims,
            depth: plan.depth,
            namespace: namespace.clone(),
            slba,
            blocks: *part,
            source: Source::measured(&plan.mixture, *part, block, seed),
            places: Places::new(&plan.placement, index),
            protect: plan.prinfo.map(prinfo::protect),
            fua: plan.fua,
            pace: plan.rate.map(|rate| Pace::new(rate, index, plan.lanes())),
            ledger: plan.verify.then(ledger),
            breakdown: if plan.breakdown { Some(Breakdown::new(plan.depth)?) } else { None },
            numbers: Numbers::new(plan.depth),
            faults: Faults::default(),
            reaped: 0,
            phase: Phase::default(),
        })
    }

    /// Begins a phase that submits until a time on the run's clock.
    pub fn start(&mut self, now: u64, until: u64) {
        // Without I/Os the lane has ended already; otherwise it would wait for a first I/O that is never due.
        let has = !self.source.is_empty();
        self.phase = Phase { running: has, issue: has, until, moved: now, end: now, ..Phase::default() };
        if let Some(pace) = &mut self.pace {
            pace.start(now);
        }
    }

    /// Returns the time of the next submission; `None` if only a completion can make one possible.
    pub fn due(&self) -> Option<u64> {
        let pace = self.pace.as_ref()?;
        let waits = self.phase.running && self.phase.issue && self.phase.in_flight < self.depth;
        waits.then(|| if signal::interrupted() { 0 } else { pace.next().min(self.phase.until) })
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
        self.phase.in_flight == 0
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
        let Self {
            queue,
            idle,
            bytes,
            namespace,
            ledger,
            numbers,
            source,
            places,
            protect,
            pace,
            breakdown,
            faults,
            phase,
            ..
        } = self;
        let (slba, depth, trims, fua) = (self.slba, self.depth, EXTRA && self.trims, EXTRA && self.fua);
        let issue = phase.issue & (now < phase.until) & !signal::interrupted();
        // I/Os that this turn may submit.
        let most = if issue { source.left() } else { 0 };
        let mut budget = most;
        // The budget at which a turn of the plain loop ends, to ring the doorbell.
        let pause = most.saturating_sub(TURN);
        let mut in_flight = phase.in_flight;
        // Reads and writes that succeeded. Those of the plain loop all have one size.
        let (mut ios, mut moved) = ([0; 2], [0; 2]);
        let mut alike = Alike { tag: Tag::new(now, false), count: 0 };
        let mut turn = queue.turn()?;
        while let Some(completion) = turn.next() {
            let status = completion.status();
            let (tag, _, buffer) = completion.into_parts();
            let io = if EXTRA { numbers.end(tag.number()) } else { Numbered::default() };
            if EXTRA && let Some(breakdown) = breakdown {
                breakdown.end(tag.number(), now, shared.now());
            }
            if status.is_success() {
                if tag != alike.tag {
                    alike.count(now, tally, &mut ios);
                    alike = Alike { tag, count: 0 };
                }
                alike.count += 1;
                if EXTRA {
                    moved[usize::from(tag.is_write())] += bytes[usize::from(io.size)];
                }
            } else {
                tally.errors += 1;
                faults.fail(status);
            }
            if EXTRA && let Some(ledger) = ledger {
                let data = contents::of(&buffer);
                if let Err(mismatch) = ledger.end(io.unit, tag.is_write(), status.is_success(), &data) {
                    tally.errors += 1;
                    faults.mismatch(mismatch);
                }
            }
            if !EXTRA && budget > 0 {
                budget -= 1;
                let op = source.next();
                let tag = Tag::new(now, op.write);
                send(&mut turn, namespace, slba + op.block, (None, None, false), buffer, tag)?;
                if budget == pause {
                    break;
                }
                continue;
            }
            idle[usize::from(io.size)].push(buffer);
            in_flight -= 1;
        }
        while budget > 0 && in_flight < depth {
            let mut start = now;
            if EXTRA && let Some(pace) = pace {
                if pace.next() > now {
                    break;
                }
                start = pace.take();
            }
            budget -= 1;
            let mut op = if EXTRA { source.next_of_many() } else { source.next() };
            let Some(mut buffer) = idle[usize::from(op.size)].pop() else {
                break;
            };
            let mut unit = 0;
            if EXTRA && let Some(ledger) = ledger {
                (op, unit) = contents::change(&mut buffer, |data| ledger.begin(op, data));
            }
            let mut tag = Tag::new(start, op.write);
            if EXTRA {
                tag = tag.numbered(numbers.begin(Numbered { size: op.size, unit }));
                if let Some(breakdown) = breakdown {
                    breakdown.begin(tag.number(), shared.now());
                }
            }
            if trims {
                trim(&mut turn, namespace, slba + op.block, bytes[usize::from(op.size)], buffer, tag)?;
            } else {
                let placement = places.as_mut().filter(|_| EXTRA && op.write).map(Places::next);
                let protect = protect.filter(|_| EXTRA);
                send(&mut turn, namespace, slba + op.block, (placement, protect, fua), buffer, tag)?;
            }
            in_flight += 1;
        }
        drop(turn);
        alike.count(now, tally, &mut ios);
        if EXTRA && let Some(breakdown) = breakdown {
            breakdown.rung(shared.now());
        }
        if !EXTRA {
            moved = ios.map(|ios| ios * bytes[0]);
        }
        tally.succeeded(ios, moved);
        if issue {
            source.limit(budget);
        }
        let reaped = u64::from(phase.in_flight) + (most - budget) - u64::from(in_flight);
        self.reaped += reaped;
        if reaped > 0 || phase.in_flight == 0 {
            phase.moved = now;
        }
        phase.in_flight = in_flight;
        phase.issue = issue && budget > 0;
        if in_flight == 0 && !phase.issue {
            (phase.running, phase.end) = (false, now);
        }
        Ok(())
    }

    /// Returns the time without a completion while I/Os are in flight, without stops of this process. It counts from the
    /// first call after a completion.
    pub fn quiet(&mut self) -> Duration {
        let Phase { moved, seen, quiet, in_flight, .. } = &mut self.phase;
        if seen != moved || *in_flight == 0 {
            (*seen, *quiet) = (*moved, Stopwatch::new());
        }
        quiet.waited()
    }

    /// Ends the phase without waiting for the I/Os in flight.
    pub fn give_up(&mut self) {
        (self.phase.running, self.phase.end) = (false, self.phase.moved);
    }
}

/// Completions of one turn, one after another, whose commands were submitted by one turn: they have the same latency.
/// A deep queue has many of them, and counting their number takes two instructions for each.
struct Alike {
    tag: Tag,
    count: u64,
}

impl Alike {
    /// Counts them.
    #[inline(always)]
    fn count(&self, now: u64, tally: &mut Tally, ios: &mut [u64; 2]) {
        let kind = usize::from(self.tag.is_write());
        tally.latency(kind, self.tag.latency(now), self.count);
        ios[kind] += self.count;
    }
}

#[inline(always)]
fn send(
    turn: &mut Turn<'_, Tag>,
    namespace: &Namespace,
    slba: u64,
    (placement, protect, fua): (Option<u16>, Option<Protect>, bool),
    buffer: DmaBuf,
    tag: Tag,
) -> anyhow::Result<()> {
    let direction = if tag.is_write() { Direction::Write } else { Direction::Read };
    let io = Io::new(direction, namespace, slba);
    let io = if fua { io.fua() } else { io };
    let io = match placement {
        Some(identifier) => io.placement(identifier),
        None => io,
    };
    let io = match protect {
        Some(protect) => io.protect(protect),
        None => io,
    };
    match turn.submit(io, buffer, tag) {
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
    let range = DatasetRange::new(slba, (bytes / namespace.block_size() as u64) as u32);
    buffer.write_at(0, &range.to_bytes());
    turn.deallocate(namespace, buffer, 1, tag).map_err(|refused| refusal(refused, slba))
}

#[cold]
#[inline(never)]
fn refusal(refused: Refused<Tag>, slba: u64) -> anyhow::Error {
    anyhow::Error::from(refused.reason).context(format!("the I/O at block {slba} was refused"))
}
