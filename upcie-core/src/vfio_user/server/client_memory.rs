//! A client's memory in the server: its address ranges, and their mappings.

use crate::{
    memory::MemoryFile,
    mmio::{Guarded, is_installed, losses},
    vfio_user::copy,
};
use nix::{
    errno::Errno,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};
use std::{
    num::NonZeroUsize,
    os::fd::{AsFd, OwnedFd},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Limit on a client's mappings, with each piece of a split mapping counted.
pub const MAX_MAPS: usize = 16384;

/// A part of a client's file, mapped in this process.
///
/// It was within the file when it was mapped. The file is sealed against shrinking if possible. Otherwise, and if it
/// has huge pages, of which the client can take some back, the next access may raise SIGBUS, which
/// [`survive_shrinking`](crate::memory::survive_shrinking) survives.
#[derive(Debug)]
struct Mapped {
    base: NonNull<u8>,
    len: NonZeroUsize,
    guard: Option<Guarded>,
}

// SAFETY: an address range without thread affinity, accessed by raw pointer only.
unsafe impl Send for Mapped {}
// SAFETY: shared access yields the address range only, which is accessed by raw pointer.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn new(fd: OwnedFd, offset: u64, len: u64, access: ProtFlags, trusted: bool) -> Result<Self, Errno> {
        let start = i64::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let refuse = |reason, errno| {
            tracing::debug!(reason, "refused a client's memory");
            errno
        };
        let file = MemoryFile::look(fd.as_fd())
            .ok_or_else(|| refuse("not a memory file (memfd, tmpfs, hugetlbfs)", Errno::EINVAL))?;
        if !(file.never_faults || trusted || is_installed()) {
            let reason = "its file can't be sealed against shrinking, or has huge pages, which the client can take back";
            return Err(refuse(reason, Errno::EPERM));
        }
        if offset.checked_add(len).is_none_or(|end| end > file.len) {
            return Err(Errno::EINVAL);
        }
        // Rounded up to whole pages, as the kernel does: unmapping needs the size that was mapped.
        let size = len.checked_next_multiple_of(file.step).and_then(|size| usize::try_from(size).ok());
        let size = size.and_then(NonZeroUsize::new).ok_or(Errno::EINVAL)?;
        // Not populated: the file's owner decides how much of a sparse file gets pages.
        // SAFETY: a new mapping at an address that the kernel chooses replaces nothing.
        let base = unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, &fd, start) }?.cast();
        // SAFETY: the range is the whole new mapping, accessed by raw pointer only; `drop` ends the guard before it
        // unmaps.
        let guard = unsafe { Guarded::new(base, size.get()) };
        Ok(Self { base, len: size, guard: Some(guard) })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.guard = None;
        // SAFETY: `new` made the mapping with this length; the table hands out its pointers and drops it only on
        // unmapping.
        if let Err(error) = unsafe { munmap(self.base.cast(), self.len.get()) } {
            tracing::error!(?self, %error, "unmapping a client's memory failed");
        }
    }
}

/// One range of a client's addresses.
#[derive(Debug, Clone)]
struct Entry {
    start: u64,
    /// The last address, not the end, because a range may end at 2^64.
    last: u64,
    access: ProtFlags,
    /// The mapping and the range's offset in it; `None` if the range is accessed by message.
    mapped: Option<(Arc<Mapped>, usize)>,
}

/// The location of contiguous bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Mapped in this process.
    Mapped(NonNull<u8>),
    /// Accessible by message.
    ByMessage,
}

/// A range that is mapped in this process, readable and writable.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub start: u64,
    pub len: u64,
    pub base: NonNull<u8>,
}

// SAFETY: these are numbers, used only with the table; see `Mapped`.
unsafe impl Send for Window {}

/// Refuses memory without a file, and logs the reason once: a client can repeat the request forever.
#[cold]
fn refuse_messages() -> Errno {
    static IS_LOGGED: AtomicBool = AtomicBool::new(false);
    if !IS_LOGGED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "refused a client's memory that came without a descriptor: the other clients of this device would wait for each \
             answer to an access by message; later refusals of this kind are not logged"
        );
    }
    Errno::ENOTSUP
}

