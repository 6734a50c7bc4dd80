//! A minimal initiator and target over a pair of NVMe queues, which check nothing. They are the measure for
//! the overhead of a driver and a controller.
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a loop that checks nothing has nothing to prove apart"
)]

use crate::{Random, rings::pages};
use std::{
    hint::{black_box, spin_loop},
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::Instant,
};

/// Entries of each ring.
pub const ENTRIES: usize = 1024;

/// A queue pair's memory: rings of [`ENTRIES`] entries, and doorbells.
#[derive(Debug, Clone, Copy)]
pub struct Rings {
    /// Submission queue entries of 64 bytes.
    pub sq: *mut u64,
    /// Completion queue entries of 16 bytes.
    pub cq: *mut u64,
    /// The submission queue tail doorbell.
    pub tail: *const AtomicU32,
    /// The completion queue head doorbell.
    pub head: *const AtomicU32,
}

// SAFETY: plain pointers; the caller that runs an initiator or a target keeps their memory alive.
unsafe impl Send for Rings {}

impl Rings {
    /// Allocates the rings and doorbells. The doorbells share a cache line.
    pub fn new() -> Self {
        let doorbells = pages(4096);
        // SAFETY: in the page.
        let head = unsafe { doorbells.add(32) };
        Self {
            sq: pages(ENTRIES * 64).cast(),
            cq: pages(ENTRIES * 16).cast(),
            tail: doorbells.cast(),
            head: head.cast(),
        }
    }
}

impl Default for Rings {
    fn default() -> Self {
        Self::new()
    }
}

/// The work of an initiator.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Commands in flight.
    pub depth: usize,
    /// The blocks of a command, of 512 bytes each: 1 or 8.
    pub blocks: u64,
    /// The mask of first blocks, which are multiples of `blocks`: a power of two less one.
    pub mask: u64,
}

/// The initiator's state over all measurements.
#[derive(Debug)]
pub struct Initiator {
    rings: Rings,
    work: Work,
    /// The device address of the buffer of command 0; the others follow by 4 KiB.
    data: u64,
    tail: usize,
    at: usize,
    phase: u64,
    random: Random,
}

impl Initiator {
    /// Submits `depth` commands.
    ///
    /// # Safety
    /// The rings are valid, no device knows any entry, and `depth` buffers of 4 KiB are at `data`.
    pub unsafe fn start(rings: Rings, work: Work, data: u64) -> Self {
        let mut this = Self { rings, work, data, tail: 0, at: 0, phase: 1, random: Random::new() };
        for id in 0..work.depth as u64 {
            // SAFETY: the caller's obligations cover the rings and buffers.
            unsafe { this.submit(id) };
        }
        // SAFETY: the doorbell is aligned and mapped.
        unsafe { &*rings.tail }.store(this.tail as u32, Ordering::Release);
        this
    }

    #[inline(always)]
    unsafe fn submit(&mut self, id: u64) {
        let slba = self.random.next() & self.work.mask & !(self.work.blocks - 1);
        // SAFETY: `tail` is below the number of entries.
        unsafe {
            let sqe = self.rings.sq.add(self.tail * 8);
            sqe.write(2 | id << 16 | 1 << 32);
            sqe.add(1).write(0);
            sqe.add(2).write(0);
            sqe.add(3).write(self.data + id * 4096);
            sqe.add(4).write(0);
            sqe.add(5).write(slba);
            sqe.add(6).write(self.work.blocks - 1);
            sqe.add(7).write(0);
        }
        self.tail = (self.tail + 1) % ENTRIES;
    }

    /// Completes and submits `count` commands; returns the nanoseconds of each.
    #[inline(never)]
    pub fn run(&mut self, count: u64) -> f64 {
        let (cq, tail, head) = (self.rings.cq, self.rings.tail, self.rings.head);
        let mut done = 0;
        let start = Instant::now();
        while done < count {
            let before = done;
            for _ in 0..self.work.depth {
                // SAFETY: `at` is below the number of entries; the other side stores an entry's upper half at
                // once.
                let high = unsafe { &*cq.add(self.at * 2 + 1).cast::<AtomicU64>() }.load(Ordering::Acquire);
                if high >> 48 & 1 != self.phase {
                    break;
                }
                if high >> 49 != 0 {
                    panic!("a command failed: status {:#x}", high >> 49);
                }
                self.at += 1;
                if self.at == ENTRIES {
                    self.at = 0;
                    self.phase ^= 1;
                }
                // SAFETY: fewer commands than entries are in flight.
                unsafe { self.submit(high >> 32 & 0xffff) };
                done += 1;
            }
            if done == before {
                spin_loop();
                continue;
            }
            // SAFETY: the completion head doorbell, aligned and mapped for the whole run.
            unsafe { &*head }.store(self.at as u32, Ordering::Release);
            // SAFETY: the submission tail doorbell, aligned and mapped for the whole run.
            unsafe { &*tail }.store(self.tail as u32, Ordering::Release);
        }
        start.elapsed().as_nanos() as f64 / done as f64
    }
}

