//! Waiting without an interrupt, outside of the hot path.

use super::Patience;
use std::time::Duration;

/// A wait without an interrupt, outside of the hot path: spins at first, then sleeps for growing times.
#[derive(Debug)]
pub(crate) struct Backoff {
    patience: Patience,
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

/// The interval of checks that the controller is still well: a wait notices a fault within 100 ms.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// Rounds that spin: some 20 µs.
const SPINS: u32 = 1000;
/// The longest sleep.
const NAP_MAX: Duration = Duration::from_millis(1);

impl Backoff {
    /// Starts a wait that polls memory, which costs less than reading the clock.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            patience: Patience::new(),
            since: Duration::ZERO,
            limit,
            spins: SPINS,
            rounds: 0,
            checked: Duration::ZERO,
            waited: Duration::ZERO,
            expired: false,
        }
    }

    /// Starts a wait that polls registers: each read may be a message that takes seconds, so the clock is
    /// read after each.
    pub(crate) fn of_registers(limit: Duration) -> Self {
        Self { spins: 0, ..Self::new(limit) }
    }

    /// Starts the first of several waits: each may take `limit`, and all of them `whole`, including the time
    /// in `patience`.
    pub(crate) fn of_several(patience: Patience, limit: Duration, whole: Duration) -> Self {
        let mut backoff = Self { patience, ..Self::new(limit) };
        backoff.renew(limit, whole);
        backoff
    }

    /// Starts the next of several waits.
    pub(crate) fn renew(&mut self, limit: Duration, whole: Duration) {
        self.since = self.patience.waited();
        self.limit = limit.min(whole.saturating_sub(self.since));
        (self.rounds, self.expired) = (0, false);
        (self.checked, self.waited) = (Duration::ZERO, Duration::ZERO);
    }

    /// Returns the limit of this wait.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Waits a little; returns `false` when the time is up, except once, for a last look. Reads the clock
    /// only after the spins, if there are any.
    pub(crate) fn pause(&mut self) -> bool {
        self.rounds += 1;
        if self.rounds < self.spins {
            std::hint::spin_loop();
            return true;
        }
        let waited = self.patience.waited().saturating_sub(self.since);
        self.waited = waited;
        if waited >= self.limit {
            return !std::mem::replace(&mut self.expired, true);
        }
        // Sleep for a tenth of the time waited so far: a wait gets at most that much longer.
        std::thread::sleep((waited / 10).min(NAP_MAX).min(self.limit - waited));
        true
    }

    /// Returns `true` every [`LOOK`]: time for a check that is too slow for every round.
    pub(crate) fn is_slow(&mut self) -> bool {
        let is_time = self.waited.saturating_sub(self.checked) >= LOOK;
        if is_time {
            self.checked = self.waited;
        }
        is_time
    }
}
