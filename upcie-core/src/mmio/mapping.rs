//! Mapped memory of a file.

use super::{Guarded, refuse_own};
use crate::{Error, Result, events::emit, page::host_page_size};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use std::{
    ffi::c_void,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
};

/// Memory of a file that this process has mapped; unmapped when dropped.
///
/// ```
/// use std::{fs::File, os::fd::AsFd};
/// use upcie_core::mmio::Mapping;
///
/// let path = std::env::temp_dir().join(format!("upcie-mapping-{}", std::process::id()));
/// let file = File::options().read(true).write(true).create_new(true).open(&path)?;
/// std::fs::remove_file(&path)?;
/// file.set_len(4096)?;
/// let mapping = Mapping::new(file.as_fd(), 0, 4096, "a file")?;
/// assert_eq!(mapping.len(), 4096);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// Present if the file's owner may shrink it, or take pages of it back.
    guard: Option<Guarded>,
}

// SAFETY: a mapping is an address range that stays valid until it is dropped. It has no thread affinity, and all access
// goes through raw pointers, under the rules of the code that hands them out.
unsafe impl Send for Mapping {}
// SAFETY: `&Mapping` gives the address and length only; accesses go through raw pointers.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd` at `offset`, shared, readable and writable. The page tables are filled now, so that the
    /// first use causes no page fault.
    ///
    /// If the file shrinks while it is mapped, the next access may end the process (SIGBUS).
    ///
    /// # Errors
    /// [`Failure::Unusable`](crate::Failure::Unusable) when the file is this process's own DMA memory, whose bytes must not be mapped twice; the
    /// system's errors, which name `what`.
    pub fn new(fd: BorrowedFd<'_>, offset: u64, len: usize, what: &str) -> Result<Self> {
        refuse_own(fd, what)?;
        Self::map(fd, offset, len, what)
    }

    /// Maps any file as [`new`](Self::new) does, including this process's own DMA memory, for its one mapping.
    pub(crate) fn map(fd: BorrowedFd<'_>, offset: u64, len: usize, what: &str) -> Result<Self> {
        Self::with_flags(fd, offset, len, what, MapFlags::MAP_POPULATE)
    }

    /// Maps any file as [`new`](Self::new) does, without filling the page tables: another process's file may be large and
    /// have no pages yet. [`populate`](Self::populate) fills those of a part. This process's own memory is allowed,
    /// because the server that offers it may be in this process.
    pub(crate) fn unpopulated(fd: BorrowedFd<'_>, offset: u64, len: usize, what: &str) -> Result<Self> {
        Self::with_flags(fd, offset, len, what, MapFlags::empty())
    }

    /// Maps a file that its owner may shrink or take back, as [`unpopulated`](Self::unpopulated) does. Zeros replace the mapping then
    /// ([`is_lost`](Self::is_lost)), provided that [`survive_shrinking`](crate::memory::survive_shrinking) was called.
    pub(crate) fn guarded(fd: BorrowedFd<'_>, offset: u64, len: usize, what: &str) -> Result<Self> {
        let mut mapping = Self::unpopulated(fd, offset, len, what)?;
        // SAFETY: the range is all of this mapping, whose bytes are accessed by raw pointer only; `drop` ends the guard
        // before it unmaps.
        mapping.guard = Some(unsafe { Guarded::new(mapping.base, len) });
        Ok(mapping)
    }

    fn with_flags(fd: BorrowedFd<'_>, offset: u64, len: usize, what: &str, flags: MapFlags) -> Result<Self> {
        let (Some(size), Ok(at)) = (NonZeroUsize::new(len), i64::try_from(offset)) else {
            return Err(Error::out_of_range(what, "mapping", offset, len as u64, 0));
        };
        let (access, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED | flags);
        // SAFETY: a new mapping at an address that the kernel chooses replaces nothing.
        let base = unsafe { mmap(None, size, access, flags, fd.as_fd(), at) };
        let base = base.map_err(|e| Error::os(what, format!("mapping {len:#x} bytes at {offset:#x}"), e))?;
        Ok(Self { base: base.cast(), len, guard: None })
    }

    /// Returns whether the file's owner has shrunk it or taken pages of it back, so that zeros have replaced its bytes and writes
    /// reach nobody.
    pub fn is_lost(&self) -> bool {
        self.guard.as_ref().is_some_and(Guarded::is_lost)
    }

    /// Fills the page tables of `len` bytes at `offset` now, so that their first use causes no page fault. This is a
    /// hint: it has no effect before Linux 5.14, nor on device memory, whose page tables are filled when it is mapped.
    pub fn populate(&self, offset: usize, len: usize) {
        let page = host_page_size();
        let start = offset.min(self.len) & !(page - 1);
        let end = offset.saturating_add(len).min(self.len);
        let at = self.base.as_ptr().wrapping_add(start).cast::<c_void>();
        // SAFETY: the range is whole pages of this mapping; the call changes page tables and no bytes. It returns an
        // error where an access would fault.
        let _ = unsafe { libc::madvise(at, end.saturating_sub(start), libc::MADV_POPULATE_WRITE) };
    }

    /// Returns the address of the first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Returns the address of the first byte in this process.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Returns the mapped bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns `false`: a mapping has at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.guard = None;
        let base: NonNull<c_void> = self.base.cast();
        // SAFETY: `with_flags` made the mapping with this length; every holder of a pointer into it also holds the
        // mapping.
        if let Err(error) = unsafe { nix::sys::mman::munmap(base, self.len) } {
            let (base, len) = (self.base.as_ptr().addr(), self.len);
            emit(move || tracing::error!(base, len, %error, "unmapping failed"));
        }
    }
}

/// Reads `data.len()` bytes of device memory, each once and in order: in words of 8 bytes where they are aligned, in
/// single bytes elsewhere.
///
/// # Safety
/// All bytes read are in a live mapping.
pub(crate) unsafe fn copy_from(from: *const u8, data: &mut [u8]) {
    let (mut at, len) = (0, data.len());
    while at < len {
        let here = from.wrapping_add(at);
        if here.addr() % 8 == 0 && len - at >= 8 {
            // SAFETY: the word is aligned, and the caller promises that its bytes are in a live mapping.
            let word = unsafe { here.cast::<u64>().read_volatile() };
            data[at..at + 8].copy_from_slice(&word.to_ne_bytes());
            at += 8;
        } else {
            // SAFETY: the caller promises that the byte is in a live mapping.
            data[at] = unsafe { here.read_volatile() };
            at += 1;
        }
    }
}

/// Writes `data` to device memory, in words and order as [`copy_from`] reads it.
///
/// # Safety
/// All bytes written are in a live mapping, and nobody else writes to them meanwhile.
pub(crate) unsafe fn copy_to(to: *mut u8, data: &[u8]) {
    let (mut at, len) = (0, data.len());
    while at < len {
        let here = to.wrapping_add(at);
        match data[at..].first_chunk::<8>() {
            Some(word) if here.addr() % 8 == 0 => {
                // SAFETY: the word is aligned, and the caller promises that its bytes are in a live mapping.
                unsafe { here.cast::<u64>().write_volatile(u64::from_ne_bytes(*word)) };
                at += 8;
            }
            _ => {
                // SAFETY: the caller promises that the byte is in a live mapping.
                unsafe { here.write_volatile(data[at]) };
                at += 1;
            }
        }
    }
}
