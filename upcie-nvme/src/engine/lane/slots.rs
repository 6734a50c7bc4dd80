//! The slots as other threads see them.

use super::word::{ID, tag_of, word_of};
use crate::engine::slot::{FREE_MASK, Slot};
use std::sync::atomic::{AtomicU32, Ordering};

/// The slots of a lane's queue, for a look from other threads.
#[derive(Debug)]
pub struct Slots<T> {
    first: *mut Slot<T>,
    count: u32,
}

// SAFETY: it gives out shared references to tags, and reads the states of slots as atomics.
unsafe impl<T: Sync> Send for Slots<T> {}
// SAFETY: other threads get shared references to tags, which `T: Sync` allows, and read states as atomics.
unsafe impl<T: Sync> Sync for Slots<T> {}

impl<T> Slots<T> {
    pub(super) fn new(first: *mut Slot<T>, count: u32) -> Self {
        Self { first, count }
    }

    /// Returns the tags of all slots, each with the number of its slot, and `true` if a command in flight has it.
    ///
    /// # Safety
    /// The queue pair lives, and is not recovered or deleted meanwhile.
    pub unsafe fn tags(&self) -> impl Iterator<Item = (u32, &T, bool)> {
        (0..self.count).map(|index| {
            let slot = self.first.wrapping_add(index as usize);
            // SAFETY: the queue has so many slots, and lives.
            let state = unsafe { word_of(slot) }.wrapping_add(ID);
            // SAFETY: aligned; a lane changes it as an atomic.
            let state = unsafe { AtomicU32::from_ptr(state) }.load(Ordering::Relaxed);
            // SAFETY: a slot of a queue that has a lane.
            let tag = unsafe { tag_of(slot) };
            (index, tag, u64::from(state) & FREE_MASK == 0)
        })
    }
}
