//! NUMA nodes: which of them have memory, and how a file gets its pages on one of them.

use std::{
    fs, io,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

const NODES: &str = "/sys/devices/system/node";

/// Bits of a node mask, more than any kernel is built for (CONFIG_NODES_SHIFT is at most 10).
const MAX_NODES: usize = 1 << 10;

/// Lists the nodes that have memory; none if the kernel has no NUMA support.
pub(crate) fn nodes_with_memory() -> Vec<u32> {
    fs::read_to_string(Path::new(NODES).join("has_memory")).map_or_else(|_| Vec::new(), |text| parse(&text))
}

/// Parses the kernel's list format: `0-1,4`.
fn parse(list: &str) -> Vec<u32> {
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?.min(MAX_NODES as u32))
    });
    ranges.flatten().collect()
}

/// Allocates the pages of `fd`, whose `len` bytes have none yet, on `node` as far as possible, elsewhere beyond that
/// (mbind(2), MPOL_PREFERRED). The caller allocates missing pages.
///
/// A mapping allocates the pages, not fallocate(2), because hugetlb files have no memory policy: only their mappings have
/// one.
pub(crate) fn allocate_on(fd: BorrowedFd<'_>, len: NonZeroUsize, node: u32) -> io::Result<()> {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
    let mut mask = [0u64; MAX_NODES / 64];
    let word = mask.get_mut(node as usize / 64).ok_or(io::ErrorKind::InvalidInput)?;
    *word = 1 << (node % 64);
    // Reserves nothing: the caller's fallocate reports a lack of huge pages.
    let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
    // SAFETY: a new mapping at an address that the kernel chooses replaces nothing.
    let base =
        unsafe { mmap(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags, fd.as_fd(), 0) }?;
    // SAFETY: the range is the new mapping, and the mask has as many bits as stated (the kernel counts one less than it
    // is given).
    let bound = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            base.as_ptr(),
            len.get(),
            libc::MPOL_PREFERRED,
            mask.as_ptr(),
            MAX_NODES + 1,
            0,
        )
    };
    let done = nix::errno::Errno::result(bound).and_then(|_| {
        // SAFETY: the range is the new mapping; missing pages give an error, not a signal.
        let made = unsafe { libc::madvise(base.as_ptr(), len.get(), libc::MADV_POPULATE_WRITE) };
        nix::errno::Errno::result(made)
    });
    // SAFETY: the mapping was made above, and nobody else uses it.
    let unmapped = unsafe { munmap(base, len.get()) };
    done?;
    Ok(unmapped?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_format_is_parsed() {
        assert_eq!(parse("0-1,4\n"), [0, 1, 4]);
        assert_eq!(parse("0\n"), [0]);
        assert_eq!(parse("\n"), []);
    }

    #[test]
    fn pages_are_allocated_on_the_wanted_node() {
        let Some(&node) = nodes_with_memory().first() else { return };
        let len = NonZeroUsize::new(64 << 10).unwrap();
        let fd = nix::sys::memfd::memfd_create(c"numa", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, len.get() as i64).unwrap();
        allocate_on(fd.as_fd(), len, node).unwrap();
        let blocks = nix::sys::stat::fstat(&fd).unwrap().st_blocks;
        assert_eq!(blocks * 512, len.get() as i64, "all pages are present");
        assert!(allocate_on(fd.as_fd(), len, 1 << 20).is_err(), "there is no such node");
    }
}
