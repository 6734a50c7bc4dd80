//! The commands in flight of one queue, by slot: the memory that the controller may use.
//!
//! The queue's thread writes what a slot holds, and threads that free or unmap memory look through all. A program that frees
//! memory after its submission, in the same thread or in one that it has synchronised with, is sure to be refused.

use crate::{
    held::{Held, Range},
    station::Station,
};
use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering, Ordering::Relaxed},
    },
};
use upcie_nvme::queue::Slots;

const RANGES: usize = 3;

/// The ranges of a slot's command whose data is not in one of them. If there are more, the last one spans the rest.
#[derive(Debug, Default)]
struct Record([[AtomicUsize; 2]; RANGES]);

impl Record {
    fn note(&self, ranges: impl Iterator<Item = Range>) {
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
        for ([at, len], range) in self.0.iter().zip(kept) {
            at.store(range.at, Relaxed);
            len.store(range.len, Relaxed);
        }
    }

    fn ranges(&self) -> impl Iterator<Item = Range> {
        self.0.iter().map(|[at, len]| Range { at: at.load(Relaxed), len: len.load(Relaxed) })
    }
}

/// The view of other threads.
#[derive(Debug, Default)]
struct RangesView {
    /// The slots are not to be looked at: the queue is being recovered or deleted, or was.
    frozen: bool,
    /// The memory of the commands in flight when the slots were frozen.
    kept: Vec<Range>,
}

/// The commands of a queue.
pub(crate) struct Flight {
    slots: Slots<Held>,
    /// One for each slot.
    records: Box<[Record]>,
    view: Mutex<RangesView>,
    /// The slots remember data that may have been unmapped since.
    stale: AtomicBool,
    /// The controller was reset since the queue was made or recovered.
    reset: AtomicBool,
    station: &'static Station,
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").field("view", &self.view).finish_non_exhaustive()
    }
}

impl Flight {
    /// Looks at the slots of the queue of a station. [Freeze](Self::freeze) it before the queue ends.
    pub(crate) fn new(slots: Slots<Held>, station: &'static Station) -> Self {
        // SAFETY: the queue has just been made.
        let count = unsafe { slots.tags() }.count();
        let records = (0..count).map(|_| Record::default()).collect();
        let [stale, reset] = [const { AtomicBool::new(false) }; 2];
        Self { slots, records, view: Mutex::default(), stale, reset, station }
    }

    fn view(&self) -> MutexGuard<'_, RangesView> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a slot's next command has these ranges.
    pub(crate) fn hold_several(&self, slot: u32, held: &Held, ranges: impl Iterator<Item = Range>) {
        if let Some(record) = self.records.get(slot as usize) {
            record.note(ranges);
        }
        held.hold_several();
    }

    /// Returns the memory of the commands in flight.
    fn ranges(&self) -> impl Iterator<Item = Range> {
        // SAFETY: the caller holds the view, which is not frozen.
        let slots = unsafe { self.slots.tags() }.filter(|slot| slot.2);
        slots.flat_map(|(index, held, _)| {
            let one = (!held.is_several()).then(|| held.range());
            let several = one.is_none().then(|| self.records[index as usize].ranges());
            one.into_iter().chain(several.into_iter().flatten())
        })
    }

    /// Returns `true` if a command in flight holds a byte of the range.
    pub(crate) fn uses(&self, range: Range) -> bool {
        let view = self.view();
        let overlaps = |held: Range| held.len > 0 && held.overlaps(range);
        view.kept.iter().copied().any(overlaps) || !view.frozen && self.ranges().any(overlaps)
    }

    /// Keeps the memory of the commands in flight, whatever the queue does next.
    pub(crate) fn freeze(&self) {
        let mut view = self.view();
        if !view.frozen {
            view.kept = self.ranges().filter(|range| range.len > 0).collect();
            view.frozen = true;
        }
    }

    /// Looks at the slots again: the commands of before have ended.
    pub(crate) fn thaw(&self) {
        *self.view() = RangesView::default();
    }

    /// Forgets all commands of a queue that is deleted: the controller uses no memory of theirs.
    pub(crate) fn clear(&self) {
        *self.view() = RangesView { frozen: true, kept: Vec::new() };
    }

    /// Lets the queue forget the data that its slots remember, before it submits again. Memory was unmapped.
    pub(crate) fn forget(&self) {
        self.stale.store(true, Ordering::Release);
        self.station.lane.divert();
    }

    /// Lets the queue look at its controller, which was reset, before it submits again.
    pub(crate) fn note_reset(&self) {
        self.reset.store(true, Ordering::Release);
        self.station.lane.divert();
    }

    /// Returns whether a look at the controller is due, and notes that it was done.
    pub(crate) fn take_reset(&self) -> bool {
        self.reset.swap(false, Ordering::AcqRel)
    }

    /// Forgets the data of free slots, if that is due. For the queue's thread, after it has let its lane take commands: then
    /// a [`forget`](Self::forget) of meanwhile diverts it again.
    pub(crate) fn refresh(&self) {
        if self.stale.swap(false, Ordering::AcqRel) {
            // SAFETY: the queue's thread recovers or deletes nothing meanwhile.
            for (_, held, _) in unsafe { self.slots.tags() }.filter(|slot| !slot.2) {
                held.hold(0, 0, [0; 2]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_are_too_many_are_joined() {
        let record = Record::default();
        let ranges = [(100, 10), (200, 10), (300, 0), (400, 10), (500, 10)];
        record.note(ranges.into_iter().map(|(at, len)| Range { at, len }));
        let uses = |at, len| record.ranges().any(|held| held.overlaps(Range { at, len }) && held.len > 0);
        assert!([100, 209, 400, 509].iter().all(|&at| uses(at, 1)) && !uses(110, 90) && !uses(510, 100));
        record.note(std::iter::empty());
        assert!(!uses(0, usize::MAX));
    }
}
