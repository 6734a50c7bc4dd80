//! I/O queue pairs in use: turns, waits, deletion.

use super::diagnosis::diagnose;
use crate::{
    Error, Result, SpinPolicy, Turn, Wait,
    controller::Inner,
    engine::Queue,
    wait::{LOOK, Waiter},
};
use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};
use upcie_core::deadline::nap;

/// An I/O submission queue and its completion queue. `T` is the tag that each command carries.
///
/// A queue pair belongs to one thread at a time; give each thread its own. Dropping it deletes the queues on
/// the controller, within a deadline. The buffers of commands in flight are freed once the controller has
/// stopped using them.
///
/// A queue pair is `Send` and not `Sync`.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use upcie_nvme::{Controller, Wait};
///
/// let controller = Controller::open("emu:size=1M")?;
/// let namespace = controller.namespace(1)?;
/// let mut queue = controller.queue_pair().depth(32).create::<&str>()?;
/// assert_eq!((queue.capacity(), queue.room()), (31, 31));
///
/// queue.turn()?.write(&namespace, 8, controller.alloc(4096)?, "zeros at block 8")?;
/// assert!(queue.wait(Wait::Poll, Duration::from_secs(30))?, "{}", queue.diagnose());
/// for done in queue.turn()? {
///     println!("{}: {}", done.tag(), done.status());
/// }
/// queue.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A queue pair can be sent to another thread (`Send`), but not shared (it is not `Sync`): give each thread its own.
/// Sharing a queue pair between threads does not compile, nor does a second turn beside an open one:
/// ```compile_fail
/// fn shared(queue: &upcie_nvme::QueuePair<u64>) {
///     std::thread::scope(|scope| { scope.spawn(|| queue.capacity()); });
/// }
/// ```
pub struct QueuePair<T = u64> {
    queue: Queue<T>,
    /// The result of the deletion, once it was tried: `true` if the controller uses the queues' memory no
    /// more.
    ended: Option<bool>,
    waiter: Option<Waiter>,
    policy: SpinPolicy,
    /// The completions that waits have counted so far, and the completion head at that time. A whole ring
    /// that is reaped between two waits is not counted.
    reaped: (u64, u32),
    /// The time and the [completion cursor](Queue::completion_cursor) of the last known progress, or of the
    /// last check of the controller; for programs that only open turns.
    progress: (Duration, usize),
    controller: Arc<Inner>,
}

impl<T> QueuePair<T> {
    pub(super) fn new(queue: Queue<T>, waiter: Option<Waiter>, controller: Arc<Inner>) -> Self {
        let progress = (controller.clock().now(), queue.completion_cursor());
        Self { queue, ended: None, waiter, policy: SpinPolicy::new(), reaped: (0, 0), progress, controller }
    }

