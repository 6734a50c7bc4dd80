//! The polled path asks the system's allocator for nothing.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
};
use upcie_tests::{
    Random,
    device::namespaces,
    io::{create, finish},
    on_each_device, scaled,
};

thread_local! {
    /// Of this thread only: the embedded controller is another.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counted.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count() {
    CALLS.with(|calls| calls.set(calls.get() + 1));
}

// SAFETY: all is done by the system's allocator; counting touches a constant-initialised cell, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's obligations are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

fn calls() -> u64 {
    CALLS.with(Cell::get)
}

#[test]
fn allocations_are_counted() {
    let before = calls();
    drop(black_box(Box::new(1)));
    assert_eq!(calls() - before, 2);
}

#[test]
fn a_million_ios_allocate_nothing() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = &namespaces(&controller)[0];
        let size = namespace.block_size();
        let mut queue = create::<u64>(controller.queue_pair().depth(33));
        let mut turn = queue.turn().unwrap();
        for tag in 0..32 {
            // Of all kinds: one page, two, a list of its own, a part that takes one from the queue.
            let buffer = match tag % 8 {
                0 => controller.alloc(5 * 4096).unwrap().slice(512..512 + 4 * 4096),
                1 => controller.alloc(4 * 4096).unwrap(),
                2 => controller.alloc(2 * 4096).unwrap(),
                _ => controller.alloc(size).unwrap(),
            };
            turn.write(namespace, tag * 64, buffer, tag).unwrap();
        }
        drop(turn);
        let (mut random, wanted, mut done) = (Random::new(0), scaled(1_000_000), 0);
        let before = calls();
        while done < wanted {
            let mut turn = queue.turn().unwrap();
            while let Some(completion) = turn.next() {
                let (tag, result, buffer) = completion.into_parts();
                result.unwrap();
                let block = random.within(0..4096);
                let submitted = if block % 4 == 0 {
                    turn.write(namespace, block, buffer, tag)
                } else {
                    turn.read(namespace, block, buffer, tag)
                };
                submitted.unwrap();
                done += 1;
            }
            drop(turn);
            // Waiting by polling, and a refusal now and then, cost nothing either.
            if done % 8 == 0 {
                queue.wait(upcie_nvme::Wait::Poll, upcie_tests::deadline()).unwrap();
            }
        }
        assert_eq!(calls() - before, 0, "calls of the allocator during {done} I/Os");
        assert_eq!(finish(&mut queue).len(), 32);
    });
}

#[test]
fn buffers_from_a_warm_heap_allocate_nothing() {
    on_each_device(|device| {
        let controller = device.open();
        let lengths = [512, 4096, 3 * 4096, 64 << 10];
        let warm: Vec<_> = lengths.iter().map(|&len| controller.heap().alloc(len).unwrap()).collect();
        drop(warm);
        let before = calls();
        for _ in 0..scaled(100_000) {
            for len in lengths {
                drop(black_box(controller.heap().alloc(len).unwrap()));
            }
        }
        assert_eq!(calls() - before, 0);
    });
}
