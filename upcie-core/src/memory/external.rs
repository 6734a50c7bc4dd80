//! Memory that others made: memory files (memfd, hugetlbfs) and dma-bufs, by their descriptors.
//!
//! Whoever else has such a file may change its bytes at any time, so all of this is [shared](Memory::is_shared) memory.
//! Nothing that a descriptor says is taken on trust but what the kernel vouches for.

use super::{Memory, PageSize, Sharing, fill, host_page_size};
use crate::{Error, Result, mmio::Mapping};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::statfs::{FsType, HUGETLBFS_MAGIC, TMPFS_MAGIC, fstatfs},
    unistd::{Whence, lseek},
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// What a dma-buf's file system says it is (`linux/magic.h`).
const DMA_BUF_MAGIC: FsType = FsType(0x444d_4142);

const WHAT: &str = "memory that was handed over";
const NOT_MEMORY: &str = "only a memory file will do: a memfd, or a file on a hugetlbfs mount";

/// A memory file that was found fit to be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Bytes, whole pages, at least one.
    pub(crate) len: u64,
    pub(crate) page: PageSize,
    /// Bytes that have pages by now.
    pub(crate) present: u64,
}

/// Whether the file can shrink, when its memory is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shrinking {
    Sealed,
    /// Nobody can tell such a file not to.
    Hugetlbfs,
}

/// The error for a descriptor of anything else.
pub(crate) fn not_memory() -> Error {
    Error::Unusable { device: WHAT.into(), reason: NOT_MEMORY.into() }
}

/// Checks that `fd` is a memory file, seals it against shrinking, and gives its size: in this order, so that the size stays
/// true.
pub(crate) fn check(fd: BorrowedFd<'_>) -> Result<Checked> {
    let unusable = |reason: String| Error::Unusable { device: WHAT.into(), reason };
    let failed = |operation: &str, errno: Errno| Error::os(WHAT, operation, errno);
    // Only memory files have seals, which the kernel keeps itself; a file system that is somebody else's program (FUSE) might
    // never answer what comes next. A dma-buf has none.
    let is_memory = fcntl(fd, FcntlArg::F_GET_SEALS).is_ok() || is_dma_buf(fd);
    if !is_memory {
        return Err(not_memory());
    }
    let fs = fstatfs(fd).map_err(|e| failed("asking what kind of file it is", e))?;
    let huge = match fs.filesystem_type() {
        HUGETLBFS_MAGIC => true,
        TMPFS_MAGIC => false,
        DMA_BUF_MAGIC => return Err(unusable("it is a dma-buf: take Memory::import_dma_buf".into())),
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
    let stat = nix::sys::stat::fstat(fd).map_err(|e| failed("asking for its size", e))?;
    let (len, step) = (u64::try_from(stat.st_size).unwrap_or(0), page.bytes() as u64);
    if len == 0 || len % step != 0 || isize::try_from(len).is_err() {
        return Err(unusable(format!("it has {len} bytes: whole pages of {page} are needed, at least one")));
    }
    // In units of 512 bytes whatever the file system.
    let present = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    Ok(Checked { len, page, present })
}

/// A memory file of another process, as far as the kernel vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryFile {
    /// Bytes, when it was looked at.
    pub(crate) len: u64,
    /// Whether it stays at least as long. If not, whoever has the file may shrink it, and then an access beyond its new end
    /// raises SIGBUS.
    pub(crate) sealed: bool,
    /// Bytes of a page of hugetlbfs, of which each mapping has a whole number; 1 elsewhere.
    pub(crate) step: u64,
}

impl MemoryFile {
    /// Looks at a file that another process has sent, and seals it against shrinking where that can be done (a memfd that
    /// allows seals); `None` when it is no file of tmpfs or hugetlbfs, memfds among them.
    ///
    /// Only files of these have seals, and the kernel answers for them alone. Any other system call on `fd` could wait for
    /// ever before this is known: the file system may be a program of the other's (FUSE).
    pub(crate) fn look(fd: BorrowedFd<'_>) -> Option<Self> {
        let seals = fcntl(fd, FcntlArg::F_GET_SEALS).ok()?;
        let sealed = SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK)
            || fcntl(fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).is_ok();
        let stat = nix::sys::stat::fstat(fd).ok()?;
        let fs = fstatfs(fd).ok()?;
        let huge = fs.filesystem_type() == HUGETLBFS_MAGIC;
        let step = if huge { u64::try_from(fs.block_size()).ok()? } else { 1 };
        Some(Self { len: u64::try_from(stat.st_size).ok()?, sealed, step })
    }
}

