//! `gate.rs`: the lock of control paths, which threads wait for in turn. A wake-up that is lost is a deadlock, which loom reports.

use crate::{fails, gate, gate_left_silently, gate_released_silently, play};
use loom::thread;
use std::time::Duration;

/// The time that is left to a thread: no time passes in a model.
const LEFT: fn() -> Duration = || Duration::from_secs(1);

/// Two threads want the value: each gets it once the other has released it.
macro_rules! each_gets_its_turn {
    ($copy:ident) => {
        || {
            let gate: &'static $copy::Gate<u32> = Box::leak(Box::new($copy::Gate::new(0)));
            let add = move || *gate.enter(LEFT).expect("time is left") += 1;
            let other = thread::spawn(add);
            add();
            other.join().unwrap();
            let sum = gate.enter(LEFT).map(|pass| *pass);
            assert_eq!(sum, Some(2));
        }
    };
}

/// A thread whose time is up leaves the line, and another waits behind it: that one gets the value.
macro_rules! who_gives_up_keeps_nobody {
    ($copy:ident) => {
        || {
            let gate: &'static $copy::Gate<u32> = Box::leak(Box::new($copy::Gate::new(0)));
            let held = gate.enter(LEFT);
            let hasty = thread::spawn(move || drop(gate.enter(|| Duration::ZERO)));
            let patient = thread::spawn(move || gate.enter(LEFT).map(|pass| *pass));
            drop(held);
            hasty.join().unwrap();
            assert_eq!(patient.join().unwrap(), Some(0));
        }
    };
}

#[test]
fn each_thread_gets_the_value() {
    play(4, each_gets_its_turn!(gate));
}

#[test]
fn a_thread_that_gives_up_keeps_nobody() {
    play(3, who_gives_up_keeps_nobody!(gate));
}

#[test]
fn a_silent_release_is_found() {
    fails(2, each_gets_its_turn!(gate_released_silently));
}

#[test]
fn a_silent_leave_is_found() {
    fails(3, who_gives_up_keeps_nobody!(gate_left_silently));
}
