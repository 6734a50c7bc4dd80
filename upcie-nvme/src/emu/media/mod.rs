//! The storage of the blocks: none, memory, or a file.

mod faults;
mod file;
mod populate;
mod room;

use super::{Error, Options};
use crate::spec::Status;
use file::Backing;
use nix::{
    errno::Errno,
    sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap},
};
use std::{arch::asm, io, num::NonZeroUsize, ptr::NonNull, sync::atomic::AtomicBool};
use upcie_core::{memory::host_page_size, vfio_user::server::Guest};

/// Default of `size=`.
const DEFAULT_SIZE: u64 = 1 << 30;

/// The blocks of all namespaces, one namespace after another.
#[derive(Debug)]
pub(super) enum Media {
    /// No data is moved.
    Null,
    /// Memory whose pages are allocated when they are written.
    Memory(Anonymous),
    /// A file, read and written in place.
    File(Backing),
}

impl Media {
    /// Opens the media that the options describe; also returns the size of one namespace in bytes.
    pub fn open(options: &Options) -> Result<(Self, u64), Error> {
        if let Some(path) = &options.file {
            let (backing, size) = Backing::open(path, options)?;
            return Ok((Self::File(backing), size));
        }
        let size = options.size.unwrap_or(DEFAULT_SIZE);
        let media = match options.null {
            true => Self::Null,
            false => Self::Memory(Anonymous::new(size * u64::from(options.namespaces))?),
        };
        Ok((media, size))
    }

    /// Returns `true` if completed writes may be lost without a flush.
    pub fn is_volatile(&self) -> bool {
        matches!(self, Self::File(file) if !file.is_read_only())
    }

    /// Populates blocks in memory, as far as possible until `stop`; returns the bytes of all blocks.
    pub fn fill(&mut self, stop: &AtomicBool, progress: &mut dyn FnMut(u64)) -> Result<u64, Error> {
        let Self::Memory(memory) = self else { return Ok(0) };
        // SAFETY: its own private mapping, borrowed mutably.
        unsafe { populate::populate(memory.base, memory.len, stop, progress) }?;
        Ok(memory.len as u64)
    }

    /// Returns `true` if the blocks are in memory of this process.
    #[inline(always)]
    pub fn is_memory(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    /// Copies `len` bytes at `offset` to the client's address `iova`.
    #[inline]
    pub fn read(&mut self, guest: &mut Guest, offset: u64, iova: u64, len: usize) -> Result<(), Status> {
        match self {
            Self::Null => Ok(()),
            Self::Memory(memory) => {
                let bytes = memory.bytes(offset, len).ok_or(Status::INTERNAL_ERROR)?;
                if let Some(to) = guest.translate(iova, len) {
                    // SAFETY: `len` bytes of the client's memory are mapped there, and no reference to them exists;
                    // they are no part of the media, which is this value's own.
                    unsafe { to.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), len) };
                    return Ok(());
                }
                guest.write(iova, bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)
            }
            Self::File(file) => file.read(guest, offset, iova, len),
        }
    }

    /// Copies `len` bytes at the client's address `iova` to `offset`.
    #[inline]
    pub fn write(&mut self, guest: &mut Guest, offset: u64, iova: u64, len: usize) -> Result<(), Status> {
        match self {
            Self::Null => Ok(()),
            Self::Memory(memory) => {
                let bytes = memory.bytes(offset, len).ok_or(Status::INTERNAL_ERROR)?;
                if let Some(from) = guest.translate(iova, len) {
                    // SAFETY: `translate` has checked that `len` bytes are mapped there, and the medium's bytes are elsewhere. The client
                    // may write meanwhile, which spoils only its own data.
                    unsafe { from.as_ptr().copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
                    return Ok(());
                }
                guest.read(iova, bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)
            }
            Self::File(file) => file.write(guest, offset, iova, len),
        }
    }

    /// Zeroes `len` bytes at `offset`, and frees their storage.
    pub fn zero(&mut self, offset: u64, len: u64) -> Result<(), Status> {
        match self {
            Self::Null => Ok(()),
            Self::Memory(memory) => memory.zero(offset, len).ok_or(Status::INTERNAL_ERROR),
            Self::File(file) => file.zero(offset, len),
        }
    }

    /// Puts all written data on stable storage.
    pub fn flush(&mut self) -> Result<(), Status> {
        match self {
            Self::Null | Self::Memory(_) => Ok(()),
            Self::File(file) => file.flush(),
        }
    }

    /// Logs how often each failure came; called when a client has left.
    pub fn sum_up(&mut self) {
        if let Self::File(file) = self {
            file.sum_up();
        }
    }
}

