//! Time: read, and slept through.

use std::{fmt, ops::Deref, sync::Arc, thread, time::Duration};

/// A monotonic clock and its sleep. Each wait of the libraries on a controller's behalf goes through one, so a test or a
/// simulation can own the time of a controller.
///
/// A simulated device that runs in the caller's thread makes progress in [`sleep`](Self::sleep), and its time stands still
/// otherwise ([`runs`](Self::runs) is `false`).
///
/// # Examples
/// ```
/// use std::{
///     sync::atomic::{AtomicU64, Ordering},
///     time::Duration,
/// };
/// use upcie_core::{clock::Clock, deadline::Stopwatch};
///
/// /// Time that passes only in `sleep`.
/// #[derive(Debug, Default)]
/// struct Simulated(AtomicU64);
///
/// impl Clock for Simulated {
///     fn now(&self) -> Duration {
///         Duration::from_nanos(self.0.load(Ordering::Relaxed))
///     }
///     fn sleep(&self, time: Duration) {
///         // A simulated device would take a step here.
///         self.0.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
///     }
///     fn runs(&self) -> bool {
///         false
///     }
/// }
///
/// let clock = Simulated::default();
/// let mut watch = Stopwatch::of(&clock);
/// clock.sleep(Duration::from_millis(200));
/// assert_eq!(watch.waited(), Duration::from_millis(200));
/// ```
pub trait Clock: Send + Sync + fmt::Debug {
    /// Returns the time since a moment that the clock has chosen. It never decreases.
    fn now(&self) -> Duration;

    /// Waits for `time`, or a little longer. It may return early, for example after an event of a simulated device: the
    /// caller looks, and sleeps again.
    fn sleep(&self, time: Duration);

    /// Returns `false` if time passes only in [`sleep`](Self::sleep). A wait then sleeps between two looks where it would
    /// spin, yield its core, or block in the kernel.
    fn runs(&self) -> bool {
        true
    }
}

/// The system's monotonic clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        // `Instant` needs a zero, and so a lock that a forked child may find held for ever.
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is valid for the result. The call does not fail: Linux has this clock.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    fn sleep(&self, time: Duration) {
        thread::sleep(time);
    }
}

/// A clock with several owners; the system's by default. Two are equal if they are the same clock.
#[derive(Debug, Clone, Default)]
pub struct SharedClock(Option<Arc<dyn Clock>>);

impl SharedClock {
    /// Shares `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Some(clock))
    }
}

impl Deref for SharedClock {
    type Target = dyn Clock;

    fn deref(&self) -> &Self::Target {
        match &self.0 {
            Some(clock) => &**clock,
            None => &SystemClock,
        }
    }
}

impl PartialEq for SharedClock {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }
}
