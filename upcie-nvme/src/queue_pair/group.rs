//! Waits for several queue pairs at once.

use super::QueuePair;
use crate::{
    Error, Result,
    wait::{LOOK, Outcome, SpinPolicy, Wait, Waiting, wait},
};
use std::{error, fmt, time::Duration};
use upcie_core::{ErrorKind, clock::SharedClock, deadline::Stopwatch, irq::PollSet};

/// Waits until any of several queue pairs has a completion, by polling, by interrupts or adaptively.
///
/// A group owns no queue pair: each wait is given its members, so they may come and go, and belong to several controllers.
/// It keeps only what it has learned from earlier waits. Use one group per thread.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use upcie_nvme::{Controller, QueueGroup, Wait};
///
/// let controllers = [Controller::open("emu:size=1M")?, Controller::open("emu:size=1M,latency=1ms")?];
/// let mut queues = Vec::new();
/// for controller in &controllers {
///     let mut queue = controller.queue_pair().create::<&str>()?;
///     queue.turn()?.flush(&controller.namespace(1)?, "flushed")?;
///     queues.push(queue);
/// }
/// let (mut group, mut flushed) = (QueueGroup::new(), 0);
/// while flushed < 2 {
///     let ready = group.wait(&mut queues, Wait::Poll, Duration::from_secs(30))?;
///     assert!(ready, "{}; {}", queues[0].diagnose(), queues[1].diagnose());
///     for queue in &mut queues {
///         for done in queue.turn()? {
///             done.result()?;
///             flushed += 1;
///         }
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct QueueGroup {
    policy: SpinPolicy,
    polled: PollSet,
    /// The clock of the controller that was waited for first.
    clock: SharedClock,
    has_clock: bool,
    /// Time of the last check of the members.
    checked: Duration,
    /// Completions reaped: as counted by the rings, and as told by the caller.
    reaped: u64,
    told: Option<u64>,
}

/// A queue pair, or the caller's value that has one, which a [`QueueGroup`] waits for.
///
/// ```
/// use upcie_nvme::{QueuePair, queue::GroupMember};
///
/// struct Lane {
///     queue: QueuePair<u64>,
///     in_flight: u32,
/// }
///
/// impl GroupMember for Lane {
///     type Tag = u64;
///
///     fn queue_pair(&mut self) -> Option<&mut QueuePair<u64>> {
///         (self.in_flight > 0).then_some(&mut self.queue)
///     }
/// }
/// ```
pub trait GroupMember {
    /// The tag of its commands.
    type Tag;

    /// Returns the queue pair; `None` while nothing of it is waited for. Called for each poll.
    fn queue_pair(&mut self) -> Option<&mut QueuePair<Self::Tag>>;
}

impl<T> GroupMember for QueuePair<T> {
    type Tag = T;

    #[inline]
    fn queue_pair(&mut self) -> Option<&mut QueuePair<T>> {
        Some(self)
    }
}

impl<M: GroupMember + ?Sized> GroupMember for &mut M {
    type Tag = M::Tag;

    #[inline]
    fn queue_pair(&mut self) -> Option<&mut QueuePair<M::Tag>> {
        (**self).queue_pair()
    }
}

impl<M: GroupMember> GroupMember for Option<M> {
    type Tag = M::Tag;

    #[inline]
    fn queue_pair(&mut self) -> Option<&mut QueuePair<M::Tag>> {
        self.as_mut()?.queue_pair()
    }
}

impl QueueGroup {
    /// Creates a group that has learned nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until a completion of a member can be reaped, at most `timeout`; returns `false` when none came. A time in
    /// which the process was stopped counts as 250 ms.
    ///
    /// # Errors
    /// A member can't be waited for; the error has its index. Leave it out, and wait for the others.
    /// - [`Wait::Interrupt`] and [`Wait::Adaptive`] need queues made with an
    ///   [interrupt](super::QueuePairBuilder::interrupt).
    /// - Its controller is gone, reports a fatal status, or somebody else stopped or reset it: checked every 50 ms for
    ///   members that have commands in flight and complete none. Its queue takes no turn after that.
    /// - The controller completed a command that was not in flight.
    /// - The queue belongs to the process that this one was forked from.
    pub fn wait<M: GroupMember>(
        &mut self,
        members: &mut [M],
        how: Wait,
        timeout: Duration,
    ) -> Result<bool, GroupError> {
        self.wait_unless(members, how, timeout, || false)
    }

