//! A turn that stays open from call to call: for an interface to another language, whose calls each submit or reap one
//! command of 64 bytes with a completion of 16 bytes.
//!
//! A [`Lane`] lies where its caller wants it, and has copies of all fields that a submission or a completion reads. A lane
//! of zeros is closed. The slots of its queue always have a tag and an empty buffer, so that nothing is moved in or out.
//! Their free list names them by their places, in bytes.

mod reap;
mod slots;
mod submit;
mod word;

#[cfg(test)]
mod tests;

pub use reap::Completions;
pub use slots::Slots;
pub use submit::{Submissions, Vacant};

use super::{
    Turn,
    common::cold,
    ring::{CQE_WORDS, Queue},
    slot::{Cursor, SQE_WORDS, Slot},
    turn_end::{end, publish},
};
use std::{
    cell::Cell,
    fmt,
    ptr::{null, null_mut},
    sync::atomic::{AtomicU32, Ordering},
};
use upcie_core::dma::DmaBuf;

/// The positions of a turn that stays open, and the tags of its queue's slots.
///
/// A lane belongs to one thread at a time, but for [`divert`](Self::divert). While it is open the queue pair takes no turn;
/// [`close`](Self::close) it to wait, to recover, or to delete the queue pair.
// One struct for all, in this order: a call submits or polls by what is here, and follows no pointer to more.
#[repr(C)]
pub struct Lane<T> {
    /// Slots from this place on take no command: the place behind all slots, or 0 to [divert](Self::divert) submissions.
    bound: AtomicU32,
    /// The free slot to use next, by its place: the offset in bytes.
    top: Cell<u32>,
    slots: Cell<*mut Slot<T>>,
    sqe: Cell<*mut u64>,
    sq_end: Cell<*mut u64>,
    cqe: Cell<*const u64>,
    limit: Cell<*const u64>,
    cq_end: Cell<*const u64>,
    phase: Cell<u32>,
    /// The mask of an id, for a slot's place.
    mask: Cell<u32>,
    step: Cell<u32>,
    /// The queue takes commands: no completion was forged, and no reset was seen.
    is_open: Cell<bool>,
    queue: Cell<*mut Queue<T>>,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self {
            bound: AtomicU32::new(0),
            top: Cell::new(0),
            slots: Cell::new(null_mut()),
            sqe: Cell::new(null_mut()),
            sq_end: Cell::new(null_mut()),
            cqe: Cell::new(null()),
            limit: Cell::new(null()),
            cq_end: Cell::new(null()),
            phase: Cell::new(0),
            mask: Cell::new(0),
            step: Cell::new(0),
            is_open: Cell::new(false),
            queue: Cell::new(null_mut()),
        }
    }
}

impl<T> fmt::Debug for Lane<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("sqe", &self.sqe).field("cqe", &self.cqe).finish_non_exhaustive()
    }
}

impl<T> Turn<'_, T> {
    /// Puts a tag into each slot of a queue that has not had a command yet, for a [`Lane`]; returns the slots.
    ///
    /// # Safety
    /// From now on commands are submitted by a lane alone.
    #[cold]
    pub unsafe fn fill_slots(self, mut tag: impl FnMut() -> T) -> Slots<T> {
        const { assert!(size_of::<Slot<T>>().is_power_of_two(), "a tag of 2, 6 or 14 words") };
        let (first, count) = (self.slots, self.queue.mask + 1);
        self.queue.link_by(Lane::<T>::SHIFT);
        for index in 0..count as usize {
            // SAFETY: the queue has so many slots, and no command in flight: nobody else refers to them.
            let slot = unsafe { &mut *first.wrapping_add(index) };
            slot.buffer.write(DmaBuf::empty());
            slot.tag.write(tag());
        }
        Slots::new(first, count)
    }

    /// Keeps the turn open in `lane`.
    ///
    /// # Safety
    /// The slots have [tags](Self::fill_slots). The queue pair outlives the open lane, stays where it is, and is not used
    /// until the lane is closed.
    #[cold]
    pub unsafe fn keep_open(self, lane: &Lane<T>) {
        let mut turn = std::mem::ManuallyDrop::new(self);
        lane.top.set(turn.top << Lane::<T>::SHIFT);
        lane.slots.set(turn.slots);
        lane.sqe.set(turn.sqe);
        lane.sq_end.set(turn.queue.sq_end);
        lane.cqe.set(turn.cqe);
        lane.limit.set(turn.queue.reap_limit);
        lane.cq_end.set(turn.queue.cq_end);
        lane.phase.set(turn.queue.phase);
        lane.mask.set(turn.queue.mask << Lane::<T>::SHIFT);
        lane.step.set(turn.queue.step);
        lane.is_open.set(true);
        let end_of_free = turn.queue.end_of_free;
        lane.queue.set(&raw mut *turn.queue);
        lane.bound.swap(end_of_free << Lane::<T>::SHIFT, Ordering::AcqRel);
    }
}

