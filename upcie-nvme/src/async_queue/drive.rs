//! Drivers: futures that keep a queue going, by its interrupt or by polling.

use super::{descriptor::Signals, inner::Inner, queue::AsyncQueue, seat::Seat};
use crate::{Error, Result};
use std::{
    fmt,
    future::Future,
    io,
    os::fd::OwnedFd,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// The most rounds of one poll of a driver, before other tasks have their turn.
const ROUNDS: u32 = 16;
/// Polls without result before a polling driver offers its core to other threads: some 50 µs. A software controller may need it.
const PATIENCE: u32 = 1024;

/// Keeps an [`AsyncQueue`] going by polling ([`AsyncQueue::drive_polled`]).
#[must_use = "a future does nothing unless it is polled"]
#[derive(Debug)]
pub struct DrivePolled {
    seat: Seat,
    /// Polls in a row that found nothing.
    idle: u32,
}

/// Keeps an [`AsyncQueue`] going by its interrupt ([`AsyncQueue::drive`]).
#[must_use = "a future does nothing unless it is polled"]
pub struct Drive<R> {
    seat: Seat,
    signals: Signals,
    readable: R,
}

impl AsyncQueue {
    /// Returns a driver that polls: it runs again after all tasks that are ready, as long as commands are in flight or wait, and
    /// sleeps otherwise. It takes a whole core, which it offers to other threads (`sched_yield`) after 1,024 polls without
    /// result, and needs no interrupt.
    ///
    /// The future ends when the queue is [closed](Self::close), or when nobody uses it any more.
    ///
    /// # Errors
    /// The future's: those of [`progress`](Self::progress).
    pub fn drive_polled(&self) -> DrivePolled {
        DrivePolled { seat: Seat::new(&self.shared), idle: 0 }
    }

    /// Returns a driver that sleeps until the queue's interrupt. `make` registers the descriptor that it is given with a reactor, and
    /// returns a function that polls the registration: it is ready when the descriptor became readable after it was ready before.
    /// The [module](super) has the lines for tokio and async-io.
    ///
    /// While commands are in flight, the descriptor also becomes readable every 50 ms: then the driver checks that the
    /// controller is well, and looks for late commands.
    ///
    /// The future ends when the queue is [closed](Self::close), or when nobody uses it any more.
    ///
    /// # Errors
    /// The queue was made without an [interrupt](crate::queue::QueuePairBuilder::interrupt), no descriptor is free, or the
    /// reactor refuses it. The future's: those of [`progress`](Self::progress), and the reactor's.
    pub fn drive<R>(&self, make: impl FnOnce(OwnedFd) -> io::Result<R>) -> Result<Drive<R>>
    where
        R: FnMut(&mut Context<'_>) -> Poll<io::Result<()>> + Unpin,
    {
        let inner =
            self.shared.borrow().ok_or_else(|| Error::argument("", "the queue is in use by this call"))?;
        let device = inner.pair.device();
        let signals = Signals::new(device, inner.pair.clone_completion_fd()?)?;
        let readable = make(signals.clone_fd(device)?).map_err(|source| {
            upcie_core::Error::os(device, "registering a queue's interrupts with a reactor", source)
        })?;
        Ok(Drive { seat: Seat::new(&self.shared), signals, readable })
    }
}

impl Future for DrivePolled {
    type Output = Result<()>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Self { seat, idle } = self.get_mut();
        seat.take();
        match seat.shared().progress() {
            Ok(0) => *idle = idle.wrapping_add(1),
            Ok(_) => *idle = 0,
            Err(error) => return Poll::Ready(seat.end(error)),
        }
        if seat.shared().borrow().is_some_and(|inner| inner.is_busy()) {
            if *idle >= PATIENCE {
                *idle = 0;
                std::thread::yield_now();
            }
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let sleeps = seat.shared().sleep(cx);
        // After the note that the driver sleeps: the last handle that goes away wakes it.
        if seat.shared().is_unused() {
            return Poll::Ready(Ok(()));
        }
        if !sleeps {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<R: FnMut(&mut Context<'_>) -> Poll<io::Result<()>> + Unpin> Drive<R> {
    fn poll_rounds(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let Self { seat, signals, readable } = self;
        let shared = seat.shared().clone();
        for _ in 0..ROUNDS {
            if shared.progress()? > 0 {
                // The tasks that were woken come first: they may have more to submit.
                break;
            }
            let sleeps = shared.sleep(cx);
            // After the note that the driver sleeps: the last handle that goes away wakes it.
            if shared.is_unused() {
                return Poll::Ready(Ok(()));
            }
            if !sleeps {
                continue;
            }
            let is_due = signals.clear()?;
            let idle = |inner: &mut Inner| {
                if is_due {
                    inner.look(Duration::ZERO)?;
                }
                signals.tick(inner.in_flight() > 0)?;
                inner.pair.arm()?;
                // The wake-up of a reset that has ended the queue since the turn is forgotten now.
                let has_work = inner.pair.is_ready() || inner.pair.check_live().is_err();
                Ok::<_, Error>(inner.in_flight() > 0 && has_work)
            };
            if shared.with(idle).unwrap_or(Ok(false))? {
                continue;
            }
            match readable(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(source)) => {
                    let what = "waiting for a queue's interrupt with a reactor";
                    return Poll::Ready(Err(upcie_core::Error::os("", what, source).into()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<R: FnMut(&mut Context<'_>) -> Poll<io::Result<()>> + Unpin> Future for Drive<R> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        this.seat.take();
        match this.poll_rounds(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(this.seat.end(error)),
            other => other,
        }
    }
}

impl<R> fmt::Debug for Drive<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drive")
            .field("seat", &self.seat)
            .field("signals", &self.signals)
            .finish_non_exhaustive()
    }
}
