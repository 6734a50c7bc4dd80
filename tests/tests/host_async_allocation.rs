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
use upcie_nvme::{
    Controller, DmaBuf, Io, KeyCommand, WithMetadata, async_queue::Submission, protection::Protect, spec::Key,
};
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

/// Awaits a future without a runtime, by calls of `progress`.
fn finish<F: Future + Unpin>(mut future: F, progress: impl Fn(), cx: &mut Context<'_>) -> F::Output {
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(cx) {
            return output;
        }
        progress();
    }
}

#[test]
fn futures_of_optional_commands_allocate_nothing() {
    let rounds = scaled(1000);
    let waker = Waker::from(Arc::new(Count::default()));
    let cx = &mut Context::from_waker(&waker);
    for options in ["ms=8,pi=1", "kv=true", "zoned=true,zone-size=512K", "lba=512"] {
        let controller = Controller::open(format!("emu:size=1M,{options}").as_str()).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let queue = controller.queue_pair().depth(17).create_async().unwrap();
        let hold = queue.hold();
        let progress = || {
            queue.progress().unwrap();
        };
        let other = if options.starts_with("ms") { 8 } else { 512 };
        let (mut data, mut other) = (controller.alloc(512).unwrap(), controller.alloc(other).unwrap());
        data.fill(0);
        other.fill(0);
        let (has_keys, has_zones) = (namespace.keys().is_ok(), namespace.zones().is_ok());
        let key = Key::new(b"key").unwrap();
        let mut start = 0;
        for round in 0..rounds + 10 {
            if round == 10 {
                // The table has grown, and each list was used once.
                start = CALLS.with(Cell::get);
            }
            if has_keys {
                let store = queue.submit_key(KeyCommand::store(&namespace, key), data);
                data = finish(store, progress, cx).1;
                let retrieve = queue.submit_key(KeyCommand::retrieve(&namespace, key), data);
                data = finish(retrieve, progress, cx).1;
                let exist = queue.submit_key(KeyCommand::exist(&namespace, key), DmaBuf::empty());
                finish(exist, progress, cx).0.unwrap();
            } else if has_zones {
                if round == 1024 {
                    // The zone is full.
                    break;
                }
                let (result, back) = finish(queue.append(&namespace, 0, data), progress, cx);
                result.unwrap();
                data = back;
            } else if options.starts_with("ms") {
                let io = Io::write(&namespace, 0).protect(Protect::new());
                let buffers = WithMetadata { data, metadata: other };
                let (result, back) = finish(queue.submit_with_metadata(io, buffers), progress, cx);
                result.unwrap();
                (data, other) = (back.data, back.metadata);
            } else {
                let pair = queue.compare_and_write(&namespace, 0, data, other);
                let (result, [expected, new]) = finish(pair, progress, cx);
                assert!(result.unwrap());
                (data, other) = (expected, new);
            }
        }
        // A look at a controller that is slow to answer may allocate; a command that did would make two calls at least.
        let calls = (CALLS.with(Cell::get) - start) as usize;
        assert!(calls < rounds, "{calls} calls of the allocator: {options}");
        drop(hold);
    }
}