    /// Waits like [`wait`](Self::wait), and also ends, with `false`, when `stop` returns `true`. It is called every 64
    /// polls; while the wait sleeps, at each interrupt or signal and every 50 ms.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait).
    pub fn wait_unless<M: GroupMember>(
        &mut self,
        members: &mut [M],
        how: Wait,
        timeout: Duration,
        stop: impl FnMut() -> bool,
    ) -> Result<bool, GroupError> {
        for (index, member) in members.iter_mut().enumerate() {
            let Some(pair) = member.queue_pair() else { continue };
            pair.check_live().map_err(|error| GroupError { member: Some(index), error })?;
            if !self.has_clock {
                (self.clock, self.has_clock) = (pair.clock(), true);
            }
        }
        let Self { policy, polled, clock, checked, reaped, told, .. } = self;
        let watch = Stopwatch::of(&**clock);
        let mut group = Members { members, polled, stop };
        // Also where each wait is short because another member is busy.
        if watch.now().saturating_sub(*checked) >= LOOK {
            *checked = watch.now();
            group.check()?;
        }
        let outcome = wait(&mut group, policy, watch, how, timeout, |group| {
            *reaped += group.pairs().map(|(_, pair)| pair.count_reaped()).sum::<u64>();
            told.unwrap_or(*reaped)
        })?;
        Ok(outcome == Outcome::Ready)
    }

    /// Checks the controllers of members that have commands in flight and complete none, as a wait does every 50 ms: for a
    /// program that seldom waits, because other members keep it busy.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait).
    pub fn check<M: GroupMember>(&mut self, members: &mut [M]) -> Result<(), GroupError> {
        self.checked = self.clock.now();
        Members { members, polled: &mut self.polled, stop: || false }.check()
    }

    /// Sets how many completions the program has reaped in all, for adaptive waits, which compare rates. By default the group
    /// counts by the positions of the rings, and misses a whole ring that is reaped between two waits.
    pub fn set_reaped(&mut self, total: u64) {
        self.told = Some(total);
    }

    /// Returns `true` if the group would poll first, and its polling needs no core of another thread: then a program may as
    /// well poll its queues by itself for some microseconds before it waits.
    pub fn polls_freely(&self, how: Wait) -> bool {
        match how {
            Wait::Poll => self.policy.is_patient(),
            Wait::Interrupt => false,
            Wait::Adaptive(_) => self.policy.polls(),
        }
    }
}

/// A member of a [`QueueGroup`] that can't be waited for.
#[non_exhaustive]
pub struct GroupError {
    /// Index of the member; `None` if the system can't wait for all of them together.
    pub member: Option<usize>,
    /// The reason.
    pub error: Error,
}

impl GroupError {
    /// Returns the [classification](Error::kind) of the reason.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// Returns the name of the member's [controller](Error::device).
    pub fn device(&self) -> Option<&str> {
        self.error.device()
    }

    /// Tells whether the same wait [may succeed later](Error::is_retryable).
    pub fn is_retryable(&self) -> bool {
        self.error.is_retryable()
    }
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Debug for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl error::Error for GroupError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.error.source()
    }
}

impl From<GroupError> for Error {
    fn from(failed: GroupError) -> Self {
        failed.error
    }
}

/// The members of one wait.
struct Members<'w, M, S> {
    members: &'w mut [M],
    polled: &'w mut PollSet,
    stop: S,
}

impl<M: GroupMember, S> Members<'_, M, S> {
    /// Returns the queue pairs that are waited for, with their indices.
    #[inline]
    fn pairs(&mut self) -> impl Iterator<Item = (usize, &mut QueuePair<M::Tag>)> {
        self.members.iter_mut().enumerate().filter_map(|(index, member)| Some((index, member.queue_pair()?)))
    }

    /// Checks the controllers of queue pairs that have commands in flight and complete none.
    fn check(&mut self) -> Result<(), GroupError> {
        self.try_each(|pair| pair.check_progress(LOOK))
    }

    /// Calls `each` for the queue pairs, until one fails.
    fn try_each(
        &mut self,
        mut each: impl FnMut(&mut QueuePair<M::Tag>) -> Result<()>,
    ) -> Result<(), GroupError> {
        for (index, pair) in self.pairs() {
            each(pair).map_err(|error| GroupError { member: Some(index), error })?;
        }
        Ok(())
    }
}

impl<M: GroupMember, S: FnMut() -> bool> Waiting for Members<'_, M, S> {
    type Error = GroupError;

    fn is_ready(&mut self) -> bool {
        self.pairs().any(|(_, pair)| pair.is_ready())
    }

    fn is_over(&mut self) -> bool {
        (self.stop)()
    }

    fn arm(&mut self) -> Result<(), GroupError> {
        // The wake-up of a reset that has ended a queue is forgotten with the interrupts.
        self.try_each(|pair| pair.arm().and_then(|()| pair.check_live()))
    }

    fn sleep(&mut self, timeout: Duration) -> Result<bool, GroupError> {
        let Self { members, polled, .. } = self;
        let fds = members.iter_mut().filter_map(|member| {
            let pair: &QueuePair<_> = member.queue_pair()?;
            pair.completion_fd()
        });
        polled.wait(fds, timeout).map_err(|error| GroupError { member: None, error: error.into() })
    }

    fn look(&mut self) -> Result<(), GroupError> {
        // No member has had a completion since the last look.
        self.try_each(QueuePair::check_stalled)
    }
}
