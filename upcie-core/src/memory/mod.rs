//! Memory for devices: files of 4 KiB, 2 MiB or 1 GiB pages, mapped and filled.
//!
//! It is a file, not plain anonymous memory, because a vfio-user server or another process receives its descriptor. The
//! file is sealed against shrinking, so that no holder of the descriptor can make an access to small pages fault. Of
//! huge pages a holder can take some back (fallocate(2), FALLOC_FL_PUNCH_HOLE), which no seal prevents; while no huge
//! page is free, the next access to them ends the process (SIGBUS). So holders that are not trusted get small pages
//! ([`DmaSpace::distrust`](crate::dma::DmaSpace::distrust)). Files of other programs are accepted too
//! ([`Memory::import`]).

mod external;
mod pagemap;

#[cfg(test)]
pub(crate) use external::tests::{descriptors_of, file_of, other_files};
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
///
/// ```
/// use upcie_core::memory::{Memory, PageSize};
///
/// let memory = Memory::new(64 << 10, PageSize::Small)?;
/// assert_eq!(memory.len(), 64 << 10);
/// // A device reaches it once its address space maps it: `device.dma().map(memory)?`.
/// # Ok::<(), upcie_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Memory {
    mapping: Mapping,
    fd: OwnedFd,
    page: PageSize,
    /// The name of a named file, which the process that made it removes with the memory.
    name: Option<(NamedFile, Owner)>,
    sharing: Sharing,
    /// Present while no other process may have the memory.
    own: Option<OwnFile>,
}

/// The other users of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// Only devices.
    Own,
    /// Other processes may read and write them at any time.
    Shared,
    /// Other processes too, and the bytes are behind a dma-buf.
    DmaBuf,
}

impl Memory {
    /// Allocates at least `len` bytes, rounded up to whole pages of `page`, zeroed and present.
    ///
    /// # Errors
    /// [`Failure::Memory`](crate::Failure::Memory) when too few (huge) pages are free: it says how many are free and
    /// how to get more.
    pub fn new(len: usize, page: PageSize) -> Result<Self> {
        Self::new_on(len, page, None)
    }

    /// Allocates memory as [`new`](Self::new) does, on the NUMA node `node` as far as it has free pages, elsewhere
    /// beyond that (MPOL_PREFERRED of mbind(2)). If only one node has memory, or the system forbids the preference,
    /// `node` has no effect.
    ///
    /// # Errors
    /// Those of [`new`](Self::new): too few pages on all nodes. The message also says how many are free on `node`.
    pub fn new_on(len: usize, page: PageSize, node: Option<u32>) -> Result<Self> {
        let node = node.filter(|_| numa::nodes_with_memory().len() > 1);
        let what = || format!("{len} bytes of DMA memory in {page} pages");
        let fail = |source: std::io::Error| Error::memory(what(), shortage(page, node, len as u64), source);
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
        // Before the file has bytes: another thread may open it by its path in /proc, and a file without bytes is not
        // imported.
        let own = Some(OwnFile::of(fd.as_fd(), &what())?);
        // Reserves the pages, which turns a lack of them into an error, instead of SIGBUS on first use.
        nix::unistd::ftruncate(&fd, len as i64).map_err(|e| fail(e.into()))?;
        if let (Some(node), Some(len)) = (node, NonZeroUsize::new(len)) {
            if let Err(error) = numa::allocate_on(fd.as_fd(), len, node) {
                emit(
                    move || tracing::debug!(node, %error, "DMA memory is not placed on the wanted NUMA node"),
                );
            }
        }
        if let Err(e) = fill(fd.as_fd(), len as i64) {
            // Frees the pages that it got first, so that the message counts them.
            drop((own, fd));
            return Err(fail(e.into()));
        }
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).map_err(|e| fail(e.into()))?;
        let mapping = Mapping::map(fd.as_fd(), 0, len, &what())?;
        Ok(Self { mapping, fd, page, name: None, sharing: Sharing::Own, own })
    }

    /// Allocates at least `len` bytes, rounded up to whole huge pages of `page`, zeroed and present, as a file on a
    /// hugetlbfs mount. The file's name marks it as DMA memory of `function`. If this process is killed, the file stays
    /// ([`hugetlb::leftovers`]).
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and [`Failure::Unusable`](crate::Failure::Unusable) when no such mount is writable.
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

    /// Makes the memory shared: other processes may have it too ([`Region::export`](crate::dma::Region::export)). Its
    /// bytes may change at any time from then on, so its buffers give no slices; they are read and written by copies.
    #[must_use]
    pub fn shared(mut self) -> Self {
        if self.sharing == Sharing::Own {
            self.sharing = Sharing::Shared;
            self.own = None;
        }
        self
    }

    /// Returns whether other processes may read and write the memory at any time. No reference to its bytes is formed
    /// then.
    pub fn is_shared(&self) -> bool {
        self.sharing != Sharing::Own
    }

    /// Returns whether the memory is behind a dma-buf, whose exporter owns the pages.
    pub fn is_dma_buf(&self) -> bool {
        self.sharing == Sharing::DmaBuf
    }

    /// Returns the file behind [shared](Self::is_shared) memory, which starts at the file's offset 0.
    ///
    /// Returns `None` for a named file of huge pages too, which the modes without an IOMMU use: a holder of its
    /// descriptor can free pages (`fallocate`) that a device still writes to.
    pub fn shared_file(&self) -> Option<BorrowedFd<'_>> {
        (self.is_shared() && !self.is_named()).then(|| self.fd.as_fd())
    }

    /// Returns the file behind any memory, which starts at the file's offset 0: for a [`Mapper`](crate::dma::Mapper),
    /// which gives it to its device.
    ///
    /// # Safety
    /// The descriptor goes to a device, or to a program that emulates one. Nobody in this process reads, writes or maps
    /// the file, or frees pages of it: buffers give slices of its bytes, and rings and lists in it tell the device
    /// which memory to access.
    pub unsafe fn file(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Returns whether its file has a name, so that it outlives the process.
    pub(crate) fn is_named(&self) -> bool {
        self.name.is_some()
    }

    /// Adds a name for `function` to its file, if the file is named.
    pub(crate) fn also_for(&self, function: Bdf) -> Result<()> {
        self.name.as_ref().map_or(Ok(()), |(file, _)| file.also_for(function))
    }

    /// Drops the memory but keeps its file, if the file is named.
    pub(crate) fn leave(mut self) {
        self.name = None;
    }

    /// Sets all bytes to zero.
    pub(crate) fn zero(&self) {
        // SAFETY: the range is all of the mapping.
        unsafe { self.as_ptr().write_bytes(0, self.len()) }
    }

    /// Returns the address of the first byte in this process.
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.as_ptr()
    }

    /// Returns the length in bytes: whole pages.
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Returns `false`: there is at least one page.
    pub fn is_empty(&self) -> bool {
        self.mapping.is_empty()
    }

    /// Returns the size of its pages.
    pub fn page_size(&self) -> PageSize {
        self.page
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some((file, _)) = self.name.as_ref().filter(|(_, owner)| owner.is_current()) {
            if let Err(error) = file.remove() {
                emit(move || {
                    tracing::warn!(%error, "removing a file of DMA memory failed: `hugepages release` frees it");
                });
            }
        }
    }
}

