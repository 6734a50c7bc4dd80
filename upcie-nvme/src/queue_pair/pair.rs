//! I/O queue pairs in use: turns and waits.

use super::{
    deadlines::Deadlines,
    diagnosis::diagnose,
    one::{Looks, One, Reaped, arm, check_progress, look, notice, waiter},
};
use crate::{
    Result, Turn, Wait,
    controller::Inner,
    engine::{Queue, Returned},
    spec::QueuePriority,
    wait::{LOOK, Outcome, SpinPolicy, Waiter, wait},
};
use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};
use upcie_core::{clock::SharedClock, deadline::Stopwatch, irq::PollSet};

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
// The queue is the first field: one register addresses the pair and the queue.
#[repr(C)]
pub struct QueuePair<T = u64> {
    pub(super) queue: Queue<T>,
    /// The result of the deletion, once it was tried: `true` if the controller uses the queues' memory no
    /// more.
    pub(super) ended: Option<bool>,
    pub(super) priority: QueuePriority,
    /// Commands that were taken out of the queue, and not given back yet.
    pub(super) returned: Vec<Returned<T>>,
    pub(super) waiter: Option<Waiter>,
    policy: SpinPolicy,
    polled: PollSet,
    pub(super) reaped: Reaped,
    pub(super) looks: Looks,
    pub(super) controller: Arc<Inner>,
}

impl<T> QueuePair<T> {
    pub(super) fn new(
        queue: Queue<T>,
        waiter: Option<Waiter>,
        (priority, deadlines): (QueuePriority, Deadlines),
        controller: Arc<Inner>,
    ) -> Self {
        let progress = (Duration::ZERO, queue.completion_cursor());
        let mut pair = Self {
            queue,
            ended: None,
            priority,
            returned: Vec::new(),
            waiter,
            policy: SpinPolicy::new(),
            polled: PollSet::default(),
            reaped: Reaped::default(),
            looks: Looks { progress, deadlines },
            controller,
        };
        // If the program's clock panics, dropping the pair deletes the queues.
        pair.looks.progress.0 = pair.controller.clock().now();
        pair
    }

