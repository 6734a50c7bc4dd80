//! A check that several queues share.

use crate::Result;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use upcie_core::clock::Clock;

/// A check for several queues, which one of their threads makes: a software controller answers one request at a time, and
/// a hung one blocks the thread that asks.
#[derive(Debug, Default)]
pub(crate) struct SharedLook {
    /// The end of the last check in nanoseconds, or [`LOOKING`].
    last: AtomicU64,
}

/// A check is going on.
const LOOKING: u64 = u64::MAX;
/// A check less than this ago is recent.
const RECENT: Duration = Duration::from_millis(25);

impl SharedLook {
    /// Runs `look`, unless another thread runs it, or one has within the last 25 ms.
    pub(super) fn run(&self, clock: &dyn Clock, look: impl FnOnce() -> Result<()>) -> Result<()> {
        let now = || clock.now().as_nanos() as u64;
        let (last, start) = (self.last.load(Ordering::Relaxed), now());
        let is_recent = last == LOOKING || start.saturating_sub(last) < RECENT.as_nanos() as u64;
        if is_recent
            || self.last.compare_exchange(last, LOOKING, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return Ok(());
        }
        let mut looking = Looking { last: &self.last, end: last };
        let looked = look();
        looking.end = now();
        looked
    }
}

/// A check under way. If it panics, as the program's clock or its subscriber may, the last one counts.
struct Looking<'l> {
    last: &'l AtomicU64,
    end: u64,
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.last.store(self.end, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        cell::Cell,
        panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    };
    use upcie_core::testing::ManualClock;

    #[test]
    fn one_check_serves_the_queues_that_ask_at_once() {
        let (clock, shared, looks) = (ManualClock::default(), SharedLook::default(), Cell::new(0));
        clock.sleep(RECENT);
        let look = || {
            looks.set(looks.get() + 1);
            // Another queue asks meanwhile.
            shared.run(&clock, || unreachable!("a second check"))?;
            clock.sleep(Duration::from_secs(1));
            Ok(())
        };
        for (pause, total) in [(RECENT, 1), (RECENT / 2, 2), (RECENT / 2, 2), (RECENT, 3)] {
            shared.run(&clock, look).unwrap();
            assert_eq!(looks.get(), total);
            clock.sleep(pause);
        }
    }
    #[test]
    fn a_check_that_panics_is_not_the_last() {
        let (clock, shared, looks) = (ManualClock::default(), SharedLook::default(), Cell::new(0));
        clock.sleep(RECENT);
        let look = AssertUnwindSafe(|| shared.run(&clock, || resume_unwind(Box::new("a clock's bug"))));
        assert!(catch_unwind(look).is_err());
        let look = || {
            looks.set(1);
            Ok(())
        };
        shared.run(&clock, look).unwrap();
        assert_eq!(looks.get(), 1);
    }
}
