//! Handles for other threads.

use super::{
    command::Command,
    outcome::Outcome,
    queue::AsyncQueue,
    remote::{Answer, Remote},
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
    sync::Arc,
    task::{Context, Poll},
};
use upcie_core::{dma::DmaBuf, process::Owner};

/// The most commands of a queue's handles at once.
const MOST: usize = 1 << 16;

/// A handle to an [`AsyncQueue`] for tasks of other threads: `Send`, `Sync`, and a clone is another handle to the same queue.
///
/// The commands of all handles go through one bounded queue to the queue's thread, whose driver submits them. While it is
/// full, further commands wait in order. The futures are those of the queue, and `Send`.
///
/// # Examples
/// ```
/// # use upcie_nvme::Controller;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let controller = Controller::open("emu:size=1M")?;
/// let namespace = controller.namespace(1)?;
/// let (ours, theirs) = std::sync::mpsc::sync_channel(1);
/// // The thread of the queue: a `Controller` can be sent there, an `AsyncQueue` can't leave it.
/// let opener = controller.clone();
/// let driver = std::thread::spawn(move || -> upcie_nvme::Result<()> {
///     let queue = opener.queue_pair().depth(64).create_async()?;
///     ours.send(queue.handle(64)?).unwrap();
///     let driver = queue.drive_polled();
///     drop(queue);
///     smol::block_on(driver) // until the last handle is gone
/// });
/// let handle = theirs.recv()?;
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
/// runtime.block_on(async {
///     let buffer = controller.alloc(4096)?;
///     let task = tokio::spawn(async move { handle.read(&namespace, 8, buffer).await });
///     let (result, buffer) = task.await?;
///     result?;
///     assert_eq!(buffer.len(), 4096);
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// driver.join().unwrap()?;
/// # Ok(())
/// # }
/// ```
///
/// In a forked child the commands of a handle are refused, as all of the queue is.
pub struct AsyncHandle {
    remote: Arc<Remote>,
    /// The queue's process. A forked child takes no lock of the other side, which a thread of its parent may hold for ever there.
    owner: Owner,
}

/// A command of an [`AsyncHandle`]: resolves to its outcome, like a [`Submission`](super::Submission).
#[must_use = "a future does nothing unless it is polled"]
pub struct RemoteSubmission<O = (Result<()>, DmaBuf)> {
    /// Keeps the queue's driver until the future is dropped.
    handle: AsyncHandle,
    command: Command,
    /// The command's buffer until it is requested.
    buffer: DmaBuf,
    stage: Stage,
    outcome: PhantomData<fn() -> O>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Waits for a slot, with a ticket if it has to.
    New(Option<u64>),
    Requested(u32),
    Taken,
}

impl AsyncQueue {
    /// Returns a handle for other threads. `capacity` (1 to 65,536) is the most commands of all handles at once, waiting or in flight;
    /// the first call sets it. The handles' commands need a [driver](Self::drive), which goes on as long as there are handles.
    ///
    /// # Errors
    /// The capacity is out of its limits, or another than that of the first call; or the queue takes no more commands.
    pub fn handle(&self, capacity: usize) -> Result<AsyncHandle> {
        let busy = || Error::argument("", "a handle was asked for in a call of the queue itself");
        let mut inner = self.shared.borrow().ok_or_else(busy)?;
        if inner.has_ended() || inner.pair.is_inherited() {
            return Err(inner.reason());
        }
        let known = inner.remote.clone();
        let known_capacity = known.as_ref().map(|remote| remote.capacity());
        if !(1..=MOST).contains(&capacity) || known_capacity.is_some_and(|known| known != capacity) {
            let limits = match known_capacity {
                Some(known) => format!("the first handle has set {known}"),
                None => format!("it takes 1 to {MOST}"),
            };
            let reason = format!("a handle for {capacity} commands of queue {}: {limits}", inner.pair.id());
            return Err(Error::argument(inner.pair.device(), reason));
        }
        let remote = known.unwrap_or_else(|| Arc::new(Remote::new(inner.pair.device(), capacity as u32)));
        inner.remote = Some(remote.clone());
        // The driver's task may sleep without a look at the handles.
        let sleeping = inner.sleeping.take();
        drop(inner);
        remote.add_handle();
        if let Some(driver) = sleeping {
            driver.wake();
        }
        Ok(AsyncHandle { remote, owner: Owner::current() })
    }
}

impl AsyncHandle {
    /// Refuses a forked child. Call it before taking a lock.
    fn check_owner(&self) -> Result<()> {
        Ok(self.owner.check(self.remote.device(), "using a handle of an asynchronous queue")?)
    }

