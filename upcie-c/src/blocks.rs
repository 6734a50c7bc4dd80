//! The heap's allocator: free and used ranges of addresses. Its state is apart from the memory that devices write to.

use std::collections::BTreeMap;

/// Sizes are multiples of this.
pub(crate) const UNIT: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Length by address; neighbours are joined.
    free: BTreeMap<usize, usize>,
    /// Requested and occupied bytes by address.
    used: BTreeMap<usize, (usize, usize)>,
}

impl Blocks {
    /// Adds a range that is not known yet.
    pub(crate) fn add(&mut self, at: usize, len: usize) {
        self.release(at, len);
    }

    /// Allocates `size` bytes (1 at least) at a multiple of `align`; `None` if no free range is large enough.
    pub(crate) fn allocate(&mut self, size: usize, align: usize) -> Option<usize> {
        let len = size.checked_next_multiple_of(UNIT)?;
        let (at, free, start) = self.free.iter().find_map(|(&at, &free)| {
            let start = at.checked_next_multiple_of(align)?;
            (start.checked_add(len)? <= at + free).then_some((at, free, start))
        })?;
        self.free.remove(&at);
        if start > at {
            self.free.insert(at, start - at);
        }
        if start + len < at + free {
            self.free.insert(start + len, at + free - start - len);
        }
        self.used.insert(start, (size, len));
        Some(start)
    }

    /// Returns `true` if nothing is allocated.
    pub(crate) fn is_unused(&self) -> bool {
        self.used.is_empty()
    }

    /// Returns the requested bytes of the allocation that begins at `at`.
    pub(crate) fn size(&self, at: usize) -> Option<usize> {
        self.used.get(&at).map(|&(size, _)| size)
    }

    /// Returns the beginning of the allocation that has the byte `at`.
    pub(crate) fn around(&self, at: usize) -> Option<usize> {
        let (&start, &(_, len)) = self.used.range(..=at).next_back()?;
        (at - start < len).then_some(start)
    }

    /// Frees the allocation that begins at `at`; `false` if there is none.
    pub(crate) fn free(&mut self, at: usize) -> bool {
        let Some((_, len)) = self.used.remove(&at) else { return false };
        self.release(at, len);
        true
    }

    fn release(&mut self, at: usize, len: usize) {
        let (mut at, mut len) = (at, len);
        if let Some((&before, &bytes)) = self.free.range(..at).next_back() {
            if before + bytes == at {
                self.free.remove(&before);
                (at, len) = (before, bytes + len);
            }
        }
        if let Some(bytes) = self.free.remove(&(at + len)) {
            len += bytes;
        }
        self.free.insert(at, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_neighbours_are_one_range_again() {
        let mut blocks = Blocks::default();
        blocks.add(0x10_0000, 16 * UNIT);
        let all: Vec<_> = (0..16).map(|_| blocks.allocate(1, UNIT).unwrap()).collect();
        assert_eq!(blocks.allocate(1, UNIT), None);
        assert_eq!((blocks.size(all[3]), blocks.around(all[3] + 4095)), (Some(1), Some(all[3])));
        for at in all.iter().rev().step_by(2).chain(all.iter().step_by(2)) {
            assert!(blocks.free(*at));
        }
        assert!(!blocks.free(all[0]), "freed twice");
        assert!(blocks.is_unused());
        assert_eq!(blocks.allocate(16 * UNIT, UNIT), Some(0x10_0000));
        assert_eq!(blocks.allocate(usize::MAX, UNIT), None);
    }

    #[test]
    fn an_alignment_leaves_the_rest_free() {
        let mut blocks = Blocks::default();
        blocks.add(UNIT, 63 * UNIT);
        assert_eq!(blocks.allocate(8 * UNIT, 16 * UNIT), Some(16 * UNIT));
        assert_eq!(blocks.allocate(15 * UNIT, UNIT), Some(UNIT));
        assert_eq!(blocks.allocate(40 * UNIT, UNIT), Some(24 * UNIT));
    }
}
