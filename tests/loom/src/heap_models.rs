//! A heap of a device that did not stop: what the device may still write to is not handed out again. The steps of `Heap::take`
//! (`dma/heap.rs`), of `DmaSpace::close` (`dma/space.rs`) and of the end of a controller (`controller/inner.rs`) are written out here.

use crate::{fails, lock, play};
use loom::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Plays an allocation beside the end of a device that does not stop: the allocation does not get that device's memory.
/// `looks_inside`: it looks whether the space is closed with the heap locked.
fn memory_of_a_device_that_runs_stays(looks_inside: bool) {
    let closed: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    // The number of free blocks: the device may write to the one that is freed.
    let free: &'static Mutex<u32> = Box::leak(Box::new(Mutex::new(0)));
    let end = thread::spawn(move || {
        closed.store(true, Ordering::Release);
        *lock(free) += 1;
    });
    let before = closed.load(Ordering::Acquire);
    let is_given = {
        let mut free = lock(free);
        let is_closed = if looks_inside { closed.load(Ordering::Acquire) } else { before };
        let is_given = !is_closed && *free > 0;
        *free -= u32::from(is_given);
        is_given
    };
    end.join().unwrap();
    assert!(!is_given, "two have the memory");
}

#[test]
fn no_memory_of_a_running_device_is_given() {
    play(6, || memory_of_a_device_that_runs_stays(true));
}

#[test]
fn a_look_before_the_lock_is_found() {
    fails(4, || memory_of_a_device_that_runs_stays(false));
}
