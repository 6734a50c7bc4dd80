//! A program sleeps until `QueuePair::completion_fd` is readable while another thread resets the controller. `Vectors::wake_all`
//! (`controller/vectors.rs`), `Inner::reset` and `Waiter` (`wait/waiter.rs`) need descriptors, so their steps are written out here.

use crate::{engine::Live, fails, lock, play};
use loom::{
    sync::{Condvar, Mutex},
    thread,
};
use std::sync::PoisonError;

/// The descriptor of a queue: an edge-triggered epoll on the eventfd of its vector.
#[derive(Default)]
struct Descriptor {
    is_readable: Mutex<bool>,
    changed: Condvar,
}

impl Descriptor {
    /// Signals the eventfd (`Vectors::wake_all`).
    fn signal(&self) {
        *lock(&self.is_readable) = true;
        self.changed.notify_all();
    }

    /// Forgets past interrupts (`QueuePair::arm`).
    fn arm(&self) {
        *lock(&self.is_readable) = false;
    }

    /// Sleeps until the descriptor is readable, without a timeout.
    fn sleep(&self) {
        let mut is_readable = lock(&self.is_readable);
        while !*is_readable {
            is_readable = self.changed.wait(is_readable).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Plays a program that sleeps beside a reset: it finds out that the epoch of its queue is over. `ends_first`: the reset ends the epoch before it wakes sleepers.
/// `arms_first`: the program arms the descriptor before it looks at the queue.
fn a_sleeper_finds_out(ends_first: bool, arms_first: bool) {
    let live: &'static Live = Box::leak(Box::new(Live::new().unwrap()));
    let descriptor: &'static Descriptor = Box::leak(Box::<Descriptor>::default());
    let epoch = live.epoch();
    let reset = thread::spawn(move || {
        if !ends_first {
            descriptor.signal();
        }
        live.end();
        if ends_first {
            descriptor.signal();
        }
    });
    loop {
        if arms_first {
            descriptor.arm();
        }
        if epoch.is_over() {
            break;
        }
        if !arms_first {
            descriptor.arm();
        }
        descriptor.sleep();
    }
    reset.join().unwrap();
}

#[test]
fn a_reset_wakes_who_arms_and_looks() {
    play(6, || a_sleeper_finds_out(true, true));
}

#[test]
fn a_wake_before_the_end_is_found() {
    fails(4, || a_sleeper_finds_out(false, true));
}

#[test]
fn a_look_before_arming_is_found() {
    fails(4, || a_sleeper_finds_out(true, false));
}
