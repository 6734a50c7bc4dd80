//! Commands as futures make no call to the system's allocator: not for the futures, their wakers, their waits or their drops.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};
use upcie_nvme::{Controller, async_queue::Submission};
use upcie_tests::scaled;

thread_local! {
    /// Counts calls of this thread only, since the embedded controller runs in another.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator with a counter.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: the system's allocator does all the work; counting touches a constant-initialised cell, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.with(|calls| calls.set(calls.get() + 1));
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        CALLS.with(|calls| calls.set(calls.get() + 1));
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

/// A waker that counts.
#[derive(Default)]
struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn futures_allocate_nothing() {
    const TASKS: usize = 32;
    let controller = Controller::open("emu:size=1M").unwrap();
    let namespace = controller.namespace(1).unwrap();
    // Fewer slots than tasks: some commands wait for room.
    let queue = controller.queue_pair().depth(17).create_async().unwrap();
    let hold = queue.hold();
    let wakes = Arc::new(Count::default());
    let waker = Waker::from(wakes.clone());
    let mut cx = Context::from_waker(&waker);
    let start = |buffer| queue.read(&namespace, 0, buffer);
    let buffer = || controller.alloc(4096).unwrap();
    let mut futures: Vec<Submission> = (0..TASKS).map(|_| start(buffer())).collect();
    let mut run = |count: usize| {
        let mut done = 0;
        while done < count {
            queue.progress().unwrap();
            for future in &mut futures {
                if let Poll::Ready((result, buffer)) = Pin::new(&mut *future).poll(&mut cx) {
                    result.unwrap();
                    *future = start(buffer);
                    done += 1;
                }
            }
        }
    };
    run(10 * TASKS);
    let (before, woken) = (CALLS.with(Cell::get), wakes.0.load(Ordering::Relaxed));
    run(scaled(100_000));
    assert_eq!(CALLS.with(Cell::get) - before, 0, "calls of the allocator");
    assert!(wakes.0.load(Ordering::Relaxed) > woken);
    drop(hold);
}
