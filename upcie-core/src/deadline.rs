//! Time that a thread spends in messages to a device's server: how much it was, and how much more it may be.
//!
//! A register of a vfio-user device may be a message that takes seconds, where one of a real device takes a microsecond.
//! So a caller with a deadline of its own (`open`, a blocking call, a drop) gives its thread a [`Budget`], which cuts each
//! message within it short, and reads [`spent`] to count such accesses in full. Neither costs anything where registers are
//! mapped.
//!
//! A process that was stopped does not find its deadlines missed when it goes on: messages are waited for in slices, each of
//! which counts as at most 250 ms.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The most that a slice of a wait counts: what is more, the process was stopped for.
pub const MAX_SLICE: Duration = Duration::from_millis(250);
/// How long a slice is, if nobody stops the process.
const SLICE: Duration = Duration::from_millis(100);

thread_local! {
    static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static LIMIT: Cell<Limit> = const { Cell::new(Limit { end: Duration::MAX, whole: Duration::MAX }) };
}

/// Nanoseconds that any one message of this process may take ([`hurry`]).
static HURRY: AtomicU64 = AtomicU64::new(u64::MAX);

/// When a thread's budget is used up.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// The value of [`spent`] at its end.
    end: Duration,
    /// What it was at its start, for messages.
    whole: Duration,
}

/// Time that this thread has spent in messages so far, in all its life.
pub fn spent() -> Duration {
    SPENT.get()
}

/// Adds to [`spent`].
pub(crate) fn charge(time: Duration) {
    SPENT.set(SPENT.get().saturating_add(time));
}

/// Runs an access to a device that may be a message, and counts its time, unless it does so itself.
pub(crate) fn charged<T>(access: impl FnOnce() -> T) -> T {
    let (before, start) = (spent(), Instant::now());
    let result = access();
    if spent() == before {
        charge(start.elapsed());
    }
    result
}

/// The limit of the messages of the thread that makes it, until that thread drops it. In a budget within a budget the
/// tighter one holds.
///
/// ```
/// use std::time::Duration;
/// use upcie_core::deadline::Budget;
/// let budget = Budget::new(Duration::from_secs(10));
/// // Messages from here on take no more than 10 s together; each also keeps the deadline of its connection.
/// drop(budget);
/// ```
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Budget {
    before: Limit,
}

impl Budget {
    /// Limits the messages of the calling thread to `time` in all, from now on.
    pub fn new(time: Duration) -> Self {
        let before = LIMIT.get();
        let end = spent().saturating_add(time);
        if end < before.end {
            LIMIT.set(Limit { end, whole: time });
        }
        Self { before }
    }

    /// What is left of the calling thread's budget; `Duration::MAX` without one.
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

/// From now on no message of this process is waited for longer than `limit`, one that is under way included: for a
/// program that was asked to end, and may be waiting for a server that was stopped. A server that misses it is lost, as with
/// any deadline.
pub fn hurry(limit: Duration) {
    let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    HURRY.fetch_min(limit, Ordering::Relaxed);
}

/// The clock of one message.
#[derive(Debug)]
pub(crate) struct Clock {
    looked: Instant,
    waited: Duration,
    limit: Duration,
    /// What [`limit`](Self::limit) gives.
    named: Duration,
}

impl Clock {
    /// Of a message that may take `most`, or what is left of the thread's budget.
    pub(crate) fn new(most: Duration) -> Self {
        let left = Budget::left();
        let (limit, named) = if left < most { (left, LIMIT.get().whole) } else { (most, most) };
        Self { looked: Instant::now(), waited: Duration::ZERO, limit, named }
    }

    /// The deadline, as the caller named it: the connection's, or the budget's.
    pub(crate) fn limit(&self) -> Duration {
        self.named.min(hurried())
    }

    /// Until when to wait before the clock is read again; `None` when the time is up.
    pub(crate) fn slice(&mut self) -> Option<Instant> {
        let now = Instant::now();
        self.waited += now.saturating_duration_since(self.looked).min(MAX_SLICE);
        self.looked = now;
        let left = self.limit.min(hurried()).saturating_sub(self.waited);
        (!left.is_zero()).then(|| now + left.min(SLICE))
    }

    /// How long to wait before the clock is read again; zero when the time is up.
    pub(crate) fn left(&mut self) -> Duration {
        self.slice().map_or(Duration::ZERO, |end| end.saturating_duration_since(self.looked))
    }

    /// How long it was, stops not counted.
    pub(crate) fn waited(&mut self) -> Duration {
        self.slice();
        self.waited
    }
}

fn hurried() -> Duration {
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
        clock.looked -= 60 * SECOND;
        assert!(clock.slice().is_some(), "a minute's stop is 250 ms");
        assert_eq!(clock.waited.as_millis(), 250);
        for _ in 0..3 {
            clock.looked -= 60 * SECOND;
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
