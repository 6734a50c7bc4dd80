//! The time of one command in flight, in milliseconds: 12 bytes for each entry of a queue.

use std::time::Duration;

/// Set in the word of a slot in flight whose time is measured, beside its PRP list.
pub(super) const MARK: u64 = 1 << 63;

/// The time of one command in flight.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timer {
    /// The time of the first look, modulo 2^32 ms (49 days); 0 until then.
    since: u32,
    limit: u32,
    pub(super) stage: Stage,
}

/// State of a command with a deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// The command is in time.
    #[default]
    InTime,
    /// The command has missed its deadline, and was reported or is being aborted.
    Overdue,
}

impl Timer {
    /// Makes a timer that begins with the first look, with a limit of whole milliseconds, rounded up, of 49 days at most.
    pub(super) fn new(limit: Duration) -> Self {
        let limit = limit.as_nanos().div_ceil(1_000_000);
        Self { since: 0, limit: u32::try_from(limit).unwrap_or(u32::MAX), stage: Stage::InTime }
    }

    /// Begins with the next whole millisecond, unless it has begun: no command is late before its deadline.
    pub(super) fn begin(&mut self, now: Duration) {
        if self.since == 0 {
            self.since = millis(now.saturating_add(Duration::from_nanos(999_999)));
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.since != 0
    }

    /// Returns the time since the first look.
    pub(super) fn age(&self, now: Duration) -> Duration {
        // Looks at the clock by several threads may come in any order.
        let age = millis(now).wrapping_sub(self.since);
        Duration::from_millis(if age > u32::MAX / 2 { 0 } else { age.into() })
    }

    pub(super) fn limit(&self) -> Duration {
        Duration::from_millis(self.limit.into())
    }
}

/// Returns a time in milliseconds modulo 2^32, and never 0.
fn millis(time: Duration) -> u32 {
    (time.as_millis() as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both readings lost their fractions: 30.1 ms were counted as 31.
    #[test]
    fn no_age_exceeds_the_time_that_has_passed() {
        let mut timer = Timer::new(Duration::from_millis(31));
        timer.begin(Duration::from_micros(43_900));
        assert_eq!(timer.age(Duration::from_micros(43_950)), Duration::ZERO);
        assert!(timer.age(Duration::from_micros(74_000)) < timer.limit());
        assert_eq!(timer.age(Duration::from_micros(75_000)), timer.limit());
    }

    #[test]
    fn a_timer_outlives_the_wrap_of_its_milliseconds() {
        let mut timer = Timer::new(Duration::from_micros(1500));
        assert_eq!((size_of::<Timer>(), timer.limit()), (12, Duration::from_millis(2)));
        let start = Duration::from_millis((1 << 32) - 10);
        timer.begin(start);
        timer.begin(start + Duration::from_secs(1));
        assert_eq!(timer.age(start + Duration::from_millis(25)), Duration::from_millis(25));
        assert_eq!(timer.age(start - Duration::from_millis(5)), Duration::ZERO);
        assert_eq!(Timer::new(Duration::MAX).limit(), Duration::from_millis(u32::MAX.into()));
    }
}
