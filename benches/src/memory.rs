//! Memory of a queue pair: DMA memory as its heap counts it, and the process's own as the allocator counts
//! it.

use crate::ours::controller;
use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering},
};
use upcie_nvme::QueuePair;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator with a count of live bytes. A program that measures makes it its global allocator.
#[derive(Debug)]
pub struct Counting;

// SAFETY: the system's allocator does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The bytes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes {
    /// DMA memory, in blocks rounded up as the heap does.
    pub dma: usize,
    /// The process's heap, and the handle itself.
    pub host: usize,
}

/// Measures the memory of a queue pair of `depth` with tags of 8 bytes. [`Counting`] must be the program's
/// allocator.
///
/// # Panics
/// Panics if the queue pair can't be created, or the allocator does not count.
pub fn queue_pair(depth: u32) -> Bytes {
    let (_standin, controller) = controller(1);
    let create = || controller.queue_pair().depth(depth).create::<u64>().expect("a queue");
    // The first queue pair makes the tables and pools that all share.
    let _first = create();
    let before = (controller.heap().in_use(), LIVE.load(Ordering::SeqCst));
    let queue = create();
    let after = (controller.heap().in_use(), LIVE.load(Ordering::SeqCst));
    assert!(after.1 > before.1, "the allocator does not count");
    drop(queue);
    Bytes { dma: after.0 - before.0, host: after.1 - before.1 + size_of::<QueuePair<u64>>() }
}
