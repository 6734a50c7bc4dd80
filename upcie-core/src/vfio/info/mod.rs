//! The capability chains of the kernel's info structures, and the properties derived from them.

use super::abi;
use std::ops::{Range, RangeInclusive};
use zerocopy::FromBytes;

/// The fault of a malformed chain, for a protocol error.
pub(super) type Malformed = &'static str;

/// Walks a chain of capabilities.
struct Chain<'a> {
    /// The info structure with its capabilities; the chain's offsets count from its start.
    bytes: &'a [u8],
    /// Size of the fixed part, which contains no capability.
    fixed: usize,
    /// Offset of the next capability; 0 at the end.
    next: u32,
    /// Limit on the number of entries: a chain that exceeds it has a loop.
    max_entries: usize,
}

impl<'a> Chain<'a> {
    fn new(bytes: &'a [u8], fixed: usize, first: u32) -> Self {
        Self { bytes, fixed, next: first, max_entries: bytes.len() / size_of::<abi::CapHeader>() }
    }

    /// Returns the next capability's id and all bytes after its header, because its length is not given.
    fn step(&mut self) -> Result<Option<(u16, &'a [u8])>, Malformed> {
        if self.next == 0 {
            return Ok(None);
        }
        let at = self.next as usize;
        if at < self.fixed {
            return Err("a capability inside of the structure's fixed part");
        }
        self.max_entries = self.max_entries.checked_sub(1).ok_or("the capability chain has a loop")?;
        let rest = self.bytes.get(at..).ok_or("a capability beyond the end")?;
        let (header, data) = abi::CapHeader::read_from_prefix(rest).map_err(|_| "a capability cut short")?;
        self.next = header.next;
        // Another version may have another layout: id 0 makes the caller ignore it.
        Ok(Some((if header.version == 1 { header.id } else { 0 }, data)))
    }
}

/// Parses the `count: u32, reserved: u32, [T]` of two capabilities.
fn pairs(data: &[u8]) -> Result<Vec<[u64; 2]>, Malformed> {
    let ([count, _], rest) = <[u32; 2]>::read_from_prefix(data).map_err(|_| "a capability cut short")?;
    let bytes = (count as usize).checked_mul(16).and_then(|len| rest.get(..len));
    let bytes = bytes.ok_or("a capability with more entries than it has room for")?;
    bytes.chunks_exact(16).map(|pair| FromBytes::read_from_bytes(pair).map_err(|_| "a bad entry")).collect()
}

/// The rules for mapping a region, from its capabilities.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RegionCaps {
    /// The only parts that may be mapped.
    pub(super) sparse: Option<Vec<Range<u64>>>,
    /// The pages of the MSI-X table may be mapped with the rest.
    pub(super) msix_mappable: bool,
}

impl RegionCaps {
    pub(super) fn parse(info: &abi::RegionInfo, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut caps = Self::default();
        if info.flags & abi::REGION_CAPS == 0 {
            return Ok(caps);
        }
        let mut chain = Chain::new(bytes, size_of::<abi::RegionInfo>(), info.cap_offset);
        while let Some((id, data)) = chain.step()? {
            match id {
                abi::REGION_CAP_SPARSE_MMAP => {
                    let areas = pairs(data)?.into_iter().map(|[offset, size]| {
                        let end = offset.checked_add(size).filter(|&end| end <= info.size);
                        end.map(|end| offset..end).ok_or("a mappable area beyond the region's end")
                    });
                    caps.sparse = Some(areas.collect::<Result<_, _>>()?);
                }
                abi::REGION_CAP_MSIX_MAPPABLE => caps.msix_mappable = true,
                _ => {}
            }
        }
        Ok(caps)
    }

