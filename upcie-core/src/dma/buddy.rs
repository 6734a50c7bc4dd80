//! A buddy allocator for one region, with its bookkeeping outside of the region's memory.
//!
//! Every block is a power of two and aligned to its own size. Each free merges at most one block per level, so the memory
//! does not stay fragmented.

/// The smallest block, as a power of two: 512 bytes, one short logical block.
pub(super) const MIN_SHIFT: u32 = 9;
const NONE: u32 = u32::MAX;
/// Marks the first unit of a free block in `tags`; the low bits are the block's order.
const FREE: u8 = 0x80;

/// Free blocks of one region, in units of the smallest block.
#[derive(Debug)]
pub(super) struct Buddy {
    tags: Vec<u8>,
    /// Previous and next free block of the same order, for units that start a free block.
    links: Vec<[u32; 2]>,
    heads: [u32; 32],
    /// Bit `o` is set if a block of order `o` is free.
    any: u32,
}

impl Buddy {
    /// Makes an allocator of `bytes` free bytes: a power of two, at least one unit.
    pub(super) fn new(bytes: usize) -> Self {
        debug_assert!(bytes.is_power_of_two() && bytes >> MIN_SHIFT > 0);
        let units = bytes >> MIN_SHIFT;
        let mut all = Self { tags: vec![0; units], links: vec![[NONE; 2]; units], heads: [NONE; 32], any: 0 };
        all.push(0, units.ilog2());
        all
    }

    /// Returns the order of a block that holds `bytes` aligned to `align`.
    pub(super) fn order(bytes: usize, align: usize) -> Option<u32> {
        let size = bytes.max(align).max(1 << MIN_SHIFT).checked_next_power_of_two()?;
        Some(size.ilog2() - MIN_SHIFT)
    }

    /// Allocates a block and returns its offset in bytes.
    pub(super) fn allocate(&mut self, order: u32) -> Option<usize> {
        let fits = self.any.checked_shr(order).filter(|&fits| fits != 0)?;
        let mut at = order + fits.trailing_zeros();
        let unit = self.heads[at as usize];
        self.unlink(unit, at);
        while at > order {
            at -= 1;
            self.push(unit + (1 << at), at);
        }
        Some((unit as usize) << MIN_SHIFT)
    }

    /// Frees a block and merges it with its free buddies.
    pub(super) fn free(&mut self, offset: usize, mut order: u32) {
        let mut unit = (offset >> MIN_SHIFT) as u32;
        loop {
            let buddy = unit ^ (1 << order);
            if self.tags.get(buddy as usize) != Some(&(FREE | order as u8)) {
                break;
            }
            self.unlink(buddy, order);
            unit &= buddy;
            order += 1;
        }
        self.push(unit, order);
    }

    fn push(&mut self, unit: u32, order: u32) {
        let head = std::mem::replace(&mut self.heads[order as usize], unit);
        if head != NONE {
            self.links[head as usize][0] = unit;
        }
        self.links[unit as usize] = [NONE, head];
        self.tags[unit as usize] = FREE | order as u8;
        self.any |= 1 << order;
    }

    fn unlink(&mut self, unit: u32, order: u32) {
        let [prev, next] = self.links[unit as usize];
        if prev == NONE {
            self.heads[order as usize] = next;
            if next == NONE {
                self.any &= !(1 << order);
            }
        } else {
            self.links[prev as usize][1] = next;
        }
        if next != NONE {
            self.links[next as usize][0] = prev;
        }
        self.tags[unit as usize] = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_to_their_size_and_disjoint() {
        let mut b = Buddy::new(1 << 16);
        let mut taken = vec![false; 1 << 16];
        for bytes in [1, 512, 513, 4096, 8192, 700, 4096] {
            let order = Buddy::order(bytes, 1).unwrap();
            let size = 1 << (order + MIN_SHIFT);
            let at = b.allocate(order).unwrap();
            assert_eq!(at % size, 0);
            for byte in &mut taken[at..at + size] {
                assert!(!std::mem::replace(byte, true));
            }
        }
    }

    #[test]
    fn everything_merges_back_into_one_block() {
        let mut b = Buddy::new(1 << 14);
        let mut all: Vec<usize> = std::iter::from_fn(|| b.allocate(0)).collect();
        assert_eq!(all.len(), 32);
        assert_eq!(b.allocate(0), None);
        // Free in an order that is neither FIFO nor LIFO.
        all.sort_by_key(|at| (at >> MIN_SHIFT).wrapping_mul(2_654_435_761) % 97);
        for at in all {
            b.free(at, 0);
        }
        assert_eq!(b.allocate(5), Some(0));
        assert_eq!(b.allocate(0), None);
    }

    #[test]
    fn alignment_is_met_by_the_order() {
        assert_eq!(Buddy::order(1, 4096), Some(3));
        assert_eq!(Buddy::order(4097, 1), Some(4));
        assert_eq!(Buddy::order(usize::MAX, 1), None);
    }
}
