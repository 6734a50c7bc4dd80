//! Memory that other programs made: memory files (memfd, hugetlbfs) and dma-bufs, imported by descriptor.
//!
//! Any holder of such a file may change its bytes at any time, so all of it is [shared](Memory::is_shared) memory. Only
//! facts that the kernel vouches for are trusted.

use super::{Memory, PageSize, Sharing, fill, host_page_size};
use crate::{Error, Result, mmio::Mapping};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::statfs::{FsType, HUGETLBFS_MAGIC, TMPFS_MAGIC, fstatfs},
    unistd::{Whence, lseek},
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The file system magic of a dma-buf (`linux/magic.h`).
const DMA_BUF_MAGIC: FsType = FsType(0x444d_4142);

const WHAT: &str = "memory that was handed over";
const NOT_MEMORY: &str = "only a memory file will do: a memfd, or a file on a hugetlbfs mount";

/// A memory file that can be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Bytes: whole pages, at least one.
    pub(crate) len: u64,
    pub(crate) page: PageSize,
    /// Bytes that have pages by now.
    pub(crate) present: u64,
}

/// Protection of a file in use against shrinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shrinking {
    Sealed,
    /// The file can't be sealed.
    Hugetlbfs,
}

/// Makes the error for any other kind of file.
pub(crate) fn not_memory() -> Error {
    Error::unusable(WHAT, NOT_MEMORY)
}

/// Checks that `fd` is a memory file, seals it against shrinking, and returns its size. The seal comes first, so that the
/// size stays true.
pub(crate) fn check(fd: BorrowedFd<'_>) -> Result<Checked> {
    let unusable = |reason: String| Error::unusable(WHAT, reason);
    let failed = |operation: &str, errno: Errno| Error::os(WHAT, operation, errno);
    // F_GET_SEALS comes first: the kernel answers it without asking the file system, which may be a program (FUSE) that
    // never answers the later calls. Only memory files have seals; a dma-buf has none and is recognized by its link.
    let is_memory = fcntl(fd, FcntlArg::F_GET_SEALS).is_ok() || is_dma_buf(fd);
    if !is_memory {
        return Err(not_memory());
    }
    let fs = fstatfs(fd).map_err(|e| failed("querying its file system", e))?;
    let huge = match fs.filesystem_type() {
        HUGETLBFS_MAGIC => true,
        TMPFS_MAGIC => false,
        DMA_BUF_MAGIC => return Err(unusable("it is a dma-buf: use Memory::import_dma_buf".into())),
        _ => return Err(not_memory()),
    };
    let page = match (huge, u64::try_from(fs.block_size()).unwrap_or(0)) {
        (false, _) => PageSize::Small,
        (true, bytes) if bytes == PageSize::Huge2M.bytes() as u64 => PageSize::Huge2M,
        (true, bytes) if bytes == PageSize::Huge1G.bytes() as u64 => PageSize::Huge1G,
        (true, bytes) => {
            return Err(unusable(format!(
                "its pages have {bytes} bytes: only those of 2 MiB and 1 GiB are used"
            )));
        }
    };
    seal(fd, huge)?;
    let stat = nix::sys::stat::fstat(fd).map_err(|e| failed("querying its size", e))?;
    let (len, step) = (u64::try_from(stat.st_size).unwrap_or(0), page.bytes() as u64);
    if len == 0 || len % step != 0 || isize::try_from(len).is_err() {
        return Err(unusable(format!("it has {len} bytes: whole pages of {page} are needed, at least one")));
    }
    // `st_blocks` counts 512-byte units on every file system.
    let present = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    Ok(Checked { len, page, present })
}

/// A memory file of another process, as far as the kernel vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryFile {
    /// Size in bytes at the time of the check.
    pub(crate) len: u64,
    /// Set if no holder of the file can make an access raise SIGBUS: it is sealed against shrinking, and has small pages. Of
    /// huge pages no seal keeps a holder from punching holes (fallocate(2)); an access to a hole raises SIGBUS while no
    /// huge page is free.
    pub(crate) never_faults: bool,
    /// Page size in bytes on hugetlbfs, where a mapping has whole pages; 1 elsewhere.
    pub(crate) step: u64,
}

