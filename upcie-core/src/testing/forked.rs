//! A forked child of a test.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The longest time in seconds that a child may take: it waits for nothing.
const DEADLINE: u32 = 60;

/// Runs `work` in a forked child, and returns its exit code; `None` if a signal has ended the child, as one does at the deadline.
/// `work` takes no lock that another thread may hold, but those of glibc's allocator.
///
/// # Panics
/// Panics if the system makes no child, or loses it.
pub fn in_child(work: impl FnOnce() -> i32) -> Option<i32> {
    // SAFETY: glibc makes its allocator usable in the child, which takes no other lock of its parent's threads, and ends by
    // `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: sets the child's own alarm, whose signal ends it.
        unsafe { libc::alarm(DEADLINE) };
        let code = catch_unwind(AssertUnwindSafe(work)).unwrap_or(101);
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(code) }
    }
    assert!(child > 0, "no child was made");
    let mut status = 0;
    // SAFETY: waits for the child made here.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}
