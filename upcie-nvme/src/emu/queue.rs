//! A submission queue and a completion queue.

use super::{
    HostMemory, Interrupts,
    flight::{Done, Flight},
    rest::Rest,
    shared::{Doorbell, Ring},
};
use crate::spec::{Command, QueuePriority, Status};
use nix::errno::Errno;
use std::{collections::VecDeque, time::Duration};
use upcie_core::irq::IrqKind;

/// Completions in a cache line.
pub(super) const LINE: u32 = 4;

/// A client's violation of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The client wrote a doorbell value beyond the queue, or one that passes the other end.
    Doorbell,
    /// The memory of a queue or of doorbell buffers can't be read or written: the controller can't go on.
    Memory(Errno),
    /// The keep alive timer has run out: the controller stops.
    KeepAlive,
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Memory(errno)
    }
}

/// A finished command whose completion is held back.
#[derive(Debug)]
pub(super) struct Held {
    pub due: Duration,
    pub nsid: u32,
    pub done: Done,
    /// Dword 1 of its completion.
    pub dw1: u32,
}

/// A submission queue: its place and positions, and the commands that it has held back.
#[derive(Debug)]
pub(super) struct Sq {
    pub id: u16,
    /// Id of the completion queue.
    pub cq: u16,
    pub(super) entries: u32,
    head: u32,
    ring: Ring<64>,
    tail: Doorbell,
    /// The tail that was refused last, so that it is reported once.
    refused: Option<u32>,
    /// With `latency=` only: finished commands. The capacity is allocated with the queue.
    pub(super) delayed: VecDeque<Held>,
    /// The rest of the command that was fetched last, if it was carried out in part. Those behind it wait.
    pub(super) rest: Option<Box<Rest>>,
    /// The commands that are served in [stages](super::staged), in the order of their fetch.
    pub flights: Vec<Flight>,
    /// Statuses of halves of fused operations that were carried out with the other half, by command.
    pub(super) fused: Vec<(u16, Status)>,
    /// The id of the command that was completed last in stages.
    pub last_id: u16,
    /// Used under weighted round robin only.
    pub priority: QueuePriority,
}

impl Sq {
    /// Makes an empty queue, its doorbell at 0. `delay` makes room for completions held back.
    pub fn new(id: u16, cq: u16, entries: u32, ring: Ring<64>, tail: Doorbell, delay: bool) -> Self {
        tail.store(0);
        let delayed = if delay { VecDeque::with_capacity(entries as usize) } else { VecDeque::new() };
        let priority = QueuePriority::default();
        // No command has the reserved id FFFFh: a command in flight may have the id 0.
        let (head, refused, rest, flights, fused, last_id) =
            (0, None, None, Vec::new(), Vec::new(), u16::MAX);
        Self { id, cq, entries, head, ring, tail, refused, delayed, rest, flights, fused, last_id, priority }
    }

    /// Resets the doorbell to 0: the queue is deleted.
    pub fn forget_doorbell(&self) {
        self.tail.store(0);
    }

    /// Returns the entry to fetch next.
    pub fn head(&self) -> u32 {
        self.head
    }

    /// Returns the number of entries fetched since `head` was [`head`](Self::head).
    pub fn fetched_since(&self, head: u32) -> u32 {
        if self.head >= head { self.head - head } else { self.head + self.entries - head }
    }

    /// Returns the number of waiting commands: 0 for an invalid doorbell value.
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
            // Report once per queue: a client can write any number of values.
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
    pub fn fetch(&mut self, host: &mut impl HostMemory) -> Result<Command, Errno> {
        let entry = self.ring.fetch(host, self.head)?;
        self.head = if self.head + 1 == self.entries { 0 } else { self.head + 1 };
        Ok(zerocopy::transmute!(entry))
    }

    /// Copies the next command, if one waits, and does not move on.
    pub fn peek_command(&mut self, host: &mut impl HostMemory) -> Result<Option<Command>, Errno> {
        match self.waiting() {
            Ok(1..) => {
                let entry = self.ring.fetch(host, self.head)?;
                Ok(Some(zerocopy::transmute!(entry)))
            }
            _ => Ok(None),
        }
    }

    /// Returns the namespace and first block of the command `ahead` places after the next one, as a hint.
    #[inline(always)]
    pub fn peek(&mut self, host: &mut impl HostMemory, ahead: u32) -> Option<(u32, u64)> {
        let place = self.head + ahead;
        let place = if place < self.entries { place } else { place - self.entries };
        self.ring.peek(host, place)
    }

    /// Removes a command from those held back: it is done, but the client does not know.
    pub fn abort(&mut self, cid: u16) -> Option<Done> {
        let at = self.delayed.iter().position(|held| held.done.cid == cid)?;
        let held = self.delayed.remove(at)?;
        Some(Done { status: Status::ABORT_REQUESTED, ..held.done })
    }
}

/// A completion queue.
#[derive(Debug)]
pub(super) struct Cq {
    pub id: u16,
    pub(super) entries: u32,
    tail: u32,
    phase: bool,
    /// The client's head when it was last read; read again when `room` is used up.
    head: u32,
    room: u32,
    ring: Ring<16>,
    doorbell: Doorbell,
    refused: Option<u32>,
    /// `None`: polled, no interrupts.
    pub vector: Option<u16>,
    /// Entries were posted since the last [check](Self::look_for_interrupt).
    posted: bool,
    /// The client's head at that check, as it was written.
    seen: u32,
    /// The number of submission queues that complete to it.
    pub users: u32,
}

