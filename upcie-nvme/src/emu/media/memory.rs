//! Blocks in memory of this process.

use super::{super::Error, populate::populate};
use nix::{
    errno::Errno,
    sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap},
};
use std::{arch::asm, io, num::NonZeroUsize, ptr::NonNull, sync::atomic::AtomicBool};
use upcie_core::memory::host_page_size;

/// Zeroed memory that takes no pages before it is written.
#[derive(Debug)]
pub struct Anonymous {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its mapping; nothing else points into it.
unsafe impl Send for Anonymous {}

impl Anonymous {
    pub fn new(len: u64) -> Result<Self, Error> {
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
            tracing::debug!(%error, "an embedded controller uses small pages, which are slower");
        }
        Ok(Self { base: base.cast(), len: size.get() })
    }

    /// Returns `len` bytes at `offset`; `None` if that is outside.
    #[inline]
    pub fn bytes(&mut self, offset: u64, len: usize) -> Option<&mut [u8]> {
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
    /// Populates it, as far as possible until `stop`; returns its bytes.
    pub fn fill(&mut self, stop: &AtomicBool, progress: &mut dyn FnMut(u64)) -> Result<u64, Error> {
        // SAFETY: its own private mapping, borrowed mutably.
        unsafe { populate(self.base, self.len, stop, progress) }?;
        Ok(self.len as u64)
    }

    /// Prefetches the 512 bytes at `offset`, the smallest block size; the processor notices by itself when
    /// more are read.
    #[inline(always)]
    pub fn prefetch(&self, offset: u64) {
        for line in 0..512 / 64 {
            prefetch(self.base.as_ptr().wrapping_add(offset as usize + line * 64));
        }
    }

    /// Zeroes `len` bytes at `offset`, and frees whole pages; `None` if that is outside.
    pub fn zero(&mut self, offset: u64, len: u64) -> Option<()> {
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
                tracing::debug!(%error, "freeing pages of an embedded controller failed");
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
