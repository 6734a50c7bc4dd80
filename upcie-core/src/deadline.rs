//! The time that a thread spends in messages to a device's server, and limits on it.
//!
//! A register access of a vfio-user device may be a message that takes seconds, while that of a physical device takes a
//! microsecond. So a caller with its own deadline (`open`, a blocking call, a drop) gives its thread a [`Budget`], which
//! limits the messages within it, and reads [`spent`] to count such accesses in full. Both cost nothing if registers are
//! mapped.
//!
//! A process that was stopped should not miss its deadlines by that: messages are waited for in slices, and each slice
//! counts as at most 250 ms.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The longest time that a slice counts: a longer one means that the process was stopped.
pub const MAX_SLICE: Duration = Duration::from_millis(250);
/// Length of a slice, if the process is not stopped.
const SLICE: Duration = Duration::from_millis(100);

thread_local! {
    static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static LIMIT: Cell<Limit> = const { Cell::new(Limit { end: Duration::MAX, whole: Duration::MAX }) };
}

/// Limit on each message of this process in nanoseconds ([`hurry`]).
static HURRY: AtomicU64 = AtomicU64::new(u64::MAX);

/// The end of a thread's budget.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// The value of [`spent`] at its end.
    end: Duration,
    /// The whole budget, for messages.
    whole: Duration,
}

/// Returns the time that this thread has spent in messages in its life.
pub fn spent() -> Duration {
    SPENT.get()
}

/// Adds to [`spent`].
pub(crate) fn charge(time: Duration) {
    SPENT.set(SPENT.get().saturating_add(time));
}

/// Runs an access to a device that may be a message, and charges its time, unless it charges time itself.
pub(crate) fn charged<T>(access: impl FnOnce() -> T) -> T {
    let (before, start) = (spent(), Instant::now());
    let result = access();
    if spent() == before {
        charge(start.elapsed());
    }
    result
}

/// A limit on the messages of the thread that makes it, until that thread drops it. Of nested budgets the tighter one
/// holds.
///
/// ```
/// use std::time::Duration;
/// use upcie_core::deadline::Budget;
/// let budget = Budget::new(Duration::from_secs(10));
/// // Messages from here on take no more than 10 s together; each also keeps the deadline of its connection.
/// drop(budget);
/// ```
#[derive(Debug)]
#[must_use = "the budget ends when it is dropped"]
pub struct Budget {
    before: Limit,
}

impl Budget {
    /// Limits the messages of the calling thread to `time` in total, from now on.
    pub fn new(time: Duration) -> Self {
        let before = LIMIT.get();
        let end = spent().saturating_add(time);
        if end < before.end {
            LIMIT.set(Limit { end, whole: time });
        }
        Self { before }
    }

    /// Returns the rest of the calling thread's budget; `Duration::MAX` without one.
    pub fn left() -> Duration {
        match LIMIT.get().end {
            Duration::MAX => Duration::MAX,
            end => end.saturating_sub(spent()),
        }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        LIMIT.set(self.before);
    }
}

/// Limits the wait for each message of this process to `limit` from now on, including those in progress: for a program
/// that was asked to end, and may wait for a stopped server. A server that misses this limit is given up, as with any
/// deadline.
pub fn hurry(limit: Duration) {
    let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    HURRY.fetch_min(limit, Ordering::Relaxed);
}

/// The clock of one message.
#[derive(Debug)]
pub(crate) struct Clock {
    last_read: Instant,
    waited: Duration,
    limit: Duration,
    /// The value of [`limit`](Self::limit).
    nominal: Duration,
}

impl Clock {
    /// Makes the clock of a message with a deadline of `most`, or the rest of the thread's budget if it is shorter.
    pub(crate) fn new(most: Duration) -> Self {
        let left = Budget::left();
        let (limit, nominal) = if left < most { (left, LIMIT.get().whole) } else { (most, most) };
        Self { last_read: Instant::now(), waited: Duration::ZERO, limit, nominal }
    }

    /// Returns the deadline as the caller knows it: the connection's, or the whole budget.
    pub(crate) fn limit(&self) -> Duration {
        self.nominal.min(hurry_limit())
    }

    /// Returns the end of the next slice; `None` when the time is up.
    pub(crate) fn slice(&mut self) -> Option<Instant> {
        let now = Instant::now();
        self.waited += now.saturating_duration_since(self.last_read).min(MAX_SLICE);
        self.last_read = now;
        let left = self.limit.min(hurry_limit()).saturating_sub(self.waited);
        (!left.is_zero()).then(|| now + left.min(SLICE))
    }

    /// Returns the length of the next slice; zero when the time is up.
    pub(crate) fn left(&mut self) -> Duration {
        self.slice().map_or(Duration::ZERO, |end| end.saturating_duration_since(self.last_read))
    }

    /// Returns the time waited, without stops.
    pub(crate) fn waited(&mut self) -> Duration {
        self.slice();
        self.waited
    }
}

fn hurry_limit() -> Duration {
    Duration::from_nanos(HURRY.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_tighter_budget_holds() {
        assert_eq!(Budget::left(), Duration::MAX);
        let outer = Budget::new(5 * SECOND);
        charge(SECOND);
        assert_eq!(Budget::left(), 4 * SECOND);
        let inner = Budget::new(SECOND);
        charge(2 * SECOND);
        assert_eq!(Budget::left(), Duration::ZERO);
        assert!(Clock::new(SECOND).slice().is_none());
        drop(inner);
        assert_eq!(Budget::left(), 2 * SECOND);
        let wider = Budget::new(9 * SECOND);
        assert_eq!(Budget::left(), 2 * SECOND);
        drop((wider, outer));
        assert_eq!(Budget::left(), Duration::MAX);
    }

    #[test]
    fn a_stop_within_a_message_counts_as_one_slice() {
        let mut clock = Clock::new(SECOND);
        clock.last_read -= 60 * SECOND;
        assert!(clock.slice().is_some(), "a minute's stop counts as 250 ms");
        assert_eq!(clock.waited.as_millis(), 250);
        for _ in 0..3 {
            clock.last_read -= 60 * SECOND;
            let _ = clock.slice();
        }
        assert!(clock.slice().is_none());
    }

    #[test]
    fn an_access_is_charged_once() {
        let before = spent();
        charged(|| charged(|| charge(SECOND)));
        assert_eq!(spent() - before, SECOND);
        charged(|| std::thread::sleep(Duration::from_millis(2)));
        assert!(spent() - before > SECOND);
    }
}
