//! How long something has been waited for, by somebody who was there.

use std::time::{Duration, Instant};
use upcie_core::deadline::{self, MAX_SLICE};

/// For a deadline on a device: adds up the time between looks, of which each counts as 250 ms at most.
///
/// A process that was stopped (by a signal, by a debugger, with its whole virtual machine) finds all of its deadlines missed
/// when it goes on, though the device may have been stopped with it, or had no chance to be looked at. And where a
/// machine has hardly any time for either, a device is not called dead that was looked at three times. So who looks
/// less often than four times a second waits for longer than the deadline says. Time that the calling thread spends in messages
/// to the device's server ([`upcie_core::deadline::spent`]) counts in full: a device that takes seconds to tell a register
/// does not take a deadline twenty times over.
///
/// ```
/// use std::time::Duration;
/// let mut patience = upcie_nvme::Patience::new();
/// # let done = || true;
/// while !done() {
///     if patience.waited() >= Duration::from_secs(30) {
///         panic!("no answer");
///     }
///     std::thread::sleep(Duration::from_millis(1));
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    looked: Instant,
    waited: Duration,
    /// Of the thread that looked, then.
    spent: Duration,
}

impl Patience {
    /// Begins to wait.
    pub fn new() -> Self {
        Self { looked: Instant::now(), waited: Duration::ZERO, spent: deadline::spent() }
    }

    /// Looks at the clock: how long it has been so far.
    pub fn waited(&mut self) -> Duration {
        self.at(Instant::now(), deadline::spent())
    }

    fn at(&mut self, now: Instant, spent: Duration) -> Duration {
        let passed = now.saturating_duration_since(self.looked);
        // Another thread's, after a move between threads, is no more than what has passed, either.
        let in_messages = spent.saturating_sub(self.spent).min(passed);
        self.waited += in_messages + (passed - in_messages).min(MAX_SLICE);
        (self.looked, self.spent) = (now, spent);
        self.waited
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_counts_as_one_look() {
        let mut patience = Patience::new();
        let start = patience.looked;
        let at = |ms| start + Duration::from_millis(ms);
        let spent = patience.spent;
        assert_eq!(patience.at(at(100), spent), Duration::from_millis(100));
        assert_eq!(patience.at(at(100), spent), Duration::from_millis(100));
        assert_eq!(patience.at(at(60_100), spent), Duration::from_millis(350));
        assert_eq!(patience.at(at(60_200), spent), Duration::from_millis(450));
    }

    /// Soundness finding 5.
    #[test]
    fn a_look_by_message_counts_in_full() {
        let mut patience = Patience::new();
        let (start, spent) = (patience.looked, patience.spent);
        let at = |ms| start + Duration::from_millis(ms);
        let after = |ms| spent + Duration::from_millis(ms);
        assert_eq!(patience.at(at(4_900), after(4_900)), Duration::from_millis(4_900));
        assert_eq!(
            patience.at(at(65_900), after(5_900)),
            Duration::from_millis(6_150),
            "and a stop as little"
        );
        assert_eq!(patience.at(at(66_000), spent), Duration::from_millis(6_250), "another thread's total");
    }
}
