//! The blocks that reads fail at: those of Write Uncorrectable.

use std::{collections::BTreeMap, ops::Range};

/// The bytes of the media that were marked by Write Uncorrectable: the end of each marked range, by its start. They are
/// readable again once they are written. The marks last as long as the controller.
#[derive(Debug, Default)]
pub(super) struct Marks(BTreeMap<u64, u64>);

impl Marks {
    /// Returns `true` if nothing is marked.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `true` if a byte of a range is marked.
    #[cold]
    pub fn touch(&self, range: Range<u64>) -> bool {
        self.touching(&range).next().is_some()
    }

    /// Marks a range.
    pub fn set(&mut self, range: Range<u64>) {
        self.clear(range.clone());
        self.0.insert(range.start, range.end);
    }

    /// Removes the marks in a range.
    #[cold]
    pub fn clear(&mut self, range: Range<u64>) {
        let touched: Vec<_> = self.touching(&range).collect();
        for (start, end) in touched {
            self.0.remove(&start);
            if start < range.start {
                self.0.insert(start, range.start);
            }
            if range.end < end {
                self.0.insert(range.end, end);
            }
        }
    }

    fn touching(&self, range: &Range<u64>) -> impl Iterator<Item = (u64, u64)> {
        // Ranges do not overlap, so their ends are in the order of their starts.
        let start = range.start;
        let before = self.0.range(..range.end).rev().map(|(start, end)| (*start, *end));
        before.take_while(move |(_, end)| *end > start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use upcie_core::testing::Random;

    #[test]
    fn marks_are_those_of_a_plain_list() {
        let mut random = Random(5);
        let (mut marks, mut model) = (Marks::default(), [false; 64]);
        for _ in 0..20_000 {
            let start = random.below(64);
            let end = start + 1 + random.below(64 - start);
            let range = start as u64..end as u64;
            let touched = marks.touch(range.clone());
            assert_eq!(touched, model[start..end].iter().any(|&marked| marked));
            marks.clear(range.clone());
            let marked = random.one_in(3);
            if marked {
                marks.set(range.clone());
            }
            model[start..end].fill(marked);
            assert_eq!(marks.is_empty(), model.iter().all(|&marked| !marked));
        }
    }
}
