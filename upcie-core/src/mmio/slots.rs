//! A list of pairs of words that is read and changed without a lock.
//!
//! A signal handler reads one, and so does a forked child, whose parent's threads may have been anywhere in it at the fork: a
//! slot that one of them was changing then stays out of use in the child, and nobody waits for it.

use std::{
    iter,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence},
};

/// The head of the list.
#[derive(Debug)]
pub(super) struct Slots<T: 'static>(AtomicPtr<Slot<T>>);

/// An entry of the list. It is never freed, but used again.
#[derive(Debug)]
pub(super) struct Slot<T: 'static> {
    /// True while the slot has a user.
    taken: AtomicBool,
    /// Odd while the words change.
    version: AtomicU32,
    first: AtomicU64,
    second: AtomicU64,
    /// More of the user's.
    pub(super) extra: T,
    next: Option<&'static Slot<T>>,
}

impl<T: Default + Sync> Slots<T> {
    /// Makes an empty list.
    pub(super) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// Returns all slots, the newest one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'static Slot<T>> {
        // SAFETY: null, or a slot that was complete before it was published, and is never freed.
        let newest = unsafe { self.0.load(Ordering::Acquire).as_ref() };
        iter::successors(newest, |slot| slot.next)
    }

    /// Returns a slot that nobody uses, with two zeroes, for the caller alone until [`Slot::release`].
    pub(super) fn take(&self) -> &'static Slot<T> {
        let take = |slot: &&Slot<T>| {
            slot.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        self.iter().find(take).unwrap_or_else(|| self.publish())
    }

    /// Adds a slot at the head of the list, and takes it.
    fn publish(&self) -> &'static Slot<T> {
        let slot = Box::leak(Box::new(Slot {
            taken: AtomicBool::new(true),
            version: AtomicU32::new(0),
            first: AtomicU64::new(0),
            second: AtomicU64::new(0),
            extra: T::default(),
            next: None,
        }));
        let mut newest = self.0.load(Ordering::Acquire);
        loop {
            // SAFETY: null, or a slot that was complete before it was published, and is never freed.
            slot.next = unsafe { newest.as_ref() };
            match self.0.compare_exchange(newest, slot, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return slot,
                Err(other) => newest = other,
            }
        }
    }
}

impl<T> Slot<T> {
    /// Changes both words; only the slot's user does. A reader sees both old ones, both new ones, or none.
    pub(super) fn set(&self, first: u64, second: u64) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.first.store(first, Ordering::Relaxed);
        self.second.store(second, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// Returns both words; `None` while they change.
    pub(super) fn get(&self) -> Option<(u64, u64)> {
        let version = self.version.load(Ordering::Acquire);
        let words = (self.first.load(Ordering::Relaxed), self.second.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        (version % 2 == 0 && version == self.version.load(Ordering::Relaxed)).then_some(words)
    }

    /// Sets both words to zero, and gives the slot to the next user.
    pub(super) fn release(&self) {
        self.set(0, 0);
        self.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_slots_are_used_again() {
        static LIST: Slots<()> = Slots::new();
        let (one, two) = (LIST.take(), LIST.take());
        one.set(1, 2);
        two.set(3, 4);
        let all = || LIST.iter().map(Slot::get).collect::<Vec<_>>();
        assert_eq!(all(), [Some((3, 4)), Some((1, 2))]);
        one.release();
        assert_eq!(all(), [Some((3, 4)), Some((0, 0))]);
        assert!(std::ptr::eq(LIST.take(), one));
        LIST.take();
        assert_eq!(all().len(), 3);
    }

    /// Acts as a child whose parent's thread was changing a slot at the fork.
    #[test]
    fn a_slot_in_the_midst_of_a_change_is_passed_over() {
        static LIST: Slots<()> = Slots::new();
        let (stuck, good) = (LIST.take(), LIST.take());
        good.set(5, 6);
        stuck.version.store(1, Ordering::Relaxed);
        assert_eq!(LIST.iter().filter_map(Slot::get).collect::<Vec<_>>(), [(5, 6)]);
        assert!(!std::ptr::eq(LIST.take(), stuck));
    }
}
