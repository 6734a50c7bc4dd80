//! Device addresses of a region's bytes.

/// The device addresses of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addresses {
    /// All bytes are contiguous from this address on: an IOMMU maps them so, or they are one piece of memory.
    Linear(u64),
    /// Each page of `1 << shift` bytes has an address of its own: physical addresses.
    Pages {
        /// Base-2 logarithm of the page size in bytes.
        shift: u32,
        /// The address of each page, in the order of the bytes.
        pages: Box<[u64]>,
    },
}

impl Addresses {
    /// Makes the addresses of pages of `1 << shift` bytes; linear if the pages are contiguous.
    pub fn of_pages(shift: u32, pages: Vec<u64>) -> Self {
        let follows = |pair: &[u64]| pair[0].checked_add(1 << shift) == Some(pair[1]);
        match pages.first() {
            Some(&first) if pages.windows(2).all(follows) => Self::Linear(first),
            _ => Self::Pages { shift, pages: pages.into() },
        }
    }

    /// Returns the address of the byte at `offset`, which is within the region; all ones beyond the last page.
    #[inline]
    pub fn at(&self, offset: usize) -> u64 {
        match self {
            Self::Linear(first) => first + offset as u64,
            Self::Pages { shift, pages } => match pages.get(offset >> shift) {
                Some(page) => page + (offset & ((1 << shift) - 1)) as u64,
                None => u64::MAX,
            },
        }
    }

    /// Returns whether the `len` bytes from `offset` on are contiguous for the device.
    pub fn is_contiguous(&self, offset: usize, len: usize) -> bool {
        match self {
            Self::Linear(_) => true,
            Self::Pages { shift, .. } => {
                let first = self.at(offset);
                let mut next = ((offset >> shift) + 1) << shift;
                while next < offset + len {
                    if self.at(next) != first + (next - offset) as u64 {
                        return false;
                    }
                    next += 1 << shift;
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_has_its_own_address() {
        let scattered = Addresses::of_pages(21, vec![0x4000_0000, 0x1000_0000, 0x1020_0000]);
        assert_eq!(scattered.at(0x1f_ffff), 0x401f_ffff);
        assert_eq!(scattered.at(0x20_0000), 0x1000_0000);
        assert_eq!(scattered.at(0x40_0010), 0x1020_0010);
        assert_eq!(scattered.at(0x60_0000), u64::MAX);
        assert!(scattered.is_contiguous(0x20_0000, 0x40_0000));
        assert!(scattered.is_contiguous(0x1f_f000, 0x1000));
        assert!(!scattered.is_contiguous(0x1f_f000, 0x1001));
    }

    #[test]
    fn contiguous_pages_are_linear() {
        assert_eq!(Addresses::of_pages(21, vec![0x20_0000, 0x40_0000]), Addresses::Linear(0x20_0000));
        assert_eq!(Addresses::of_pages(12, vec![0x1000]), Addresses::Linear(0x1000));
    }
}
