//! A stopwatch that does not count stops of the process.

use super::budget::counted;
use crate::clock::{Clock, SystemClock};
use std::time::Duration;

/// The most that an interval between two readings counts: a longer one means that the process was stopped.
const MAX_SLICE: Duration = Duration::from_millis(250);

/// Measures a wait for a device: adds up the intervals between its readings, each at most 250 ms.
///
/// A process that was stopped (by a signal, by a debugger, with its whole virtual machine) would miss all of its
/// deadlines, though the device may have been stopped with it, or could not be polled. The same holds on an overloaded
/// machine: three late polls don't prove a device dead. If you poll less often than every 250 ms, the effective timeout
/// is longer. Time that the calling thread spends in messages to the device's server ([`spent`](super::spent)), or in
/// waits of a [`Backoff`](super::Backoff), counts in full:
/// otherwise a server that takes seconds for each register could prolong a deadline twentyfold.
///
/// ```
/// use std::time::Duration;
/// use upcie_core::deadline::Stopwatch;
///
/// let mut watch = Stopwatch::new();
/// # let done = || true;
/// while !done() {
///     assert!(watch.waited() < Duration::from_secs(30), "no answer");
///     std::thread::sleep(Duration::from_millis(1));
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch<'c> {
    clock: &'c dyn Clock,
    /// Time of the last reading.
    read: Duration,
    waited: Duration,
    /// The thread's time that was [`counted`] at the last reading.
    counted: Duration,
}

impl Stopwatch<'static> {
    /// Starts to measure by the system's clock.
    pub fn new() -> Self {
        Self::of(&SystemClock)
    }
}

impl<'c> Stopwatch<'c> {
    /// Starts to measure by `clock`.
    pub fn of(clock: &'c dyn Clock) -> Self {
        Self { clock, read: clock.now(), waited: Duration::ZERO, counted: counted() }
    }

    /// Reads the clock, and returns the time waited so far.
    pub fn waited(&mut self) -> Duration {
        self.waited_at(self.clock.now(), counted())
    }

    /// Returns the clock's time at the last reading.
    pub fn now(&self) -> Duration {
        self.read
    }

    /// Returns the clock.
    pub fn clock(&self) -> &'c dyn Clock {
        self.clock
    }

    pub(super) fn waited_at(&mut self, now: Duration, counted: Duration) -> Duration {
        let passed = now.saturating_sub(self.read);
        // After a move to another thread the difference is meaningless: limit it to the time that has passed.
        let in_full = counted.saturating_sub(self.counted).min(passed);
        self.waited += in_full + (passed - in_full).min(MAX_SLICE);
        (self.read, self.counted) = (now, counted);
        self.waited
    }
}

impl Default for Stopwatch<'static> {
    fn default() -> Self {
        Self::new()
    }
}
