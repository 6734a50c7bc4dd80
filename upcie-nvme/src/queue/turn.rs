//! Reap and submit in one pass.

use super::{
    Completion, Refusal, Refused,
    commands::{first, refuse_namespace},
    ring::{Cursor, PHASE, Queue, Slot, State},
};
use crate::{
    Namespace,
    namespace::Extent,
    prp::{DataPointer, ListPool},
    spec::{IoFlags, NvmOpcode},
};
use std::fmt;
use upcie_core::{
    barrier::{dma_release, dma_rmb, mmio_wmb},
    dma::DmaBuf,
};

/// An open guard of a queue: an iterator over finished commands that also takes new ones. Each doorbell is written
/// once, when it is dropped.
///
/// It hands back at most what was in flight when it was opened, so a loop that submits one command for each that it
/// reaps ends. A turn that is leaked (`mem::forget`) closes its queue for good.
///
/// Nothing here allocates, locks, counts references or calls the system.
// Nothing out of line takes a `Turn` by reference, however cold: one such call pins its fields to memory.
pub struct Turn<'q, T> {
    tail: u32,
    pub(super) head: u32,
    top: u32,
    phase: u32,
    /// Where `tail` was when the turn was opened: completions beyond are of commands that it has not told of yet.
    stop: u32,
    sq: *mut u64,
    cq: *const u64,
    slots: *mut Slot<T>,
    /// The stamp of namespace handles that are good now.
    pub(super) namespaces: u64,
    /// The queue's state when this is dropped.
    after: State,
    pub(super) queue: &'q mut Queue<T>,
}

impl<'q, T> Turn<'q, T> {
    #[inline(always)]
    pub(super) fn open(queue: &'q mut Queue<T>, namespaces: u64) -> Self {
        // Word by word: one wide load of what the last turn stored in parts would have to wait for all of them.
        let Cursor { tail, head, top } = queue.at;
        let (sq, cq, slots, phase) = (queue.sq, queue.cq, queue.slots, queue.phase);
        Self { tail, head, top, phase, stop: tail, sq, cq, slots, namespaces, after: State::Ready, queue }
    }

    /// Reads as many blocks as `buffer` has room for, from block `slba` on.
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag, and nothing sent.
    #[inline(always)]
    pub fn read(
        &mut self,
        namespace: &Namespace,
        slba: u64,
        buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        self.transfer(NvmOpcode::READ, &namespace.extent, slba, buffer, IoFlags::empty(), tag)
    }

    /// Writes `buffer`, a whole number of blocks, from block `slba` on.
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag, and nothing sent.
    #[inline(always)]
    pub fn write(
        &mut self,
        namespace: &Namespace,
        slba: u64,
        buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        self.transfer(NvmOpcode::WRITE, &namespace.extent, slba, buffer, IoFlags::empty(), tag)
    }

    /// How many more commands the queue takes now.
    #[inline]
    pub fn room(&self) -> usize {
        let entries = self.queue.entries;
        let in_flight =
            if self.tail >= self.head { self.tail - self.head } else { self.tail + entries - self.head };
        (entries - 1 - in_flight) as usize
    }

    /// Where `tail` is after one more submission: at `head`, if the queue is full.
    #[inline(always)]
    pub(super) fn next_tail(&self) -> u32 {
        let next = self.tail + 1;
        if next == self.queue.entries {
            seldom();
            return 0;
        }
        next
    }