/// All address ranges of a client: sorted, without overlaps.
#[derive(Debug, Default)]
pub struct Table {
    entries: Vec<Entry>,
    /// Set if memory that its owner could shrink or take back is accepted.
    trusted: bool,
    /// Set if memory without a file is refused.
    mapped_only: bool,
    /// The process's number of lost mappings at the last check.
    losses: usize,
}

impl Table {
    /// Makes an empty table. With `trusted`, memory that the client could shrink or take back is accepted.
    pub fn new(trusted: bool) -> Self {
        Self { trusted, losses: losses(), ..Self::default() }
    }

    /// Sets whether memory without a file is refused, which is accessed by messages.
    pub fn mapped_only(self, mapped_only: bool) -> Self {
        Self { mapped_only, ..self }
    }

    /// Returns whether the client has shrunk memory that is mapped here. Costs one load while no mapping was lost.
    pub fn has_shrunk(&mut self) -> bool {
        let before = std::mem::replace(&mut self.losses, losses());
        let lost = |entry: &Entry| {
            let guard = entry.mapped.as_ref().and_then(|(mapped, _)| mapped.guard.as_ref());
            guard.is_some_and(Guarded::is_lost)
        };
        before != self.losses && self.entries.iter().any(lost)
    }

    /// Adds a range. `fd` is mapped at `offset`; without `fd` the range is accessed by message.
    pub fn map(
        &mut self,
        start: u64,
        len: u64,
        access: ProtFlags,
        fd: Option<OwnedFd>,
        offset: u64,
    ) -> Result<(), Errno> {
        let page = 4095;
        let last = len.checked_sub(1).and_then(|more| start.checked_add(more)).ok_or(Errno::EINVAL)?;
        if (start | len | offset) & page != 0 || access.is_empty() {
            return Err(Errno::EINVAL);
        }
        let at = self.entries.partition_point(|entry| entry.last < start);
        if self.entries.get(at).is_some_and(|entry| entry.start <= last) {
            return Err(Errno::EEXIST);
        }
        if self.entries.len() >= MAX_MAPS {
            return Err(Errno::ENOSPC);
        }
        let mapped = match fd {
            Some(fd) => Some((Arc::new(Mapped::new(fd, offset, len, access, self.trusted)?), 0)),
            None if self.mapped_only => return Err(refuse_messages()),
            None => None,
        };
        self.entries.insert(at, Entry { start, last, access, mapped });
        Ok(())
    }

    /// Removes all mappings in a range: whole ranges, several, or parts. Returns how many bytes were mapped.
    ///
    /// Holes are no error, as in the kernel's VFIO, because QEMU relies on that: for an emulated IOMMU it unmaps whole
    /// address spaces, whatever is mapped there. If this refused, the device could still access memory that was taken
    /// back.
    pub fn unmap(&mut self, start: u64, len: u64) -> Result<u64, Errno> {
        let last = len.checked_sub(1).and_then(|more| start.checked_add(more)).ok_or(Errno::EINVAL)?;
        if (start | len) & 4095 != 0 {
            return Err(Errno::EINVAL);
        }
        let from = self.entries.partition_point(|entry| entry.last < start);
        let to = self.entries.partition_point(|entry| entry.start <= last);
        let Some(touched) = self.entries.get(from..to) else { return Ok(0) };
        let (Some(first), Some(end)) = (touched.first().cloned(), touched.last().cloned()) else {
            return Ok(0);
        };
        let taken = touched.iter().map(|entry| entry.last.min(last) - entry.start.max(start) + 1).sum();
        let mut left = Vec::with_capacity(2);
        if first.start < start {
            left.push(Entry { last: start - 1, ..first });
        }
        if end.last > last {
            let mapped = end.mapped.map(|(map, at)| (map, at + (last + 1 - end.start) as usize));
            left.push(Entry { start: last + 1, mapped, ..end });
        }
        if self.entries.len() - (to - from) + left.len() > MAX_MAPS {
            return Err(Errno::ENOSPC);
        }
        self.entries.splice(from..to, left);
        Ok(taken)
    }