/// Whether the kernel calls it a dma-buf.
fn is_dma_buf(fd: BorrowedFd<'_>) -> bool {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    link.is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"/dmabuf:"))
}

/// Makes sure that the file can't shrink, as far as that can be.
fn seal(fd: BorrowedFd<'_>, huge: bool) -> Result<Shrinking> {
    let seals = fcntl(fd, FcntlArg::F_GET_SEALS).map_err(|e| Error::os(WHAT, "asking for its seals", e))?;
    if SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
        return Ok(Shrinking::Sealed);
    }
    match fcntl(fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)) {
        Ok(_) => Ok(Shrinking::Sealed),
        Err(_) if huge => Ok(Shrinking::Hugetlbfs),
        Err(errno) => Err(Error::Os {
            device: WHAT.into(),
            operation: "sealing it against shrinking (its owner could shrink it, and an access would fault: it must be \
                        a memfd made with MFD_ALLOW_SEALING, and the descriptor writable)"
                .into(),
            source: errno.into(),
        }),
    }
}

impl Memory {
    /// All of a memory file of somebody else's: a memfd of any page size, or a file on a hugetlbfs mount, open for reading
    /// and writing. It becomes a region by [`DmaSpace::map`](crate::dma::DmaSpace::map); its bytes are kept as they are.
    ///
    /// A memfd is sealed against shrinking by this, if it was not yet, for good. A hugetlbfs file that has a name can't
    /// be sealed: whoever makes it shorter lets this process end with SIGBUS at its next access. The same can happen with
    /// all huge pages when someone punches a hole into the file while the pool is empty. A device behind an IOMMU is not
    /// affected, for the kernel holds on to the pages that it was given. In a space of physical addresses nothing holds them:
    /// the pages of a hole are free at once, and the device goes on reading and writing them whoever gets them next. Import
    /// for such a space only from whom you trust not to do that.
    ///
    /// # Errors
    /// [`Error::Unusable`] when it is no memory file, has no whole pages, could shrink, or is this process's own memory that
    /// was not made to be [shared](Self::shared); [`Error::Memory`] when it has holes that can't be filled; those of mapping
    /// it.
    pub fn import(fd: OwnedFd) -> Result<Self> {
        let Checked { len, page, present } = check(fd.as_fd())?;
        if present < len {
            // Too few pages are an error here, not a SIGBUS on first use.
            fill(fd.as_fd(), len as i64).map_err(|e| Error::Memory {
                what: format!("{WHAT}: {len} bytes in {page} pages"),
                reason: format!(
                    "{present} bytes have pages, and {}",
                    super::shortage(page, None, len - present)
                ),
                source: e.into(),
            })?;
        }
        let mapping = Mapping::new(fd.as_fd(), 0, len as usize, WHAT)?;
        Ok(Self { mapping, fd, page, name: None, sharing: Sharing::Shared, own: None })
    }

