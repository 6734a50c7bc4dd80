//! Completions, with the controller's whole entries.

use super::{
    Lane,
    word::{ID, NEXT, tag_of, word_of},
};
use crate::{
    engine::{
        common::cold,
        ring::{CQE_WORDS, PHASE, State},
        slot::Slot,
    },
    spec::CompletionEntry,
};
use std::{
    fmt,
    sync::atomic::{AtomicU32, Ordering},
};
use upcie_core::barrier::dma_rmb;

impl<T> Lane<T> {
    /// Returns the side that reaps. Nothing else uses the lane until its [end](Completions::end).
    #[inline(always)]
    pub fn completions(&self) -> Completions<'_, T> {
        Completions { lane: self, cqe: self.cqe.get(), top: self.top.get(), slots: self.slots.get() }
    }
}

/// The side of a [`Lane`] that reaps.
#[must_use = "the lane does not know of the completions before `end`"]
pub struct Completions<'l, T> {
    lane: &'l Lane<T>,
    cqe: *const u64,
    top: u32,
    slots: *mut Slot<T>,
}

impl<T> fmt::Debug for Completions<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completions").field("cqe", &self.cqe).field("top", &self.top).finish_non_exhaustive()
    }
}

/// Reads a completion entry, which the device may write to.
///
/// # Safety
/// An aligned entry of a ring.
#[inline(always)]
unsafe fn read_entry(at: *const u64) -> CompletionEntry {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: the caller's promise.
        let bytes = unsafe { at.cast::<std::arch::x86_64::__m128i>().read_volatile() };
        // SAFETY: 16 bytes, all of which make an entry.
        unsafe { std::mem::transmute(bytes) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        // SAFETY: the caller's promise.
        let low = unsafe { at.read_volatile() };
        // SAFETY: an entry has two words.
        let second = unsafe { at.add(1) };
        // SAFETY: the caller's promise.
        zerocopy::transmute!([low, unsafe { second.read_volatile() }])
    }
}

impl<'l, T> Completions<'l, T> {
    /// Returns the next finished command: the controller's whole completion entry, and the command's tag. Its slot is
    /// free. Nobody checks the entry, but for the command's id.
    #[expect(clippy::should_implement_trait, reason = "an iterator's adapters would take it by reference")]
    #[inline(always)]
    pub fn next(&mut self) -> Option<(CompletionEntry, &'l T)> {
        let (entry, lane) = (self.cqe, self.lane);
        if entry == lane.limit.get() {
            return None;
        }
        // SAFETY: the last dword of an entry of the ring.
        let last = unsafe { entry.cast::<u32>().add(3) };
        // SAFETY: aligned, in the ring, which the queue owns. The device writes it at any time: one volatile read.
        let dword3 = unsafe { last.read_volatile() } ^ lane.phase.get();
        if dword3 & PHASE != 0 {
            return None;
        }
        // The rest of the entry, and the data, were written before its phase tag.
        dma_rmb();
        let id = dword3 & 0xffff;
        let place = id << Lane::<T>::SHIFT & lane.mask.get();
        // SAFETY: masked to the places of slots.
        let slot = unsafe { self.slots.byte_add(place as usize) };
        // SAFETY: a slot of the queue.
        let word = unsafe { word_of(slot) };
        let (state, next) = (word.wrapping_add(ID), word.wrapping_add(NEXT));
        // SAFETY: the first half of the slot's word, which this thread alone changes.
        if unsafe { state.read() } != id {
            self.forged();
            return None;
        }
        // SAFETY: aligned, and in the slot, which lives as long as the queue; other threads only look at it, as an atomic.
        let state = unsafe { AtomicU32::from_ptr(state) };
        state.store(id + lane.step.get(), Ordering::Relaxed);
        // SAFETY: the other half, which this thread alone uses.
        unsafe { next.write(self.top) };
        self.top = place;
        // SAFETY: an entry of the ring.
        let done = unsafe { read_entry(entry) };
        // SAFETY: to the next entry, or behind the last.
        self.cqe = unsafe { entry.add(CQE_WORDS) };
        if self.cqe == lane.cq_end.get() {
            cold();
            let phase = lane.phase.get() ^ PHASE;
            lane.phase.set(phase);
            // SAFETY: the queue of an open lane lives, and nobody else uses it.
            let queue = unsafe { &mut *lane.queue.get() };
            queue.phase = phase;
            queue.end_lap();
            self.cqe = queue.cq;
        }
        // SAFETY: a slot of a queue that has a lane.
        let tag = unsafe { tag_of(slot) };
        Some((done, tag))
    }

    /// Closes the queue after a completion of a command that was not in flight.
    #[cold]
    fn forged(&mut self) {
        self.lane.limit.set(self.cqe);
        self.lane.refuse();
        // SAFETY: the queue of an open lane lives, and nobody else uses it.
        let queue = unsafe { &mut *self.lane.queue.get() };
        queue.state = State::Forged;
        queue.divert();
        queue.reap_limit = self.cqe;
    }

    /// Gives the positions back to the lane.
    #[inline(always)]
    pub fn end(self) {
        self.lane.cqe.set(self.cqe);
        self.lane.top.set(self.top);
    }
}
