//! Memory of a file that this process has mapped.

use super::{Guarded, refuse_own};
use crate::{Error, Result, events::emit, page::host_page_size};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use std::{
    ffi::c_void,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
};

/// Memory that this process has mapped; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// Of a file that its owner may shrink.
    guard: Option<Guarded>,
}

// SAFETY: a mapping is an address range that stays valid until it is dropped; it has no thread affinity, and all
// access through it is by raw pointer under the rules of whoever hands pointers out.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd` at `offset`, shared, readable and writable, with the page tables filled now, so that
    /// no page fault happens on first use.
    ///
    /// A file that is made shorter while it is mapped lets the next access end the process (SIGBUS).
    ///
    /// # Errors
    /// [`Error::Unusable`] when the file is this process's own DMA memory, whose bytes nobody else may have; the system's,
    /// with `what` in the message.
    pub fn new(fd: BorrowedFd<'_>, offset: u64, len: usize, what: &str) -> Result<Self> {
        refuse_own(fd, what)?;
        Self::map(fd, offset, len, what)
    }

    /// As [`new`](Self::new), of any file: of this process's own memory, which is mapped once, too.
    pub(crate) fn map(fd: BorrowedFd<'_>, offset: u64, len: usize, what: &str) -> Result<Self> {
        Self::with_flags(fd, offset, len, what, MapFlags::MAP_POPULATE)
    }

    /// As [`new`](Self::new), but of any file, for the server that offers it may be in this process, and without filling the
    /// page tables: a file of another process may be large and have no pages yet. [`populate`](Self::populate) fills those
    /// of a part.
    pub(crate) fn unpopulated(fd: BorrowedFd<'_>, offset: u64, len: usize, what: &str) -> Result<Self> {
        Self::with_flags(fd, offset, len, what, MapFlags::empty())
    }

    /// As [`unpopulated`](Self::unpopulated), of a file that its owner may shrink. Zeros take the place of the mapping then
    /// ([`is_lost`](Self::is_lost)), provided that [`survive_shrinking`](crate::memory::survive_shrinking) was called.
    pub(crate) fn guarded(fd: BorrowedFd<'_>, offset: u64, len: usize, what: &str) -> Result<Self> {
        let mut mapping = Self::unpopulated(fd, offset, len, what)?;
        // SAFETY: all of this mapping, whose bytes are accessed by raw pointer only; `drop` ends the guard before it unmaps.
        mapping.guard = Some(unsafe { Guarded::new(mapping.base, len) });
        Ok(mapping)
    }

    fn with_flags(fd: BorrowedFd<'_>, offset: u64, len: usize, what: &str, flags: MapFlags) -> Result<Self> {
        let (Some(size), Ok(at)) = (NonZeroUsize::new(len), i64::try_from(offset)) else {
            return Err(Error::OutOfRange {
                device: what.into(),
                operation: "mapping".into(),
                offset,
                len: len as u64,
                size: 0,
            });
        };
        let (access, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED | flags);
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing existing is replaced.
        let base = unsafe { mmap(None, size, access, flags, fd.as_fd(), at) };
        let base = base.map_err(|e| Error::os(what, format!("mapping {len:#x} bytes at {offset:#x}"), e))?;
        Ok(Self { base: base.cast(), len, guard: None })
    }

    /// Whether its owner made the file shorter, so that zeros have taken the place of its bytes: what is written here reaches
    /// nobody.
    pub fn is_lost(&self) -> bool {
        self.guard.as_ref().is_some_and(Guarded::is_lost)
    }

    /// Fills the page tables of `len` bytes at `offset` now, so that no page fault happens on first use: a hint, without
    /// effect before Linux 5.14 and on device memory, whose page tables are filled when it is mapped.
    pub fn populate(&self, offset: usize, len: usize) {
        let page = host_page_size();
        let start = offset.min(self.len) & !(page - 1);
        let end = offset.saturating_add(len).min(self.len);
        let at = self.base.as_ptr().wrapping_add(start).cast::<c_void>();
        // SAFETY: whole pages of this mapping; the call changes page tables and no bytes. It gives an error where an access
        // would fault.
        let _ = unsafe { libc::madvise(at, end.saturating_sub(start), libc::MADV_POPULATE_WRITE) };
    }

    /// The first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Where it is mapped.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped: never, a mapping has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.guard = None;
        let base: NonNull<c_void> = self.base.cast();
        // SAFETY: mapped by `new` with this length; whoever holds a pointer into it holds the mapping too.
        if let Err(error) = unsafe { nix::sys::mman::munmap(base, self.len) } {
            let (base, len) = (self.base.as_ptr().addr(), self.len);
            emit(move || tracing::error!(base, len, %error, "unmapping"));
        }
    }
}

/// Reads `data.len()` bytes of device memory: words of 8 bytes where they are aligned, single bytes elsewhere, each once
/// and in order.
///
/// # Safety
/// All bytes from `from` on are in a live mapping.
pub(crate) unsafe fn copy_from(from: *const u8, data: &mut [u8]) {
    let (mut at, len) = (0, data.len());
    while at < len {
        let here = from.wrapping_add(at);
        if here.addr() % 8 == 0 && len - at >= 8 {
            // SAFETY: aligned, and the caller's promise.
            let word = unsafe { here.cast::<u64>().read_volatile() };
            data[at..at + 8].copy_from_slice(&word.to_ne_bytes());
            at += 8;
        } else {
            // SAFETY: the caller's promise.
            data[at] = unsafe { here.read_volatile() };
            at += 1;
        }
    }
}

/// Writes `data` to device memory, as [`copy_from`] reads it.
///
/// # Safety
/// All bytes from `to` on are in a live mapping, and nobody else writes to them now.
pub(crate) unsafe fn copy_to(to: *mut u8, data: &[u8]) {
    let (mut at, len) = (0, data.len());
    while at < len {
        let here = to.wrapping_add(at);
        match data[at..].first_chunk::<8>() {
            Some(word) if here.addr() % 8 == 0 => {
                // SAFETY: aligned, and the caller's promise.
                unsafe { here.cast::<u64>().write_volatile(u64::from_ne_bytes(*word)) };
                at += 8;
            }
            _ => {
                // SAFETY: the caller's promise.
                unsafe { here.write_volatile(data[at]) };
                at += 1;
            }
        }
    }
}
