//! Copies from and to memory that another process may write at the same time.

use std::{
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
};

/// Returns the address of the byte `by` bytes after `base`, which need not be accessible.
pub fn offset(base: NonNull<u8>, by: usize) -> NonNull<u8> {
    NonNull::new(base.as_ptr().wrapping_add(by)).unwrap_or(base)
}

/// Copies from shared memory.
///
/// # Safety
/// `from` is valid for reads of `to.len()` bytes.
pub unsafe fn read(from: NonNull<u8>, to: &mut [u8]) {
    // SAFETY: the caller promises that `from` is valid for these reads; shared memory never overlaps a Rust slice.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), to.len()) };
}

/// Copies into shared memory, the last four bytes after all others. A reader that polls the end of an entry (a
/// completion's phase tag) then finds the rest of the entry complete.
///
/// # Safety
/// `to` is valid for writes of `from.len()` bytes.
pub unsafe fn write(to: NonNull<u8>, from: &[u8]) {
    let (body, tail) = from.split_at(from.len().saturating_sub(4));
    // SAFETY: the caller promises that `to` is valid for these writes; shared memory never overlaps a Rust slice.
    unsafe { std::ptr::copy_nonoverlapping(body.as_ptr(), to.as_ptr(), body.len()) };
    fence(Ordering::Release);
    let end = offset(to, body.len()).as_ptr();
    match <[u8; 4]>::try_from(tail) {
        Ok(word) if end.cast::<u32>().is_aligned() => {
            // SAFETY: `end` is aligned, and the caller promises that its four bytes are valid for writes.
            unsafe { end.cast::<u32>().write_volatile(u32::from_ne_bytes(word)) };
        }
        _ => {
            // SAFETY: the caller promises that `end` is valid for these writes.
            unsafe { std::ptr::copy_nonoverlapping(tail.as_ptr(), end, tail.len()) };
        }
    }
}
