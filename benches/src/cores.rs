//! Cores of threads, and the time that threads wait for them.

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use std::fs;

/// Lists the cores that this process may use.
pub fn allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect()
}

/// Keeps the thread `tid` (0: the calling one) on `cores`.
///
/// # Panics
/// Panics if that fails: a figure of threads that share a core says nothing.
pub fn pin(tid: i32, cores: &[usize]) {
    let pin = || {
        let mut set = CpuSet::new();
        cores.iter().try_for_each(|&core| set.set(core))?;
        sched_setaffinity(Pid::from_raw(tid), &set)
    };
    pin().unwrap_or_else(|error| panic!("keeping thread {tid} on {cores:?}: {error}"));
}

/// Returns the time that all threads of a process have waited for a core, in nanoseconds.
pub fn run_delay(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    // A thread that has ended by now waits no more.
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    texts.filter_map(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

/// Asks the kernel to prefer this session to others, which only root may.
pub fn prefer() {
    // A failure is harmless: other sessions' work disturbs more rounds, which are then left out.
    let _ = fs::write("/proc/self/autogroup", "-20");
}
