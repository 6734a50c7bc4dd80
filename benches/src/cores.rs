//! Which core a thread runs on, and whether it had that core to itself.

use std::{fs, io};

/// The cores that this process may use.
pub fn allowed() -> Vec<usize> {
    // SAFETY: plain data, all of whose bits may be 0.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: it writes a set of this size.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0 {
        return Vec::new();
    }
    let has = |core: &usize| {
        // SAFETY: below CPU_SETSIZE.
        unsafe { libc::CPU_ISSET(*core, &set) }
    };
    (0..libc::CPU_SETSIZE as usize).filter(has).collect()
}

/// Keeps the thread `tid` (0: this one) on `cores`.
///
/// # Panics
/// When it can't be: a figure of threads that share a core says nothing.
pub fn pin(tid: i32, cores: &[usize]) {
    // SAFETY: plain data, all of whose bits may be 0.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &core in cores {
        // SAFETY: `core` came from `allowed`.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    // SAFETY: it reads a set of this size.
    let result = unsafe { libc::sched_setaffinity(tid, size_of_val(&set), &set) };
    assert_eq!(result, 0, "keeping thread {tid} on {cores:?}: {}", io::Error::last_os_error());
}

/// How long all threads of a process have waited for a core so far, in nanoseconds.
pub fn run_delay(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    // A thread that has ended meanwhile waits no more.
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    texts.filter_map(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

/// Asks the kernel to prefer this session to others, as far as it lets us: root may.
pub fn prefer() {
    // Without it others' work is measured more often, and those rounds are left out: nothing depends on it.
    let _ = fs::write("/proc/self/autogroup", "-20");
}
