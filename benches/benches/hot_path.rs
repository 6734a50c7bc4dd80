//! Submit and complete, against a hand-written loop that checks nothing: the same rings, the same stand-in device, one
//! thread, CPU time per I/O. The queue and the namespace are hidden from the optimiser: seen through, their constants
//! fold and flatter the result.
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a loop that checks nothing has nothing to prove apart"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use std::{cell::RefCell, hint::black_box, time::Duration};
use upcie_benches::{
    Random,
    entry::Pairs,
    standin::{Device, StandIn},
    thread_time,
};
use upcie_nvme::{Controller, ControllerOptions, DmaBuf, Namespace, QueuePair};

const ENTRIES: usize = 1024;
/// I/Os in one measurement.
const BATCH: u64 = 400_000;

/// Rings and doorbells of the hand-written loop.
struct Rings {
    sq: *mut u64,
    cq: *mut u64,
    doorbells: *mut u32,
    device: Device,
}

fn page_aligned(bytes: usize) -> *mut u8 {
    let layout = std::alloc::Layout::from_size_align(bytes, 4096).expect("a layout");
    // SAFETY: not of size 0. Leaked: a bench makes it once.
    unsafe { std::alloc::alloc_zeroed(layout) }
}

impl Rings {
    fn new() -> Self {
        let (sq, cq, doorbells) =
            (page_aligned(ENTRIES * 64), page_aligned(ENTRIES * 16), page_aligned(4096).cast());
        // SAFETY: just made of these sizes, never freed.
        let device = unsafe { Device::over(sq, cq, doorbells, ENTRIES as u16) };
        Self { sq: sq.cast(), cq: cq.cast(), doorbells, device }
    }
}

/// State of the hand-written loop that outlives a measurement.
struct Hand {
    rings: Rings,
    users: Vec<u64>,
    addresses: Vec<u64>,
    free: Vec<u16>,
    tail: usize,
    head: usize,
    phase: u64,
    random: Random,
}

impl Hand {
    fn new(depth: usize) -> Self {
        let mut hand = Self {
            rings: Rings::new(),
            users: vec![0; ENTRIES],
            addresses: vec![0; ENTRIES],
            free: (0..ENTRIES as u16).rev().collect(),
            tail: 0,
            head: 0,
            phase: 1,
            random: Random::new(),
        };
        for i in 0..depth as u64 {
            let cid = hand.free.pop().expect("a free id");
            hand.users[usize::from(cid)] = i;
            hand.addresses[usize::from(cid)] = 0x10_0000 + i * 4096;
            // SAFETY: `tail` is below the entries.
            unsafe {
                let sqe = hand.rings.sq.add(hand.tail * 8);
                sqe.write(2 | u64::from(cid) << 16 | 1 << 32);
                sqe.add(3).write(0x10_0000 + i * 4096);
                sqe.add(6).write(7);
            }
            hand.tail += 1;
        }
        // SAFETY: the doorbell page.
        unsafe { hand.rings.doorbells.write_volatile(hand.tail as u32) };
        hand
    }

    /// Nanoseconds of CPU time per I/O: no checks but success, arrays by raw pointers, a doorbell of each kind per pass.
    #[inline(never)]
    fn run(&mut self, depth: usize) -> f64 {
        let entries = black_box(ENTRIES);
        let (sq, cq, doorbells) = (self.rings.sq, self.rings.cq, self.rings.doorbells);
        let (users, addresses) = (self.users.as_mut_ptr(), self.addresses.as_mut_ptr());
        let (free, mut stack) = (self.free.as_mut_ptr(), self.free.len());
        let (mut tail, mut head, mut phase) = (self.tail, self.head, self.phase);
        let mut random = self.random.clone();
        let (mut done, mut sum) = (0, 0_u64);
        let start = thread_time();
        while done < BATCH {
            self.rings.device.step();
            for _ in 0..depth {
                // SAFETY: indices stay below the entries, ids are the device's echo of ours.
                unsafe {
                    let entry = cq.add(head * 2);
                    let high = entry.add(1).read_volatile();
                    if high >> 48 & 1 != phase || high >> 49 != 0 {
                        std::process::abort();
                    }
                    let cid = (high >> 32) as u16;
                    head = (head + 1) & (entries - 1);
                    if head == 0 {
                        phase ^= 1;
                    }
                    let user = *users.add(usize::from(cid));
                    let address = *addresses.add(usize::from(cid));
                    *free.add(stack) = cid;
                    sum = sum.wrapping_add(user);
                    let cid = *free.add(stack);
                    *users.add(usize::from(cid)) = user;
                    *addresses.add(usize::from(cid)) = address;
                    let sqe = sq.add(tail * 8);
                    sqe.write(2 | u64::from(cid) << 16 | 1 << 32);
                    sqe.add(1).write(0);
                    sqe.add(2).write(0);
                    sqe.add(3).write(address);
                    sqe.add(4).write(0);
                    sqe.add(5).write(random.next() & 0xff_fff8);
                    sqe.add(6).write(7);
                    sqe.add(7).write(0);
                    tail = (tail + 1) & (entries - 1);
                }
                done += 1;
            }
            stack = black_box(stack);
            // SAFETY: the doorbell page.
            unsafe {
                doorbells.add(1).write_volatile(head as u32);
                doorbells.write_volatile(tail as u32);
            }
        }
        let time = thread_time() - start;
        (self.tail, self.head, self.phase, self.random) = (tail, head, phase, random);
        black_box(sum);
        time as f64 / done as f64
    }
}