impl<T> Lane<T> {
    /// Shift from a slot's number to its place.
    const SHIFT: u32 = size_of::<Slot<T>>().trailing_zeros();

    /// Returns `true` if the lane is open, and its queue takes commands.
    #[inline(always)]
    pub fn is_open(&self) -> bool {
        self.is_open.get()
    }

    /// Lets [`Submissions`] refuse commands until [`resume`](Self::resume). May be called by any thread.
    pub fn divert(&self) {
        self.bound.store(0, Ordering::Release);
    }

    /// Takes commands again after [`divert`](Self::divert), whose callers' stores are visible then.
    #[cold]
    pub fn resume(&self) {
        if self.is_open() {
            // SAFETY: the queue of an open lane lives, and nobody else uses it.
            let end_of_free = unsafe { (*self.queue.get()).end_of_free };
            self.bound.swap(end_of_free << Self::SHIFT, Ordering::AcqRel);
        }
    }

    /// Returns the number of commands in flight; 0 while the lane is closed.
    #[inline]
    pub fn len(&self) -> usize {
        let queue = self.queue.get();
        if queue.is_null() {
            return 0;
        }
        // SAFETY: the queue of an open lane lives, and nobody else uses it.
        let queue = unsafe { &*queue };
        let (sq, cq, entries) = (queue.sq, queue.cq, queue.end_of_free as usize + 1);
        let tail = (self.sqe.get().addr() - sq.addr()) / (SQE_WORDS * size_of::<u64>());
        let head = (self.cqe.get().addr() - cq.addr()) / (CQE_WORDS * size_of::<u64>());
        if tail >= head { tail - head } else { tail + entries - head }
    }

    /// Returns `true` if no command is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of commands whose doorbell was rung, and that were not reaped yet; 0 while the lane is not
    /// [open](Self::is_open).
    #[inline(always)]
    pub fn rung(&self) -> usize {
        let (limit, cqe) = (self.limit.get().addr(), self.cqe.get().addr());
        let mut bytes = limit.wrapping_sub(cqe);
        if limit < cqe {
            cold();
            // SAFETY: a lane that is not open has its limit at the next entry; the queue of an open lane lives, and nobody
            // else uses it.
            let first = unsafe { (*self.queue.get()).cq };
            bytes = bytes.wrapping_add(self.cq_end.get().addr() - first.addr());
        }
        bytes / (CQE_WORDS * size_of::<u64>())
    }

    fn cursor(&self) -> Cursor {
        Cursor { sqe: self.sqe.get(), top: self.top.get() >> Self::SHIFT }
    }

    /// Writes the doorbells. Returns `false` if the queue is [closed](Self::is_open), or if the epoch has to be looked at: then
    /// nothing was done, and [`ring`](Self::ring) is for it.
    #[inline(always)]
    pub fn ring_plainly(&self) -> bool {
        if !self.is_open.get() {
            return false;
        }
        // SAFETY: the queue of an open lane lives, and nobody else uses it.
        let queue = unsafe { &mut *self.queue.get() };
        if queue.namespaces() == 0 {
            return false;
        }
        publish(queue, self.cursor(), self.cqe.get());
        self.limit.set(queue.reap_limit);
        true
    }

    /// Writes the doorbells. Returns `false` if the queue is [closed](Self::is_open), by a reset for instance; what a queue that
    /// a forged completion has closed owes is rung when the lane is closed.
    pub fn ring(&self) -> bool {
        if self.ring_plainly() {
            return true;
        }
        if !self.is_open.get() {
            return false;
        }
        // SAFETY: the queue of an open lane lives, and nobody else uses it.
        let queue = unsafe { &mut *self.queue.get() };
        if queue.epoch_stamp() == 0 {
            (queue.at, queue.cqe) = (self.cursor(), self.cqe.get());
            self.refuse();
            // Nothing more is reaped, so that the limit tells whether the lane is open.
            self.limit.set(self.cqe.get());
            return false;
        }
        publish(queue, self.cursor(), self.cqe.get());
        self.limit.set(queue.reap_limit);
        true
    }

    /// Closes the lane, which rings.
    #[cold]
    pub fn close(&self) {
        let queue = self.queue.replace(null_mut());
        let (at, cqe) = (self.cursor(), self.cqe.get());
        self.refuse();
        self.limit.set(cqe);
        if !queue.is_null() {
            // SAFETY: the queue of an open lane lives, and nobody else uses it.
            end(unsafe { &mut *queue }, at, cqe);
        }
    }

    /// Takes no more commands.
    #[cold]
    fn refuse(&self) {
        self.is_open.set(false);
        self.bound.store(0, Ordering::Release);
    }
}
