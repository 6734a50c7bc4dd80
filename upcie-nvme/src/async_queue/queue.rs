//! The asynchronous queue: what its tasks share.

use super::{inner::Inner, seat::Seat, shared::Shared};
use crate::{Result, queue_pair::QueuePairBuilder};
use std::{fmt, rc::Rc};

/// A queue pair whose commands are futures. Its clones are the same queue, for the tasks of one thread.
///
/// The [module](super) describes it.
///
/// It is neither `Send` nor `Sync`; [`handle`](Self::handle) makes handles for other threads:
/// ```compile_fail
/// fn send(queue: upcie_nvme::AsyncQueue) -> impl Send {
///     queue
/// }
/// ```
// Its methods are in a file for each kind of command.
pub struct AsyncQueue {
    pub(super) shared: Rc<Shared>,
}

impl QueuePairBuilder<'_> {
    /// Creates the queue pair on the controller as an [`AsyncQueue`].
    ///
    /// # Errors
    /// Those of [`create`](Self::create).
    pub fn create_async(self) -> Result<AsyncQueue> {
        let shared = Rc::new(Shared::new(Inner::new(self.create()?)));
        shared.add_user();
        Ok(AsyncQueue { shared })
    }
}

impl AsyncQueue {
    /// Reaps what the controller has completed, then submits the commands that wait, with one doorbell for all. Returns the
    /// number of commands that ended. For the idle hook of an executor; a [driver](Self::drive) calls it by itself.
    ///
    /// After a [reset](crate::Controller::reset) of the controller it recovers the queue, which waits for the end of another
    /// thread's reset and for two admin commands.
    ///
    /// # Errors
    /// The queue takes no more commands, since it was closed, or its controller is gone, down or at fault. All futures have
    /// their results.
    pub fn progress(&self) -> Result<usize> {
        self.shared.progress()
    }

    /// Leaves the driver's work to the program's calls of [`progress`](Self::progress), until the guard is dropped: tasks that wait for
    /// commands do not poll for themselves.
    pub fn hold(&self) -> Hold {
        Hold { _seat: Seat::taken(&self.shared) }
    }

    /// Returns the number of commands that can be in flight at once. Further ones wait for room, in order.
    pub fn capacity(&self) -> usize {
        self.shared.borrow().map_or(0, |inner| inner.pair.capacity())
    }

    /// Returns the number of commands that the controller has, those of dropped futures included.
    pub fn in_flight(&self) -> usize {
        self.shared.borrow().map_or(0, |inner| inner.in_flight())
    }

    /// Returns the number of commands that wait for room in the queue, or for its driver.
    pub fn waiting(&self) -> usize {
        self.shared.borrow().map_or(0, |inner| inner.table.staged())
    }

    /// Returns the queue's identifier on the controller, from 1 on.
    pub fn id(&self) -> u16 {
        self.shared.borrow().map_or(0, |inner| inner.pair.id())
    }

    /// Closes the queue: deletes it on the controller, as dropping its last clone does, and ends all its futures. A command that was
    /// in flight gets its buffer and an error, since it is not known whether it was executed.
    ///
    /// # Errors
    /// [`Failure::Undeleted`](crate::Failure::Undeleted): the controller did not confirm the deletion within the deadline. It
    /// keeps the buffers of commands in flight until it stops, and their futures get empty ones.
    pub fn close(&self) -> Result<()> {
        self.shared.with(Inner::close).unwrap_or(Ok(()))
    }
}

/// Tells an [`AsyncQueue`] that the program itself drives it ([`AsyncQueue::hold`]).
#[must_use = "tasks poll for themselves once it is dropped"]
#[derive(Debug)]
pub struct Hold {
    _seat: Seat,
}

impl Clone for AsyncQueue {
    fn clone(&self) -> Self {
        self.shared.add_user();
        Self { shared: self.shared.clone() }
    }
}

impl Drop for AsyncQueue {
    fn drop(&mut self) {
        self.shared.drop_user();
    }
}

impl fmt::Debug for AsyncQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("AsyncQueue");
        if let Some(inner) = self.shared.borrow() {
            debug.field("queue", &inner.pair).field("waiting", &inner.table.staged());
        }
        debug.finish_non_exhaustive()
    }
}
