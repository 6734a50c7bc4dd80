//! Page sizes, and files filled with pages.

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};
use std::{fmt, os::fd::BorrowedFd};

/// The page size of DMA memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u64)]
pub enum PageSize {
    /// The host's ordinary pages: no set-up and no privilege; they need an IOMMU or a software device.
    #[default]
    Small = 4 << 10,
    /// 2 MiB huge pages, reserved in `/sys/kernel/mm/hugepages/hugepages-2048kB`.
    Huge2M = 2 << 20,
    /// 1 GiB huge pages, reserved in `/sys/kernel/mm/hugepages/hugepages-1048576kB`.
    Huge1G = 1 << 30,
}

impl PageSize {
    /// Returns the bytes of a page. [`PageSize::Small`] is the host's page size, 4 KiB on x86-64, up to 64 KiB on
    /// aarch64.
    pub fn bytes(self) -> usize {
        match self {
            Self::Small => host_page_size(),
            huge => huge as usize,
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Small => write!(f, "{} KiB", host_page_size() >> 10),
            Self::Huge2M => f.write_str("2 MiB"),
            Self::Huge1G => f.write_str("1 GiB"),
        }
    }
}

/// Returns the host's page size in bytes.
pub fn host_page_size() -> usize {
    // SAFETY: a query without side effects.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Allocates all pages of a file of `len` bytes.
pub(crate) fn fill(fd: BorrowedFd<'_>, len: i64) -> Result<(), Errno> {
    loop {
        match fallocate(fd, FallocateFlags::empty(), 0, len) {
            // Any signal interrupts it; a repeated call continues.
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}