    /// All of a dma-buf that can be mapped and written.
    ///
    /// Whether a device can be given it is the kernel's to say, when it becomes a region: VFIO takes memory that has
    /// pages of its own, which the mapping of a dma-buf mostly does not show (Linux 6.12 refuses a udmabuf's). The memory
    /// file behind a udmabuf can be [imported](Self::import) always. A space of physical addresses takes none.
    ///
    /// Nothing is done for coherency: the caller frames its own accesses by `DMA_BUF_IOCTL_SYNC` where the exporter of the
    /// dma-buf wants that (a udmabuf, which is memory of the host, does not on machines with coherent DMA).
    ///
    /// # Errors
    /// [`Error::Unusable`] when it is no dma-buf, and those of mapping it.
    pub fn import_dma_buf(fd: OwnedFd) -> Result<Self> {
        let fs = fstatfs(&fd).map_err(|e| Error::os(WHAT, "asking what kind of file it is", e))?;
        let unusable = |reason: String| Error::Unusable { device: WHAT.into(), reason };
        if fs.filesystem_type() != DMA_BUF_MAGIC {
            return Err(unusable("it is no dma-buf; for a memory file take Memory::import".into()));
        }
        // Its size never changes (`dma_buf_llseek`).
        let len = lseek(&fd, 0, Whence::SeekEnd).map_err(|e| Error::os(WHAT, "asking for its size", e))?;
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
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::{fs::File, os::unix::fs::MetadataExt};

    fn memfd(len: i64, flags: MFdFlags) -> OwnedFd {
        let fd = memfd_create(c"upcie-test", flags | MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, len).unwrap();
        fd
    }

    /// Which file a descriptor is of.
    pub(crate) fn file_of(fd: impl AsFd) -> (u64, u64) {
        let stat = nix::sys::stat::fstat(fd).unwrap();
        (stat.st_dev, stat.st_ino)
    }

    /// How many descriptors of this process are of that file.
    pub(crate) fn descriptors_of(file: (u64, u64)) -> usize {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        open.filter(|entry| std::fs::metadata(entry.path()).is_ok_and(|m| (m.dev(), m.ino()) == file)).count()
    }

    #[test]
    fn a_memory_file_of_somebody_elses_is_sealed_filled_and_keeps_its_bytes() {
        let len = 4 * host_page_size();
        let fd = memfd(len as i64, MFdFlags::MFD_ALLOW_SEALING);
        nix::sys::uio::pwrite(&fd, b"before", 10).unwrap();
        let file = file_of(&fd);
        let theirs = fd.try_clone().unwrap();
        let memory = Memory::import(fd).unwrap();
        assert_eq!((memory.len(), memory.page_size(), memory.is_shared()), (len, PageSize::Small, true));
        let mut bytes = [0; 6];
        // SAFETY: within the mapping.
        let from = unsafe { memory.as_ptr().add(10) };
        // SAFETY: as many bytes of it.
        unsafe { crate::mmio::copy_from(from, &mut bytes) };
        assert_eq!(&bytes, b"before");
        assert_eq!(nix::unistd::ftruncate(&theirs, 0), Err(Errno::EPERM), "it can shrink");
        assert_eq!(check(theirs.as_fd()).unwrap().present, len as u64, "it has holes");
        drop((memory, theirs));
        assert_eq!(descriptors_of(file), 0);
    }

    #[test]
    fn files_that_others_sent_are_sealed_where_they_can_be() {
        let page = host_page_size() as i64;
        let len = page as u64;
        let open = memfd(page, MFdFlags::MFD_ALLOW_SEALING);
        assert_eq!(MemoryFile::look(open.as_fd()), Some(MemoryFile { len, sealed: true, step: 1 }));
        assert_eq!(nix::unistd::ftruncate(&open, 0), Err(Errno::EPERM));
        let closed = memfd(page, MFdFlags::empty());
        assert_eq!(MemoryFile::look(closed.as_fd()), Some(MemoryFile { len, sealed: false, step: 1 }));
        let (pipe, _write) = nix::unistd::pipe().unwrap();
        let process: OwnedFd = File::open("/proc/self/maps").unwrap().into();
        for other in [pipe, process] {
            assert_eq!(MemoryFile::look(other.as_fd()), None);
        }
    }

    #[test]
    fn what_could_shrink_or_is_no_memory_is_refused_and_closed() {
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
    fn holes_that_nothing_can_fill_are_an_error_and_no_fault_later() {
        let page = PageSize::Huge2M;
        let Some((free, _)) = page.available() else { return println!("left out: no 2 MiB pages") };
        let flags = MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB | MFdFlags::MFD_ALLOW_SEALING;
        let fd = memfd((free as i64 + 64) * page.bytes() as i64, flags);
        let file = file_of(&fd);
        let error = Memory::import(fd).unwrap_err();
        assert!(matches!(error, Error::Memory { .. }), "{error:?}");
        assert!(error.to_string().contains("are free"), "{error}");
        assert_eq!(descriptors_of(file), 0);
    }

    #[test]
    fn memory_that_nobody_may_write_is_refused() {
        let fd = memfd(host_page_size() as i64, MFdFlags::MFD_ALLOW_SEALING);
        fill(fd.as_fd(), host_page_size() as i64).unwrap();
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK)).unwrap();
        let error = Memory::import(fd).unwrap_err();
        assert!(
            matches!(&error, Error::Os { source, .. } if source.raw_os_error() == Some(libc::EPERM)),
            "{error}"
        );
    }
}
