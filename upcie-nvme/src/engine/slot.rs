//! A command's slot, and the place of the next command.

use std::mem::MaybeUninit;
use upcie_core::dma::DmaBuf;

/// Words of 8 bytes in a submission entry.
pub(super) const SQE_WORDS: usize = 8;
/// Added to a slot's id, with the step to its next one, when the slot is freed. The sum may carry into bit
/// 17: a slot is free when any of bits 16–31 of its word is set.
pub(super) const FREE: u32 = 1 << 16;
pub(super) const FREE_MASK: u64 = 0xffff_0000;

/// The state of one command in flight.
#[repr(C)]
pub(super) struct Slot<T> {
    pub(super) buffer: MaybeUninit<DmaBuf>,
    /// In flight: the one command id that may complete it, and above bit 32 the PRP list to release then, with the mark of
    /// [`timer`](super::timer) in bit 63.
    /// Free: [`FREE`] and the id of its next use, and above bit 32 the index of the next free slot. An id is
    /// the slot's index in the low bits and a count of its uses above.
    pub(super) word: u64,
    pub(super) tag: MaybeUninit<T>,
}

/// The place of the next submission: each submission moves both fields on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor {
    /// The next submission entry.
    pub(super) sqe: *mut u64,
    /// The free slot to use next; the number of slots when all are in flight.
    pub(super) top: u32,
}
