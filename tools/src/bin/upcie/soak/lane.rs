//! One thread's blocks: random reads, writes and flushes on them, and the check of each read.

use super::record::{Counts, Entry, Record};
use crate::{
    contents,
    perf::{
        random::{Rng, scale},
        verify,
    },
    signal,
};
use anyhow::Context;
use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use upcie_nvme::{Controller, DmaBuf, Namespace, QueuePair, Refused, Turn, Wait, spec::Status};

/// Most bytes of one command.
pub const MOST: usize = 64 << 10;
/// Commands after which a lane deletes its queue pair and makes another.
const QUEUE_LIFE: u64 = 20_000;
/// Tries of a read that verifies, beside the first.
const TRIES: u32 = 100;
/// Commands between two updates of the counts in the record.
const COUNT_EVERY: u64 = 256;

/// The content of a block that can't be there.
#[derive(Debug)]
pub struct Wrong {
    lba: u64,
    /// Versions that can be there.
    wanted: Range<u32>,
    found: String,
}

impl std::error::Error for Wrong {}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lba, wanted, found } = self;
        let (least, most) = (wanted.start, wanted.end - 1);
        if least == most {
            write!(f, "block {lba} must hold version {least}, but {found}")
        } else {
            write!(f, "block {lba} must hold one of the versions {least} to {most}, but {found}")
        }
    }
}

/// Properties of a lane.
pub struct Plan {
    pub number: usize,
    /// Blocks by their number in the record's range.
    pub blocks: Range<u64>,
    pub depth: u32,
    pub timeout: Duration,
    /// Start of the random numbers.
    pub seed: u64,
    /// End of the run; `None`: until a signal.
    pub until: Option<Instant>,
    /// Set by the first lane that fails.
    pub stop: Arc<AtomicBool>,
}

impl Plan {
    fn has_ended(&self) -> bool {
        signal::interrupted()
            || self.stop.load(Ordering::Relaxed)
            || self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// A lane at work.
pub struct Lane<'a> {
    controller: &'a Controller,
    namespace: &'a Namespace,
    plan: &'a Plan,
    book: Book<'a>,
}

/// A command in flight.
enum Tag {
    Read {
        first: usize,
        count: usize,
    },
    Write {
        first: usize,
        count: usize,
    },
    /// With the blocks that were written before, and their versions.
    Flush(Vec<(usize, u32)>),
}

/// Record of the blocks of a lane.
struct Book<'a> {
    record: &'a Record,
    plan: &'a Plan,
    entries: Vec<Entry>,
    /// True for blocks with a command in flight.
    busy: Vec<bool>,
    /// Blocks written since the last Flush was sent.
    dirty: Vec<usize>,
    idle: Vec<DmaBuf>,
    counts: Counts,
    rng: Rng,
}

impl<'a> Lane<'a> {
    pub fn new(
        controller: &'a Controller,
        namespace: &'a Namespace,
        record: &'a Record,
        plan: &'a Plan,
    ) -> anyhow::Result<Self> {
        let length = (plan.blocks.end - plan.blocks.start) as usize;
        let book = Book {
            record,
            plan,
            entries: record.entries(plan.blocks.start, length)?,
            busy: vec![false; length],
            dirty: Vec::new(),
            idle: Vec::new(),
            counts: record.counts(plan.number)?,
            rng: Rng::new(plan.seed),
        };
        Ok(Self { controller, namespace, plan, book })
    }

    /// Reads all blocks that were ever written, and makes what they hold the only content that they may have.
    pub fn verify(&mut self, lost: bool) -> anyhow::Result<()> {
        let book = &mut self.book;
        let block = self.namespace.block_size();
        let most = MOST.min(self.namespace.max_transfer()) / block;
        let mut buffer = self.controller.alloc(most * block)?;
        let mut first = 0;
        while first < book.entries.len() && !signal::interrupted() && !self.plan.stop.load(Ordering::Relaxed)
        {
            let count = most.min(book.entries.len() - first);
            if book.entries[first..first + count].iter().all(|entry| entry.last == 0) {
                first += count;
                continue;
            }
            let mut piece = if count < most { buffer.slice(0..count * block) } else { buffer };
            let slba = book.lba(first);
            read(self.namespace, slba, &mut piece)?;
            let data = piece.to_vec();
            for (at, data) in (first..).zip(data.chunks_exact(block)) {
                let entry = book.entries[at];
                if entry.last == 0 {
                    continue;
                }
                let least = if lost { entry.durable } else { entry.acked };
                let version = book.check(at, data, least)?;
                let durable = if lost { version } else { entry.durable.min(version) };
                book.entries[at] = Entry { durable, acked: version, started: version, last: entry.last };
                book.counts.verified += 1;
            }
            book.record
                .set_entries(self.plan.blocks.start + first as u64, &book.entries[first..first + count])?;
            buffer = whole(piece);
            first += count;
        }
        book.record.set_counts(self.plan.number, book.counts)
    }

