//! Submission and completion queues, and the loop that serves them.
//!
//! Nothing is made per command: an entry is copied from the ring, carried out, and answered from a line of completions
//! on the stack, which is posted when it fills a cache line of the ring, when the batch ends, and after so much data
//! that the client could be at work meanwhile.

use super::{
    io::Io,
    shared::{Doorbell, Ring},
};
use crate::spec::{Command, QueuePriority, Status};
use nix::errno::Errno;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};
use upcie_core::{irq::IrqKind, vfio_user::server::Guest};

/// Commands of one queue in one round: others wait that long at most.
pub(super) const BATCH: u32 = 128;
/// Bytes moved for one queue in one round.
const BATCH_BYTES: u64 = 1 << 20;
/// Bytes moved before what is done is posted.
const POST_BYTES: u64 = 16 << 10;
/// Commands beyond those at work whose blocks are fetched into the cache. It takes 512 bytes at random, 32 in flight, from
/// 133 to 75 ns; 4 and 12 do as much.
const AHEAD: u32 = 8;
/// Completions in a cache line.
const LINE: u32 = 4;

/// What a client did with a doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It wrote a value that the queue doesn't have, or that passes the other end.
    Doorbell,
    /// The queue's memory can't be read or written: there is no way to go on.
    Memory(Errno),
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Memory(errno)
    }
}

/// A completion before it has a place: dword 0, command and status.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    pub dw0: u32,
    pub cid: u16,
    pub status: Status,
}

/// A submission queue.
#[derive(Debug)]
pub(super) struct Sq {
    pub id: u16,
    /// Its completion queue.
    pub cq: u16,
    entries: u32,
    head: u32,
    ring: Ring<64>,
    tail: Doorbell,
    /// The tail that was refused last: reported once.
    refused: Option<u32>,
    /// With `latency=` only: done, but not due. Its capacity is made with the queue.
    delayed: VecDeque<(Instant, Done)>,
    /// Of use under weighted round robin only.
    pub priority: QueuePriority,
}

impl Sq {
    /// Empty, its doorbell at 0. `delay` makes room for completions held back.
    pub fn new(id: u16, cq: u16, entries: u32, ring: Ring<64>, tail: Doorbell, delay: bool) -> Self {
        tail.store(0);
        let delayed = if delay { VecDeque::with_capacity(entries as usize) } else { VecDeque::new() };
        let priority = QueuePriority::default();
        Self { id, cq, entries, head: 0, ring, tail, refused: None, delayed, priority }
    }

    /// Takes back what was written to the doorbell: the queue is deleted.
    pub fn forget_doorbell(&self) {
        self.tail.store(0);
    }

    /// The entry that is fetched next.
    pub fn head(&self) -> u32 {
        self.head
    }

    /// How many entries were fetched since `head` was [`head`](Self::head).
    pub fn fetched_since(&self, head: u32) -> u32 {
        if self.head >= head { self.head - head } else { self.head + self.entries - head }
    }

    /// How many commands wait: 0 for a doorbell that makes no sense.
    #[inline(always)]
    pub fn waiting(&mut self) -> Result<u32, Fault> {
        let tail = self.tail.load();
        if tail == self.head {
            return Ok(0);
        }
        if tail >= self.entries {
            return self.refuse(tail);
        }
        Ok(if tail > self.head { tail - self.head } else { tail + self.entries - self.head })
    }

    #[cold]
    #[inline(never)]
    fn refuse(&mut self, tail: u32) -> Result<u32, Fault> {
        match self.refused.replace(tail) {
            Some(last) if last == tail => return Ok(0),
            // Once per queue: a client can write as many values as it likes.
            Some(_) => {}
            None => tracing::warn!(
                sq = self.id,
                entries = self.entries,
                tail,
                "a tail doorbell beyond its queue is ignored, as all further ones of this queue will be"
            ),
        }
        Err(Fault::Doorbell)
    }

    /// Copies the next command and moves on.
    #[inline(always)]
    pub fn fetch(&mut self, guest: &mut Guest) -> Result<Command, Errno> {
        let entry = self.ring.fetch(guest, self.head)?;
        self.head = if self.head + 1 == self.entries { 0 } else { self.head + 1 };
        Ok(zerocopy::transmute!(entry))
    }

    /// Has the processor fetch the blocks of commands `from` to `to`, counted from the next one: all at once, where one
    /// after another each would be waited for.
    #[inline(always)]
    fn look_ahead(&mut self, guest: &mut Guest, io: &Io, from: u32, to: u32) {
        for ahead in from..to {
            let place = self.head + ahead;
            let place = if place < self.entries { place } else { place - self.entries };
            if let Some((nsid, slba)) = self.ring.peek(guest, place) {
                io.prefetch(nsid, slba);
            }
        }
    }

