//! The time that a thread spends in messages to a device's server, and limits on it.

use crate::clock::{Clock, SystemClock};
use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

thread_local! {
    static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static WAITED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
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

/// Returns the time of this thread that stopwatches count in full, since it was counted without stops already: in messages, and in
/// waits that have ended.
pub(super) fn counted() -> Duration {
    SPENT.get().saturating_add(WAITED.get())
}

/// Notes the end of a wait of `waited`; `before` was [`counted`] at its beginning.
pub(super) fn note_wait(waited: Duration, before: Duration) {
    let noted = counted().saturating_sub(before);
    WAITED.set(WAITED.get().saturating_add(waited.saturating_sub(noted)));
}

/// Adds to [`spent`].
pub(crate) fn charge(time: Duration) {
    SPENT.set(SPENT.get().saturating_add(time));
}

/// Runs an access to a device that may be a message, and charges its time, unless it charges time itself.
pub(crate) fn charged<T>(access: impl FnOnce() -> T) -> T {
    let (before, start) = (spent(), SystemClock.now());
    let result = access();
    if spent() == before {
        charge(SystemClock.now().saturating_sub(start));
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
        Self::rest(time, time)
    }

    /// Limits the messages of the calling thread to `left` in total, from now on: the rest of a deadline of `whole`, which
    /// is the one that errors name.
    pub fn rest(left: Duration, whole: Duration) -> Self {
        let before = LIMIT.get();
        let end = spent().saturating_add(left);
        if end < before.end {
            LIMIT.set(Limit { end, whole });
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

    /// Returns the limit of [`hurry`].
    pub(crate) fn hurry_limit() -> Duration {
        Duration::from_nanos(HURRY.load(Ordering::Relaxed))
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        LIMIT.set(self.before);
    }
}

/// Limits the wait for each message of this process to `limit` from now on, including those in progress: for a program
/// that was asked to end, and may wait for a stopped server. A server that misses this limit is given up, as with the
/// deadline of its connection.
pub fn hurry(limit: Duration) {
    let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    HURRY.fetch_min(limit, Ordering::Relaxed);
}

/// Returns the whole budget of the calling thread.
pub(super) fn whole() -> Duration {
    LIMIT.get().whole
}
