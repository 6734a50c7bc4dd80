//! Support code of the suites: the devices under test, processes that live as long as a test, data that shows
//! where it belongs, and deadlines.
//!
//! A suite runs the same code over each device of `UPCIE_TEST_DEVICES`, a list separated by commas; the
//! default is `emu,nvme-emu`. The word `nvme-emu` is no address: the harness starts a process of that name
//! (from `UPCIE_BIN`, or beside the test executable) for each test, and opens its socket. A suite asks a
//! device for its capabilities, never for its name. It checks that the transport refuses what it lacks, with
//! an error that goes into the matrix of `cargo xtask test` ([`Device::lacks`]).
//!
//! `UPCIE_GUEST` tells that everything is emulated: counts shrink and deadlines grow. `UPCIE_TEST_SCALE`, a
//! factor, sets the counts instead. `UPCIE_TEST_SEED` repeats a run with the same random numbers.

/// The project's README. Its program is compiled and run as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

pub mod bent;
pub mod data;
pub mod device;
pub mod formatted;
pub mod fuse;
pub mod futures;
pub mod io;
pub mod keys;
mod leaks;
pub mod monitor;
pub mod odd;
pub mod own_memory;
pub mod pci;
pub mod placement;
pub mod process;
pub mod proxy;
pub mod random;
pub mod raw;
pub mod replaced;
pub mod stepping;
pub mod stopwatch;
pub mod zones;

pub use device::{Device, on_each_device};
pub use random::seeded;
use std::{env, fmt::Display, time::Duration};
use upcie_core::Chain;

/// Returns true in the guest, where emulation is 10 to 50 times slower.
pub fn in_guest() -> bool {
    env::var_os("UPCIE_GUEST").is_some()
}

/// Returns true in continuous integration, which may skip no test.
pub fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| value == "true")
}

/// Scales a count that suits an idle machine: lower in the guest, and at least one.
pub fn scaled(count: usize) -> usize {
    let factor = match env::var("UPCIE_TEST_SCALE") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("UPCIE_TEST_SCALE={text}: a factor is needed")),
        Err(_) if in_guest() => 0.05,
        Err(_) => 1.0,
    };
    ((count as f64 * factor) as usize).max(1)
}

/// Returns the deadline of an event that should happen at once. The deadline is long, because machines are
/// busy and emulation is slow: a test that misses it has found a defect.
pub fn deadline() -> Duration {
    Duration::from_secs(if in_guest() { 120 } else { 30 })
}

/// Checks that the text of an error and its sources contains all of `parts`.
///
/// # Panics
/// Panics if one is missing.
pub fn says(error: &dyn std::error::Error, parts: &[&str]) {
    let text = Chain(error).to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// Prints one line about a case that could not be tried.
///
/// # Panics
/// Panics in continuous integration, which may skip no test.
pub fn left_out(why: impl Display) {
    assert!(!is_ci(), "left out where CI=true: {why}");
    println!("left out: {why}");
}

/// The cases of `compile_fail/` as doc tests, for any compiler; the suite `host_compile_fail` compares the
/// messages of one compiler.
#[doc = concat!("```compile_fail\n", include_str!("../compile_fail/buffer_kept.rs"), "\n```")]
#[doc = concat!("```compile_fail\n", include_str!("../compile_fail/queue_shared.rs"), "\n```")]
#[doc = concat!("```compile_fail\n", include_str!("../compile_fail/second_turn.rs"), "\n```")]
#[doc = concat!("```compile_fail\n", include_str!("../compile_fail/wait_in_a_turn.rs"), "\n```")]
#[doc = concat!("```compile_fail\n", include_str!("../compile_fail/turn_outlives_queue.rs"), "\n```")]
#[doc = concat!("```compile_fail\n", include_str!("../compile_fail/foreign_tag.rs"), "\n```")]
#[doc = concat!("```compile_fail\n", include_str!("../compile_fail/memory_as_fd.rs"), "\n```")]
#[doc = concat!("```compile_fail\n", include_str!("../compile_fail/raw_access.rs"), "\n```")]
#[doc = concat!("```compile_fail\n", include_str!("../compile_fail/safe_device.rs"), "\n```")]
#[doc = concat!("```compile_fail\n", include_str!("../compile_fail/safe_function.rs"), "\n```")]
#[doc = concat!("```compile_fail\n", include_str!("../compile_fail/safe_medium.rs"), "\n```")]
mod compile_fail {}