impl MemoryFile {
    /// Checks a file that another process has sent, and seals it against shrinking if it is a memfd that allows seals.
    /// Returns `None` for a file that is not on tmpfs or hugetlbfs (a memfd is).
    ///
    /// Only files on these have seals, and the kernel alone answers for seals. Any other system call on `fd` before this
    /// check could block for ever: the file system may be a program of the other process (FUSE).
    pub(crate) fn look(fd: BorrowedFd<'_>) -> Option<Self> {
        let seals = fcntl(fd, FcntlArg::F_GET_SEALS).ok()?;
        let sealed = SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK)
            || fcntl(fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).is_ok();
        let stat = nix::sys::stat::fstat(fd).ok()?;
        let fs = fstatfs(fd).ok()?;
        let huge = fs.filesystem_type() == HUGETLBFS_MAGIC;
        let step = if huge { u64::try_from(fs.block_size()).ok()? } else { 1 };
        Some(Self { len: u64::try_from(stat.st_size).ok()?, never_faults: sealed && !huge, step })
    }
}

/// Returns whether the kernel calls the file a dma-buf.
fn is_dma_buf(fd: BorrowedFd<'_>) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"/dmabuf:"))
}

/// Seals the file against shrinking. A hugetlbfs file that can't be sealed is accepted.
fn seal(fd: BorrowedFd<'_>, huge: bool) -> Result<Shrinking> {
    let seals = fcntl(fd, FcntlArg::F_GET_SEALS).map_err(|e| Error::os(WHAT, "querying its seals", e))?;
    if SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
        return Ok(Shrinking::Sealed);
    }
    match fcntl(fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)) {
        Ok(_) => Ok(Shrinking::Sealed),
        Err(_) if huge => Ok(Shrinking::Hugetlbfs),
        Err(errno) => Err(Error::os(
            WHAT,
            "sealing it against shrinking (its owner could shrink it, and an access would fault: it must be \
                        a memfd made with MFD_ALLOW_SEALING, and the descriptor writable)",
            errno,
        )),
    }
}

impl Memory {
    /// Imports all of another program's memory file: a memfd of any page size, or a file on a hugetlbfs mount, open for
    /// reading and writing. [`DmaSpace::map`](crate::dma::DmaSpace::map) makes it a region; its bytes are kept.
    ///
    /// This seals a memfd against shrinking, for good. A named hugetlbfs file can't be sealed: if anyone shrinks it, the
    /// next access ends this process with SIGBUS. The same happens with any huge pages if someone punches a hole into the
    /// file while the pool is empty. A device behind an IOMMU is not affected, because the kernel pins the pages that it
    /// was given. In a space of physical addresses nothing pins them: the pages of a hole are free at once, and the
    /// device still accesses them when they belong to another process. For such a space, import memory only from a
    /// program that you trust not to do that.
    ///
    /// # Errors
    /// [`Failure::Unusable`](crate::Failure::Unusable) when the file is not a memory file, does not have whole pages, could shrink, or is this
    /// process's own memory and not [shared](Self::shared); [`Failure::Memory`](crate::Failure::Memory) when it has holes that can't be filled; the
    /// errors of mapping it.
    pub fn import(fd: OwnedFd) -> Result<Self> {
        let Checked { len, page, present } = check(fd.as_fd())?;
        if present < len {
            // Filling turns a lack of pages into an error, instead of SIGBUS on first use.
            fill(fd.as_fd(), len as i64).map_err(|e| {
                Error::memory(
                    format!("{WHAT}: {len} bytes in {page} pages"),
                    format!("{present} bytes have pages, and {}", super::shortage(page, None, len - present)),
                    e,
                )
            })?;
        }
        let mapping = Mapping::new(fd.as_fd(), 0, len as usize, WHAT)?;
        Ok(Self { mapping, fd, page, name: None, sharing: Sharing::Shared, own: None })
    }

