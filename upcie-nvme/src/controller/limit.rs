//! The one deadline of a call: for every command that it sends, and every thread that it waits for.

use crate::Error;
use std::time::Duration;
use upcie_core::{
    clock::Clock,
    deadline::{Backoff, Budget, Stopwatch},
    gate::{Gate, Pass},
};

/// The unit of data for which a call gets a second more, in bytes.
const UNIT: u64 = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);

/// The time that a call has, by the controller's clock. A call makes one at its beginning, and hands it to everything that waits.
///
/// Every wait on the way counts in full, whoever measures it: waits for the controller and for other threads tell their thread
/// how long they were ([`Backoff`]).
#[derive(Debug)]
pub(crate) struct Limit<'c> {
    watch: Stopwatch<'c>,
    /// The time that the stopwatch shows at the end.
    end: Duration,
    /// The deadline as the caller knows it, for errors.
    named: Duration,
    /// The units of data that the call has got time for.
    units: u64,
}

impl<'c> Limit<'c> {
    /// Starts a deadline of `time`.
    pub(crate) fn new(clock: &'c dyn Clock, time: Duration) -> Self {
        Self { watch: Stopwatch::of(clock), end: time, named: time, units: 0 }
    }

    /// Gives the call a second more for each MiB of `bytes`, all of its data so far.
    pub(crate) fn allow_bytes(&mut self, bytes: u64) {
        let units = bytes / UNIT;
        self.allow_seconds(units.saturating_sub(self.units));
        self.units = self.units.max(units);
    }

    /// Gives the call so many seconds more: for commands whose number the caller decides.
    pub(crate) fn allow_seconds(&mut self, count: u64) {
        let more = SECOND.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        (self.end, self.named) = (self.end.saturating_add(more), self.named.saturating_add(more));
    }

    /// Returns the time that is left. Reads the clock.
    pub(crate) fn left(&mut self) -> Duration {
        self.end.saturating_sub(self.watch.waited())
    }

    /// Returns the whole deadline.
    pub(crate) fn whole(&self) -> Duration {
        self.named
    }

    /// Returns the deadline of a part of the call: `most` from now on, or what the call has left if that is less.
    pub(crate) fn part(&mut self, most: Duration) -> Self {
        let Self { end, named, .. } = *self;
        let until = self.watch.waited().saturating_add(most);
        let (end, named) = if until < end { (until, most) } else { (end, named) };
        Self { watch: self.watch, end, named, units: 0 }
    }

    /// Starts a wait of at most `most`, or what the call has left if that is less.
    pub(crate) fn backoff(&self, most: Duration) -> Backoff<'c> {
        Backoff::of_memory(self.watch, most, self.end)
    }

    /// Starts the next wait of a [`backoff`](Self::backoff).
    pub(crate) fn renew(&self, backoff: &mut Backoff<'_>, most: Duration) {
        backoff.renew(most, self.end);
    }

    /// Limits the messages of this thread to the time that is left.
    pub(crate) fn budget(&mut self) -> Budget {
        Budget::rest(self.left(), self.named)
    }

    /// Enters `gate` once other threads have left it; `None` when the time is up. A free gate is always entered.
    pub(crate) fn enter<'g, T>(&self, gate: &'g Gate<T>) -> Option<Pass<'g, T>> {
        // A free gate costs no look at the clock.
        let mut wait = None;
        let entered = gate.enter(|| wait.get_or_insert_with(|| self.backoff(Duration::MAX)).left());
        // Reads the clock, which is the program's code: while `entered` is a value of this function, a panic leaves the gate.
        drop(wait);
        entered
    }

    /// Runs `other`, whose time does not count: it is the program's own, or the controller has stated a time for it.
    pub(crate) fn outside<R>(&mut self, other: impl FnOnce() -> R) -> R {
        self.end = self.left();
        let result = other();
        self.watch = Stopwatch::of(self.watch.clock());
        result
    }

    /// Makes an error that names the deadline of its wait name the whole one.
    pub(crate) fn tell(&self, mut error: Error) -> Error {
        error.set_deadline(self.named);
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use upcie_core::{clock::SystemClock, testing::ManualClock};

    #[test]
    fn a_part_ends_with_its_call() {
        let clock = ManualClock::default();
        let mut limit = Limit::new(&clock, 10 * SECOND);
        let wait = |limit: &mut Limit<'_>| {
            let mut backoff = limit.backoff(Duration::MAX);
            while backoff.pause() {}
        };
        let mut first = limit.part(4 * SECOND);
        assert_eq!((first.whole(), first.left()), (4 * SECOND, 4 * SECOND));
        wait(&mut first);
        assert_eq!((first.left(), limit.left()), (Duration::ZERO, 6 * SECOND), "the call counts it in full");
        let mut second = limit.part(7 * SECOND);
        assert_eq!((second.whole(), second.left()), (10 * SECOND, 6 * SECOND));
        wait(&mut second);
        assert!(limit.left().is_zero());
        // Data that turns up later gives more time, once.
        for bytes in [UNIT - 1, 3 * UNIT, 3 * UNIT, UNIT] {
            limit.allow_bytes(bytes);
        }
        assert_eq!((limit.whole(), limit.left()), (13 * SECOND, 3 * SECOND));
        limit.outside(|| clock.sleep(SECOND / 10));
        assert_eq!(limit.left(), 3 * SECOND);
    }

    #[test]
    fn the_longest_deadline_has_no_end() {
        let clock = ManualClock::default();
        let mut limit = Limit::new(&clock, Duration::MAX);
        limit.allow_seconds(u64::MAX);
        clock.sleep(SECOND / 10);
        assert_eq!((limit.part(Duration::MAX).whole(), limit.part(SECOND).left()), (Duration::MAX, SECOND));
        limit.outside(|| ());
        assert!(limit.left() > Duration::MAX / 2);
    }

    /// A wait for another thread counted as 250 ms for the rest of its call.
    #[test]
    fn a_wait_for_another_thread_counts_in_full() {
        let gate = Gate::new(());
        let held = gate.enter(|| Duration::ZERO).unwrap();
        let (whole, most) = (Duration::from_secs(600), Duration::from_millis(600));
        let mut limit = Limit::new(&SystemClock, whole);
        assert!(limit.part(most).enter(&gate).is_none());
        drop(held);
        assert!(limit.left() <= whole - most, "{limit:?}");
        assert!(limit.part(Duration::ZERO).enter(&gate).is_some(), "a free gate");
    }
}