/// Zeroed memory that takes no pages before it is written.
#[derive(Debug)]
pub(super) struct Anonymous {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its mapping; nothing else points into it.
unsafe impl Send for Anonymous {}

impl Anonymous {
    fn new(len: u64) -> Result<Self, Error> {
        let fail = |source: io::Error| Error::Memory { size: len, source };
        let size = usize::try_from(len).ok().and_then(NonZeroUsize::new);
        let size = size.ok_or_else(|| fail(Errno::ENOMEM.into()))?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing existing is replaced.
        let base = unsafe { mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags) };
        let base = base.map_err(|e| fail(e.into()))?;
        // Random blocks cost a walk through page tables each: huge pages make most walks short.
        // SAFETY: the mapping that was just made; what it reads as stays the same.
        if let Err(error) = unsafe { madvise(base, size.get(), MmapAdvise::MADV_HUGEPAGE) } {
            tracing::debug!(%error, "an embedded controller has small pages: slower, nothing else");
        }
        Ok(Self { base: base.cast(), len: size.get() })
    }

    /// Returns `len` bytes at `offset`; `None` if that is outside.
    #[inline]
    fn bytes(&mut self, offset: u64, len: usize) -> Option<&mut [u8]> {
        let offset = usize::try_from(offset).ok()?;
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: inside the mapping, as just checked.
        let at = unsafe { self.base.add(offset) };
        // SAFETY: initialised (zero) memory of this value alone, borrowed as it is.
        Some(unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), len) })
    }
}

impl Anonymous {
    /// Prefetches the 512 bytes at `offset`, the smallest block size; the processor notices by itself when
    /// more are read.
    #[inline(always)]
    pub fn prefetch(&self, offset: u64) {
        for line in 0..512 / 64 {
            prefetch(self.base.as_ptr().wrapping_add(offset as usize + line * 64));
        }
    }

    /// Zeroes `len` bytes at `offset`, and frees whole pages; `None` if that is outside.
    fn zero(&mut self, offset: u64, len: u64) -> Option<()> {
        let page = host_page_size();
        let bytes = self.bytes(offset, usize::try_from(len).ok()?)?;
        let before = bytes.as_ptr().align_offset(page).min(bytes.len());
        let (head, rest) = bytes.split_at_mut(before);
        let (pages, tail) = rest.split_at_mut(rest.len() / page * page);
        head.fill(0);
        tail.fill(0);
        if !pages.is_empty() {
            let at = NonNull::from(&mut *pages).cast();
            // SAFETY: whole pages of this value's own private anonymous memory, borrowed mutably; they are zeros afterwards.
            if let Err(error) = unsafe { madvise(at, pages.len(), MmapAdvise::MADV_DONTNEED) } {
                // Locked memory, for example, can't be freed.
                tracing::debug!(%error, "pages of an embedded controller are not given back");
                pages.fill(0);
            }
        }
        Some(())
    }
}

impl Drop for Anonymous {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no slice of it is borrowed.
        if let Err(error) = unsafe { munmap(self.base.cast(), self.len) } {
            tracing::error!(%error, "unmapping the memory of an embedded controller");
        }
    }
}

/// Prefetches the cache line at `at`; does nothing if `at` is no memory.
#[inline(always)]
fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, which reads nothing and does not fault, wherever it points.
    unsafe {
        asm!("prefetcht0 [{}]", in(reg) at, options(nostack, preserves_flags, readonly))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a hint, which reads nothing and does not fault, wherever it points.
    unsafe {
        asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly))
    }
}