    /// Opens the guard for reaping and submitting.
    ///
    /// A program that only polls notices a dead controller here. After each 1,024th turn that neither reaps
    /// nor submits, the next call reads the clock. If commands are in flight and none was reaped for 100 ms,
    /// it also reads CSTS (on `vfio-user:` mostly by message). A turn that stays open checks nothing.
    ///
    /// # Errors
    /// - The queue is closed: the controller was stopped, it completed a command that was not in flight, or a
    ///   turn was leaked.
    /// - The controller is gone, reports a fatal status, or somebody else stopped or reset it.
    /// - This process is a forked child, and the queue belongs to its parent.
    #[inline(always)]
    pub fn turn(&mut self) -> Result<Turn<'_, T>> {
        let Self { queue, progress, controller, .. } = self;
        queue.turn_or_look(|queue| check_progress(queue, progress, controller))
    }

    /// Returns `true` if a completion can be reaped: one read of memory.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.queue.is_ready()
    }

    /// Waits until a completion can be reaped, at most `timeout`; returns `false` when none came.
    ///
    /// # Errors
    /// - [`Wait::Interrupt`] and [`Wait::Adaptive`] need a queue made with an
    ///   [interrupt](super::QueuePairBuilder::interrupt).
    /// - The controller is gone, reports a fatal status, or somebody else stopped or reset it. This is
    ///   checked every 50 ms and after a wait without result; the queue takes no turn after that.
    /// - The controller completed a command that was not in flight.
    /// - The queue belongs to the process that this one was forked from.
    pub fn wait(&mut self, how: Wait, timeout: Duration) -> Result<bool> {
        self.queue.check_live()?;
        let start = self.controller.clock().now();
        let spin = match how {
            Wait::Poll => timeout,
            Wait::Interrupt => Duration::ZERO,
            Wait::Adaptive(most) => {
                let reaped = self.count_reaped();
                self.policy.begin(start, reaped, most).min(timeout)
            }
        };
        let ready = self.spin(start, spin)? || (how != Wait::Poll && self.sleep(start, timeout)?);
        if how != Wait::Poll {
            self.policy.end(self.since(start));
        }
        if ready || self.queue.is_ready() {
            return Ok(true);
        }
        self.look()?;
        Ok(false)
    }

    /// Checks that the controller is well. If it is not, the queue takes no more commands.
    #[cold]
    fn look(&mut self) -> Result<()> {
        let looked = self.controller.check_alive(&|| "waiting for a completion".into());
        if let Err(error) = &looked {
            self.queue.fail(error);
        }
        looked
    }

    /// Counts the completions that were reaped since the last wait; returns the sum so far.
    fn count_reaped(&mut self) -> u64 {
        let (count, before) = &mut self.reaped;
        let (head, entries) = self.queue.head();
        *count += u64::from((head + entries - *before) % entries);
        *before = head;
        *count
    }

    /// Sleeps until an interrupt brings a completion, at most until `timeout` after `start`; returns `false`
    /// when none came.
    fn sleep(&mut self, start: Duration, timeout: Duration) -> Result<bool> {
        loop {
            self.arm()?;
            if self.queue.is_ready() {
                return Ok(true);
            }
            let left = timeout.saturating_sub(self.since(start));
            let woken = self.waiter()?.sleep(self.controller.clock(), left.min(LOOK))?;
            if self.queue.is_ready() {
                // The completion may have come without an interrupt: `arm` counts such cases.
                return Ok(true);
            }
            if !woken {
                if left <= LOOK {
                    return Ok(false);
                }
                self.look()?;
                continue;
            }
            // The interrupt was for another queue of the vector. Until that queue is reaped, INTx and MSI
            // raise one after another, so this loop must look at the clock itself.
            if self.since(start) >= timeout {
                return Ok(false);
            }
            std::thread::yield_now();
        }
    }

    fn waiter(&self) -> Result<&Waiter> {
        self.waiter.as_ref().ok_or_else(|| {
            Error::argument(
                self.controller.name(),
                "waiting for an interrupt of a queue that was made without one",
            )
        })
    }

    /// Forgets past interrupts and asks for the next one. Then look at the queue: if it is empty, the next
    /// completion makes [`completion_fd`](Self::completion_fd) readable. [`wait`](Self::wait) does this by
    /// itself.
    ///
    /// # Errors
    /// The queue was made without an [interrupt](super::QueuePairBuilder::interrupt), or the device reports
    /// an error.
    pub fn arm(&self) -> Result<()> {
        let waiter = self.waiter()?;
        if waiter.forget(self.controller.clock(), self.queue.completion_cursor())? {
            self.controller.report_silence(waiter.vector());
        }
        self.controller.rearm(waiter.vector())
    }

    /// Returns the time since `start`, by the controller's clock.
    fn since(&self, start: Duration) -> Duration {
        self.controller.clock().now().saturating_sub(start)
    }

    /// Polls until `limit` after `start`, and reads the clock only now and then.
    fn spin(&mut self, start: Duration, limit: Duration) -> Result<bool> {
        let mut looked = Duration::ZERO;
        loop {
            for _ in 0..64 {
                if self.queue.is_ready() {
                    self.policy.came_by_itself();
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
            let waited = self.since(start);
            if waited >= limit {
                return Ok(false);
            }
            if waited - looked >= LOOK {
                self.look()?;
                looked = waited;
            }
            if !self.controller.clock().runs() {
                self.controller.clock().sleep(nap(waited));
                continue;
            }
            // The completer may need this core to make progress; a software controller often does.
            if waited >= self.policy.patience() {
                std::thread::yield_now();
                let ready = self.queue.is_ready();
                self.policy.yielded(self.since(start).saturating_sub(waited), ready);
                if ready {
                    return Ok(true);
                }
            }
        }
    }

    /// Returns a descriptor for the caller's event loop; `None` for a queue without an interrupt. It becomes
    /// readable, edge triggered, with each interrupt of the queue's vector.
    ///
    /// Once before the first wait and after each event, call [`arm`](Self::arm), then look at the queue. With
    /// MSI-X a look at the queue is enough. With INTx and MSI a vector raises no further interrupt until it
    /// is armed. If it is armed while another queue on it has completions to reap, the next event follows at
    /// once.
    pub fn completion_fd(&self) -> Option<BorrowedFd<'_>> {
        self.waiter.as_ref().map(|waiter| waiter.as_fd())
    }

    /// Returns a descriptor that the caller owns, for the same events as [`completion_fd`](Self::completion_fd):
    /// for a reactor that keeps a descriptor while the queue pair is used.
    ///
    /// # Errors
    /// The queue was made without an [interrupt](super::QueuePairBuilder::interrupt); no free descriptor.
    pub fn clone_completion_fd(&self) -> Result<OwnedFd> {
        let cloned = self.waiter()?.as_fd().try_clone_to_owned();
        cloned.map_err(|source| {
            upcie_core::Error::os(
                self.controller.name(),
                "duplicating the descriptor of a queue's interrupts (raise `ulimit -n`)",
                source,
            )
            .into()
        })
    }

    /// Describes a wait that has timed out, for an error message: the number of commands in flight, the
    /// positions of both rings, and the likely cause. Causes are: the memory was moved (possible without an
    /// IOMMU); the controller is gone, has failed or was stopped; a completion is there whose interrupt did
    /// not arrive. Reads a register and the page map, so don't call it in a polling loop.
    #[cold]
    pub fn diagnose(&self) -> String {
        diagnose(&self.queue, &self.controller)
    }

    /// Deletes the queues on the controller, as dropping does, and reports the result. Use it when commands
    /// hold borrowed memory ([`Turn::transfer_held`]): after `Ok` you may free that memory; after an error
    /// give it to [`Controller::keep`](crate::Controller::keep).
    ///
    /// # Errors
    /// [`Failure::Undeleted`](crate::Failure::Undeleted): the controller did not confirm the deletion within the deadline, or this is a
    /// forked child, which does not ask it.
    pub fn close(mut self) -> Result<()> {
        if self.end() && !self.controller.is_inherited() {
            return Ok(());
        }
        Err(Error::undeleted(self.controller.name(), self.queue.qid()))
    }

    /// Deletes the queues, once; returns `true` when the controller uses their memory no more.
    fn end(&mut self) -> bool {
        if let Some(ended) = self.ended {
            return ended;
        }
        // In a forked child the queue is the parent's; a stopped controller uses no memory.
        let ended = self.controller.is_inherited() || self.queue.is_stopped() || self.delete();
        self.ended = Some(ended);
        ended
    }

    fn delete(&mut self) -> bool {
        let deleted = self.controller.delete_queue(self.queue.qid());
        if let Err(ticket) = deleted {
            self.controller.keep_for(ticket, self.queue.retire());
        }
        deleted.is_ok()
    }

    /// Returns the queue's identifier on the controller, from 1 on.
    pub fn id(&self) -> u16 {
        self.queue.qid()
    }

    /// Returns the number of commands that can be in flight at once: one less than the depth.
    pub fn capacity(&self) -> usize {
        self.queue.capacity() as usize
    }

    /// Returns how many more commands the queue takes now; 0 when it takes no turns.
    pub fn room(&self) -> usize {
        self.queue.room() as usize
    }

    /// Returns the number of commands in flight, including completed ones that were not reaped. Counts all
    /// slots, so don't call it for every I/O.
    pub fn in_flight(&self) -> usize {
        self.queue.in_flight() as usize
    }
}