/// Ours: state that outlives a measurement.
struct Ours {
    device: Device,
    queue: QueuePair<u64>,
    namespace: Namespace,
    random: Random,
    _controller: Controller,
}

impl Ours {
    fn new(depth: usize) -> Box<Self> {
        let standin = StandIn::new();
        let controller =
            Controller::from_device(standin.clone(), ControllerOptions::default()).expect("bring-up");
        let namespace = controller.namespace(1).expect("a namespace");
        let mut queue = controller.queue_pair().depth(ENTRIES as u32).create().expect("a queue");
        let device = standin.release(queue.id());
        let mut random = Random::new();
        let mut turn = queue.turn().expect("a turn");
        for tag in 0..depth as u64 {
            let buffer = controller.alloc(4096).expect("a buffer");
            turn.read(&namespace, random.next() & 0xff_fff8, buffer, tag).expect("room");
        }
        drop(turn);
        Box::new(Self { device, queue, namespace, random, _controller: controller })
    }

    /// Nanoseconds of CPU time per I/O.
    #[inline(never)]
    fn run(&mut self) -> f64 {
        let Self { device, queue, namespace, random, .. } = black_box(self);
        let mut random_here = random.clone();
        let (mut done, mut sum) = (0, 0_u64);
        let start = thread_time();
        while done < BATCH {
            device.step();
            let mut turn = match queue.turn() {
                Ok(turn) => turn,
                Err(_) => std::process::abort(),
            };
            while let Some(completion) = turn.next() {
                let (tag, result, buffer): (u64, _, DmaBuf) = completion.into_parts();
                if result.is_err() {
                    std::process::abort();
                }
                sum = sum.wrapping_add(tag);
                done += 1;
                if turn.read(namespace, random_here.next() & 0xff_fff8, buffer, tag).is_err() {
                    std::process::abort();
                }
            }
        }
        let time = thread_time() - start;
        *random = random_here;
        black_box(sum);
        time as f64 / done as f64
    }
}

/// The stand-in's own share, measured alone: a submission that only moves the doorbell on, and nobody who reaps.
fn standin_alone(depth: usize) -> f64 {
    let mut rings = Rings::new();
    let (mut tail, mut done) = (0, 0);
    let start = thread_time();
    while done < BATCH {
        tail = (tail + depth) & (ENTRIES - 1);
        // SAFETY: the doorbell page.
        unsafe { rings.doorbells.write_volatile(tail as u32) };
        rings.device.step();
        done += depth as u64;
    }
    (thread_time() - start) as f64 / done as f64
}

fn submit_complete(criterion: &mut Criterion) {
    for depth in [1, 32, 128] {
        let name = format!("hot_path/submit_complete_qd{depth}");
        let pairs = RefCell::new((Pairs::default(), Pairs::default(), Pairs::default()));
        criterion.bench_function(&name, |bencher| {
            let (mut ours, mut hand) = (Ours::new(depth), Hand::new(depth));
            bencher.iter_custom(|iterations| {
                let mut total = 0.0;
                for _ in 0..iterations {
                    let (a, b, device) = (ours.run(), hand.run(depth), standin_alone(depth));
                    let mut pairs = pairs.borrow_mut();
                    pairs.0.push(a, b);
                    pairs.1.push(a - device, b - device);
                    pairs.2.push_alone(device);
                    total += a;
                }
                Duration::from_secs_f64(total * 1e-9)
            });
        });
        let (all, net, device) = pairs.into_inner();
        all.report(&name, "ns", "lower");
        net.report(&format!("{name}_net_of_device"), "ns", "lower");
        device.report(&format!("{name}_device_alone"), "ns", "lower");
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = submit_complete
}
criterion_main!(benches);
