//! A command as a future.

use super::{
    command::{Command, Ended},
    inner::Inner,
    outcome::Outcome,
    queue::AsyncQueue,
    remote::Answer,
    shared::Shared,
    table::Owner,
};
use crate::{
    Error, Result,
    engine::{Extent, Io, Zeroes},
};
use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use upcie_core::dma::DmaBuf;

/// A command of an [`AsyncQueue`]: resolves to its outcome `O`, the command's result and its buffer.
///
/// The command is submitted after the first poll. A future that is dropped before the command was sent takes it back; one
/// that is dropped while the command is in flight leaves buffer and slot with the queue until the device is done with them.
#[must_use = "a future does nothing unless it is polled"]
pub struct Submission<O = (Result<()>, DmaBuf)> {
    shared: Rc<Shared>,
    command: Command,
    /// The command's buffer until the first poll.
    buffer: DmaBuf,
    stage: Stage,
    outcome: PhantomData<fn() -> O>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    /// The index of its entry.
    Sent(u32),
    Taken,
}

impl AsyncQueue {
    #[inline]
    pub(super) fn command<O>(&self, command: Command, buffer: DmaBuf) -> Submission<O> {
        let (stage, outcome) = (Stage::New, PhantomData);
        Submission { shared: self.shared.clone(), command, buffer, stage, outcome }
    }

    /// Reads as many blocks as `buffer` has room for, from block `slba` on.
    ///
    /// The future resolves to the result and the buffer. Errors: the controller's status; a refusal, of a command that was not
    /// sent; [`Failure::Reset`](crate::Failure::Reset), with which it is not known whether the command was executed;
    /// [`Failure::Overdue`](crate::Failure::Overdue), with an empty buffer, since the device still has it; or the reason why
    /// the queue takes no more commands.
    #[inline]
    pub fn read(&self, namespace: &impl AsRef<Extent>, slba: u64, buffer: DmaBuf) -> Submission {
        self.submit(Io::read(namespace, slba), buffer)
    }

    /// Writes `buffer`, a whole number of blocks, from block `slba` on. The future is like that of [`read`](Self::read).
    #[inline]
    pub fn write(&self, namespace: &impl AsRef<Extent>, slba: u64, buffer: DmaBuf) -> Submission {
        self.submit(Io::write(namespace, slba), buffer)
    }

    /// Transfers all of `buffer` as `io` describes. The future is like that of [`read`](Self::read).
    #[inline]
    pub fn submit(&self, io: Io<'_>, buffer: DmaBuf) -> Submission {
        self.command(io.into(), buffer)
    }

    /// Makes every write durable that completed before this command was submitted ([`Turn::flush`](crate::Turn::flush)). The
    /// future's buffer is empty.
    pub fn flush(&self, namespace: &impl AsRef<Extent>) -> Submission {
        self.command(Command::Flush { extent: *namespace.as_ref() }, DmaBuf::empty())
    }

    /// Writes zeros without a buffer ([`Turn::write_zeroes`](crate::Turn::write_zeroes)). The future's buffer is empty.
    pub fn write_zeroes(&self, zeroes: Zeroes<'_>) -> Submission {
        self.command(zeroes.into(), DmaBuf::empty())
    }

    /// Deallocates the first `count` ranges in `ranges` ([`Turn::deallocate`](crate::Turn::deallocate)).
    pub fn deallocate(&self, namespace: &impl AsRef<Extent>, ranges: DmaBuf, count: usize) -> Submission {
        self.command(Command::Deallocate { extent: *namespace.as_ref(), count }, ranges)
    }
}

impl<O> Submission<O> {
    /// Puts the command behind those that wait.
    #[inline]
    fn begin(&mut self, cx: &Context<'_>) -> Poll<Answer> {
        let waker = cx.waker().clone();
        let Some(mut inner) = self.shared.borrow() else {
            waker.wake();
            return Poll::Pending;
        };
        if let Some(error) = inner.refuse(&self.command, &self.buffer) {
            self.stage = Stage::Taken;
            return Poll::Ready((Err(error), mem::take(&mut self.buffer)));
        }
        let staged = inner.table.stage(self.command, mem::take(&mut self.buffer), Owner::Task(Some(waker)));
        let Some(index) = staged else {
            self.stage = Stage::Taken;
            let reason = "more commands wait on one asynchronous queue than it can count";
            return Poll::Ready((Err(Error::argument(inner.pair.device(), reason)), DmaBuf::empty()));
        };
        self.stage = Stage::Sent(index);
        let (driver, has_driver) = (inner.sleeping.take(), inner.drivers > 0);
        drop(inner);
        if let Some(driver) = driver {
            driver.wake();
        }
        if has_driver { Poll::Pending } else { self.poll_alone(index, cx) }
    }

    /// Looks for the result, and does the driver's work if there is none.
    fn poll_alone(&mut self, index: u32, cx: &Context<'_>) -> Poll<Answer> {
        // An error ends all commands, this one too.
        let _ = self.shared.progress();
        let answer = self.poll_result(index, cx);
        if answer.is_pending() {
            cx.waker().wake_by_ref();
        }
        answer
    }

    #[inline]
    fn poll_result(&mut self, index: u32, cx: &Context<'_>) -> Poll<Answer> {
        let Some(mut inner) = self.shared.borrow() else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let Inner { pair, table, .. } = &mut *inner;
        let Some((ended, buffer)) = table.take(index) else {
            let before = table.set_waker(index, cx.waker());
            drop(inner);
            drop(before);
            return Poll::Pending;
        };
        self.stage = Stage::Taken;
        let result = ended.into_result(pair.device(), &self.command, &buffer);
        drop(inner);
        self.shared.rouse_if_unused();
        Poll::Ready((result, buffer))
    }

    #[cold]
    fn poll_again(&self) -> Poll<Answer> {
        let ended = Ended::Failed(match self.shared.borrow() {
            Some(inner) => {
                Error::argument(inner.pair.device(), "a future was polled after its result was taken")
            }
            None => return Poll::Pending,
        });
        Poll::Ready((ended.into_result("", &self.command, &self.buffer), DmaBuf::empty()))
    }

    #[inline(always)]
    fn poll_answer(&mut self, cx: &Context<'_>) -> Poll<Answer> {
        match self.stage {
            Stage::New => self.begin(cx),
            Stage::Sent(index) => {
                let answer = self.poll_result(index, cx);
                if answer.is_pending() && self.shared.borrow().is_some_and(|inner| inner.is_alone()) {
                    return self.poll_alone(index, cx);
                }
                answer
            }
            Stage::Taken => self.poll_again(),
        }
    }
}

impl<O: Outcome> Future for Submission<O> {
    type Output = O;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O> {
        let this = self.get_mut();
        this.poll_answer(cx).map(|answer| O::of(answer, this.command.segments()))
    }
}

impl<O> Drop for Submission<O> {
    fn drop(&mut self) {
        let Stage::Sent(index) = self.stage else { return };
        // Borrowed only in a call from within another one: then the entry stays, and so does its buffer.
        let rest = self.shared.borrow().map(|mut inner| inner.table.abandon(index));
        drop(rest);
        self.shared.rouse_if_unused();
    }
}

impl<O> fmt::Debug for Submission<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission")
            .field("command", &self.command)
            .field("buffer", &self.buffer)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}
