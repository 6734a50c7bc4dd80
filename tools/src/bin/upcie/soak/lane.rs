//! One thread's queue pairs: random reads, writes and flushes on its blocks, resets of the controller that they lead to, and the
//! check of all blocks.

use super::{
    book::{Book, Sent},
    record::{Entry, Record},
};
use crate::{perf::random::scale, signal};
use anyhow::Context;
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use upcie_nvme::{Controller, DmaBuf, Error, Failure, Namespace, QueuePair, Wait, queue::OnTimeout};

/// Most bytes of one command.
pub const MOST: usize = 64 << 10;
/// Commands after which a lane deletes its queue pair and makes another.
const QUEUE_LIFE: u64 = 20_000;
/// Tries of a read that verifies, beside the first, and of a recovery.
const TRIES: u32 = 100;
/// Tries of a read that verifies and is late, beside the first.
const LATE_TRIES: u32 = 3;
/// Time beyond the timeout of a command after which a wait must have led to a reset.
const LATE: Duration = Duration::from_secs(10);

/// Properties of a lane.
pub struct Plan {
    pub number: usize,
    /// Blocks by their number in the record's range.
    pub blocks: Range<u64>,
    pub depth: u32,
    pub timeout: Duration,
    /// True to check all blocks after each queue pair, too.
    pub verify: bool,
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

impl<'a> Lane<'a> {
    pub fn new(
        controller: &'a Controller,
        namespace: &'a Namespace,
        record: &'a Record,
        plan: &'a Plan,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            controller,
            namespace,
            plan,
            book: Book::new(record, plan.number, &plan.blocks, plan.seed)?,
        })
    }

    /// Reads all blocks that were ever written, and makes what they hold the only content that they may have.
    pub fn verify(&mut self, lost: bool) -> anyhow::Result<()> {
        let book = &mut self.book;
        let block = self.namespace.block_size();
        let most = MOST.min(self.namespace.max_transfer()) / block;
        let mut first = 0;
        while first < book.entries.len() && !signal::interrupted() && !self.plan.stop.load(Ordering::Relaxed)
        {
            let count = most.min(book.entries.len() - first);
            if book.entries[first..first + count].iter().all(|entry| entry.last == 0) {
                first += count;
                continue;
            }
            let data = read(self.controller, self.namespace, book.lba(first), count * block)?.to_vec();
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
            book.save(first, count)?;
            first += count;
        }
        book.save_counts()
    }

    /// Reads, writes and flushes until an end is asked for. Makes a new queue pair now and then.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let block = self.namespace.block_size();
        let most = MOST.min(self.namespace.max_transfer()) / block * block;
        for _ in 0..self.plan.depth {
            self.book.idle.push(self.controller.alloc(most)?);
        }
        // Some ways to a function have no interrupts.
        let vectors = self.controller.vectors().unwrap_or(0);
        while !self.plan.has_ended() {
            let mut queue = self.create(vectors)?;
            self.fill_and_drain(&mut queue)?;
            queue.close()?;
            if self.plan.verify {
                self.verify(false)?;
            }
        }
        self.book.save_counts()
    }

    /// Makes a queue pair of a random depth, and by chance with one of `vectors` interrupts.
    fn create(&mut self, vectors: u16) -> anyhow::Result<QueuePair<Sent>> {
        let depth = 2 + scale(self.book.rng.draw(), u64::from(self.plan.depth)) as u32;
        // A PRP list for each command: parts of buffers have none of their own, and a refusal for want of lists would end the
        // lane, and with it the content of an embedded controller.
        let lists = depth as usize * 4096;
        let mut builder = self.controller.queue_pair().depth(depth).list_memory(lists);
        builder = builder.command_timeout(self.plan.timeout).on_timeout(OnTimeout::Reset);
        if vectors > 0 && self.book.rng.draw().is_multiple_of(2) {
            // Vector 0 is shared with the admin queue: it is used only if there is no other.
            let others = vectors - 1;
            builder = builder.interrupt(if others > 0 { 1 + self.plan.number as u16 % others } else { 0 });
        }
        let mut tries = 0;
        loop {
            match builder.clone().create() {
                // Another lane has reset the controller meanwhile.
                Err(error) if tries < TRIES && error.is_retryable() => tries += 1,
                result => return Ok(result?),
            }
        }
    }

    /// Keeps a queue pair busy for its life, and waits for its last command.
    fn fill_and_drain(&mut self, queue: &mut QueuePair<Sent>) -> anyhow::Result<()> {
        let how = if queue.completion_fd().is_some() { Wait::Interrupt } else { Wait::Poll };
        let mut sent = 0;
        loop {
            let stop = sent >= QUEUE_LIFE || self.plan.has_ended();
            let before = queue.in_flight();
            let Ok(mut turn) = queue.turn() else {
                if let Err(error) = queue.turn().map(drop) {
                    self.recover(queue, error)?;
                }
                continue;
            };
            for done in turn.by_ref() {
                let (command, result, buffer) = done.into_parts();
                self.book.end(command, Some(result), buffer, self.namespace.block_size())?;
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
                return Ok(self.book.check_all_back()?);
            }
            if queue.in_flight() == before {
                let patience = self.plan.timeout.saturating_add(LATE);
                match queue.wait(how, patience) {
                    Ok(true) => {}
                    Ok(false) => anyhow::bail!("no completion within {patience:?}: {}", queue.diagnose()),
                    Err(error) => self.recover(queue, error)?,
                }
            }
        }
    }

    /// Brings a queue back that takes no turns after `error`, if a reset of the controller can help, and takes its commands back.
    fn recover(&mut self, queue: &mut QueuePair<Sent>, error: Error) -> anyhow::Result<()> {
        match error.failure() {
            Failure::Reset { .. } => {}
            Failure::ForgedCompletion { .. } | Failure::Fatal { .. } => self.controller.reset()?,
            _ => return Err(error.into()),
        }
        tracing::warn!(%error, "recovering a queue pair");
        let mut tries = 0;
        let all = loop {
            match queue.recover() {
                // Another lane has reset the controller meanwhile.
                Err(error) if tries < TRIES && matches!(error.failure(), Failure::Reset { .. }) => tries += 1,
                result => break result?,
            }
        };
        for returned in all {
            let (command, result, buffer) = returned.into_parts();
            self.book.end(command, result, buffer, self.namespace.block_size())?;
        }
        Ok(self.book.check_all_back()?)
    }
}

/// Reads blocks to verify them; tries again what may succeed then, since a fault plan may be at work.
fn read(controller: &Controller, namespace: &Namespace, slba: u64, bytes: usize) -> anyhow::Result<DmaBuf> {
    let mut tries = 0;
    loop {
        // The controller keeps the buffer of a command that is late.
        let mut buffer = controller.alloc(bytes)?;
        let Err(error) = namespace.read(slba, &mut buffer) else { return Ok(buffer) };
        let most = match error.failure() {
            Failure::Timeout { .. } => LATE_TRIES,
            _ if error.is_retryable() => TRIES,
            _ => 0,
        };
        if tries >= most {
            return Err(error).with_context(|| format!("verifying from block {slba} on"));
        }
        tries += 1;
    }
}
