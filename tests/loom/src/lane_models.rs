//! A thread unmaps memory while a lane's thread submits: the lane forgets what its slots remember of the memory. The steps of
//! `Lane::divert` and `resume` (`engine/lane/mod.rs`), and of `Flight::forget` and `refresh` in libupcie, are written out here.

use crate::{fails, play};
use loom::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

/// Slots of the lane.
const ROOM: u32 = 1;

struct Lane {
    bound: AtomicU32,
    stale: AtomicBool,
    /// The program tells the lane's thread that the memory is gone.
    told: AtomicBool,
}

/// Plays a thread that unmaps memory beside a lane that submits: no command names the memory once the lane's thread was told.
/// `resumes_first`: the lane takes commands again before it looks what to forget.
fn unmapped_memory_is_forgotten(resumes_first: bool) {
    let lane: &'static Lane = Box::leak(Box::new(Lane {
        bound: AtomicU32::new(0),
        stale: AtomicBool::new(false),
        told: AtomicBool::new(false),
    }));
    let unmaps = thread::spawn(move || {
        // Stores in the sources. Loom may put a store in front of a read-modify-write that did not read it, which C++ forbids.
        lane.stale.swap(true, Ordering::AcqRel);
        lane.bound.swap(0, Ordering::AcqRel);
        lane.told.store(true, Ordering::Release);
    });
    // The slots remember the memory until they are refreshed.
    let mut remembers = true;
    for _ in 0..2 {
        let is_told = lane.told.load(Ordering::Acquire);
        if lane.bound.load(Ordering::Relaxed) == 0 {
            let refresh = || lane.stale.swap(false, Ordering::AcqRel);
            let early = !resumes_first && refresh();
            lane.bound.swap(ROOM, Ordering::AcqRel);
            if early || resumes_first && refresh() {
                remembers = false;
            }
        }
        // A command is submitted here.
        assert!(!(is_told && remembers), "a command names memory that was unmapped");
    }
    unmaps.join().unwrap();
}

#[test]
fn a_lane_forgets_unmapped_memory() {
    play(6, || unmapped_memory_is_forgotten(true));
}

#[test]
fn a_lane_that_resumes_late_is_found() {
    fails(4, || unmapped_memory_is_forgotten(false));
}
