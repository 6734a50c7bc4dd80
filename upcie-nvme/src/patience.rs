//! How long something has been waited for, by somebody who was there.

use std::time::{Duration, Instant};

/// The most that counts between two looks.
const LONGEST: Duration = Duration::from_millis(250);

/// For a deadline on a device: adds up the time between looks, of which each counts as 250 ms at most.
///
/// A process that was stopped (by a signal, by a debugger, with its whole virtual machine) finds all of its deadlines missed
/// when it goes on, though the device may have been stopped with it, or had no chance to be looked at. And where a
/// machine has hardly any time for either, a device is not called dead that was looked at three times. So who looks
/// less often than four times a second waits for longer than the deadline says.
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
}

impl Patience {
    /// Begins to wait.
    pub fn new() -> Self {
        Self { looked: Instant::now(), waited: Duration::ZERO }
    }

    /// Looks at the clock: how long it has been so far.
    pub fn waited(&mut self) -> Duration {
        self.at(Instant::now())
    }

    fn at(&mut self, now: Instant) -> Duration {
        self.waited += now.saturating_duration_since(self.looked).min(LONGEST);
        self.looked = now;
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
        assert_eq!(patience.at(at(100)), Duration::from_millis(100));
        assert_eq!(patience.at(at(100)), Duration::from_millis(100));
        assert_eq!(patience.at(at(60_100)), Duration::from_millis(350));
        assert_eq!(patience.at(at(60_200)), Duration::from_millis(450));
    }
}