    /// Takes a command out of those held back: it is done, but the client does not know.
    pub fn abort(&mut self, cid: u16) -> Option<Done> {
        let at = self.delayed.iter().position(|(_, done)| done.cid == cid)?;
        let (_, done) = self.delayed.remove(at)?;
        Some(Done { status: Status::ABORT_REQUESTED, ..done })
    }
}

/// A completion queue.
#[derive(Debug)]
pub(super) struct Cq {
    pub id: u16,
    entries: u32,
    tail: u32,
    phase: bool,
    /// The client's head as it was looked at last; looked at again when `room` is used up.
    head: u32,
    room: u32,
    ring: Ring<16>,
    doorbell: Doorbell,
    refused: Option<u32>,
    /// `None`: polled, no interrupts.
    pub vector: Option<u16>,
    /// Entries were posted since the last [look](Self::look_for_interrupt).
    posted: bool,
    /// The client's head at that look, as it wrote it.
    seen: u32,
    /// Submission queues that complete to it.
    pub users: u32,
}

impl Cq {
    /// Empty, its doorbell at 0.
    pub fn new(id: u16, entries: u32, ring: Ring<16>, doorbell: Doorbell, vector: Option<u16>) -> Self {
        doorbell.store(0);
        let room = entries - 1;
        let (tail, phase, head, refused) = (0, true, 0, None);
        let (posted, seen, users) = (false, 0, 0);
        Self { id, entries, tail, phase, head, room, ring, doorbell, refused, vector, posted, seen, users }
    }

    /// Takes back what was written to the doorbell: the queue is deleted.
    pub fn forget_doorbell(&self) {
        self.doorbell.store(0);
    }

    /// How many completions it takes now.
    #[inline(always)]
    pub fn room(&mut self) -> Result<u32, Fault> {
        if self.room == 0 { self.look() } else { Ok(self.room) }
    }

    /// Looks at the client's head. It is taken only if it lies between the last one and the tail.
    #[inline(never)]
    fn look(&mut self) -> Result<u32, Fault> {
        let head = self.doorbell.load();
        let distance = |from: u32, to: u32| if to >= from { to - from } else { to + self.entries - from };
        let used = distance(self.head, self.tail);
        if head >= self.entries || distance(self.head, head) > used {
            match self.refused.replace(head) {
                Some(last) if last == head => return Ok(0),
                // Once per queue: a client can write as many values as it likes.
                Some(_) => {}
                None => tracing::warn!(
                    cq = self.id,
                    head,
                    "a head doorbell that passes its queue's entries is ignored, as all further ones of this queue will be"
                ),
            }
            return Err(Fault::Doorbell);
        }
        self.room = self.entries - 1 - distance(head, self.tail);
        self.head = head;
        Ok(self.room)
    }

    /// Entries up to the end of the cache line, or of the ring.
    #[inline(always)]
    fn line(&self) -> u32 {
        (LINE - self.tail % LINE).min(self.entries - self.tail)
    }

    /// Posts one completion of a command of `sq`. There must be room.
    #[inline(always)]
    pub fn post(&mut self, guest: &mut Guest, sq: &Sq, done: Done) -> Result<(), Errno> {
        let high = u64::from(sq.head)
            | u64::from(sq.id) << 16
            | u64::from(done.cid) << 32
            | u64::from(done.status.with_phase(self.phase)) << 48;
        self.ring.post(guest, self.tail, done.dw0.into(), high)?;
        self.room = self.room.saturating_sub(1);
        self.tail += 1;
        if self.tail == self.entries {
            self.tail = 0;
            self.phase = !self.phase;
        }
        Ok(())
    }

    /// For interrupts that follow a status: whether there are entries that the client has not acknowledged, and whether
    /// entries were posted, or its head has moved, since the last such look. A head that the queue doesn't have
    /// acknowledges nothing.
    pub fn look_for_interrupt(&mut self) -> (bool, bool) {
        let head = self.doorbell.load();
        let head = if head < self.entries { head } else { self.seen };
        let moved = std::mem::replace(&mut self.seen, head) != head;
        (head != self.tail, std::mem::take(&mut self.posted) || moved)
    }

    /// Tells the client that something was posted: at once, if it uses MSI-X, else at the next look.
    #[inline(always)]
    pub fn interrupt(&mut self, guest: &mut Guest) {
        self.posted = true;
        if let Some(vector) = self.vector {
            guest.trigger(IrqKind::Msix, vector.into());
        }
    }
}

