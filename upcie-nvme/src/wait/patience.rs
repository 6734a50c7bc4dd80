//! A stopwatch for deadlines that a stopped process does not miss.

use std::time::{Duration, Instant};
use upcie_core::deadline::{self, MAX_SLICE};

/// Measures a wait for a device: adds up the intervals between polls, each at most 250 ms.
///
/// A process that was stopped (by a signal, by a debugger, with its whole virtual machine) would miss all of
/// its deadlines, though the device may have been stopped with it, or could not be polled. The same holds on
/// an overloaded machine: three late polls don't prove a device dead. If you poll less often than every 250
/// ms, the effective timeout is longer. Time that the calling thread spends in messages to the device's
/// server ([`upcie_core::deadline::spent`]) counts in full: otherwise a server that takes seconds for each
/// register could prolong a deadline twentyfold.
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
    /// Time in messages of the thread at the last poll.
    spent: Duration,
}

impl Patience {
    /// Starts to measure.
    pub fn new() -> Self {
        Self { looked: Instant::now(), waited: Duration::ZERO, spent: deadline::spent() }
    }

    /// Reads the clock, and returns the time waited so far.
    pub fn waited(&mut self) -> Duration {
        self.at(Instant::now(), deadline::spent())
    }

    fn at(&mut self, now: Instant, spent: Duration) -> Duration {
        let passed = now.saturating_duration_since(self.looked);
        // After a move to another thread the difference is meaningless: limit it to the time that has passed.
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
