//! Fuzz targets: plain functions that take any bytes, for parsers and state machines that a peer or a device feeds.
//!
//! A target panics if a property does not hold. Each has seeds, inputs that are valid; a suite mutates them, and replays
//! the inputs of `corpus/TARGET/`, which once failed. `cargo xtask fuzz` runs more. Targets of private parts are unit
//! tests of their crates with `fuzz` in the name.

mod client;
mod completions;
mod config;
mod forger;
mod machine;
mod server;
mod share;
mod spec;
mod tables;
mod text;
mod transfers;
mod wire;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a state that is whole at any point.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of the target, and of the directory of its kept inputs.
    pub name: &'static str,
    /// The function; it panics if a property does not hold.
    pub run: fn(&[u8]),
    /// Makes valid inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Mutations in each run of the suite.
    pub runs: u64,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "vfio_user_server", run: server::target, seeds: server::seeds, runs: 3000 },
    Target { name: "vfio_user_client", run: client::target, seeds: client::seeds, runs: 3000 },
    Target { name: "share", run: share::target, seeds: share::seeds, runs: 5000 },
    Target { name: "config_space", run: config::target, seeds: config::seeds, runs: 20_000 },
    Target { name: "machine", run: machine::target, seeds: machine::seeds, runs: 3000 },
    Target { name: "transfers", run: transfers::target, seeds: transfers::seeds, runs: 5000 },
    Target { name: "completions", run: completions::target, seeds: completions::seeds, runs: 3000 },
    Target { name: "structures", run: spec::target, seeds: spec::seeds, runs: 3000 },
    Target { name: "tables", run: tables::target, seeds: tables::seeds, runs: 10_000 },
    Target { name: "addresses", run: text::addresses, seeds: text::address_seeds, runs: 30_000 },
    Target { name: "fault_plans", run: text::fault_plans, seeds: text::fault_plan_seeds, runs: 10_000 },
];

/// Calls the target of this name, for a fuzzer that makes the inputs.
///
/// # Panics
/// Panics if a property of the target does not hold, or if there is no target of this name.
pub fn run(name: &str, input: &[u8]) {
    (find(name).run)(input);
}

fn find(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target's name")
}

/// Runs a target on its kept inputs, its seeds, and mutations of both.
///
/// # Panics
/// Panics if a property of the target does not hold, or if there is no target of this name.
pub fn fuzz(name: &str) {
    let target = find(name);
    let mut seeds = (target.seeds)();
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    if let Ok(entries) = std::fs::read_dir(directory) {
        let mut files: Vec<_> = entries.map(|entry| entry.expect("a kept input").path()).collect();
        files.sort();
        seeds.extend(files.iter().map(|file| std::fs::read(file).expect("a kept input")));
    }
    upcie_core::testing::fuzz(name, target.runs, &seeds, target.run);
}
