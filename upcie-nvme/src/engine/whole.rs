//! Completions with the dword that a program on the hot path has no use for.

use super::{Completion, Queue, Turn};

impl<T> Turn<'_, T> {
    /// Returns the next finished command like [`next`](Iterator::next), with dword 2 of its completion entry: the queue's
    /// head and id, as the controller wrote them, and not checked.
    pub(crate) fn next_whole(&mut self) -> Option<(Completion<T>, u32)> {
        let entry = self.cqe.cast::<u32>();
        let done = self.next()?;
        // SAFETY: `next` found a completion in this entry, which has four dwords.
        let third = unsafe { entry.add(2) };
        // SAFETY: aligned, in the ring, which the queue owns; the device may write to it at any time.
        Some((done, unsafe { third.read_volatile() }))
    }
}

impl<T> Queue<T> {
    /// Takes the next command whose completion was posted and not reaped, with dword 2 of its entry. The controller must have let
    /// go of the queue, as for [`take_all`](Self::take_all).
    pub(crate) fn take_whole(&mut self) -> Option<(Completion<T>, u32)> {
        let entry = self.cqe.cast::<u32>();
        let done = self.take_completed()?;
        // SAFETY: `take_completed` found a completion in this entry, which has four dwords.
        let third = unsafe { entry.add(2) };
        // SAFETY: aligned, in the ring, which the queue owns.
        Some((done, unsafe { third.read_volatile() }))
    }
}
