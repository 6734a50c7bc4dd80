//! The commands in flight of one queue, by slot: the memory that the controller may use.
//!
//! The queue's thread writes the records, and threads that free or unmap memory look through them. A program that frees
//! memory after its submission, in the same thread or in one that it has synchronised with, is sure to be refused.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Set in the length of the first range if there are more.
const MORE: usize = 1 << 63;
const RANGES: usize = 3;

/// A range of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) at: usize,
    pub(crate) len: usize,
}

impl Range {
    fn overlaps(self, other: Self) -> bool {
        self.at < other.at.saturating_add(other.len) && other.at < self.at.saturating_add(self.len)
    }
}

#[derive(Debug, Default)]
struct Held {
    at: AtomicUsize,
    len: AtomicUsize,
}

/// One slot. The first length is 0 while no command there holds memory.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Record {
    held: [Held; RANGES],
}

impl Record {
    /// Notes a command with at most one range.
    #[inline(always)]
    pub(crate) fn begin(&self, at: usize, len: usize) {
        self.held[0].at.store(at, Relaxed);
        self.held[0].len.store(len, Relaxed);
    }

    /// Notes a command with several ranges. If they are more than a record has room for, the last one spans the rest.
    pub(crate) fn begin_with(&self, ranges: impl Iterator<Item = Range>) {
        let mut kept = [Range::default(); RANGES];
        let mut count = 0;
        for range in ranges.filter(|range| range.len > 0) {
            if count < RANGES {
                kept[count] = range;
                count += 1;
                continue;
            }
            let last = &mut kept[RANGES - 1];
            let end = (last.at + last.len).max(range.at + range.len);
            last.at = last.at.min(range.at);
            last.len = end - last.at;
        }
        for (held, range) in self.held.iter().zip(kept).skip(1) {
            held.at.store(range.at, Relaxed);
            held.len.store(range.len, Relaxed);
        }
        self.begin(kept[0].at, if count == 0 { 0 } else { kept[0].len | MORE });
    }

    /// Ends the command.
    #[inline(always)]
    pub(crate) fn end(&self) {
        self.held[0].len.store(0, Relaxed);
    }

    fn uses(&self, range: Range) -> bool {
        let first = self.held[0].len.load(Relaxed);
        if first == 0 {
            return false;
        }
        let count = if first & MORE == 0 { 1 } else { RANGES };
        self.held[..count].iter().any(|held| {
            let held = Range { at: held.at.load(Relaxed), len: held.len.load(Relaxed) & !MORE };
            held.len > 0 && held.overlaps(range)
        })
    }
}

/// The records of a queue.
#[derive(Debug)]
pub(crate) struct Flight {
    records: Box<[Record]>,
}

impl Flight {
    /// Makes a record for each slot, and one more: that of the slot that a full queue names as its next.
    pub(crate) fn new(slots: usize) -> Self {
        Self { records: (0..=slots).map(|_| Record::default()).collect() }
    }

    /// Returns the record of the first slot.
    pub(crate) fn first(&self) -> *const Record {
        self.records.as_ptr()
    }

    /// Returns the number of slots.
    pub(crate) fn len(&self) -> usize {
        self.records.len() - 1
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&Record> {
        self.records.get(slot as usize)
    }

    /// Returns `true` if a command in flight holds a byte of the range.
    pub(crate) fn uses(&self, range: Range) -> bool {
        self.records.iter().any(|record| record.uses(range))
    }

    /// Forgets all commands: the controller uses no memory of theirs.
    pub(crate) fn clear(&self) {
        self.records.iter().for_each(Record::end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_held_until_its_command_ends() {
        let flight = Flight::new(4);
        let uses = |at, len| flight.uses(Range { at, len });
        let record = flight.get(2).unwrap();
        assert!(!uses(0, usize::MAX));
        record.begin(4096, 512);
        assert!(uses(4607, 1) && uses(0, 4097) && !uses(4608, 1) && !uses(0, 4096));
        record.end();
        assert!(!uses(0, usize::MAX));
        let ranges = [(100, 10), (200, 10), (300, 0), (400, 10), (500, 10)];
        record.begin_with(ranges.into_iter().map(|(at, len)| Range { at, len }));
        assert!([100, 209, 400, 509].iter().all(|&at| uses(at, 1)) && !uses(110, 90) && !uses(510, 100));
        record.begin_with(std::iter::empty());
        assert!(!uses(0, usize::MAX));
    }
}
