//! Copies from and to memory that somebody else writes at the same time.

use std::{
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
};

/// The byte `by` bytes on, without a claim that it can be accessed.
pub fn offset(base: NonNull<u8>, by: usize) -> NonNull<u8> {
    NonNull::new(base.as_ptr().wrapping_add(by)).unwrap_or(base)
}

/// Copies out of shared memory.
///
/// # Safety
/// `from` is valid for reads of `to.len()` bytes.
pub unsafe fn read(from: NonNull<u8>, to: &mut [u8]) {
    // SAFETY: the caller's promise; shared memory never overlaps a Rust slice.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), to.len()) };
}

/// Copies into shared memory, the last four bytes after all others: what watches the end of an entry (a completion's
/// phase tag) then finds the rest of it there.
///
/// # Safety
/// `to` is valid for writes of `from.len()` bytes.
pub unsafe fn write(to: NonNull<u8>, from: &[u8]) {
    let (body, tail) = from.split_at(from.len().saturating_sub(4));
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy_nonoverlapping(body.as_ptr(), to.as_ptr(), body.len()) };
    fence(Ordering::Release);
    let end = offset(to, body.len()).as_ptr();
    match <[u8; 4]>::try_from(tail) {
        Ok(word) if end.cast::<u32>().is_aligned() => {
            // SAFETY: the caller's promise, and aligned.
            unsafe { end.cast::<u32>().write_volatile(u32::from_ne_bytes(word)) };
        }
        _ => {
            // SAFETY: the caller's promise.
            unsafe { std::ptr::copy_nonoverlapping(tail.as_ptr(), end, tail.len()) };
        }
    }
}