/// Checks that the controller is well if commands are in flight and none was reaped for [`QUIET`].
#[cold]
fn check_progress<T>(queue: &Queue<T>, progress: &mut (Duration, usize), controller: &Inner) -> Result<()> {
    let (now, cursor) = (controller.clock().now(), queue.completion_cursor());
    let (since, before) = *progress;
    if cursor != before || !queue.has_in_flight() || queue.is_ready() {
        *progress = (now, cursor);
        return Ok(());
    }
    if now.saturating_sub(since) < QUIET {
        return Ok(());
    }
    *progress = (now, cursor);
    controller.check_alive(&|| format!("polling queue {} for completions", queue.qid()))
}

/// Commands in flight may take this long before empty turns check the controller.
const QUIET: Duration = Duration::from_millis(100);

impl<T> Drop for QueuePair<T> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<T> fmt::Debug for QueuePair<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePair")
            .field("queue", &self.queue)
            .field("waiter", &self.waiter)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Controller, Failure, Refusal, Refused, Wait,
        spec::{Cns, Command, DatasetRange, IoFlags},
    };
    use std::time::Duration;

    /// Soundness finding 15: the turn that sees a forged completion takes no command after it, and a wait is an error at
    /// once.
    #[test]
    fn a_forged_completion_ends_its_turn_and_waits() {
        let controller = Controller::open("emu:size=1M,latency=2s").unwrap();
        let namespace = controller.namespace(1).unwrap();
        let buffer = |len| controller.alloc(len).unwrap();
        let mut pair = controller.queue_pair().depth(8).create::<u64>().unwrap();
        pair.turn().unwrap().read(&namespace, 0, buffer(512), 0).unwrap();
        // SAFETY: the last word of the next completion entry, in a ring of 8.
        let entry = unsafe { pair.queue.next_entry().add(1) };
        // SAFETY: aligned, and the device writes no completion for 2 s. Command 1234h was never sent.
        unsafe { entry.write_volatile(0x1234 << 32 | 1 << 48) };

        let mut turn = pair.turn().unwrap();
        assert!(turn.next().is_none());
        assert_eq!(turn.room(), 0);
        let closed = |sent: Result<(), Refused<u64>>| {
            let refused = sent.unwrap_err();
            assert_eq!(refused.reason, Refusal::Closed);
            refused.buffer.len()
        };
        assert_eq!(closed(turn.read(&namespace, 0, buffer(512), 1)), 512);
        assert_eq!(closed(turn.write(&namespace, 0, buffer(64 << 10), 1)), 64 << 10);
        closed(turn.flush(&namespace, 1));
        closed(turn.write_zeroes(&namespace, 0, 1, IoFlags::empty(), 1));
        let mut ranges = buffer(4096);
        ranges.write_at(0, &DatasetRange::new(0, 1).to_bytes());
        closed(turn.deallocate(&namespace, ranges, 1, 1));
        let identify = Command::identify(Cns::CONTROLLER, 0, 0);
        // SAFETY: it is refused.
        closed(unsafe { turn.submit_raw(&identify, buffer(4096), 1) });
        drop(turn);

        assert!(
            matches!(pair.turn(), Err(error) if matches!(error.failure(), Failure::ForgedCompletion { qid: 1, .. }))
        );
        let error = pair.wait(Wait::Poll, Duration::from_secs(24 * 3600)).unwrap_err();
        assert!(matches!(error.failure(), Failure::ForgedCompletion { qid: 1, .. }), "{error}");
        assert_eq!(pair.in_flight(), 1, "the command that was sent, and none after");
    }
}
