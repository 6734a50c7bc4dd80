//! The polled path makes no call to the system's allocator, nor do blocking calls that succeed.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    backtrace::Backtrace,
    cell::Cell,
    hint::black_box,
    time::{Duration, Instant},
};
use upcie_nvme::{Direction, DmaBuf, Io, QueuePair, Turn, Wait, Zeroes, spec::DatasetRange};
use upcie_tests::{
    deadline,
    device::namespaces,
    io::{create, finish},
    on_each_device, scaled, seeded,
};

/// The interval at which a wait checks the controller.
const LOOK: Duration = Duration::from_millis(50);

thread_local! {
    /// Counts calls of this thread only, since the embedded controller runs in another.
    static CALLS: Cell<u64> = const { Cell::new(0) };
    /// The next call prints its backtrace.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator with a counter.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count() {
    CALLS.with(|calls| calls.set(calls.get() + 1));
    if WATCHED.with(|watched| watched.replace(false)) {
        println!("the first call: {}", Backtrace::force_capture());
    }
}

// SAFETY: the system's allocator does all the work; counting touches a constant-initialised cell, which
// allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

fn calls() -> u64 {
    CALLS.with(Cell::get)
}

/// Does what waits, and counts the allocator's calls. A wait that took long enough to check the controller
/// does not count, since the check is a message over vfio-user.
fn waiting(work: impl FnOnce()) {
    let (before, start) = (calls(), Instant::now());
    work();
    if start.elapsed() >= LOOK {
        CALLS.with(|calls| calls.set(before));
    }
}

/// Waits by polling.
fn wait(queue: &mut QueuePair<u64>, limit: Duration) {
    waiting(|| _ = queue.wait(Wait::Poll, limit).unwrap());
}

/// Does `work`, which must not allocate.
#[track_caller]
fn without_allocation(work: impl FnOnce()) {
    let before = calls();
    WATCHED.with(|watched| watched.set(true));
    work();
    WATCHED.with(|watched| watched.set(false));
    assert_eq!(calls() - before, 0, "calls of the allocator");
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
            // All kinds of buffers: one page, two pages, a list of its own, a part whose list is the queue's, pages that are
            // not adjacent, and segments that need an SGL.
            let apart = |part: std::ops::Range<usize>| controller.alloc(2 * 4096).unwrap().slice(part);
            let buffer = match tag % 8 {
                0 => controller.alloc(5 * 4096).unwrap().slice(512..512 + 4 * 4096),
                1 => controller.alloc(4 * 4096).unwrap(),
                2 => controller.alloc(2 * 4096).unwrap(),
                3 => DmaBuf::gather((0..3).map(|_| apart(0..4096))),
                4 if controller.identify().supports_sgls() => {
                    DmaBuf::gather([apart(4..size), apart(0..8), apart(64..60 + size)])
                }
                _ => controller.alloc(size).unwrap(),
            };
            turn.write(namespace, tag * 64, buffer, tag).unwrap();
        }
        drop(turn);
        let (mut random, wanted, mut done) = (seeded(0), scaled(1_000_000), 0);
        let limit = deadline();
        without_allocation(|| {
            while done < wanted {
                // Many empty turns would check the controller, by message.
                if !queue.is_ready() {
                    std::thread::yield_now();
                    continue;
                }
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
                // Waiting by polling allocates nothing, either.
                if done % 8 == 0 {
                    wait(&mut queue, limit);
                }
            }
        });
        assert_eq!(finish(&mut queue).len(), 32);
    });
}

#[test]
fn held_memory_and_dataless_commands_allocate_nothing() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = &namespaces(&controller)[0];
        let mut queue = create::<u64>(controller.queue_pair().depth(33));
        let held = controller.alloc(32 << 14).unwrap();
        let mut ranges = controller.alloc(4096).unwrap();
        ranges.write_at(0, &DatasetRange::new(5000, 8).to_bytes());
        let submit = |turn: &mut Turn<'_, u64>, at: u64| {
            let sent = match at % 8 {
                0 if namespace.max_write_zeroes() > 0 => {
                    turn.write_zeroes(Zeroes::new(namespace, at % 4096, 8), at)
                }
                // SAFETY: the memory is kept until all commands have completed.
                1 if namespace.can_deallocate() => unsafe {
                    turn.deallocate_held(namespace, &ranges, 0..16, at)
                },
                2 => turn.flush(namespace, at),
                3 => {
                    let start = (at as usize % 32) << 14;
                    let segments = [0, 8192, 4096].map(|skip| (&held, start + skip..start + skip + 4096));
                    // SAFETY: the held memory is kept until all commands have completed.
                    unsafe { turn.submit_vectored_held(Io::read(namespace, at % 4096), &segments, at) }
                }
                kind => {
                    let direction = if kind < 5 { Direction::Read } else { Direction::Write };
                    let io = Io::new(direction, namespace, at % 4096);
                    // One page, two pages, and lengths that need a list.
                    let (start, len) = ((at as usize % 32) << 14, 4096 << (at % 3));
                    // SAFETY: the held memory is kept until all commands have completed.
                    unsafe { turn.submit_held(io, &held, start..start + len, at) }
                }
            };
            sent.unwrap();
        };
        let mut turn = queue.turn().unwrap();
        (0..32).for_each(|at| submit(&mut turn, at));
        drop(turn);
        let (wanted, mut done) = (scaled(200_000) as u64, 32);
        let limit = deadline();
        without_allocation(|| {
            while done < wanted {
                // Many empty turns would check the controller, by message.
                if !queue.is_ready() {
                    std::thread::yield_now();
                    continue;
                }
                let mut turn = queue.turn().unwrap();
                while let Some(completion) = turn.next() {
                    assert!(completion.status().is_success());
                    drop(completion);
                    submit(&mut turn, done);
                    done += 1;
                }
                drop(turn);
                wait(&mut queue, limit);
            }
        });
        queue.close().unwrap();
    });
}

#[test]
fn buffers_from_a_warm_heap_allocate_nothing() {
    on_each_device(|device| {
        let controller = device.open();
        let lengths = [512, 4096, 3 * 4096, 64 << 10];
        let warm: Vec<_> =
            lengths.iter().map(|&len| controller.heap().alloc_unzeroed(len).unwrap()).collect();
        drop(warm);
        let rounds = scaled(100_000);
        without_allocation(|| {
            for _ in 0..rounds {
                for len in lengths {
                    drop(black_box(controller.heap().alloc_unzeroed(len).unwrap()));
                }
            }
        });
    });
}

/// A call names itself in an error alone: a success makes no text.
#[test]
fn blocking_calls_allocate_nothing() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = &namespaces(&controller)[0];
        let mut buffer = controller.alloc(4 * namespace.block_size()).unwrap();
        let mut bytes = [7; 3000];
        let mut round = || {
            waiting(|| namespace.write(0, &mut buffer).unwrap());
            waiting(|| namespace.read(0, &mut buffer).unwrap());
            waiting(|| namespace.flush().unwrap());
            // Neither begins nor ends at a block.
            waiting(|| namespace.write_at(100, &bytes).unwrap());
            waiting(|| namespace.read_at(100, &mut bytes).unwrap());
        };
        // The first calls make the queue pair, and take memory for the heap.
        round();
        let rounds = scaled(2_000);
        without_allocation(|| (0..rounds).for_each(|_| round()));
    });
}
