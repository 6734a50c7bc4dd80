//! Mapped device memory.
//!
//! A [`Mapping`] owns an mmap of a file descriptor. A [`Register`] is one naturally aligned word in it: its bounds are
//! checked when it is made, and after that an access is one volatile load or store. No Rust reference into device
//! memory is ever formed: the device changes it, and reading may have side effects.
//!
//! Reading is safe. Writing is not: a device does what its registers say, to whatever memory they name.

use crate::{
    Error, Result,
    memory::{host_page_size, refuse_own},
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use std::{
    ffi::c_void,
    fmt,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    sync::Arc,
};

/// Memory that this process has mapped; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
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
        Ok(Self { base: base.cast(), len })
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
        let base: NonNull<c_void> = self.base.cast();
        // SAFETY: mapped by `new` with this length; whoever holds a pointer into it holds the mapping too.
        if let Err(error) = unsafe { nix::sys::mman::munmap(base, self.len) } {
            tracing::error!(?self, %error, "unmapping");
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

/// A width that registers have: `u8`, `u16`, `u32` or `u64`.
pub trait Word: Copy + sealed::Sealed + 'static {}
mod sealed {
    pub trait Sealed {}
}
macro_rules! words {
    ($($t:ty)*) => { $(impl sealed::Sealed for $t {} impl Word for $t {})* };
}
words!(u8 u16 u32 u64);

/// One word of device memory.
pub struct Register<W: Word> {
    at: NonNull<W>,
    mapping: Arc<Mapping>,
}

// SAFETY: a pointer into a mapping that it keeps alive; access is a single volatile load or store.
unsafe impl<W: Word> Send for Register<W> {}
// SAFETY: as above: device memory tolerates access from any thread.
unsafe impl<W: Word> Sync for Register<W> {}

impl<W: Word> Register<W> {
    /// The word `offset` bytes into `mapping`; `None` where that is out of bounds or not naturally aligned.
    pub fn new(mapping: &Arc<Mapping>, offset: usize) -> Option<Self> {
        let end = offset.checked_add(size_of::<W>())?;
        if end > mapping.len || offset % size_of::<W>() != 0 {
            return None;
        }
        // SAFETY: within the mapping, as just checked.
        let at = unsafe { mapping.base.add(offset) }.cast();
        Some(Self { at, mapping: mapping.clone() })
    }

    /// Reads it: one volatile load.
    #[inline(always)]
    pub fn read(&self) -> W {
        // SAFETY: aligned and inside a live mapping (`new`); any bits are a valid word.
        unsafe { self.at.read_volatile() }
    }

    /// Writes it: one volatile store, not ordered with stores to DMA memory (see [`crate::barrier`]).
    ///
    /// # Safety
    /// The caller drives the device behind the mapping, and what the device does on this value is right: it reads and
    /// writes no memory but what it was given for that, and nothing that another driver of it relies on changes.
    #[inline(always)]
    pub unsafe fn write(&self, value: W) {
        // SAFETY: aligned and inside a live mapping (`new`).
        unsafe { self.at.write_volatile(value) }
    }

    /// The pointer itself, for a driver's hot path, which keeps the register beside it.
    #[inline]
    pub fn as_ptr(&self) -> *mut W {
        self.at.as_ptr()
    }
}

impl<W: Word> Clone for Register<W> {
    fn clone(&self) -> Self {
        Self { at: self.at, mapping: self.mapping.clone() }
    }
}

impl<W: Word> fmt::Debug for Register<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without reading it: a read may have side effects.
        write!(f, "Register<{}>({:p} in {:p})", std::any::type_name::<W>(), self.at, self.mapping.base)
    }
}