    /// Imports all of a dma-buf that can be mapped and written.
    ///
    /// The kernel decides, when the memory becomes a region, whether a device can access it: VFIO takes memory with page
    /// structures, which a mapping of a dma-buf mostly lacks (Linux 6.12 refuses that of a udmabuf). The memory file
    /// behind a udmabuf can always be [imported](Self::import). A space of physical addresses takes no dma-buf.
    ///
    /// This does nothing for coherency: if the exporter of the dma-buf needs it, the caller frames its accesses by
    /// `DMA_BUF_IOCTL_SYNC`. A udmabuf is host memory and does not need that on machines with coherent DMA.
    ///
    /// # Errors
    /// [`Failure::Unusable`](crate::Failure::Unusable) when the file is not a dma-buf, and the errors of mapping it.
    pub fn import_dma_buf(fd: OwnedFd) -> Result<Self> {
        let fs = fstatfs(&fd).map_err(|e| Error::os(WHAT, "querying its file system", e))?;
        let unusable = |reason: String| Error::unusable(WHAT, reason);
        if fs.filesystem_type() != DMA_BUF_MAGIC {
            return Err(unusable("it is no dma-buf; for a memory file use Memory::import".into()));
        }
        // A dma-buf's size never changes (`dma_buf_llseek`).
        let len = lseek(&fd, 0, Whence::SeekEnd).map_err(|e| Error::os(WHAT, "querying its size", e))?;
        let len = usize::try_from(len).unwrap_or(0);
        if len == 0 || len % host_page_size() != 0 {
            return Err(unusable(format!("it has {len} bytes: whole pages are needed, at least one")));
        }
        let mapping = Mapping::new(fd.as_fd(), 0, len, WHAT)?;
        Ok(Self { mapping, fd, page: PageSize::Small, name: None, sharing: Sharing::DmaBuf, own: None })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nix::{
        fcntl::{FallocateFlags, fallocate},
        sys::memfd::{MFdFlags, memfd_create},
    };
    use std::{fs::File, os::unix::fs::MetadataExt};

    fn memfd(len: i64, flags: MFdFlags) -> OwnedFd {
        let fd = memfd_create(c"upcie-test", flags | MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, len).unwrap();
        fd
    }

    /// Returns device and inode of the descriptor's file.
    pub(crate) fn file_of(fd: impl AsFd) -> (u64, u64) {
        let stat = nix::sys::stat::fstat(fd).unwrap();
        (stat.st_dev, stat.st_ino)
    }

    /// Returns the number of this process's descriptors of `file`.
    pub(crate) fn descriptors_of(file: (u64, u64)) -> usize {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        open.filter(|entry| std::fs::metadata(entry.path()).is_ok_and(|m| (m.dev(), m.ino()) == file)).count()
    }

    /// Returns files that are not memory, of several kinds: a pipe, a socket, the program's file on a disk, one of the kernel's.
    ///
    /// They stand for a file of FUSE, too, which takes a mount and can hang the test. No check asks for the kind of a file that it
    /// refuses: it looks for what it accepts, seals or an eventfd's name, for which the kernel alone answers.
    pub(crate) fn other_files() -> Vec<OwnedFd> {
        let (pipe, _) = nix::unistd::pipe().unwrap();
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let [program, kernel] =
            ["/proc/self/exe", "/proc/self/maps"].map(|path| OwnedFd::from(File::open(path).unwrap()));
        let mut all = vec![pipe, socket.into(), kernel];
        // The files of programs that are built on tmpfs are memory.
        if fstatfs(&program).unwrap().filesystem_type() != TMPFS_MAGIC {
            all.push(program);
        }
        all
    }

    #[test]
    fn imported_memfd_is_sealed_filled_and_keeps_its_bytes() {
        let len = 4 * host_page_size();
        let fd = memfd(len as i64, MFdFlags::MFD_ALLOW_SEALING);
        nix::sys::uio::pwrite(&fd, b"before", 10).unwrap();
        let file = file_of(&fd);
        let theirs = fd.try_clone().unwrap();
        let memory = Memory::import(fd).unwrap();
        assert_eq!((memory.len(), memory.page_size(), memory.is_shared()), (len, PageSize::Small, true));
        let mut bytes = [0; 6];
        // SAFETY: the offset is within the mapping.
        let from = unsafe { memory.as_ptr().add(10) };
        // SAFETY: the six bytes are within the mapping.
        unsafe { crate::mmio::copy_from(from, &mut bytes) };
        assert_eq!(&bytes, b"before");
        assert_eq!(nix::unistd::ftruncate(&theirs, 0), Err(Errno::EPERM), "it can shrink");
        assert_eq!(check(theirs.as_fd()).unwrap().present, len as u64, "it has holes");
        drop((memory, theirs));
        assert_eq!(descriptors_of(file), 0);
    }

    #[test]
    fn received_files_are_sealed_if_possible() {
        let page = host_page_size() as i64;
        let len = page as u64;
        let open = memfd(page, MFdFlags::MFD_ALLOW_SEALING);
        assert_eq!(MemoryFile::look(open.as_fd()), Some(MemoryFile { len, never_faults: true, step: 1 }));
        assert_eq!(nix::unistd::ftruncate(&open, 0), Err(Errno::EPERM));
        let closed = memfd(page, MFdFlags::empty());
        assert_eq!(MemoryFile::look(closed.as_fd()), Some(MemoryFile { len, never_faults: false, step: 1 }));
        let (pipe, _write) = nix::unistd::pipe().unwrap();
        let process: OwnedFd = File::open("/proc/self/maps").unwrap().into();
        for other in [pipe, process] {
            assert_eq!(MemoryFile::look(other.as_fd()), None);
        }
    }

    /// A holder takes pages of a sealed file back, and an access ends the process if no page is free then.
    #[test]
    fn sealed_huge_pages_can_be_taken_back() {
        let page = PageSize::Huge2M;
        if page.available().is_none() {
            return println!("left out: no 2 MiB pages");
        }
        let len = page.bytes() as i64;
        // A file without pages takes none of the pool.
        let flags = MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB | MFdFlags::MFD_ALLOW_SEALING;
        let fd = memfd(len, flags);
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW)).unwrap();
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&fd, hole, 0, len).unwrap();
        let step = len as u64;
        assert_eq!(MemoryFile::look(fd.as_fd()), Some(MemoryFile { len: step, never_faults: false, step }));
    }

    #[test]
    fn unsuitable_files_are_refused_and_closed() {
        let page = host_page_size() as i64;
        let readable = {
            let fd = memfd(page, MFdFlags::MFD_ALLOW_SEALING);
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            File::open(path).unwrap()
        };
        let cases: [(OwnedFd, &str); 6] = [
            (memfd(page, MFdFlags::empty()), "MFD_ALLOW_SEALING"),
            (readable.into(), "the descriptor writable"),
            (memfd(0, MFdFlags::MFD_ALLOW_SEALING), "0 bytes"),
            (memfd(page + 1, MFdFlags::MFD_ALLOW_SEALING), "whole pages"),
            (File::open("/proc/self/maps").unwrap().into(), "only a memory file"),
            (nix::unistd::pipe().unwrap().0, "only a memory file"),
        ];
        for (fd, words) in cases {
            let file = file_of(&fd);
            let error = Memory::import(fd).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
            assert_eq!(descriptors_of(file), 0, "{words}");
        }
        let error = Memory::import_dma_buf(memfd(page, MFdFlags::MFD_ALLOW_SEALING)).unwrap_err().to_string();
        assert!(error.contains("no dma-buf"), "{error}");
    }

    #[test]
    fn unfillable_holes_are_an_error_at_import() {
        let page = PageSize::Huge2M;
        let Some((free, _)) = page.available() else { return println!("left out: no 2 MiB pages") };
        let flags = MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB | MFdFlags::MFD_ALLOW_SEALING;
        let fd = memfd((free as i64 + 64) * page.bytes() as i64, flags);
        let file = file_of(&fd);
        let error = Memory::import(fd).unwrap_err();
        assert!(matches!(error.failure(), crate::Failure::Memory { .. }), "{error:?}");
        assert!(error.to_string().contains("are free"), "{error}");
        assert_eq!(descriptors_of(file), 0);
    }

    #[test]
    fn write_sealed_memory_is_refused() {
        let fd = memfd(host_page_size() as i64, MFdFlags::MFD_ALLOW_SEALING);
        fill(fd.as_fd(), host_page_size() as i64).unwrap();
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK)).unwrap();
        let error = Memory::import(fd).unwrap_err();
        assert!(
            matches!(error.failure(), crate::Failure::Os { source, .. } if source.raw_os_error() == Some(libc::EPERM)),
            "{error}"
        );
    }
}
