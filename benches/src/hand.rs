//! A hand-written loop that submits and completes, and checks nothing but success.
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a loop that checks nothing has nothing to prove apart"
)]

use crate::{Random, rings::Rings, thread_time};
use std::hint::black_box;

/// The loop's state over all measurements.
#[derive(Debug)]
pub struct Hand {
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
    /// Makes a loop over rings of `entries` (a power of two), with `depth` reads in flight.
    pub fn new(entries: usize, depth: usize) -> Self {
        let mut hand = Self {
            rings: Rings::new(entries),
            users: vec![0; entries],
            addresses: vec![0; entries],
            free: (0..entries as u16).rev().collect(),
            tail: 0,
            head: 0,
            phase: 1,
            random: Random::new(),
        };
        for i in 0..depth as u64 {
            let cid = hand.free.pop().expect("a free id");
            hand.users[usize::from(cid)] = i;
            hand.addresses[usize::from(cid)] = 0x10_0000 + i * 4096;
            // SAFETY: `tail` is below the number of entries.
            unsafe {
                let sqe = hand.rings.sq.add(hand.tail * 8);
                sqe.write(2 | u64::from(cid) << 16 | 1 << 32);
                sqe.add(3).write(0x10_0000 + i * 4096);
                sqe.add(6).write(7);
            }
            hand.tail += 1;
        }
        // SAFETY: the doorbell is aligned, in its page.
        unsafe { hand.rings.doorbells.write_volatile(hand.tail as u32) };
        hand
    }

    /// Does at least `count` I/Os, `batch` for each turn of the device and each pair of doorbells; returns
    /// their number. Arrays are accessed by raw pointers; `batch` is at most the number in flight.
    #[inline(always)]
    pub fn pass(&mut self, batch: usize, count: u64) -> u64 {
        self.pass_with(batch, count, 7, |_, _, address| (address, 0))
    }

    /// Like [`pass`](Self::pass), with `blocks` (0's based) in each I/O, and the PRP entries that `prps`
    /// makes of a command's id, its buffer's number and address.
    #[inline(always)]
    pub fn pass_with(
        &mut self,
        batch: usize,
        count: u64,
        blocks: u64,
        mut prps: impl FnMut(u16, u64, u64) -> (u64, u64),
    ) -> u64 {
        let entries = black_box(self.rings.entries);
        let (sq, cq, doorbells) = (self.rings.sq, self.rings.cq, self.rings.doorbells);
        let (users, addresses) = (self.users.as_mut_ptr(), self.addresses.as_mut_ptr());
        let (free, mut stack) = (self.free.as_mut_ptr(), self.free.len());
        let (mut tail, mut head, mut phase) = (self.tail, self.head, self.phase);
        let mut random = self.random.clone();
        let (mut done, mut sum) = (0, 0_u64);
        while done < count {
            self.rings.device.step();
            for _ in 0..batch {
                // SAFETY: indices are below the number of entries; the device echoes ids of this loop.
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
                    let (prp1, prp2) = prps(cid, user, address);
                    sqe.add(3).write(prp1);
                    sqe.add(4).write(prp2);
                    sqe.add(5).write(random.next() & 0xff_fff8);
                    sqe.add(6).write(blocks);
                    sqe.add(7).write(0);
                    tail = (tail + 1) & (entries - 1);
                }
                done += 1;
            }
            stack = black_box(stack);
            // SAFETY: the doorbells are aligned, in their page.
            unsafe {
                doorbells.add(1).write_volatile(head as u32);
                doorbells.write_volatile(tail as u32);
            }
        }
        (self.tail, self.head, self.phase, self.random) = (tail, head, phase, random);
        black_box(sum);
        done
    }

    /// Returns the nanoseconds of CPU time per I/O.
    #[inline(never)]
    pub fn run(&mut self, batch: usize, count: u64) -> f64 {
        let start = thread_time();
        let done = self.pass(batch, count);
        (thread_time() - start) as f64 / done as f64
    }

    /// Returns the nanoseconds per I/O over several queues, one pass each in turn.
    #[inline(never)]
    pub fn run_by_turns(hands: &mut [Self], batch: usize, count: u64) -> f64 {
        let (mut done, start) = (0, thread_time());
        while done < count {
            for hand in &mut *hands {
                done += hand.pass(batch, 1);
            }
        }
        (thread_time() - start) as f64 / done as f64
    }
}

/// Runs the stand-in alone: submissions that only move the doorbell, and no reaping; returns their number.
#[inline(always)]
pub fn device_pass(rings: &mut Rings, depth: usize, count: u64) -> u64 {
    let entries = black_box(rings.entries);
    // SAFETY: the doorbell is aligned, in its page.
    let mut tail = unsafe { rings.doorbells.read_volatile() } as usize;
    let mut done = 0;
    while done < count {
        tail = (tail + depth) & (entries - 1);
        // SAFETY: the doorbell is aligned, in its page.
        unsafe { rings.doorbells.write_volatile(tail as u32) };
        rings.device.step();
        done += depth as u64;
    }
    done
}

/// Returns the nanoseconds of CPU time per I/O of [`device_pass`].
#[inline(never)]
pub fn device_alone(rings: &mut Rings, depth: usize, count: u64) -> f64 {
    let start = thread_time();
    let done = device_pass(rings, depth, count);
    (thread_time() - start) as f64 / done as f64
}
