//! The data of one slot: the memory that its command may use, and its PRP entries.
//!
//! A slot remembers its last data after the command has ended: a program that submits the same buffer again from its
//! callback needs no translation. [`Flight::forget`](crate::flight::Flight::forget) ends that for all slots of a queue.

use std::{
    cell::Cell,
    ffi::c_void,
    ptr::null_mut,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A range of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) at: usize,
    pub(crate) len: usize,
}

impl Range {
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.at < other.at.saturating_add(other.len) && other.at < self.at.saturating_add(self.len)
    }
}

/// The data of a slot's command, or of its last one.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Held {
    /// The program's pointer: it comes back as it is, and is never followed.
    user: Cell<*mut c_void>,
    at: AtomicUsize,
    len: AtomicUsize,
    /// The PRP entries for `at` and `len`.
    prp: Cell<[u64; 2]>,
    /// So that a slot has a cache line to itself.
    _rest: usize,
}

/// The address of data in [several](Held::hold_several) ranges. With a length of 0 it is that of no data.
const SEVERAL: usize = 1;

// SAFETY: the pointer is a number here.
unsafe impl Send for Held {}
// SAFETY: threads beside the queue's use the atomics alone.
unsafe impl Sync for Held {}

impl Held {
    /// Returns a slot's data before the first command: none.
    pub(crate) fn nothing() -> Self {
        Self {
            user: Cell::new(null_mut()),
            at: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            prp: Cell::new([0; 2]),
            _rest: 0,
        }
    }

    /// Returns `true` if the PRP entries are those of this data. No data has none. For the queue's thread.
    #[inline(always)]
    pub(crate) fn is_of(&self, at: usize, len: usize) -> bool {
        // Plain reads, since no other thread writes: compares with memory, which atomic loads are not made into.
        // SAFETY: valid, and of this value.
        if unsafe { self.at.as_ptr().read() } != at {
            return false;
        }
        // SAFETY: valid, and of this value.
        unsafe { self.len.as_ptr().read() == len }
    }

    /// Writes the PRP entries to two words.
    ///
    /// # Safety
    /// `to` is valid for writes of them.
    #[inline(always)]
    pub(crate) unsafe fn write_prp(&self, to: *mut u64) {
        // SAFETY: the caller's promise, and the slot's own.
        unsafe { to.cast::<[u64; 2]>().copy_from_nonoverlapping(self.prp.as_ptr(), 1) };
    }

    #[inline(always)]
    pub(crate) fn user(&self) -> *mut c_void {
        self.user.get()
    }

    #[inline(always)]
    pub(crate) fn set_user(&self, user: *mut c_void) {
        self.user.set(user);
    }

    /// Notes data in one range, and its PRP entries.
    #[inline(always)]
    pub(crate) fn hold(&self, at: usize, len: usize, prp: [u64; 2]) {
        self.at.store(at, Relaxed);
        self.len.store(len, Relaxed);
        self.prp.set(prp);
    }

    /// Notes data in ranges that the queue's [`Flight`](crate::flight::Flight) has.
    pub(crate) fn hold_several(&self) {
        self.hold(SEVERAL, 0, [0; 2]);
    }

    pub(crate) fn is_several(&self) -> bool {
        self.range() == Range { at: SEVERAL, len: 0 }
    }

    pub(crate) fn range(&self) -> Range {
        Range { at: self.at.load(Relaxed), len: self.len.load(Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_data_has_no_pages() {
        let held = Held::nothing();
        assert!(held.is_of(0, 0) && held.prp.get() == [0; 2]);
        held.hold(4096, 512, [0x1000, 0]);
        assert!(held.is_of(4096, 512) && !held.is_of(4096, 0) && !held.is_of(0, 0) && !held.is_of(4096, 513));
        held.hold_several();
        assert!(held.is_several() && !held.is_of(4096, 512));
    }
}
