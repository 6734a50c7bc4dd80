//! The time of one message to a server.

use super::{
    Stopwatch,
    budget::{Budget, whole},
};
use std::time::{Duration, Instant};

/// Length of a slice, if the process is not stopped: short enough for a stopwatch to count it in full.
const SLICE: Duration = Duration::from_millis(100);

/// Measures the wait for one message, which is made in slices.
#[derive(Debug)]
pub(crate) struct MessageWatch<'c> {
    watch: Stopwatch<'c>,
    limit: Duration,
    /// The value of [`limit`](Self::limit).
    nominal: Duration,
}

impl MessageWatch<'static> {
    /// Starts to wait for a message with a deadline of `most`, or the rest of the thread's budget if it is shorter.
    pub(crate) fn new(most: Duration) -> Self {
        Self::of(Stopwatch::new(), most)
    }
}

impl<'c> MessageWatch<'c> {
    pub(super) fn of(watch: Stopwatch<'c>, most: Duration) -> Self {
        let left = Budget::left();
        let (limit, nominal) = if left < most { (left, whole()) } else { (most, most) };
        Self { watch, limit, nominal }
    }

    /// Returns the deadline as the caller knows it: the connection's, or the whole budget.
    pub(crate) fn limit(&self) -> Duration {
        self.nominal.min(Budget::hurry_limit())
    }

    /// Returns the end of the next slice; `None` when the time is up.
    pub(crate) fn slice(&mut self) -> Option<Instant> {
        let left = self.left();
        (!left.is_zero()).then(|| Instant::now() + left)
    }

    /// Returns the length of the next slice; zero when the time is up.
    pub(crate) fn left(&mut self) -> Duration {
        self.limit.min(Budget::hurry_limit()).saturating_sub(self.waited()).min(SLICE)
    }

    /// Returns the time waited, without stops.
    pub(crate) fn waited(&mut self) -> Duration {
        self.watch.waited()
    }
}