    /// Returns the parts of the region to map, in pages of `page` bytes. `msix` is the range of the MSI-X table in it:
    /// kernels that neither call it mappable nor list areas refuse a mapping of its pages.
    pub(super) fn areas(
        &self,
        info: &abi::RegionInfo,
        msix: Option<Range<u64>>,
        page: u64,
    ) -> Vec<Range<u64>> {
        if info.flags & abi::REGION_MMAP == 0 {
            return Vec::new();
        }
        let areas = match (&self.sparse, msix) {
            (Some(areas), _) => areas.clone(),
            (None, Some(table)) if !self.msix_mappable => {
                let gap_start = table.start / page * page;
                let gap_end = table.end.checked_next_multiple_of(page).unwrap_or(u64::MAX);
                vec![0..gap_start.min(info.size), gap_end.min(info.size)..info.size]
            }
            _ => std::iter::once(0..info.size).collect(),
        };
        // An area that does not start on a page can't be mapped, and is accessed by reads and writes.
        areas.into_iter().filter(|area| !area.is_empty() && area.start % page == 0).collect()
    }
}

/// The properties of an IOMMU.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IommuInfo {
    /// Bit mask of page sizes in bytes. iommufd reports only the smallest; the kernel uses larger ones if they fit.
    pub page_sizes: u64,
    /// The mappable device addresses, in ascending order.
    pub ranges: Vec<RangeInclusive<u64>>,
    /// The number of mappings that could be added when the device was opened, if the kernel reports it.
    pub mappings_available: Option<u32>,
}

impl IommuInfo {
    pub(super) fn parse(info: &abi::IommuInfo, bytes: &[u8]) -> Result<Self, Malformed> {
        let page_sizes = if info.flags & abi::IOMMU_PAGE_SIZES == 0 { 4096 } else { info.page_sizes };
        if page_sizes == 0 {
            return Err("no page size");
        }
        let mut found = Self { page_sizes, ranges: Vec::new(), mappings_available: None };
        if info.flags & abi::IOMMU_CAPS != 0 {
            let mut chain = Chain::new(bytes, size_of::<abi::IommuInfo>(), info.cap_offset);
            while let Some((id, data)) = chain.step()? {
                match id {
                    abi::IOMMU_CAP_IOVA_RANGE => {
                        found.ranges = pairs(data)?.into_iter().map(|[first, last]| first..=last).collect();
                        found.ranges.retain(|range| !range.is_empty());
                        found.ranges.sort_by_key(|range| *range.start());
                    }
                    abi::IOMMU_CAP_DMA_AVAILABLE => {
                        let available = u32::read_from_prefix(data).map_err(|_| "a capability cut short")?;
                        found.mappings_available = Some(available.0);
                    }
                    _ => {}
                }
            }
        }
        if found.ranges.is_empty() {
            // Kernels before 5.4 report no ranges. Every IOMMU has at least 39 bits, and the gap is the MSI window of
            // x86.
            found.ranges = vec![0..=0xfedf_ffff, 0xfef0_0000..=(1 << 39) - 1];
        }
        Ok(found)
    }

    /// Checks that all properties offered here are still in `now`, after another device was added, and says which is not.
    pub(super) fn still_in(&self, now: &Self) -> Result<(), String> {
        if now.smallest_page() != self.smallest_page() {
            return Err(format!(
                "its IOMMU's smallest page has {} bytes, the other's {}",
                now.smallest_page(),
                self.smallest_page()
            ));
        }
        let covered = |range: &RangeInclusive<u64>| {
            now.ranges.iter().any(|now| now.start() <= range.start() && range.end() <= now.end())
        };
        match self.ranges.iter().find(|range| !covered(range)) {
            None => Ok(()),
            Some(range) => Err(format!(
                "some of the device addresses {:#x} to {:#x}, which that space uses, are reserved for it: open it \
                 first, and the other one beside it",
                range.start(),
                range.end()
            )),
        }
    }

    /// Returns the smallest page in bytes.
    pub fn smallest_page(&self) -> u64 {
        1 << self.page_sizes.trailing_zeros()
    }
}

#[cfg(test)]
mod tests;