    /// Reads, writes and flushes until an end is asked for. Makes a new queue pair now and then.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let block = self.namespace.block_size();
        let most = MOST.min(self.namespace.max_transfer()) / block * block;
        for _ in 0..self.plan.depth {
            self.book.idle.push(self.controller.alloc(most)?);
        }
        while !self.plan.has_ended() {
            let depth = 2 + scale(self.book.rng.draw(), u64::from(self.plan.depth)) as u32;
            // A PRP list for each command: parts of buffers have none of their own, and a refusal for want of lists would end the
            // lane, and with it the content of an embedded controller.
            let lists = depth as usize * 4096;
            let mut queue = self.controller.queue_pair().depth(depth).list_memory(lists).create()?;
            self.fill_and_drain(&mut queue)?;
            queue.close()?;
        }
        self.book.record.set_counts(self.plan.number, self.book.counts)
    }

    /// Keeps a queue pair busy for its life, and waits for its last command.
    fn fill_and_drain(&mut self, queue: &mut QueuePair<Tag>) -> anyhow::Result<()> {
        let mut sent = 0;
        loop {
            let stop = sent >= QUEUE_LIFE || self.plan.has_ended();
            let before = queue.in_flight();
            let mut turn = queue.turn()?;
            for done in turn.by_ref() {
                let (tag, result, buffer) = done.into_parts();
                self.book.end(tag, result, buffer, self.namespace.block_size())?;
            }
            // Fill up by a random share, so that depths and batches vary.
            let goal = 1 + scale(self.book.rng.draw(), turn.room() as u64 + 1) as usize;
            let mut room = if stop { 0 } else { goal.min(turn.room()) };
            while room > 0 && self.book.send(&mut turn, self.namespace)? {
                room -= 1;
                sent += 1;
            }
            drop(turn);
            if stop && queue.in_flight() == 0 {
                return Ok(());
            }
            if queue.in_flight() == before && !queue.wait(Wait::Poll, self.plan.timeout)? {
                anyhow::bail!("no completion within {:?}: {}", self.plan.timeout, queue.diagnose());
            }
        }
    }
}