    /// Removes all ranges.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Returns the whole mapped range around `iova`, if a device may read and write it in this process.
    pub fn window(&self, iova: u64) -> Option<Window> {
        let entry = self.entry(iova)?;
        let (mapped, at) = entry.mapped.as_ref()?;
        if !entry.access.contains(ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) {
            return None;
        }
        let base = copy::offset(mapped.base, *at);
        Some(Window { start: entry.start, len: (entry.last - entry.start).checked_add(1)?, base })
    }

    /// Returns the location of the bytes from `iova` on and how many are contiguous, if this access is allowed.
    pub fn find(&self, iova: u64, access: ProtFlags) -> Result<(Place, u64), Errno> {
        let entry = self.entry(iova).ok_or(Errno::EFAULT)?;
        if !entry.access.contains(access) {
            return Err(Errno::EACCES);
        }
        let within = iova - entry.start;
        let len = (entry.last - iova).saturating_add(1);
        let place = match &entry.mapped {
            Some((mapped, at)) => Place::Mapped(copy::offset(mapped.base, *at + within as usize)),
            None => Place::ByMessage,
        };
        Ok((place, len))
    }

    fn entry(&self, iova: u64) -> Option<&Entry> {
        let at = self.entries.partition_point(|entry| entry.last < iova);
        self.entries.get(at).filter(|entry| entry.start <= iova)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Memory, PageSize, other_files};
    use nix::sys::memfd::{MFdFlags, memfd_create};

    const PAGE: u64 = 4096;
    const BOTH: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

    fn file(pages: u64) -> Option<OwnedFd> {
        let memory = Memory::new((pages * PAGE) as usize, PageSize::Small).unwrap();
        // SAFETY: the descriptor of a test's own memory, to which no references exist.
        Some(unsafe { memory.file() }.try_clone_to_owned().unwrap())
    }

    #[test]
    fn ranges_do_not_overlap() {
        let mut table = Table::default();
        table.map(4 * PAGE, 4 * PAGE, BOTH, None, 0).unwrap();
        for start in 1..8 {
            assert_eq!(table.map(start * PAGE, 4 * PAGE, BOTH, None, 0), Err(Errno::EEXIST), "{start}");
        }
        table.map(0, 4 * PAGE, BOTH, None, 0).unwrap();
        table.map(8 * PAGE, PAGE, BOTH, None, 0).unwrap();
        table.map(0_u64.wrapping_sub(PAGE), PAGE, BOTH, None, 0).unwrap();
        assert_eq!(table.find(u64::MAX, BOTH), Ok((Place::ByMessage, 1)), "the very last byte");
    }

    #[test]
    fn ranges_outside_of_the_file_are_not_mapped() {
        let mut table = Table::default();
        for (len, offset) in [(3 * PAGE, 0), (PAGE, 2 * PAGE), (PAGE, 1), (!4095, PAGE), (0, 0), (1, 0)] {
            assert_eq!(table.map(0, len, BOTH, file(2), offset), Err(Errno::EINVAL), "{len} at {offset}");
        }
        let eventfd = crate::irq::EventFd::new().unwrap().as_fd().try_clone_to_owned().unwrap();
        assert_eq!(table.map(0, PAGE, BOTH, Some(eventfd), 0), Err(Errno::EINVAL));
        assert_eq!(table.map(0, PAGE, ProtFlags::empty(), None, 0), Err(Errno::EINVAL));
        assert!(table.entries.is_empty());
    }

