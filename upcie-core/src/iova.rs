//! An allocator of device addresses in the ranges that the kernel reports.

use std::{collections::BTreeMap, ops::RangeInclusive};

/// Free I/O virtual addresses. Regions are few and long-lived, so first fit in a map of free ranges is enough.
#[derive(Debug, Default)]
pub struct IovaAllocator {
    /// Start → last address, inclusive because a range may end at `u64::MAX`. Ranges never touch or overlap.
    free: BTreeMap<u64, u64>,
}

impl IovaAllocator {
    /// Makes an allocator of `ranges`, which may overlap and be in any order. Address 0 is excluded, so that a zeroed
    /// pointer in a command never points at memory.
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<u64>>) -> Self {
        let mut all = Self::default();
        for range in ranges {
            let start = (*range.start()).max(1);
            if start <= *range.end() {
                all.insert(start, *range.end());
            }
        }
        all
    }

    /// Allocates `len` bytes aligned to `align`, a power of two; `None` if no range is large enough.
    pub fn allocate(&mut self, len: u64, align: u64) -> Option<u64> {
        debug_assert!(align.is_power_of_two());
        let more = len.checked_sub(1)?;
        let (start, end, at) = self.free.iter().find_map(|(&start, &end)| {
            let at = start.checked_next_multiple_of(align)?;
            (at <= end && end - at >= more).then_some((start, end, at))
        })?;
        self.cut(start, end, at, at + more);
        Some(at)
    }

    /// Frees a range that [`allocate`](Self::allocate) returned.
    pub fn release(&mut self, at: u64, len: u64) {
        if let Some(last) = len.checked_sub(1).and_then(|more| at.checked_add(more)) {
            self.insert(at, last);
        }
    }

    /// Cuts `at..=last` out of the free range `start..=end`.
    fn cut(&mut self, start: u64, end: u64, at: u64, last: u64) {
        self.free.remove(&start);
        if start < at {
            self.free.insert(start, at - 1);
        }
        if last < end {
            self.free.insert(last + 1, end);
        }
    }

    /// Adds a range and merges it with adjacent and overlapping ones.
    fn insert(&mut self, mut start: u64, mut end: u64) {
        while let Some((&s, &e)) = self.free.range(..=end.saturating_add(1)).next_back() {
            if e.saturating_add(1) < start {
                break;
            }
            self.free.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.free.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_zero_is_never_handed_out() {
        let mut a = IovaAllocator::new([0..=0xffff]);
        assert_eq!(a.allocate(0x1000, 0x1000), Some(0x1000));
    }

    #[test]
    fn ranges_with_a_hole_are_kept_apart() {
        let mut a = IovaAllocator::new([0..=0xfedf_ffff, 0xfef0_0000..=u64::MAX]);
        assert_eq!(a.allocate(1 << 40, 1 << 21), Some(0xff00_0000), "above the hole, aligned");
    }

    #[test]
    fn released_ranges_are_merged() {
        let mut a = IovaAllocator::new([0x1000..=0x4fff]);
        let [x, y, z] = [0; 3].map(|_| a.allocate(0x1000, 0x1000).unwrap());
        assert_eq!(a.allocate(0x2000, 0x1000), None);
        for at in [x, z, y] {
            a.release(at, 0x1000);
        }
        assert_eq!(a.allocate(0x4000, 0x1000), Some(0x1000));
        assert_eq!(a.allocate(1, 1), None);
        assert_eq!(a.allocate(0, 1), None);
    }
}
