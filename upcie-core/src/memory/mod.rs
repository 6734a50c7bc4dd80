//! Memory that devices can be given: anonymous files of 4 KiB, 2 MiB or 1 GiB pages, mapped and filled.
//!
//! A file, not plain anonymous memory, because a vfio-user server (and later another process) is handed its descriptor.
//! It is sealed against shrinking, so that no holder of the descriptor can make an access fault. Files of others are
//! taken too ([`Memory::import`]).

mod external;
mod pagemap;

#[cfg(test)]
pub(crate) use external::tests::{descriptors_of, file_of};
pub(crate) use external::{MemoryFile, check, not_memory};
pub(crate) use pagemap::physical_pages;

pub use crate::{
    mmio::survive_shrinking,
    page::{PageSize, host_page_size},
};

use crate::{
    Error, Result,
    events::emit,
    hugetlb::{self, NamedFile},
    mmio::{Mapping, OwnFile},
    numa,
    page::fill,
    pci::Bdf,
    process::Owner,
};
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use std::{
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// A range of zeroed, mapped memory with the file behind it.
#[derive(Debug)]
pub struct Memory {
    mapping: Mapping,
    fd: OwnedFd,
    page: PageSize,
    /// For a file that has a name: removed with the memory, by the process that made it.
    name: Option<(NamedFile, Owner)>,
    sharing: Sharing,
    /// While nobody else may have it.
    own: Option<OwnFile>,
}

/// Who else has the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// Nobody but devices.
    Own,
    /// Other processes may read and write them at any time.
    Shared,
    /// The same, and they are behind a dma-buf.
    DmaBuf,
}

impl Memory {
    /// At least `len` bytes, rounded up to whole pages of `page`, zeroed and present.
    ///
    /// # Errors
    /// [`Error::Memory`] when there are not enough (huge) pages: it says how many there are and how to get more.
    pub fn new(len: usize, page: PageSize) -> Result<Self> {
        Self::new_on(len, page, None)
    }

