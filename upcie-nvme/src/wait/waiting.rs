//! The wait for a completion: poll, then sleep, within one deadline.

use super::{LOOK, SpinPolicy, Wait};
use std::time::Duration;
use upcie_core::deadline::{Stopwatch, nap};

/// Polls between two readings of the clock.
const POLLS: u32 = 64;
/// The core is not offered to others (`sched_yield`) if less than this is left of the wait: it may take a time slice.
const YIELD_AFTER: Duration = Duration::from_micros(50);
/// The end of an adaptive wait, which is polled: timers are late by about as much.
const EARLY: Duration = Duration::from_micros(60);

/// The queues that one wait is for.
pub(crate) trait Waiting {
    type Error;

    /// Returns `true` if a completion can be reaped.
    fn is_ready(&mut self) -> bool;

    /// Returns `true` if the caller wants the wait to end. Asked less often than [`is_ready`](Self::is_ready).
    fn is_over(&mut self) -> bool;

    /// Forgets past interrupts, and asks for the next one.
    fn arm(&mut self) -> Result<(), Self::Error>;

    /// Sleeps until an interrupt that came after [`arm`](Self::arm), at most `timeout`; returns `false` if none came.
    fn sleep(&mut self, timeout: Duration) -> Result<bool, Self::Error>;

    /// Checks, every 50 ms, that the controllers are well.
    fn look(&mut self) -> Result<(), Self::Error>;
}

/// The end of a wait, or of a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A completion can be reaped.
    Ready,
    /// The caller ended the wait.
    Over,
    /// The time is up.
    Late,
}

/// A wait under way.
struct Progress<'w, 'c, W> {
    waiting: &'w mut W,
    policy: &'w mut SpinPolicy,
    watch: Stopwatch<'c>,
    /// Time waited at the last look.
    looked: Duration,
}

/// Waits until a completion can be reaped, at most `timeout` as `watch` counts it. `reaped` returns the number of
/// completions reaped so far; only adaptive waits ask for it.
pub(crate) fn wait<W: Waiting>(
    waiting: &mut W,
    policy: &mut SpinPolicy,
    watch: Stopwatch<'_>,
    how: Wait,
    timeout: Duration,
    reaped: impl FnOnce(&mut W) -> u64,
) -> Result<Outcome, W::Error> {
    let polled = match how {
        Wait::Poll => timeout,
        Wait::Interrupt => Duration::ZERO,
        Wait::Adaptive(most) => policy.begin(watch.now(), reaped(waiting), most).min(timeout),
    };
    let mut progress = Progress { waiting, policy, watch, looked: Duration::ZERO };
    let outcome = progress.wait(how, polled, timeout);
    if how != Wait::Poll {
        let waited = progress.watch.waited();
        progress.policy.end(waited);
    }
    outcome
}

impl<W: Waiting> Progress<'_, '_, W> {
    fn wait(&mut self, how: Wait, polled: Duration, timeout: Duration) -> Result<Outcome, W::Error> {
        let mut outcome = if !polled.is_zero() {
            self.poll(polled)?
        } else if self.waiting.is_ready() {
            Outcome::Ready
        } else {
            Outcome::Late
        };
        if outcome == Outcome::Late && how != Wait::Poll {
            let early = if how == Wait::Interrupt { Duration::ZERO } else { EARLY };
            outcome = self.sleep(timeout.saturating_sub(early))?;
            if outcome == Outcome::Late && !early.is_zero() {
                outcome = self.poll(timeout)?;
            }
        }
        Ok(outcome)
    }

    /// Polls until `limit` of the wait, and reads the clock only now and then.
    fn poll(&mut self, limit: Duration) -> Result<Outcome, W::Error> {
        loop {
            for _ in 0..POLLS {
                if self.waiting.is_ready() {
                    self.policy.came_by_itself();
                    return Ok(Outcome::Ready);
                }
                std::hint::spin_loop();
            }
            if self.waiting.is_over() {
                return Ok(Outcome::Over);
            }
            let waited = self.watch.waited();
            if waited >= limit {
                return Ok(Outcome::Late);
            }
            self.look(waited)?;
            if !self.watch.clock().runs() {
                self.watch.clock().sleep(nap(waited).min(limit - waited));
            } else if waited >= self.policy.patience() && limit - waited > YIELD_AFTER {
                // The completer may need this core to make progress; a software controller often does.
                std::thread::yield_now();
                let ready = self.waiting.is_ready();
                self.policy.yielded(self.watch.waited().saturating_sub(waited), ready);
                if ready {
                    return Ok(Outcome::Ready);
                }
            }
        }
    }

    /// Sleeps until an interrupt brings a completion, until `limit` of the wait.
    fn sleep(&mut self, limit: Duration) -> Result<Outcome, W::Error> {
        loop {
            self.waiting.arm()?;
            if self.waiting.is_ready() {
                return Ok(Outcome::Ready);
            }
            if self.waiting.is_over() {
                return Ok(Outcome::Over);
            }
            let waited = self.watch.waited();
            let left = limit.saturating_sub(waited);
            if left.is_zero() {
                return Ok(Outcome::Late);
            }
            self.look(waited)?;
            let runs = self.watch.clock().runs();
            let woken = self.waiting.sleep(if runs { left.min(LOOK) } else { Duration::ZERO })?;
            if self.waiting.is_ready() {
                // The completion may have come without an interrupt: `arm` counts such cases.
                return Ok(Outcome::Ready);
            }
            if !runs {
                self.watch.clock().sleep(nap(waited).min(left));
            } else if woken {
                // The interrupt was for another queue of the vector. Until that queue is reaped, INTx and MSI raise one
                // after another.
                std::thread::yield_now();
            }
        }
    }

    fn look(&mut self, waited: Duration) -> Result<(), W::Error> {
        if waited - self.looked >= LOOK {
            self.looked = waited;
            self.waiting.look()?;
        }
        Ok(())
    }
}
