//! Waiting for completions.
//!
//! One eventfd per MSI-X vector, which queues may share. Nobody drains it: each queue has an epoll descriptor with the
//! vector's eventfd in it, edge triggered, so every interrupt wakes every queue of its vector, and one queue's wait
//! takes nothing from another's.

use crate::Result;
use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};
use upcie_core::irq::EventFd;

/// How to wait for a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Look at the completion queue again and again: the shortest latency, a whole core. After 50 µs without result the
    /// core is offered to others (`sched_yield`) between looks.
    Poll,
    /// Sleep until the queue's interrupt.
    Interrupt,
    /// Poll for this long, then sleep until the interrupt.
    Adaptive(Duration),
}

/// The epoll descriptor of one queue.
#[derive(Debug)]
pub(crate) struct Waiter {
    epoll: Epoll,
    /// Kept open: the epoll set refers to it.
    _vector: Arc<EventFd>,
}

impl Waiter {
    pub(crate) fn new(vector: Arc<EventFd>) -> Result<Self> {
        let failed = |e: Errno| upcie_core::Error::Os {
            device: "epoll".into(),
            operation: "waiting for an interrupt vector (raise `ulimit -n` if too many files are open)"
                .into(),
            source: e.into(),
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
        epoll.add(vector.as_fd(), event).map_err(failed)?;
        Ok(Self { epoll, _vector: vector })
    }

    /// Forgets interrupts from before now. Whoever looks at the completion queue after this and finds nothing will be
    /// woken by what comes then.
    pub(crate) fn arm(&self) -> Result<()> {
        self.sleep(Duration::ZERO).map(|_| ())
    }

    /// Sleeps until an interrupt that is newer than the last [`arm`](Self::arm), at most `timeout`.
    pub(crate) fn sleep(&self, timeout: Duration) -> Result<bool> {
        let end = Instant::now().checked_add(timeout);
        loop {
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            let ms = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
            let mut events = [EpollEvent::empty()];
            match self.epoll.wait(&mut events, EpollTimeout::try_from(ms).unwrap_or(EpollTimeout::ZERO)) {
                Ok(0) if left.is_zero() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(e) => {
                    return Err(upcie_core::Error::Os {
                        device: "epoll".into(),
                        operation: "waiting for an interrupt".into(),
                        source: e.into(),
                    }
                    .into());
                }
            }
        }
    }
}

impl AsFd for Waiter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// Waiting without an interrupt, for what is not on the hot path: spins at first, then sleeps for growing times.
#[derive(Debug)]
pub(crate) struct Backoff {
    start: Instant,
    limit: Duration,
    rounds: u32,
    /// The time is up: what comes now is the last look.
    expired: bool,
}

/// Rounds that spin: some 20 µs.
const SPINS: u32 = 1000;
/// The longest sleep.
const NAP_MAX: Duration = Duration::from_millis(1);

impl Backoff {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { start: Instant::now(), limit, rounds: 0, expired: false }
    }

    /// How long it waits in all.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Waits a little; `false` when the time is up. Once after that it is `true`, for a last look: the process may have been
    /// stopped for longer than the deadline. The clock is read only after the spins.
    pub(crate) fn pause(&mut self) -> bool {
        self.rounds += 1;
        if self.rounds < SPINS {
            std::hint::spin_loop();
            return true;
        }
        let waited = self.start.elapsed();
        if waited >= self.limit {
            return !std::mem::replace(&mut self.expired, true);
        }
        // A tenth of what has been waited so far: at most that much is added to what is waited for.
        std::thread::sleep((waited / 10).min(NAP_MAX).min(self.limit - waited));
        true
    }

    /// Whether it is time for a check that is too slow for every round: about every 100 ms.
    pub(crate) fn is_slow(&self) -> bool {
        self.rounds >= SPINS && (self.rounds - SPINS) % 128 == 127
    }
}
