//! Physical addresses of memory: the page map (the kernel's `Documentation/admin-guide/mm/pagemap.rst`).

use super::{Memory, PageSize, host_page_size};
use crate::{Error, Result};
use std::{fs::File, io, os::unix::fs::FileExt};

/// An entry of `/proc/self/pagemap`, which describes one small page of the host.
#[derive(Debug, Clone, Copy)]
struct Entry(u64);

impl Entry {
    /// Returns whether the page is in memory, not swapped out.
    fn is_present(self) -> bool {
        self.0 >> 62 == 0b10
    }

    /// Returns its page frame number; 0 for a process without the privilege to see it.
    fn frame(self) -> u64 {
        self.0 & ((1 << 55) - 1)
    }
}

/// Returns the physical address of each page of `memory`.
///
/// Only huge pages are accepted: the kernel moves small pages at any time (compaction, balancing between nodes), and a
/// device would then access another page. Huge pages of hugetlbfs are neither swapped nor compacted. They can still be
/// migrated, by memory being taken offline, by an allocation of contiguous memory, or on request (`move_pages`): call
/// this again, and treat a change as an error.
///
/// # Errors
/// [`Failure::Unusable`](crate::Failure::Unusable) for small pages, [`Failure::Memory`](crate::Failure::Memory) without CAP_SYS_ADMIN, and the system's errors.
pub(crate) fn physical_pages(device: &str, memory: &Memory) -> Result<Vec<u64>> {
    let page = memory.page_size();
    if page == PageSize::Small {
        return Err(Error::unusable(
            device,
            "no IOMMU translates for it, and the kernel moves pages of 4 KiB at any time, so their physical \
                     addresses do not stay valid: use pages of 2 MiB or 1 GiB (`hugepages setup --count 64 --size 2M`)",
        ));
    }
    let failed = |source| Error::os(device, "reading /proc/self/pagemap", source);
    let map = File::open("/proc/self/pagemap").map_err(failed)?;
    let step = page.bytes();
    let starts = (0..memory.len()).step_by(step).map(|offset| memory.as_ptr().addr() + offset);
    starts
        .map(|at| {
            let mut entry = [0; 8];
            map.read_exact_at(&mut entry, (at / host_page_size()) as u64 * 8).map_err(failed)?;
            let entry = Entry(u64::from_ne_bytes(entry));
            if !entry.is_present() {
                return Err(Error::unusable(device, format!("its DMA memory at {at:#x} is not in memory: no physical address")));
            }
            if entry.frame() == 0 {
                return Err(Error::memory(format!("{device}: the physical addresses of its DMA memory"), "without an IOMMU they are needed, and the kernel tells them to CAP_SYS_ADMIN alone: run it \
                             as root, or use an IOMMU (`vfio:`)", io::Error::from_raw_os_error(libc::EPERM)));
            }
            let address = entry.frame() * host_page_size() as u64;
            if address % step as u64 != 0 {
                return Err(Error::protocol(device, "reading /proc/self/pagemap", format!("a page of {page} at {address:#x}: not aligned to itself")));
            }
            Ok(address)
        })
        .collect()
}