/// The location of a target's data.
#[derive(Debug, Clone, Copy)]
pub struct Media {
    /// The first byte.
    pub bytes: *const u8,
    /// The difference between an address in this process and the device address.
    pub shift: u64,
}

// SAFETY: plain pointers; the caller that runs a target keeps their memory alive.
unsafe impl Send for Media {}

/// The target's state over all measurements.
#[derive(Debug)]
pub struct Target {
    rings: Rings,
    media: Option<Media>,
    head: usize,
    at: usize,
    phase: u64,
}

impl Target {
    /// Makes a target over fresh rings. Without media it moves no data.
    pub fn new(rings: Rings, media: Option<Media>) -> Self {
        Self { rings, media, head: 0, at: 0, phase: 1 }
    }

    /// Completes commands until `stop`, and posts completions by the cache line.
    #[inline(never)]
    pub fn serve(&mut self, stop: &AtomicBool) {
        let Rings { sq, cq, tail, .. } = self.rings;
        let mut sum = 0;
        while !stop.load(Ordering::Relaxed) {
            // SAFETY: the doorbell is aligned and mapped.
            let tail = unsafe { &*tail }.load(Ordering::Acquire) as usize;
            if tail == self.head {
                spin_loop();
                continue;
            }
            while self.head != tail {
                let waiting = (tail + ENTRIES - self.head) % ENTRIES;
                let count = waiting.min(4 - self.at % 4);
                let mut ids = [0; 4];
                for id in &mut ids[..count] {
                    // SAFETY: an entry of the ring.
                    let words = unsafe { sq.add(self.head * 8).cast::<[u64; 8]>().read_volatile() };
                    self.head = (self.head + 1) % ENTRIES;
                    *id = words[0] >> 16 & 0xffff;
                    sum ^= words[3] ^ words[5];
                    if let Some(media) = self.media {
                        let to = words[3].wrapping_add(media.shift) as *mut u8;
                        let bytes = ((words[6] & 0xffff) + 1) as usize * 512;
                        // SAFETY: an initiator of this module asks for blocks of the media, and supplies a
                        // buffer.
                        unsafe {
                            to.copy_from_nonoverlapping(media.bytes.add(words[5] as usize * 512), bytes)
                        };
                    }
                }
                for id in &ids[..count] {
                    // SAFETY: an entry of the ring.
                    unsafe {
                        let entry = cq.add(self.at * 2);
                        entry.write_volatile(0);
                        let high = self.head as u64 | id << 32 | self.phase << 48;
                        (*entry.add(1).cast::<AtomicU64>()).store(high, Ordering::Release);
                    }
                    self.at += 1;
                    if self.at == ENTRIES {
                        self.at = 0;
                        self.phase ^= 1;
                    }
                }
            }
        }
        black_box(sum);
    }
}

/// Returns the nanoseconds that a cache line takes from this core to `other` and back.
pub fn hand_off(other: usize) -> f64 {
    const TRIPS: u32 = 20_000;
    let (there, back) = (Line(AtomicU32::new(0)), Line(AtomicU32::new(0)));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            crate::cores::pin(0, &[other]);
            for trip in 1..=TRIPS {
                while there.0.load(Ordering::Acquire) != trip {}
                back.0.store(trip, Ordering::Release);
            }
        });
        // The first trip waits for the thread to start.
        let mut start = Instant::now();
        for trip in 1..=TRIPS {
            there.0.store(trip, Ordering::Release);
            while back.0.load(Ordering::Acquire) != trip {}
            if trip == 1 {
                start = Instant::now();
            }
        }
        start.elapsed().as_nanos() as f64 / f64::from(TRIPS - 1)
    })
}

/// Aligned to two cache lines, since processors fetch pairs.
#[repr(align(128))]
struct Line(AtomicU32);