/// Explains why `wanted` bytes of `page` pages, on `node` if possible, are not available.
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
        (_, Some((free, total))) => {
            format!("{free} of {total} are free{there}; {}", hugetlb::way_out(bytes as u64))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use std::{
        fs::{self, OpenOptions},
        os::fd::AsRawFd,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    #[test]
    fn memory_is_zeroed_pages_of_a_sealed_file() {
        let memory = Memory::new(1, PageSize::Small).unwrap();
        assert_eq!(memory.len(), host_page_size());
        // SAFETY: the range is all of the mapping, and only this test uses it.
        let bytes = unsafe { std::slice::from_raw_parts(memory.as_ptr(), memory.len()) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        let shrunk = nix::unistd::ftruncate(&memory.fd, 0);
        assert_eq!(shrunk, Err(Errno::EPERM), "a holder of the descriptor can't make an access fault");
    }

    /// Another thread could import new memory while it was filled, since nobody knew yet whose it is.
    #[test]
    fn new_memory_can_not_be_imported_while_it_is_filled() {
        // No other test has memory of this length.
        const LEN: usize = 37 << 20;
        let done = AtomicBool::new(false);
        let open = |path: std::path::PathBuf| OpenOptions::new().read(true).write(true).open(path);
        let is_it = |file: &fs::Metadata| file.len() == LEN as u64;
        let import = || {
            let mut imported = 0;
            while !done.load(Ordering::Relaxed) {
                for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
                    if !fs::metadata(entry.path()).is_ok_and(|file| is_it(&file)) {
                        continue;
                    }
                    // The descriptor may be another file's by now.
                    let file = open(entry.path()).ok();
                    let file = file.filter(|file| file.metadata().is_ok_and(|file| is_it(&file)));
                    imported += file.map_or(0, |file| u32::from(Memory::import(file.into()).is_ok()));
                }
            }
            imported
        };
        thread::scope(|scope| {
            let imports = scope.spawn(import);
            // Kept until the other thread has ended: a file may be imported once its memory is gone.
            let made: Result<Vec<_>> = (0..3).map(|_| Memory::new(LEN, PageSize::Small)).collect();
            done.store(true, Ordering::Relaxed);
            assert_eq!(imports.join().unwrap(), 0);
            drop(made.unwrap());
        });
    }

    #[test]
    fn lack_of_huge_pages_error_counts_them() {
        let page = PageSize::Huge2M;
        let free = page.available().map_or(0, |(free, _)| free) as usize;
        let error = Memory::new((free + 1) * page.bytes(), page).unwrap_err();
        let text = error.to_string();
        match page.available() {
            Some((_, total)) => {
                let count = format!("of {total} are free");
                assert!(text.contains(&count) && text.contains("hugepages setup --size 2M"), "{text}")
            }
            None => assert!(text.contains("no 2 MiB pages"), "{text}"),
        }
        assert!(Memory::new(usize::MAX, PageSize::Small).is_err());
    }

    /// Safe code can't get a second mapping of the heap's own file.
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
        // Shared memory may be mapped again: no reference to its bytes is formed.
        let memory = memory.shared();
        assert!(memory.shared_file().is_some());
        Memory::import(open().into()).unwrap();
    }
}
