//! One queue pair as a wait sees it: its completions, its interrupt, its controller's health.

use super::deadlines::Deadlines;
use crate::{
    Error, Result,
    controller::Inner,
    engine::Queue,
    wait::{Waiter, Waiting},
};
use std::{os::fd::AsFd, time::Duration};
use upcie_core::irq::PollSet;

/// State of the checks that a queue pair makes now and then.
#[derive(Debug)]
pub(super) struct Looks {
    /// The time and the [completion cursor](Queue::completion_cursor) of the last known progress, or of the last check of
    /// the controller; for programs that only open turns.
    pub(super) progress: (Duration, usize),
    pub(super) deadlines: Deadlines,
}

/// Notices asynchronous events if a program wants some: a change of namespaces makes handles stale. From now on the turns of the
/// queue look for them, too, however busy it is.
pub(super) fn notice<T>(queue: &mut Queue<T>, controller: &Inner) {
    if controller.wants_events() {
        queue.watch_laps();
        controller.notice_events_once();
    }
}

/// Notices events, looks for late commands, and checks that the controller is well if commands are in flight and none was reaped for
/// `quiet`. Of several queues that ask for this check at once, in other threads too, one makes it.
#[cold]
pub(super) fn check_progress<T>(
    queue: &mut Queue<T>,
    looks: &mut Looks,
    controller: &Inner,
    quiet: Duration,
) -> Result<()> {
    notice(queue, controller);
    let (now, cursor) = (controller.clock().now(), queue.completion_cursor());
    looks.deadlines.look(queue, controller, now)?;
    let progress = &mut looks.progress;
    let (since, before) = *progress;
    if cursor != before || !queue.has_in_flight() || queue.is_ready() {
        *progress = (now, cursor);
        return Ok(());
    }
    if now.saturating_sub(since) < quiet {
        return Ok(());
    }
    *progress = (now, cursor);
    controller.check_alive_once(&|| format!("polling queue {} for completions", queue.qid()))
}

/// Checks that the controller is well. If it is not, the queue takes no more commands.
#[cold]
pub(super) fn look<T>(queue: &mut Queue<T>, deadlines: &mut Deadlines, controller: &Inner) -> Result<()> {
    let looked = controller
        .check_alive(&|| "waiting for a completion".into())
        .and_then(|()| deadlines.look(queue, controller, controller.clock().now()))
        // After a reset a completion can't come.
        .and_then(|()| queue.check_live());
    looked.inspect_err(|error| queue.fail(error))
}

pub(super) fn waiter<'w>(waiter: &'w Option<Waiter>, controller: &Inner) -> Result<&'w Waiter> {
    waiter.as_ref().ok_or_else(|| {
        Error::argument(controller.name(), "waiting for an interrupt of a queue that was made without one")
    })
}

pub(super) fn arm<T>(queue: &Queue<T>, waiter: &Waiter, controller: &Inner) -> Result<()> {
    if waiter.forget(controller.clock(), queue.completion_cursor())? {
        controller.report_silence(waiter.vector());
    }
    controller.rearm(waiter.vector())
}

/// One queue that is waited for.
pub(super) struct One<'w, T> {
    pub(super) queue: &'w mut Queue<T>,
    pub(super) waiter: &'w Option<Waiter>,
    pub(super) polled: &'w mut PollSet,
    pub(super) deadlines: &'w mut Deadlines,
    pub(super) controller: &'w Inner,
}

impl<T> Waiting for One<'_, T> {
    type Error = Error;

    fn is_ready(&mut self) -> bool {
        self.queue.is_ready()
    }

    fn is_over(&mut self) -> bool {
        false
    }

    fn arm(&mut self) -> Result<()> {
        arm(self.queue, waiter(self.waiter, self.controller)?, self.controller)?;
        // The wake-up of a reset that has ended the queue is forgotten now.
        self.queue.check_live()
    }

    fn sleep(&mut self, timeout: Duration) -> Result<bool> {
        Ok(self.polled.wait(self.waiter.as_ref().map(|waiter| waiter.as_fd()), timeout)?)
    }

    fn look(&mut self) -> Result<()> {
        look(self.queue, self.deadlines, self.controller)
    }
}

/// The completions that waits have counted so far. A whole ring that is reaped between two waits is not counted.
#[derive(Debug, Default)]
pub(super) struct Reaped {
    pub(super) total: u64,
    /// The completion head at the last count.
    head: u32,
}

impl Reaped {
    /// Notes that the rings begin anew.
    pub(super) fn restart(&mut self) {
        self.head = 0;
    }

    /// Counts the completions that were reaped since the last count; returns their number.
    pub(super) fn count<T>(&mut self, queue: &Queue<T>) -> u64 {
        let (head, entries) = queue.head();
        let count = u64::from((head + entries - self.head) % entries);
        self.head = head;
        self.total += count;
        count
    }
}
