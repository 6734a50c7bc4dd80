//! A command enters its slot and the submission ring.

use super::{
    common::cold,
    ring::Queue,
    slot::{Cursor, SQE_WORDS, Slot},
};
use upcie_core::dma::DmaBuf;

/// Fills the free slot `top` and writes `words` as the entry at `sqe`, with the slot's id as the command's.
/// Returns the cursors for the next one.
///
/// # Safety
/// The queue is not full, its turn is the caller's, and so are the cursors.
#[inline(always)]
pub(super) unsafe fn fill_slot<T>(
    queue: &Queue<T>,
    slots: *mut Slot<T>,
    at: Cursor,
    mut words: [u64; 8],
    buffer: DmaBuf,
    tag: T,
    list: u32,
) -> Cursor {
    // SAFETY: the queue is not full, so the list of free slots is not empty, and `top` is an index of `slots`.
    let slot = unsafe { slots.add(at.top as usize) };
    // SAFETY: inside the turn nobody else refers to the slots.
    let slot = unsafe { &mut *slot };
    let word = slot.word;
    slot.word = word & 0xffff | u64::from(list) << 32;
    slot.buffer.write(buffer);
    slot.tag.write(tag);
    words[0] |= (word & 0xffff) << 16;
    // SAFETY: a whole entry of the ring; at most `entries - 1` are in flight, so the device is done with it. The ring may be
    // in the device: stores of any width are right there, for an entry is aligned to its 64 bytes, and none is a read.
    unsafe { at.sqe.cast::<[u64; SQE_WORDS]>().write(words) };
    // SAFETY: to the next entry, or behind the last.
    let mut sqe = unsafe { at.sqe.add(SQE_WORDS) };
    if sqe == queue.sq_end {
        cold();
        sqe = queue.sq;
    }
    Cursor { sqe, top: (word >> 32) as u32 }
}

/// Fills a slot like [`fill_slot`], for commands that are submitted out of line.
///
/// # Safety
/// The obligations are those of [`fill_slot`].
pub(super) unsafe fn fill<T>(
    queue: &Queue<T>,
    at: Cursor,
    words: [u64; 8],
    buffer: DmaBuf,
    tag: T,
    list: u32,
) -> Cursor {
    // SAFETY: the caller's promise.
    unsafe { fill_slot(queue, queue.slots, at, words, buffer, tag, list) }
}