impl Book<'_> {
    fn lba(&self, at: usize) -> u64 {
        self.record.range.slba + self.plan.blocks.start + at as u64
    }

    /// Sends a random command; returns false if there is no buffer, or all blocks that it tried are in use.
    fn send(&mut self, turn: &mut Turn<'_, Tag>, namespace: &Namespace) -> anyhow::Result<bool> {
        let draw = self.rng.draw() % 1000;
        if draw < 4 {
            let mut dirty = std::mem::take(&mut self.dirty);
            dirty.sort_unstable();
            dirty.dedup();
            let written = dirty.into_iter().map(|at| (at, self.entries[at].acked)).collect();
            turn.flush(namespace, Tag::Flush(written)).map_err(refused)?;
            return Ok(true);
        }
        let Some(buffer) = self.idle.pop() else { return Ok(false) };
        let block = namespace.block_size();
        let most = (buffer.len() / block).min(self.entries.len());
        // Small commands are the most frequent.
        let count = 1 + scale(self.rng.draw(), (most as u64).min(1 << (self.rng.draw() % 8))) as usize;
        let free = (0..8).find_map(|_| {
            let first = scale(self.rng.draw(), (self.entries.len() - count + 1) as u64) as usize;
            (!self.busy[first..first + count].contains(&true)).then_some(first)
        });
        let Some(first) = free else {
            self.idle.push(buffer);
            return Ok(false);
        };
        let mut buffer = if count * block < buffer.len() { buffer.slice(0..count * block) } else { buffer };
        self.busy[first..first + count].fill(true);
        let slba = self.lba(first);
        if draw < 500 {
            turn.read(namespace, slba, buffer, Tag::Read { first, count }).map_err(refused)?;
            return Ok(true);
        }
        contents::change(&mut buffer, |data| {
            for (at, data) in (first..).zip(data.chunks_exact_mut(block)) {
                let entry = &mut self.entries[at];
                entry.last += 1;
                entry.started = entry.last;
                verify::fill(
                    data,
                    self.record.range.slba + self.plan.blocks.start + at as u64,
                    self.record.range.seed,
                    entry.last,
                );
            }
        });
        // Before the device can write: a killed worker's successor has to know what may be there.
        self.save(first, count)?;
        turn.write(namespace, slba, buffer, Tag::Write { first, count }).map_err(refused)?;
        Ok(true)
    }

    /// Ends a command.
    fn end(
        &mut self,
        tag: Tag,
        result: Result<(), Status>,
        buffer: DmaBuf,
        block: usize,
    ) -> anyhow::Result<()> {
        match tag {
            Tag::Read { first, count } => {
                self.busy[first..first + count].fill(false);
                self.counts.reads += 1;
                self.counts.bytes += (count * block) as u64;
                if result.is_ok() {
                    let data = contents::of(&buffer);
                    for (at, data) in (first..).zip(data.chunks_exact(block)) {
                        if self.entries[at].last > 0 {
                            self.check(at, data, self.entries[at].acked)?;
                        }
                    }
                }
                self.idle.push(whole(buffer));
            }
            Tag::Write { first, count } => {
                self.busy[first..first + count].fill(false);
                self.counts.writes += 1;
                self.counts.bytes += (count * block) as u64;
                if result.is_ok() {
                    for at in first..first + count {
                        self.entries[at].acked = self.entries[at].started;
                        self.dirty.push(at);
                    }
                    self.save(first, count)?;
                }
                self.idle.push(whole(buffer));
            }
            Tag::Flush(written) => {
                self.counts.flushes += 1;
                if result.is_ok() {
                    for &(at, version) in &written {
                        self.entries[at].durable = self.entries[at].durable.max(version);
                    }
                    for run in written.chunk_by(|(a, _), (b, _)| a + 1 == *b) {
                        self.save(run[0].0, run.len())?;
                    }
                } else {
                    self.dirty.extend(written.iter().map(|&(at, _)| at));
                }
            }
        }
        self.counts.errors += u64::from(result.is_err());
        if (self.counts.reads + self.counts.writes).is_multiple_of(COUNT_EVERY) {
            self.record.set_counts(self.plan.number, self.counts)?;
        }
        Ok(())
    }

    /// Writes entries to the record.
    fn save(&self, first: usize, count: usize) -> anyhow::Result<()> {
        self.record.set_entries(self.plan.blocks.start + first as u64, &self.entries[first..first + count])
    }

    /// Checks that a block holds a version from `least` on; returns it.
    fn check(&self, at: usize, data: &[u8], least: u32) -> anyhow::Result<u32> {
        let entry = self.entries[at];
        let lba = self.lba(at);
        let found = verify::version(data, lba, self.record.range.seed);
        match found {
            Some(version) if (least..=entry.started).contains(&version) => Ok(version),
            // The content from before the first write.
            None if least == 0 => Ok(0),
            _ => Err(Wrong {
                lba,
                wanted: least..entry.started + 1,
                found: match found {
                    Some(version) => format!("it holds version {version}"),
                    None if data.iter().all(|&byte| byte == 0) => "it is all zeros".to_owned(),
                    None => "it holds other data".to_owned(),
                },
            }
            .into()),
        }
    }
}

/// Reads blocks to verify them; tries again what may succeed then, since a fault plan may be at work.
fn read(namespace: &Namespace, slba: u64, buffer: &mut DmaBuf) -> anyhow::Result<()> {
    let mut tries = 0;
    loop {
        match namespace.read(slba, buffer) {
            Err(error) if tries < TRIES && error.is_retryable() => tries += 1,
            result => return result.with_context(|| format!("verifying from block {slba} on")),
        }
    }
}

/// Returns the buffer that a part was cut from.
fn whole(mut buffer: DmaBuf) -> DmaBuf {
    loop {
        match buffer.try_reunite() {
            Ok(larger) => buffer = larger,
            Err(all) => return all,
        }
    }
}

fn refused(refused: Refused<Tag>) -> anyhow::Error {
    refused.reason.into()
}