    /// The same, on the NUMA node `node` as far as that has room, and elsewhere beyond that (MPOL_PREFERRED of
    /// mbind(2)). Where only one node has memory, or the system forbids the preference, it has no effect.
    ///
    /// # Errors
    /// As [`new`](Self::new): too few pages in all; it says how many are free on the node.
    pub fn new_on(len: usize, page: PageSize, node: Option<u32>) -> Result<Self> {
        let node = node.filter(|_| numa::nodes_with_memory().len() > 1);
        let what = || format!("{len} bytes of DMA memory in {page} pages");
        let fail = |source: std::io::Error| Error::Memory {
            what: what(),
            reason: shortage(page, node, len as u64),
            source,
        };
        let len = len
            .max(1)
            .checked_next_multiple_of(page.bytes())
            .filter(|&len| i64::try_from(len).is_ok())
            .ok_or_else(|| fail(std::io::Error::from_raw_os_error(libc::ENOMEM)))?;
        let flags = MFdFlags::MFD_CLOEXEC
            | MFdFlags::MFD_ALLOW_SEALING
            | match page {
                PageSize::Small => MFdFlags::empty(),
                PageSize::Huge2M => MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB,
                PageSize::Huge1G => MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_1GB,
            };
        let fd = memfd_create(c"upcie-dma", flags).map_err(|e| fail(e.into()))?;
        // Reserves the pages: too few is an error here, not a SIGBUS on first use.
        nix::unistd::ftruncate(&fd, len as i64).map_err(|e| fail(e.into()))?;
        if let (Some(node), Some(len)) = (node, NonZeroUsize::new(len)) {
            if let Err(error) = numa::place(fd.as_fd(), len, node) {
                emit(move || tracing::debug!(node, %error, "DMA memory without regard to its node"));
            }
        }
        if let Err(e) = fill(fd.as_fd(), len as i64) {
            // What it got goes back first, so that the message counts it.
            drop(fd);
            return Err(fail(e.into()));
        }
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).map_err(|e| fail(e.into()))?;
        let mapping = Mapping::map(fd.as_fd(), 0, len, &what())?;
        let own = Some(OwnFile::of(fd.as_fd(), &what())?);
        Ok(Self { mapping, fd, page, name: None, sharing: Sharing::Own, own })
    }

    /// At least `len` bytes, rounded up to whole pages of `page` (huge ones), zeroed and present, as a file on a
    /// hugetlbfs mount whose name says that it is DMA memory of `function`: it outlives this process if that is killed
    /// ([`hugetlb::leftovers`]).
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Unusable`] when no such mount can be written to.
    pub fn named(function: Bdf, len: usize, page: PageSize) -> Result<Self> {
        let what = || format!("{function}: {len} bytes of DMA memory in {page} pages");
        let mount = hugetlb::mount_for(page)?;
        let len = len.max(1).checked_next_multiple_of(page.bytes()).unwrap_or(usize::MAX);
        let file = hugetlb::create_file(&mount, function, len as u64)?;
        let made = Mapping::map(file.file().as_fd(), 0, len, &what()).and_then(|mapping| {
            let fd = file.file().as_fd().try_clone_to_owned();
            let fd = fd.map_err(|e| Error::os(what(), "keeping its descriptor", e))?;
            let own = Some(OwnFile::of(fd.as_fd(), &what())?);
            Ok((mapping, fd, own))
        });
        match made {
            Ok((mapping, fd, own)) => {
                let name = Some((file, Owner::current()));
                Ok(Self { mapping, fd, page, name, sharing: Sharing::Own, own })
            }
            Err(error) => {
                file.remove()?;
                Err(error)
            }
        }
    }

    /// The same memory as what other processes are to have too ([`Region::export`](crate::dma::Region::export)). Its bytes
    /// may change at any time from then on, so its buffers deref to nothing: they are read and written by copies.
    #[must_use]
    pub fn shared(mut self) -> Self {
        if self.sharing == Sharing::Own {
            self.sharing = Sharing::Shared;
            self.own = None;
        }
        self
    }

    /// Whether other processes may read and write it at any time: no reference to its bytes is ever formed then.
    pub fn is_shared(&self) -> bool {
        self.sharing != Sharing::Own
    }

    /// Whether it is behind a dma-buf, whose pages are its exporter's.
    pub fn is_dma_buf(&self) -> bool {
        self.sharing == Sharing::DmaBuf
    }

    /// The file behind it, which starts at its offset 0, if it is memory that others may have ([`is_shared`](Self::is_shared)).
    ///
    /// `None` also for a named file of huge pages, which the modes without an IOMMU use: who has its descriptor can take
    /// pages away (`fallocate`) that a device still writes to.
    pub fn shared_file(&self) -> Option<BorrowedFd<'_>> {
        (self.is_shared() && !self.is_named()).then(|| self.fd.as_fd())
    }

    /// The file behind any memory, which starts at its offset 0: for a [`Mapper`](crate::dma::Mapper), whose device is given
    /// it.
    ///
    /// # Safety
    /// It goes to a device, or to who stands in for one. In this process nobody reads, writes or maps it, and takes none of
    /// its pages away: buffers in it deref to bytes that nobody else has, and rings and lists in it send the device to
    /// memory.
    pub unsafe fn file(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether its file has a name, by which it outlives its process.
    pub(crate) fn is_named(&self) -> bool {
        self.name.is_some()
    }

    /// Gives its file, if it has a name, one for `function` too.
    pub(crate) fn also_for(&self, function: Bdf) -> Result<()> {
        self.name.as_ref().map_or(Ok(()), |(file, _)| file.also_for(function))
    }

    /// Lets its file, if it has a name, outlive it.
    pub(crate) fn leave(mut self) {
        self.name = None;
    }

    /// Sets all bytes to zero.
    pub(crate) fn zero(&self) {
        // SAFETY: all bytes of the mapping.
        unsafe { self.as_ptr().write_bytes(0, self.len()) }
    }

    /// Where it is mapped.
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr()
    }

    /// Its bytes, whole pages.
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Never: there is at least one page.
    pub fn is_empty(&self) -> bool {
        self.mapping.is_empty()
    }

    /// The page size that it was made of.
    pub fn page_size(&self) -> PageSize {
        self.page
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some((file, _)) = self.name.as_ref().filter(|(_, owner)| owner.is_current()) {
            if let Err(error) = file.remove() {
                emit(move || {
                    tracing::warn!(%error, "removing a file of DMA memory: `hugepages release` does it");
                });
            }
        }
    }
}

/// What to say when memory of `page` pages can't be had, on `node` if possible.
fn shortage(page: PageSize, node: Option<u32>, wanted: u64) -> String {
    let bytes = page.bytes();
    if let Some(limit) = hugetlb::limit(bytes as u64, wanted) {
        return limit;
    }
    let there = node
        .and_then(|node| {
            hugetlb::look(page, Some(node)).map(|pool| format!(" ({} on node {node})", pool.free))
        })
        .unwrap_or_default();
    match (page, page.available()) {
        (PageSize::Small, _) => "the system is out of memory, or of room for shared memory".into(),
        (_, None) => format!("this kernel has no {page} pages"),
        (_, Some((free, total))) => format!(
            "{free} of {total} are free{there}; as root: echo N > /sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages",
            bytes >> 10
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use std::{fs::OpenOptions, os::fd::AsRawFd};

    #[test]
    fn memory_is_whole_zeroed_pages_of_a_sealed_file() {
        let memory = Memory::new(1, PageSize::Small).unwrap();
        assert_eq!(memory.len(), host_page_size());
        // SAFETY: the mapping's bytes, which nobody else has.
        let bytes = unsafe { std::slice::from_raw_parts(memory.as_ptr(), memory.len()) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        let shrunk = nix::unistd::ftruncate(&memory.fd, 0);
        assert_eq!(shrunk, Err(Errno::EPERM), "a holder of the descriptor can't make an access fault");
    }

    #[test]
    fn too_few_huge_pages_are_an_error_that_says_how_many_there_are() {
        let page = PageSize::Huge2M;
        let free = page.available().map_or(0, |(free, _)| free) as usize;
        let error = Memory::new((free + 1) * page.bytes(), page).unwrap_err();
        let text = error.to_string();
        match page.available() {
            Some((_, total)) => {
                assert!(text.contains(&format!("of {total} are free")) && text.contains("echo"), "{text}")
            }
            None => assert!(text.contains("no 2 MiB pages"), "{text}"),
        }
        assert!(Memory::new(usize::MAX, PageSize::Small).is_err());
    }

    /// Soundness finding 1: a second mapping of the heap's own file.
    #[test]
    fn own_memory_is_neither_imported_nor_mapped_again() {
        let memory = Memory::new(4096, PageSize::Small).unwrap();
        assert!(memory.shared_file().is_none());
        let path = format!("/proc/self/fd/{}", memory.fd.as_raw_fd());
        let open = || OpenOptions::new().read(true).write(true).open(&path).unwrap();
        for error in [
            Memory::import(open().into()).expect_err("a second mapping"),
            Mapping::new(open().as_fd(), 0, 4096, "a test").expect_err("a second mapping"),
        ] {
            assert!(error.to_string().contains("allocate_shared"), "{error}");
        }
        // What is shared has no references to its bytes.
        let memory = memory.shared();
        assert!(memory.shared_file().is_some());
        Memory::import(open().into()).unwrap();
    }
}
