//! Waiting without an interrupt, for what is not on the hot path.

use super::Patience;
use std::time::Duration;

/// Waiting without an interrupt, for what is not on the hot path: spins at first, then sleeps for growing times.
#[derive(Debug)]
pub(crate) struct Backoff {
    patience: Patience,
    /// What had been waited when the limit began to count.
    since: Duration,
    limit: Duration,
    /// Rounds without a look at the clock.
    spins: u32,
    rounds: u32,
    /// What had been waited at the last slow check, and by now.
    checked: Duration,
    waited: Duration,
    /// The time is up: what comes now is the last look.
    expired: bool,
}

/// How often whoever waits looks whether the controller is still well: a fault is noticed within 100 ms of a wait's begin.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
/// Rounds that spin: some 20 µs.
const SPINS: u32 = 1000;
/// The longest sleep.
const NAP_MAX: Duration = Duration::from_millis(1);

impl Backoff {
    /// For a look at memory, which costs less than a look at the clock.
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

    /// For a look at registers: each may be a message that takes seconds, so the clock is read after each.
    pub(crate) fn of_registers(limit: Duration) -> Self {
        Self { spins: 0, ..Self::new(limit) }
    }

    /// For a wait of several, of which each may take `limit` and all of them `whole`, with what `patience` has waited before.
    pub(crate) fn of_several(patience: Patience, limit: Duration, whole: Duration) -> Self {
        let mut backoff = Self { patience, ..Self::new(limit) };
        backoff.renew(limit, whole);
        backoff
    }

    /// Begins the next of several.
    pub(crate) fn renew(&mut self, limit: Duration, whole: Duration) {
        self.since = self.patience.waited();
        self.limit = limit.min(whole.saturating_sub(self.since));
        (self.rounds, self.expired) = (0, false);
        (self.checked, self.waited) = (Duration::ZERO, Duration::ZERO);
    }

    /// How long it waits.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Waits a little; `false` when the time is up. Once after that it is `true`, for a last look. The clock is read
    /// after the spins only, if there are any.
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
        // A tenth of what has been waited so far: at most that much is added to what is waited for.
        std::thread::sleep((waited / 10).min(NAP_MAX).min(self.limit - waited));
        true
    }

    /// Whether it is time for a check that is too slow for every round: each [`LOOK`].
    pub(crate) fn is_slow(&mut self) -> bool {
        let is_time = self.waited.saturating_sub(self.checked) >= LOOK;
        if is_time {
            self.checked = self.waited;
        }
        is_time
    }
}