impl Cq {
    /// Makes an empty queue, its doorbell at 0.
    pub fn new(id: u16, entries: u32, ring: Ring<16>, doorbell: Doorbell, vector: Option<u16>) -> Self {
        doorbell.store(0);
        let room = entries - 1;
        let (tail, phase, head, refused) = (0, true, 0, None);
        let (posted, seen, users) = (false, 0, 0);
        Self { id, entries, tail, phase, head, room, ring, doorbell, refused, vector, posted, seen, users }
    }

    /// Resets the doorbell to 0: the queue is deleted.
    pub fn forget_doorbell(&self) {
        self.doorbell.store(0);
    }

    /// Returns the number of completions for which there is room now.
    #[inline(always)]
    pub fn room(&mut self) -> Result<u32, Fault> {
        if self.room == 0 { self.look() } else { Ok(self.room) }
    }

    /// Reads the client's head. It is accepted only if it lies between the last one and the tail.
    #[inline(never)]
    fn look(&mut self) -> Result<u32, Fault> {
        let head = self.doorbell.load();
        let distance = |from: u32, to: u32| if to >= from { to - from } else { to + self.entries - from };
        let used = distance(self.head, self.tail);
        if head >= self.entries || distance(self.head, head) > used {
            match self.refused.replace(head) {
                Some(last) if last == head => return Ok(0),
                // Report once per queue: a client can write any number of values.
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

    /// Returns the number of entries up to the end of the cache line, or of the ring.
    #[inline(always)]
    pub fn line(&self) -> u32 {
        (LINE - self.tail % LINE).min(self.entries - self.tail)
    }

    /// Posts one completion of a command of `sq`. There must be room.
    #[inline(always)]
    pub fn post(&mut self, host: &mut impl HostMemory, sq: &Sq, done: Done) -> Result<(), Errno> {
        self.put(host, done.dw0.into(), self.upper_half(sq.head, sq.id, done.cid, done.status))
    }

    /// Posts a completion like [`post`](Self::post), with dword 1.
    #[inline]
    pub fn post_result(
        &mut self,
        host: &mut impl HostMemory,
        sq: &Sq,
        done: Done,
        dw1: u32,
    ) -> Result<(), Errno> {
        let low = u64::from(done.dw0) | u64::from(dw1) << 32;
        self.put(host, low, self.upper_half(sq.head, sq.id, done.cid, done.status))
    }

    /// Returns dwords 2 and 3 of the next entry: a submission queue's head and identifier, a command's id, and
    /// its status with the phase tag.
    #[inline(always)]
    pub fn upper_half(&self, head: u32, sq: u16, cid: u16, status: Status) -> u64 {
        u64::from(head)
            | u64::from(sq) << 16
            | u64::from(cid) << 32
            | u64::from(status.with_phase(self.phase)) << 48
    }

    /// Writes the next entry and moves on. There must be room.
    #[inline(always)]
    pub fn put(&mut self, host: &mut impl HostMemory, low: u64, high: u64) -> Result<(), Errno> {
        self.ring.post(host, self.tail, low, high)?;
        self.room = self.room.saturating_sub(1);
        self.tail += 1;
        if self.tail == self.entries {
            self.tail = 0;
            self.phase = !self.phase;
        }
        Ok(())
    }

    /// Returns the index of the next entry.
    pub fn tail(&self) -> u32 {
        self.tail
    }

    /// Returns the words of entry `index` as they are now, if they can be read.
    pub fn present(&mut self, host: &mut impl HostMemory, index: u32) -> Option<(u64, u64)> {
        self.ring.present(host, index)
    }

    /// Writes an entry again that was posted before.
    pub fn rewrite(
        &mut self,
        host: &mut impl HostMemory,
        index: u32,
        low: u64,
        high: u64,
    ) -> Result<(), Errno> {
        self.ring.post(host, index, low, high)
    }

    /// Raises the queue's interrupt without a new entry.
    pub fn raise(&self, host: &mut impl Interrupts) {
        if let Some(vector) = self.vector {
            host.trigger(IrqKind::Msix, vector.into());
        }
    }

    /// Checks an interrupt that follows a status. Returns whether the client has entries to acknowledge, and
    /// whether entries were posted or its head has moved since the last check. An invalid head acknowledges
    /// nothing.
    pub fn look_for_interrupt(&mut self) -> (bool, bool) {
        let head = self.doorbell.load();
        let head = if head < self.entries { head } else { self.seen };
        let moved = std::mem::replace(&mut self.seen, head) != head;
        (head != self.tail, std::mem::take(&mut self.posted) || moved)
    }

    /// Tells the client that entries were posted: at once with MSI-X, otherwise at the next check.
    #[inline(always)]
    pub fn interrupt(&mut self, host: &mut impl Interrupts) {
        self.posted = true;
        if let Some(vector) = self.vector {
            host.trigger(IrqKind::Msix, vector.into());
        }
    }
}
