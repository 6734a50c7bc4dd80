//! Waiting without an interrupt, outside of the hot path.

use super::{
    Stopwatch,
    budget::{counted, note_wait},
};
use std::time::Duration;

/// A wait without an interrupt, outside of the hot path: looks often at first, then sleeps for growing times, 1 ms at
/// most.
///
/// ```
/// use std::time::Duration;
/// use upcie_core::deadline::{Backoff, Stopwatch};
///
/// # let is_there = || true;
/// let mut backoff = Backoff::new(Stopwatch::new(), Duration::from_secs(10));
/// while !is_there() {
///     assert!(backoff.pause(), "it did not appear within {:?}", backoff.limit());
/// }
/// ```
#[derive(Debug)]
pub struct Backoff<'c> {
    watch: Stopwatch<'c>,
    /// The times that the watch and the thread had counted when the first wait began.
    begun: (Duration, Duration),
    /// The time waited when the limit began to count.
    since: Duration,
    limit: Duration,
    /// Rounds before the clock is read.
    spins: u32,
    rounds: u32,
    /// The time waited at the last slow check, and by now.
    checked: Duration,
    waited: Duration,
    /// The time is up: one last look is left.
    expired: bool,
}

/// Rounds that spin: some 20 µs.
const SPINS: u32 = 1000;
/// The shortest and the longest sleep.
const NAP: (Duration, Duration) = (Duration::from_micros(1), Duration::from_millis(1));

/// Returns how long to sleep between two looks after `waited`: a tenth of it, so that a wait gets at most that much longer,
/// within 1 µs and 1 ms.
pub fn nap(waited: Duration) -> Duration {
    (waited / 10).clamp(NAP.0, NAP.1)
}

impl<'c> Backoff<'c> {
    /// Starts a wait that ends once `watch` has counted `limit`. The clock is read in each round: a look may be a
    /// register access by message, which takes seconds.
    pub fn new(watch: Stopwatch<'c>, limit: Duration) -> Self {
        let mut backoff = Self {
            watch,
            begun: (Duration::ZERO, counted()),
            since: Duration::ZERO,
            limit: Duration::ZERO,
            spins: 0,
            rounds: 0,
            checked: Duration::ZERO,
            waited: Duration::ZERO,
            expired: false,
        };
        backoff.renew(limit, Duration::MAX);
        backoff.begun.0 = backoff.since;
        backoff
    }

    /// Starts the first of several waits that look at memory, which costs less than reading the clock: they spin for
    /// some 20 µs first. Each may take `limit`, and all of them `whole`, including the time that `watch` has counted.
    pub fn of_memory(watch: Stopwatch<'c>, limit: Duration, whole: Duration) -> Self {
        let mut backoff = Self::new(watch, limit);
        if watch.clock().runs() {
            backoff.spins = SPINS;
        }
        backoff.renew(limit, whole);
        backoff
    }

    /// Starts the next of several waits.
    pub fn renew(&mut self, limit: Duration, whole: Duration) {
        self.since = self.watch.waited();
        self.limit = limit.min(whole.saturating_sub(self.since));
        (self.rounds, self.expired) = (0, false);
        (self.checked, self.waited) = (Duration::ZERO, Duration::ZERO);
    }

    /// Returns the limit of this wait.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Returns the rest of the limit, and counts the time so far in full: for a wait that goes on by other means than
    /// [`pause`](Self::pause), and asks for this every 250 ms at least.
    pub fn left(&mut self) -> Duration {
        self.waited = self.watch.waited().saturating_sub(self.since);
        self.limit.saturating_sub(self.waited)
    }

    /// Waits a little; returns `false` when the time is up, except once, for a last look.
    #[must_use]
    pub fn pause(&mut self) -> bool {
        self.rounds += 1;
        if self.rounds < self.spins {
            std::hint::spin_loop();
            return true;
        }
        let waited = self.watch.waited().saturating_sub(self.since);
        self.waited = waited;
        if waited >= self.limit {
            return !std::mem::replace(&mut self.expired, true);
        }
        self.watch.clock().sleep(nap(waited).min(self.limit - waited));
        true
    }

    /// Returns `true` once each `interval` of waiting: time for a check that is too slow for every round.
    pub fn is_due(&mut self, interval: Duration) -> bool {
        let is_due = self.waited.saturating_sub(self.checked) >= interval;
        if is_due {
            self.checked = self.waited;
        }
        is_due
    }
}

impl Drop for Backoff<'_> {
    /// Tells the thread of the wait: a stopwatch that is read before and after it would take it for a stop.
    fn drop(&mut self) {
        let (counted_by_watch, before) = self.begun;
        note_wait(self.watch.waited().saturating_sub(counted_by_watch), before);
    }
}