    #[inline(always)]
    pub(super) fn transfer(
        &mut self,
        opcode: NvmOpcode,
        extent: &Extent,
        slba: u64,
        buffer: DmaBuf,
        flags: IoFlags,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let next = self.next_tail();
        let ready = buffer.transfer();
        let blocks = ready.ready >> extent.shift;
        // `max_bytes` is at most the size of the namespace, so that what passes the second check can be subtracted.
        if next == self.head
            || ready.ready & extent.block_mask != 0
            || ready.ready.wrapping_sub(1) >= extent.max_bytes
            || slba > extent.blocks.wrapping_sub(u64::from(blocks))
            || extent.stamp != self.namespaces
            || ready.space != self.queue.space
        {
            let at = Cursor { tail: self.tail, head: self.head, top: self.top };
            let at = transfer_slowly(
                self.queue,
                at,
                self.namespaces,
                (opcode, flags),
                extent,
                slba,
                (buffer, tag),
            )?;
            (self.tail, self.top) = (at.tail, at.top);
            return Ok(());
        }
        let last = u64::from(blocks - 1) | flags.word();
        let words = [first(opcode, extent), 0, 0, ready.iova, ready.companion, slba, last, 0];
        self.push(next, words, buffer, tag, 0);
        Ok(())
    }

    /// Takes a slot (the caller has seen that there is one) and puts the command into the ring.
    #[inline(always)]
    pub(super) fn push(&mut self, next: u32, words: [u64; 8], buffer: DmaBuf, tag: T, list: u32) {
        // SAFETY: the cursors are the queue's, and it is not full.
        self.top = unsafe { place(self.slots, self.sq, (self.tail, self.top), words, buffer, tag, list) };
        self.tail = next;
    }
}

/// Fills the free slot `top` and writes `words` as the entry at `tail`, with the slot's id as the command's. Gives the
/// free slot that comes next.
///
/// # Safety
/// The pointers are a queue's, which is not full and whose turn is the caller's, and the cursors too.
#[inline(always)]
unsafe fn place<T>(
    slots: *mut Slot<T>,
    sq: *mut u64,
    (tail, top): (u32, u32),
    mut words: [u64; 8],
    buffer: DmaBuf,
    tag: T,
    list: u32,
) -> u32 {
    // SAFETY: the queue is not full, so the list of free slots is not empty, and `top` is an index of `slots`.
    let slot = unsafe { slots.add(top as usize) };
    // SAFETY: inside the turn nobody else refers to the slots.
    let slot = unsafe { &mut *slot };
    let word = slot.word;
    slot.word = word & 0xffff | u64::from(list) << 32;
    slot.buffer.write(buffer);
    slot.tag.write(tag);
    words[0] = words[0] & !0xffff_0000 | (word & 0xffff) << 16;
    // SAFETY: `tail` is below `entries`.
    let sqe = unsafe { sq.add(tail as usize * 8) };
    // SAFETY: a whole entry of the ring; at most `entries - 1` are in flight, so the device is done with it. The ring may be
    // in the device: stores of any width are right there, for an entry is aligned to its 64 bytes, and none is a read.
    unsafe { sqe.cast::<[u64; 8]>().write(words) };
    (word >> 32) as u32
}

impl<T> Iterator for Turn<'_, T> {
    type Item = Completion<T>;

    /// The next finished command, in the order in which the controller finished them; `None` when there is none now.
    #[inline(always)]
    fn next(&mut self) -> Option<Completion<T>> {
        if self.head == self.stop {
            return None;
        }
        // SAFETY: `head` is below `entries`.
        let entry = unsafe { self.cq.add(self.head as usize * 2) };
        // SAFETY: the last dword of the entry.
        let last = unsafe { entry.cast::<u32>().add(3) };
        // SAFETY: aligned, in the ring, which the queue owns. The device writes it at any time: one volatile read.
        let dword3 = unsafe { last.read_volatile() };
        if dword3 & PHASE != self.phase {
            return None;
        }
        // The rest of the entry, and the data, were written before its phase tag.
        dma_rmb();
        // SAFETY: as above.
        let result = unsafe { entry.read_volatile() };
        let id = dword3 & 0xffff;
        let index = id & self.queue.mask;
        // SAFETY: masked to the number of slots.
        let slot = unsafe { self.slots.add(index as usize) };
        // SAFETY: inside the turn nobody else refers to the slots.
        let slot = unsafe { &mut *slot };
        if slot.word != u64::from(id) {
            // A command with a PRP list to give back, or a lie.
            if slot.word as u32 != id {
                self.after = State::Forged;
                self.stop = self.head;
                return None;
            }
            release(&mut self.queue.lists, (slot.word >> 32) as u32);
        }
        slot.word = u64::from(id + self.queue.step) | u64::from(self.top) << 32;
        self.top = index;
        self.head += 1;
        if self.head == self.queue.entries {
            seldom();
            self.head = 0;
            self.phase ^= PHASE;
        }
        Some(Completion {
            // SAFETY: its word said that the slot was in flight, so it was filled; it is marked free now.
            buffer: unsafe { slot.buffer.assume_init_read() },
            // SAFETY: as above.
            tag: unsafe { slot.tag.assume_init_read() },
            result,
            dword3,
        })
    }
}

