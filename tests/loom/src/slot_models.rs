//! `mmio/slots.rs`: the list of guarded mappings and of this process's own memory files.

use crate::{fails, play, slots, slots_taken_twice, slots_without_fence};
use loom::thread;

/// A thread changes a slot while another reads it: the reader sees a whole pair, or none.
macro_rules! pairs_are_whole {
    ($copy:ident) => {
        || {
            let list: &'static $copy::Slots<()> = Box::leak(Box::new($copy::Slots::new()));
            let slot = list.take();
            slot.set(1, 1);
            let writer = thread::spawn(move || {
                slot.set(2, 2);
                slot.release();
            });
            for (first, second) in list.iter().filter_map(|slot| slot.get()) {
                assert_eq!(first, second, "a torn pair");
            }
            writer.join().unwrap();
            assert_eq!(list.iter().map(|slot| slot.get()).collect::<Vec<_>>(), [Some((0, 0))]);
        }
    };
}

/// Two threads want a slot of a list that has a free one: each gets its own, and both are in the list.
macro_rules! slots_have_one_user {
    ($copy:ident) => {
        || {
            let list: &'static $copy::Slots<()> = Box::leak(Box::new($copy::Slots::new()));
            list.take().release();
            let use_one = move |number| {
                let slot = list.take();
                slot.set(number, number);
                slot.get() == Some((number, number))
            };
            let other = thread::spawn(move || use_one(1));
            assert!(use_one(2), "somebody else has changed the slot");
            assert!(other.join().unwrap(), "somebody else has changed the slot");
            let mut all: Vec<_> = list.iter().filter_map(|slot| slot.get()).collect();
            all.sort_unstable();
            assert_eq!(all, [(1, 1), (2, 2)]);
        }
    };
}

#[test]
fn a_reader_sees_a_whole_pair_or_none() {
    play(8, pairs_are_whole!(slots));
}

#[test]
fn a_slot_has_one_user() {
    play(6, slots_have_one_user!(slots));
}

/// One thread gives a slot back and another takes it, while a third reads.
#[test]
fn a_slot_that_changes_hands_has_whole_pairs() {
    play(4, || {
        let list: &'static slots::Slots<()> = Box::leak(Box::new(slots::Slots::new()));
        let first = list.take();
        first.set(1, 1);
        let giver = thread::spawn(move || first.release());
        let taker = thread::spawn(move || {
            let slot = list.take();
            slot.set(2, 2);
            assert_eq!(slot.get(), Some((2, 2)));
        });
        for (first, second) in list.iter().filter_map(|slot| slot.get()) {
            assert_eq!(first, second, "a torn pair");
        }
        giver.join().unwrap();
        taker.join().unwrap();
        assert!(list.iter().any(|slot| slot.get() == Some((2, 2))));
    });
}

#[test]
fn a_missing_fence_is_found() {
    fails(4, pairs_are_whole!(slots_without_fence));
}

#[test]
fn a_slot_with_two_users_is_found() {
    fails(3, slots_have_one_user!(slots_taken_twice));
}
