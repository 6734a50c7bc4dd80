//! Threads that wait for others.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// Returns the number of the calling thread, by which another can [wait](wait_until_asleep) for it.
pub fn thread_number() -> libc::c_long {
    // SAFETY: the call has no arguments, and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) }
}

/// Waits until a thread of this process sleeps in the kernel: for a lock, say, that its caller holds.
///
/// # Panics
/// Panics if the thread has ended, or does not sleep within a minute.
pub fn wait_until_asleep(thread: libc::c_long) {
    let stat = format!("/proc/self/task/{thread}/stat");
    let end = Instant::now() + Duration::from_secs(60);
    // The state follows the name, which is in parentheses.
    while !fs::read_to_string(&stat).expect("the thread is there").contains(") S ") {
        assert!(Instant::now() < end, "thread {thread} does not sleep");
        thread::yield_now();
    }
}
