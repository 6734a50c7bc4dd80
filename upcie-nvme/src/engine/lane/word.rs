//! A slot's word by halves, and its tag.

use super::super::slot::Slot;

/// Halves of a slot's word, in the order of memory: the id, and the next free slot.
pub(super) const ID: usize = if cfg!(target_endian = "little") { 0 } else { 1 };
pub(super) const NEXT: usize = 1 - ID;

/// Returns the halves of a slot's word.
///
/// # Safety
/// A slot of a queue that lives.
#[inline(always)]
pub(super) unsafe fn word_of<T>(slot: *mut Slot<T>) -> *mut u32 {
    // SAFETY: within the slot.
    unsafe { &raw mut (*slot).word }.cast()
}

/// Returns the tag of a slot, which is changed through its own cells alone.
///
/// # Safety
/// A slot of a queue that lives, and whose slots [have tags](Turn::fill_slots).
#[inline(always)]
pub(super) unsafe fn tag_of<'t, T>(slot: *mut Slot<T>) -> &'t T {
    // SAFETY: within the slot.
    let tag = unsafe { &raw const (*slot).tag };
    // SAFETY: a valid tag; nobody forms a mutable reference to it.
    unsafe { &*tag.cast::<T>() }
}