    /// Other memory could be shrunk, or be a file of a file system that never answers.
    #[test]
    fn only_unshrinkable_memory_is_accepted() {
        let memfd = |flags| {
            let fd = memfd_create(c"upcie-test", MFdFlags::MFD_CLOEXEC | flags).unwrap();
            nix::unistd::ftruncate(&fd, 2 * PAGE as i64).unwrap();
            fd
        };
        let map = |trusted, fd: &OwnedFd| {
            Table::new(trusted).map(0, 2 * PAGE, BOTH, Some(fd.try_clone().unwrap()), 0)
        };
        let sealable = memfd(MFdFlags::MFD_ALLOW_SEALING);
        assert_eq!(map(false, &sealable), Ok(()));
        assert_eq!(nix::unistd::ftruncate(&sealable, 0), Err(Errno::EPERM), "sealed by the server");
        let open = memfd(MFdFlags::empty());
        assert_eq!((map(false, &open), map(true, &open)), (Err(Errno::EPERM), Ok(())));
        if PageSize::Huge2M.available().is_some() {
            let huge = MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB;
            let fd = memfd_create(c"upcie-test", MFdFlags::MFD_CLOEXEC | huge).unwrap();
            nix::unistd::ftruncate(&fd, 2 << 20).unwrap();
            // Refused before it is mapped, which would take a page of the pool.
            assert_eq!(Table::new(false).map(0, 2 << 20, BOTH, Some(fd), 0), Err(Errno::EPERM), "huge pages");
        }
        for other in other_files() {
            assert_eq!(map(true, &other), Err(Errno::EINVAL), "{other:?}");
        }
    }

    #[test]
    fn memory_without_a_file_can_be_refused() {
        let mut table = Table::default().mapped_only(true);
        assert_eq!(table.map(0, PAGE, BOTH, None, 0), Err(Errno::ENOTSUP));
        table.map(0, PAGE, BOTH, file(1), 0).unwrap();
        assert!(table.window(0).is_some());
    }

    #[test]
    fn unmapping_splits_ranges_and_spans_several() {
        let mut table = Table::default();
        table.map(0, 8 * PAGE, BOTH, file(8), 0).unwrap();
        table.map(8 * PAGE, 8 * PAGE, BOTH, None, 0).unwrap();
        let whole = table.window(0).unwrap();

        assert_eq!(table.unmap(2 * PAGE, 2 * PAGE), Ok(2 * PAGE));
        assert_eq!(table.window(0).unwrap().len, 2 * PAGE);
        assert!(table.window(2 * PAGE).is_none() && table.window(4 * PAGE - 1).is_none());
        let tail = table.window(4 * PAGE).unwrap();
        assert_eq!((tail.start, tail.len), (4 * PAGE, 4 * PAGE));
        assert_eq!(tail.base, copy::offset(whole.base, 4 * PAGE as usize), "its mapping did not move");

        assert_eq!(table.unmap(2 * PAGE, PAGE), Ok(0), "in a hole");
        assert_eq!(table.unmap(16 * PAGE, 16 * PAGE), Ok(0), "beyond the end");
        assert_eq!(table.unmap(4 * PAGE, 0), Err(Errno::EINVAL));

        table.unmap(6 * PAGE, 4 * PAGE).unwrap();
        assert_eq!(table.find(6 * PAGE - 1, BOTH).unwrap().1, 1);
        assert_eq!(table.find(6 * PAGE, BOTH), Err(Errno::EFAULT));
        assert_eq!(table.find(10 * PAGE, BOTH), Ok((Place::ByMessage, 6 * PAGE)));
        table.unmap(10 * PAGE, 6 * PAGE).unwrap();
        assert_eq!(table.entries.len(), 2);

        assert_eq!(table.unmap(PAGE, 64 * PAGE), Ok(3 * PAGE), "across a hole and beyond the end");
        assert_eq!(table.entries.len(), 1);
        assert_eq!(table.unmap(0, !4095), Ok(PAGE), "the whole table");
        assert!(table.entries.is_empty());
    }

    #[test]
    fn access_is_limited_to_the_granted_rights() {
        let mut table = Table::default();
        table.map(0, PAGE, ProtFlags::PROT_READ, file(1), 0).unwrap();
        assert!(table.find(0, ProtFlags::PROT_READ).is_ok());
        assert_eq!(table.find(0, ProtFlags::PROT_WRITE), Err(Errno::EACCES));
        assert!(table.window(0).is_none(), "a pointer would be written through");
    }
}