    /// Opens the guard for reaping and submitting.
    ///
    /// A program that only polls notices a dead controller here. After each 1,024th turn that neither reaps nor
    /// submits, the next call reads the clock. If commands are in flight and none was reaped for 50 ms, it also reads
    /// CSTS (on `vfio-user:` mostly by message). A turn that stays open checks nothing. If commands have deadlines, it
    /// also looks for late ones ([`command_timeout`](super::QueuePairBuilder::command_timeout)); while there are
    /// [`Events`](crate::Events), for those.
    ///
    /// # Errors
    /// - [`Failure::Reset`](crate::Failure::Reset): the controller was reset. [`recover`](Self::recover) brings the
    ///   queue back. [`Failure::Down`](crate::Failure::Down): it did not come back.
    /// - The queue is closed: the controller completed a command that was not in flight, or a
    ///   turn was leaked.
    /// - The controller is gone, reports a fatal status, or somebody else stopped or reset it; or its PCI function has
    ///   had an error.
    /// - This process is a forked child, and the queue belongs to its parent.
    #[inline(always)]
    pub fn turn(&mut self) -> Result<Turn<'_, T>> {
        let Self { queue, looks, controller, .. } = self;
        queue.turn_or_look(|queue| check_progress(queue, looks, controller, QUIET))
    }

    /// Returns `true` if a completion can be reaped: one read of memory.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.queue.is_ready()
    }

    /// Waits until a completion can be reaped, at most `timeout`; returns `false` when none came. A time in
    /// which the process was stopped counts as 250 ms. [`QueueGroup::wait`](super::QueueGroup::wait) waits for
    /// several queue pairs.
    ///
    /// # Errors
    /// - [`Wait::Interrupt`] and [`Wait::Adaptive`] need a queue made with an
    ///   [interrupt](super::QueuePairBuilder::interrupt).
    /// - The controller is gone, reports a fatal status, or somebody else stopped or reset it; or its PCI function has
    ///   had an error. This is checked every 50 ms and after a wait without result; the queue takes no turn after that.
    /// - The controller completed a command that was not in flight.
    /// - The queue belongs to the process that this one was forked from.
    pub fn wait(&mut self, how: Wait, timeout: Duration) -> Result<bool> {
        self.queue.check_live()?;
        let Self { queue, waiter, policy, polled, reaped, looks, controller, .. } = self;
        notice(queue, controller);
        let deadlines = &mut looks.deadlines;
        let watch = Stopwatch::of(controller.clock());
        deadlines.look(queue, controller, watch.now())?;
        let mut one = One { queue, waiter, polled, deadlines, controller };
        let outcome = wait(&mut one, policy, watch, how, timeout, |one| {
            reaped.count(one.queue);
            reaped.total
        })?;
        if outcome == Outcome::Ready || self.queue.is_ready() {
            return Ok(true);
        }
        look(&mut self.queue, &mut self.looks.deadlines, &self.controller)?;
        Ok(false)
    }

    /// Forgets past interrupts and asks for the next one. Then look at the queue: if it is empty, the next completion
    /// makes [`completion_fd`](Self::completion_fd) readable. [`wait`](Self::wait) does this by itself. Look by a
    /// [`turn`](Self::turn): it also tells of a reset, whose event may be forgotten with the interrupts.
    ///
    /// # Errors
    /// The queue was made without an [interrupt](super::QueuePairBuilder::interrupt), or the device reports
    /// an error.
    pub fn arm(&self) -> Result<()> {
        // Before anything is taken from the descriptor, which a forked child shares with its parent.
        self.controller.check_owner("asking for an interrupt")?;
        arm(&self.queue, self.waiter()?, &self.controller)
    }

    fn waiter(&self) -> Result<&Waiter> {
        waiter(&self.waiter, &self.controller)
    }

    /// Refuses a wait, like [`wait`](Self::wait), if the queue takes no turns.
    pub(crate) fn check_live(&self) -> Result<()> {
        self.queue.check_live()
    }

    /// Returns the number of completions that were reaped since the last wait.
    pub(super) fn count_reaped(&mut self) -> u64 {
        self.reaped.count(&self.queue)
    }

    /// Checks the controller if commands are in flight and none was reaped for `quiet`. If it is not well, the
    /// queue takes no more commands.
    pub(crate) fn check_progress(&mut self, quiet: Duration) -> Result<()> {
        if self.controller.is_inherited() {
            return self.queue.check_live();
        }
        let Self { queue, looks, controller, .. } = self;
        let checked = check_progress(queue, looks, controller, quiet)
            // After a reset a completion can't come.
            .and_then(|()| queue.check_live());
        checked.inspect_err(|error| queue.fail(error))
    }

    /// Checks the controller like [`check_progress`](Self::check_progress), for a wait that has seen no completion for
    /// [`LOOK`].
    pub(super) fn check_stalled(&mut self) -> Result<()> {
        let since = self.controller.clock().now().saturating_sub(LOOK);
        self.looks.progress = (since, self.queue.completion_cursor());
        self.check_progress(LOOK)
    }

    pub(super) fn clock(&self) -> SharedClock {
        self.controller.shared_clock().clone()
    }

    /// Returns a descriptor for the caller's event loop; `None` for a queue without an interrupt. It becomes
    /// readable, edge triggered, with each interrupt of the queue's vector.
    ///
    /// Once before the first wait and after each event, call [`arm`](Self::arm), then look at the queue. With
    /// MSI-X a look at the queue is enough. With INTx and MSI a vector raises no further interrupt until it
    /// is armed. If it is armed while another queue on it has completions to reap, the next event follows at
    /// once. A [reset](crate::Controller::reset) makes it readable, too.
    ///
    /// A controller that fails or is removed raises no interrupt. A program that sleeps here with commands in flight
    /// wakes up now and then, and calls [`wait`](Self::wait) with a timeout of zero, which looks at the controller.
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

    /// Returns `true` in a forked child: the queue pair is its parent's.
    #[cfg(feature = "async")]
    pub(crate) fn is_inherited(&self) -> bool {
        self.controller.is_inherited()
    }

    /// Returns the controller's name, for messages.
    #[cfg(feature = "async")]
    pub(crate) fn device(&self) -> &str {
        self.controller.name()
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

    /// Returns the tags of the commands in flight that have missed their deadlines
    /// ([`command_timeout`](super::QueuePairBuilder::command_timeout)), each with the time since it was first seen in
    /// flight. Looks at all slots.
    pub fn overdue(&self) -> impl Iterator<Item = (&T, Duration)> {
        self.queue.overdue(self.controller.clock().now())
    }

    /// Returns the number of commands in flight, including completed ones that were not reaped. Counts all
    /// slots, so don't call it for every I/O.
    pub fn in_flight(&self) -> usize {
        self.queue.in_flight() as usize
    }
}

/// Commands in flight may take this long before empty turns check the controller.
const QUIET: Duration = Duration::from_millis(50);

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
        Controller, Failure, Refusal, Refused, Wait, Zeroes,
        spec::{Cns, Command, DatasetRange},
    };
    use std::time::Duration;

    /// The turn that sees a forged completion takes no command after it, and a wait is an error at once.
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
        turn.read(&namespace, 0, buffer(512), 1).unwrap();
        assert!(turn.next().is_none());
        assert_eq!(turn.room(), 0);
        // SAFETY: aligned, in the ring, and the device writes no completion for 2 s. It completes the first command,
        // whose id is 0.
        unsafe { entry.write_volatile(1 << 48) };
        turn.ring();
        assert!(turn.next().is_none(), "nothing more is reaped, not even after a doorbell");
        let closed = |sent: Result<(), Refused<u64>>| {
            let refused = sent.unwrap_err();
            assert_eq!(refused.reason, Refusal::Closed);
            refused.buffer.len()
        };
        assert_eq!(closed(turn.read(&namespace, 0, buffer(512), 1)), 512);
        assert_eq!(closed(turn.write(&namespace, 0, buffer(64 << 10), 1)), 64 << 10);
        closed(turn.flush(&namespace, 1));
        closed(turn.write_zeroes(Zeroes::new(&namespace, 0, 1), 1));
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
        assert_eq!(pair.in_flight(), 2, "the commands that were sent, and none after");
    }
}
