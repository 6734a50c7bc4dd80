//! The blocks that reads fail at: those of Write Uncorrectable.

use std::{collections::BTreeMap, ops::Range};

/// The bytes of the media that were marked by Write Uncorrectable: the end of each marked range, by its start. They are
/// readable again once they are written. The marks last as long as the controller. Of scattered ones it keeps so many that a
/// client can't take all of the memory.
#[derive(Debug, Default)]
pub(super) struct Marks(BTreeMap<u64, u64>);

/// The most ranges.
const MOST: usize = 1 << 16;

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

    /// Marks a range; returns `false` if there are too many already.
    pub fn set(&mut self, mut range: Range<u64>) -> bool {
        // Those that overlap it or lie beside it become part of it.
        let wider = range.start.saturating_sub(1)..range.end.saturating_add(1);
        let beside: Vec<_> = self.touching(&wider).collect();
        if beside.is_empty() && self.0.len() >= MOST {
            return false;
        }
        for (start, end) in beside {
            self.0.remove(&start);
            range = range.start.min(start)..range.end.max(end);
        }
        self.0.insert(range.start, range.end);
        true
    }

    /// Removes the marks in a range. If there are too many ranges for two parts of one, the part behind is lost.
    #[cold]
    pub fn clear(&mut self, range: Range<u64>) {
        let touched: Vec<_> = self.touching(&range).collect();
        for (start, end) in touched {
            self.0.remove(&start);
            if start < range.start {
                self.0.insert(start, range.start);
            }
            if range.end < end && self.0.len() < MOST {
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
                assert!(marks.set(range.clone()));
            }
            model[start..end].fill(marked);
            assert_eq!(marks.is_empty(), model.iter().all(|&marked| !marked));
        }
    }
    #[test]
    fn their_number_is_bounded() {
        let mut marks = Marks::default();
        for range in 0..MOST as u64 {
            assert!(marks.set(2 * range..2 * range + 1));
        }
        let (far, end) = (1 << 40, 2 * MOST as u64);
        assert!(!marks.set(far..far + 1), "one more");
        assert!(marks.set(end - 1..end + 9), "a longer one");
        marks.clear(end..end + 1);
        assert!(marks.touch(end - 1..end) && !marks.touch(end..end + 9), "no further range");
        marks.clear(0..end);
        assert!(marks.is_empty() && marks.set(far..far + 1));
    }
}