    pub(super) fn command<O>(&self, command: Command, buffer: DmaBuf) -> RemoteSubmission<O> {
        let (stage, outcome) = (Stage::New(None), PhantomData);
        RemoteSubmission { handle: self.clone(), command, buffer, stage, outcome }
    }

    /// Reads blocks like [`AsyncQueue::read`].
    pub fn read(&self, namespace: &impl AsRef<Extent>, slba: u64, buffer: DmaBuf) -> RemoteSubmission {
        self.submit(Io::read(namespace, slba), buffer)
    }

    /// Writes blocks like [`AsyncQueue::write`].
    pub fn write(&self, namespace: &impl AsRef<Extent>, slba: u64, buffer: DmaBuf) -> RemoteSubmission {
        self.submit(Io::write(namespace, slba), buffer)
    }

    /// Transfers all of `buffer` like [`AsyncQueue::submit`].
    pub fn submit(&self, io: Io<'_>, buffer: DmaBuf) -> RemoteSubmission {
        self.command(io.into(), buffer)
    }

    /// Makes writes durable like [`AsyncQueue::flush`].
    pub fn flush(&self, namespace: &impl AsRef<Extent>) -> RemoteSubmission {
        self.command(Command::Flush { extent: *namespace.as_ref() }, DmaBuf::empty())
    }

    /// Writes zeros like [`AsyncQueue::write_zeroes`].
    pub fn write_zeroes(&self, zeroes: Zeroes<'_>) -> RemoteSubmission {
        self.command(zeroes.into(), DmaBuf::empty())
    }

    /// Deallocates ranges like [`AsyncQueue::deallocate`].
    pub fn deallocate(
        &self,
        namespace: &impl AsRef<Extent>,
        ranges: DmaBuf,
        count: usize,
    ) -> RemoteSubmission {
        self.command(Command::Deallocate { extent: *namespace.as_ref(), count }, ranges)
    }
}

impl Clone for AsyncHandle {
    fn clone(&self) -> Self {
        self.remote.add_handle();
        Self { remote: self.remote.clone(), owner: self.owner }
    }
}

impl Drop for AsyncHandle {
    fn drop(&mut self) {
        if self.owner.is_current() {
            self.remote.drop_handle();
        }
    }
}

impl<O> RemoteSubmission<O> {
    /// Ends the future with an error and its buffer, if it has that still.
    fn refuse(&mut self, error: Error) -> Poll<Answer> {
        self.leave();
        Poll::Ready((Err(error), mem::take(&mut self.buffer)))
    }

    /// Gives up the command's place or slot; in a forked child they are the parent's.
    fn leave(&mut self) {
        let stage = mem::replace(&mut self.stage, Stage::Taken);
        if !self.handle.owner.is_current() {
            return;
        }
        match stage {
            Stage::New(Some(ticket)) => self.handle.remote.leave(ticket),
            Stage::Requested(slot) => self.handle.remote.abandon(slot),
            Stage::New(None) | Stage::Taken => {}
        }
    }

    fn poll_answer(&mut self, cx: &Context<'_>) -> Poll<Answer> {
        if let Err(error) = self.handle.check_owner() {
            return self.refuse(error);
        }
        match &mut self.stage {
            Stage::New(ticket) => {
                let slot = self.handle.remote.poll_slot(ticket, cx);
                if let Poll::Ready(slot) = slot {
                    self.stage = Stage::Requested(slot);
                    let buffer = mem::take(&mut self.buffer);
                    self.handle.remote.request(slot, self.command, buffer, cx.waker().clone());
                } else if self.handle.remote.is_closed() {
                    let error = self.handle.remote.closed(&self.command, &self.buffer);
                    return self.refuse(error);
                }
                Poll::Pending
            }
            Stage::Requested(slot) => {
                let answer = self.handle.remote.poll_answer(*slot, cx);
                if answer.is_ready() {
                    self.stage = Stage::Taken;
                }
                answer
            }
            Stage::Taken => {
                self.refuse(Error::argument("", "a future was polled after its result was taken"))
            }
        }
    }
}

impl<O: Outcome> Future for RemoteSubmission<O> {
    type Output = O;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O> {
        let this = self.get_mut();
        this.poll_answer(cx).map(|answer| O::of(answer, this.command.segments()))
    }
}

impl<O> Drop for RemoteSubmission<O> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for AsyncHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncHandle").field("capacity", &self.remote.capacity()).finish_non_exhaustive()
    }
}

impl<O> fmt::Debug for RemoteSubmission<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSubmission")
            .field("command", &self.command)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}
