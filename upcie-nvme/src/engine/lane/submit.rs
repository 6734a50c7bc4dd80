//! Submissions: of the next command, and of many.

use super::{
    Lane,
    word::{ID, NEXT, tag_of, word_of},
};
use crate::engine::{
    common::cold,
    slot::{SQE_WORDS, Slot},
};
use std::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};

impl<T> Lane<T> {
    /// Returns the next free slot; `None` if the queue takes no command now.
    #[inline(always)]
    pub fn vacant(&self) -> Option<Vacant<'_, T>> {
        let top = self.top.get();
        if top >= self.bound.load(Ordering::Relaxed) {
            return None;
        }
        // SAFETY: a slot of the queue.
        let slot = unsafe { self.slots.get().byte_add(top as usize) };
        Some(Vacant { lane: self, slot })
    }

    /// Returns the side that submits. Nothing else uses the lane until its [end](Submissions::end).
    #[inline(always)]
    pub fn submissions(&self) -> Submissions<'_, T> {
        Submissions {
            lane: self,
            top: self.top.get(),
            bound: self.bound.load(Ordering::Relaxed),
            slots: self.slots.get(),
            sqe: self.sqe.get(),
        }
    }

    /// Fills a slot and the entry at `sqe`. Returns the place of the next free slot, and the next entry.
    ///
    /// # Safety
    /// The slot is the next free one, and the entry the next one. The obligations of [`Vacant::send`] hold.
    #[inline(always)]
    unsafe fn put(
        &self,
        slot: *mut Slot<T>,
        sqe: *mut u64,
        command: *const u8,
        mptr: u64,
        prp: impl FnOnce(*mut u64),
    ) -> (u32, *mut u64) {
        // SAFETY: the caller's promise: a slot of the queue.
        let word = unsafe { word_of(slot) };
        let (state, next) = (word.wrapping_add(ID), word.wrapping_add(NEXT));
        // The id without the mark of a free slot.
        // SAFETY: the low bytes of the slot's state, which this thread alone changes.
        let id = unsafe { state.cast::<u16>().wrapping_add(ID).read() };
        // SAFETY: the other half of the word.
        let next = unsafe { next.read() };
        // SAFETY: aligned, and in the slot, which lives as long as the queue; other threads only look at it, as an atomic.
        let state = unsafe { AtomicU32::from_ptr(state) };
        state.store(u32::from(id), Ordering::Relaxed);
        // Each part goes straight to the ring: kept until all are read, they would take more registers than there are.
        // SAFETY: the caller's promise; the first bytes apart, since reading the ring may be a read of the device's memory.
        let first = unsafe { command.cast::<u16>().read_unaligned() };
        // SAFETY: the first 16 bytes of the command, which the caller promises, and of an entry; at most `entries - 1` are in
        // flight, so the device is done with it.
        unsafe { sqe.cast::<u8>().copy_from_nonoverlapping(command, 16) };
        // Without PSDT (bits 15:14): the data pointer is two PRP entries.
        // SAFETY: the first two bytes of the entry.
        unsafe { sqe.cast::<u16>().write(first & 0x3fff) };
        // SAFETY: the two bytes behind them: the command's id.
        unsafe { sqe.cast::<u16>().wrapping_add(1).write(id) };
        // SAFETY: word 2 of the entry.
        unsafe { sqe.wrapping_add(2).write(mptr) };
        prp(sqe.wrapping_add(3));
        let (from, to) = (command.wrapping_add(40), sqe.wrapping_add(5).cast::<u8>());
        // SAFETY: words 5 and 6 of the command and of the entry.
        unsafe { to.copy_from_nonoverlapping(from, 16) };
        // SAFETY: word 7 of both.
        unsafe { to.wrapping_add(16).copy_from_nonoverlapping(from.wrapping_add(16), 8) };
        // SAFETY: to the next entry, or behind the last.
        let mut sqe = unsafe { sqe.add(SQE_WORDS) };
        if sqe.cast_const() == self.sq_end.get().cast_const() {
            cold();
            // SAFETY: the queue of an open lane lives, and nobody else uses it.
            sqe = unsafe { &*self.queue.get() }.sq;
        }
        (next, sqe)
    }
}

/// The next free slot of a [`Lane`].
#[must_use = "nothing is submitted before `send`"]
pub struct Vacant<'l, T> {
    lane: &'l Lane<T>,
    slot: *mut Slot<T>,
}

impl<T> fmt::Debug for Vacant<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vacant").field("slot", &self.index()).finish_non_exhaustive()
    }
}

impl<'l, T> Vacant<'l, T> {
    /// Returns the slot's tag.
    #[inline(always)]
    pub fn tag(&self) -> &'l T {
        // SAFETY: a slot of a queue that has a lane.
        unsafe { tag_of(self.slot) }
    }

    /// Returns the slot's number.
    pub fn index(&self) -> u32 {
        self.lane.top.get() >> Lane::<T>::SHIFT
    }

    /// Submits the 64 bytes at `command`, with this metadata pointer in place of its own, and the two PRP entries that `prp`
    /// writes.
    ///
    /// # Safety
    /// `command` is valid for reads of 64 bytes, at any alignment, outside of the queue's memory. `prp` writes two words and
    /// nothing else. The obligations of [`Turn::submit_raw`](crate::Turn::submit_raw) hold.
    #[inline(always)]
    pub unsafe fn send(self, command: *const u8, mptr: u64, prp: impl FnOnce(*mut u64)) {
        // SAFETY: the slot is the next free one; the rest is the caller's promise.
        let (top, sqe) = unsafe { self.lane.put(self.slot, self.lane.sqe.get(), command, mptr, prp) };
        self.lane.sqe.set(sqe);
        self.lane.top.set(top);
    }
}

/// The side of a [`Lane`] that submits, for many commands.
#[must_use = "the lane does not know of the commands before `end`"]
pub struct Submissions<'l, T> {
    lane: &'l Lane<T>,
    top: u32,
    bound: u32,
    slots: *mut Slot<T>,
    sqe: *mut u64,
}

impl<T> fmt::Debug for Submissions<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submissions").field("sqe", &self.sqe).field("top", &self.top).finish_non_exhaustive()
    }
}

impl<'l, T> Submissions<'l, T> {
    /// Returns the tag of the next free slot; `None` if the queue takes no command now.
    #[inline(always)]
    pub fn tag(&self) -> Option<&'l T> {
        if self.top >= self.bound {
            return None;
        }
        // SAFETY: a slot of the queue.
        let slot = unsafe { self.slots.byte_add(self.top as usize) };
        // SAFETY: a slot of a queue that has a lane.
        Some(unsafe { tag_of(slot) })
    }

    /// Submits a command, as [`Vacant::send`] does.
    ///
    /// # Safety
    /// [`tag`](Self::tag) has returned one since the last command. The obligations of [`Vacant::send`] hold.
    #[inline(always)]
    pub unsafe fn send(&mut self, command: *const u8, mptr: u64, prp: impl FnOnce(*mut u64)) {
        // SAFETY: a slot of the queue, since it is not full.
        let slot = unsafe { self.slots.byte_add(self.top as usize) };
        // SAFETY: the slot is the next free one; the rest is the caller's promise.
        (self.top, self.sqe) = unsafe { self.lane.put(slot, self.sqe, command, mptr, prp) };
    }

    /// Gives the positions back to the lane.
    #[inline(always)]
    pub fn end(self) {
        self.lane.sqe.set(self.sqe);
        self.lane.top.set(self.top);
    }
}
