//! Notices two threads in calls on one queue, in builds with debug assertions.

use crate::errors::Failure;
#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicUsize, Ordering};

/// The thread that is in calls on a queue, and the number of these calls: a callback calls from inside one.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    #[cfg(debug_assertions)]
    thread: AtomicUsize,
    #[cfg(debug_assertions)]
    calls: AtomicUsize,
}

/// One call; ends when it is dropped.
pub(crate) struct Pass(
    #[cfg_attr(not(debug_assertions), expect(dead_code, reason = "used in debug builds alone"))] *const Guard,
);

impl Guard {
    /// Begins a call. The guard must live until the pass is dropped.
    #[inline(always)]
    pub(crate) fn enter(&self) -> Option<Pass> {
        #[cfg(debug_assertions)]
        if !self.claim() {
            return None;
        }
        Some(Pass(self))
    }

    /// Returns the failure of a call that another thread keeps from [entering](Self::enter).
    #[cold]
    pub(crate) fn refuse() -> Failure {
        Failure::new(
            libc::EPERM,
            "another thread is in a call on this queue: a queue may be used by one thread at a time",
        )
    }

    #[cfg(debug_assertions)]
    fn claim(&self) -> bool {
        thread_local!(static HERE: u8 = const { 0 });
        let me = HERE.with(|here| std::ptr::from_ref(here).addr());
        if self.thread.load(Ordering::Acquire) != me
            && self.thread.compare_exchange(0, me, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            return false;
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        true
    }
}

#[cfg(debug_assertions)]
impl Drop for Pass {
    fn drop(&mut self) {
        // SAFETY: `enter`'s caller keeps the guard.
        let guard = unsafe { &*self.0 };
        if guard.calls.fetch_sub(1, Ordering::Relaxed) == 1 {
            guard.thread.store(0, Ordering::Release);
        }
    }
}
