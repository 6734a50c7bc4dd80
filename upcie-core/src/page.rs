//! Page sizes, and files filled with pages.

use crate::Error;
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};
use std::{fmt, os::fd::BorrowedFd, str::FromStr};

/// The page size of DMA memory.
///
/// ```
/// use upcie_core::memory::PageSize;
///
/// let page: PageSize = "2M".parse()?;
/// assert_eq!((page, page.bytes()), (PageSize::Huge2M, 2 << 20));
/// # Ok::<(), upcie_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
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

/// Parses `4K` (the host's page size), `2M` or `1G`.
impl FromStr for PageSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let sizes = [Self::Small, Self::Huge2M, Self::Huge1G];
        let name = |size: Self| match size {
            Self::Small => format!("{}K", size.bytes() >> 10),
            Self::Huge2M => "2M".into(),
            Self::Huge1G => "1G".into(),
        };
        sizes.into_iter().find(|size| name(*size).eq_ignore_ascii_case(text)).ok_or_else(|| {
            Error::unsupported(
                "DMA memory",
                format!("a page size of {text:?}"),
                format!("the sizes are {}", sizes.map(name).join(", ")),
            )
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_parse_as_they_are_typed() {
        assert_eq!("2M".parse::<PageSize>().unwrap(), PageSize::Huge2M);
        assert_eq!("1g".parse::<PageSize>().unwrap(), PageSize::Huge1G);
        let small = format!("{}K", host_page_size() >> 10);
        assert_eq!(small.parse::<PageSize>().unwrap(), PageSize::Small);
        let error = "3M".parse::<PageSize>().unwrap_err().to_string();
        assert!(error.contains("\"3M\"") && error.contains("2M, 1G"), "{error}");
    }
}