/// Serves at most `limit` commands of `sq` that wait, as `latency` says; says how much was done.
#[inline(always)]
pub(super) fn serve_by(
    sq: &mut Sq,
    cq: &mut Cq,
    io: &mut Io,
    guest: &mut Guest,
    latency: Duration,
    limit: u32,
) -> Result<usize, Fault> {
    if guest.is_slow() {
        return Ok(0);
    }
    if latency.is_zero() {
        serve(sq, cq, io, guest, limit)
    } else {
        serve_delayed(sq, cq, io, guest, latency, limit)
    }
}

/// Serves at most `limit` commands of `sq` that wait; says how many it took.
///
/// A queue whose completion queue is full waits for room.
#[inline(always)]
fn serve(sq: &mut Sq, cq: &mut Cq, io: &mut Io, guest: &mut Guest, limit: u32) -> Result<usize, Fault> {
    let mut left = sq.waiting()?;
    if left == 0 {
        return Ok(0);
    }
    left = left.min(limit);
    let mut taken = 0;
    // Commands, from the next one on, whose blocks are on their way.
    let mut ahead = 0;
    let (mut batch_bytes, mut result) = (0, Ok(()));
    while left > 0 && batch_bytes < BATCH_BYTES && !guest.is_slow() {
        let room = match cq.room() {
            Ok(room) => room,
            Err(fault) => {
                result = Err(fault);
                break;
            }
        };
        let count = left.min(cq.line()).min(room);
        if count == 0 {
            break;
        }
        if io.media.is_memory() {
            let to = left.min(count + AHEAD);
            sq.look_ahead(guest, io, ahead, to);
            ahead = to - count;
        }
        if let Err(errno) = line(sq, cq, io, guest, count, &mut batch_bytes) {
            result = Err(errno.into());
            break;
        }
        left -= count;
        taken += count as usize;
    }
    if taken > 0 {
        cq.interrupt(guest);
    }
    result.map(|()| taken)
}

/// Carries out `count` (at most [`LINE`]) commands and posts their completions.
#[inline(always)]
fn line(
    sq: &mut Sq,
    cq: &mut Cq,
    io: &mut Io,
    guest: &mut Guest,
    count: u32,
    moved: &mut u64,
) -> Result<(), Errno> {
    let count = count.min(LINE) as usize;
    let mut done = [Done::default(); LINE as usize];
    let (mut first, mut since) = (0, 0);
    for index in 0..count {
        let command = sq.fetch(guest)?;
        let (status, bytes) = io.execute(guest, sq.id, command);
        done[index] = Done { dw0: 0, cid: command.cid, status };
        since += bytes;
        if since >= POST_BYTES {
            for done in &done[first..=index] {
                cq.post(guest, sq, *done)?;
            }
            *moved += since;
            (first, since) = (index + 1, 0);
        }
    }
    *moved += since;
    for done in &done[first..count] {
        cq.post(guest, sq, *done)?;
    }
    Ok(())
}

/// As [`serve`], but each completion is held back for `latency`. The one mode that looks at a clock.
fn serve_delayed(
    sq: &mut Sq,
    cq: &mut Cq,
    io: &mut Io,
    guest: &mut Guest,
    latency: Duration,
    limit: u32,
) -> Result<usize, Fault> {
    let mut waiting = sq.waiting()?.min(limit);
    if waiting == 0 && sq.delayed.is_empty() {
        return Ok(0);
    }
    let now = Instant::now();
    let mut taken = 0;
    // The ring bounds what a client may have in flight; one that sends more waits.
    while waiting > 0 && sq.delayed.len() < sq.entries as usize && !guest.is_slow() {
        let command = sq.fetch(guest)?;
        let (status, _) = io.execute(guest, sq.id, command);
        sq.delayed.push_back((now + latency, Done { dw0: 0, cid: command.cid, status }));
        waiting -= 1;
        taken += 1;
    }
    let posted = release(sq, cq, guest, Some(now))?;
    // Work under way is work: a server that sleeps now would be late.
    Ok(taken + posted + sq.delayed.len())
}

/// Posts what is held back and due at `now` (all of it, without `now`), as long as there is room.
pub(super) fn release(
    sq: &mut Sq,
    cq: &mut Cq,
    guest: &mut Guest,
    now: Option<Instant>,
) -> Result<usize, Fault> {
    let (mut posted, mut result) = (0, Ok(()));
    while let Some(&(due, done)) = sq.delayed.front() {
        if now.is_some_and(|now| due > now) {
            break;
        }
        match cq.room() {
            Ok(0) => break,
            Ok(_) => {}
            Err(fault) => {
                // What was posted before is to be told all the same.
                result = Err(fault);
                break;
            }
        }
        sq.delayed.pop_front();
        cq.post(guest, sq, done)?;
        posted += 1;
    }
    if posted > 0 {
        cq.interrupt(guest);
    }
    result.map(|()| posted)
}