impl<T> Drop for Turn<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Neither goes all the way round in one turn: at most `entries - 1` are in flight.
        let reaped = self.head != self.queue.at.head;
        let submitted = self.tail != self.queue.at.tail;
        self.queue.at = Cursor { tail: self.tail, head: self.head, top: self.top };
        self.queue.phase = self.phase;
        self.queue.state = self.after;
        // What was put into the rings is there, and what was read from them or from buffers has been read, before the
        // device hears of it.
        dma_release();
        if reaped {
            self.queue.cq_doorbell.write(self.head);
        }
        if submitted {
            if self.queue.sq_combining {
                // Entries may still be in the processor's write-combining buffers.
                mmio_wmb();
            }
            self.queue.sq_doorbell.write(self.tail);
        }
    }
}

impl<T> fmt::Debug for Turn<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("tail", &self.tail).field("head", &self.head).finish_non_exhaustive()
    }
}

/// Marks a branch that is seldom taken, so that it stays a branch: predicted, where a conditional move is waited for.
#[cold]
#[inline]
fn seldom() {}

#[cold]
#[inline(never)]
fn release(lists: &mut ListPool, list: u32) {
    lists.release(list);
}

/// A transfer that is not a plain one: its buffer has no ready data pointer, so one is made, or it is refused.
/// Gives the cursors after it.
#[cold]
#[inline(never)]
fn transfer_slowly<T>(
    queue: &mut Queue<T>,
    at: Cursor,
    namespaces: u64,
    (opcode, flags): (NvmOpcode, IoFlags),
    extent: &Extent,
    slba: u64,
    (buffer, tag): (DmaBuf, T),
) -> Result<Cursor, Refused<T>> {
    let next = if at.tail + 1 == queue.entries { 0 } else { at.tail + 1 };
    let len = buffer.total_len() as u64;
    let blocks = len >> extent.shift;
    let reason = if extent.stamp != namespaces || extent.max_bytes == 0 || next == at.head {
        refuse_namespace(extent, queue.live.controller, namespaces)
    } else if buffer.segments().any(|segment| segment.transfer().space != queue.space && !segment.is_empty())
    {
        Refusal::ForeignBuffer
    } else if blocks == 0 || blocks << extent.shift != len {
        Refusal::Length
    } else if extent.blocks.saturating_sub(slba) < blocks {
        Refusal::OutOfRange
    } else if len > u64::from(extent.max_bytes) {
        Refusal::TooLong
    } else if let Some(reason) = queue.live.device_memory.refuse(opcode, &buffer) {
        reason
    } else {
        match queue.lists.build(&buffer) {
            Ok(DataPointer { prp1, prp2, list }) => {
                let last = (blocks - 1) | flags.word();
                let words = [first(opcode, extent), 0, 0, prp1, prp2, slba, last, 0];
                // SAFETY: the caller's turn has lent the queue, with its cursors, and it is not full.
                let top =
                    unsafe { place(queue.slots, queue.sq, (at.tail, at.top), words, buffer, tag, list) };
                return Ok(Cursor { tail: next, top, ..at });
            }
            Err(reason) => reason,
        }
    };
    Err(Refused { reason, buffer, tag })
}
