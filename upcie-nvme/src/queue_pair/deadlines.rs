//! What becomes of commands that the controller does not complete in time.

use crate::{
    Error, Result,
    controller::{Inner, Permit, ResetKind},
    engine::{Overdue, Queue},
    spec::Status,
};
use std::time::Duration;

/// The reaction to a command that has missed its deadline
/// ([`command_timeout`](crate::queue::QueuePairBuilder::command_timeout)). Its slot and its buffer stay with it until the
/// controller completes it, or is proved to have stopped.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use upcie_nvme::{Controller, queue::OnTimeout};
///
/// let controller = Controller::open("emu:size=1M")?;
/// let builder = controller.queue_pair().command_timeout(Duration::from_secs(5));
/// let queue = builder.on_timeout(OnTimeout::Abort).create::<u64>()?;
/// # Ok::<(), upcie_nvme::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnTimeout {
    /// The queue's next turn or wait fails once with [`Failure::Overdue`](crate::Failure::Overdue). The queue goes on.
    #[default]
    Report,
    /// The controller is asked to abort the command (Base, "Abort command"), with as many Aborts at a time as it takes
    /// (ACL). A command that it aborts completes with [`Status::ABORT_REQUESTED`]. If it refuses or does not answer within
    /// the command's deadline, or the aborted command does not complete within that time, the controller is reset.
    Abort,
    /// The controller is [reset](crate::Controller::reset): all its queues fail with
    /// [`Failure::Reset`](crate::Failure::Reset), and can be [recovered](crate::QueuePair::recover).
    Reset,
    /// The controller is stopped: every handle of it fails with [`Failure::Down`](crate::Failure::Down) from then on.
    GiveUp,
}

/// The time between two looks for late commands.
const TICK: Duration = Duration::from_millis(10);

/// The deadlines of a queue's commands.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    pub(super) limit: Option<Duration>,
    pub(super) policy: OnTimeout,
    /// The time of the last look.
    looked: Duration,
    aborts: Vec<Abort>,
}

/// A command that is being aborted.
#[derive(Debug)]
struct Abort {
    command: Overdue,
    /// The time at which this step began.
    since: Duration,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The Abort is to be sent.
    Send,
    /// The answer to the Abort with this tag is awaited.
    Sent(u64, Permit),
    /// The command was aborted: its completion is awaited.
    Aborted,
}

impl Deadlines {
    pub(super) fn new(limit: Option<Duration>, policy: OnTimeout) -> Self {
        Self { limit, policy, ..Self::default() }
    }

    /// Looks for late commands of `queue`, unless the last look was a moment ago, and reacts to them.
    ///
    /// # Errors
    /// [`Failure::Overdue`](crate::Failure::Overdue), or the end of the queue.
    #[cold]
    pub(super) fn look<T>(&mut self, queue: &mut Queue<T>, controller: &Inner, now: Duration) -> Result<()> {
        if !queue.is_timed() || now.saturating_sub(self.looked) < TICK {
            return Ok(());
        }
        self.looked = now;
        let most = if self.policy == OnTimeout::Report { 1 } else { usize::MAX };
        let found = queue.look_for_overdue(now, self.limit, most);
        let Some(&first) = found.first() else { return self.go_on(queue, controller, now) };
        let error = Error::overdue(controller.name(), queue.qid(), first.id, first.age);
        tracing::warn!(device = controller.name(), %error, reaction = ?self.policy, "a command is late");
        match self.policy {
            OnTimeout::Report => Err(error),
            OnTimeout::Abort => {
                let begin = |command| Abort { command, since: now, step: Step::Send };
                self.aborts.extend(found.into_iter().map(begin));
                self.go_on(queue, controller, now)
            }
            OnTimeout::Reset => reset(queue, controller),
            OnTimeout::GiveUp => {
                let stopped = controller.give_up(&format!("it was given up, for {error}"));
                queue.check_live().and(stopped)
            }
        }
    }

    /// Goes on with the Aborts under way.
    fn go_on<T>(&mut self, queue: &mut Queue<T>, controller: &Inner, now: Duration) -> Result<()> {
        if self.aborts.is_empty() {
            return Ok(());
        }
        let (mut is_stuck, mut failed) = (false, Ok(()));
        // One that an error or a panic left out would take a place of the admin queue for good.
        self.aborts.retain_mut(|abort| {
            let in_flight = queue.is_in_flight(&abort.command);
            match abort.step {
                Step::Send | Step::Aborted if !in_flight => return false,
                Step::Send => match controller.send_abort(queue.qid(), abort.command.id) {
                    Ok(Some((tag, permit))) => abort.step = Step::Sent(tag, permit),
                    Ok(None) => {}
                    Err(error) => failed = Err(error),
                },
                Step::Sent(tag, _) => match controller.abort_answer(tag) {
                    Some(_) if !in_flight => return false,
                    Some(Ok(true)) => {
                        abort.since = now;
                        abort.step = Step::Aborted;
                    }
                    Some(answer) => {
                        note_refusal(controller, queue.qid(), &abort.command, answer);
                        is_stuck = true;
                        return false;
                    }
                    None => {}
                },
                Step::Aborted => {}
            }
            is_stuck |= in_flight && now.saturating_sub(abort.since) >= abort.command.limit;
            true
        });
        if is_stuck { reset(queue, controller) } else { failed }
    }

    /// Forgets the Aborts under way: the queue ends, or begins anew.
    pub(super) fn forget(&mut self, controller: &Inner) {
        for abort in self.aborts.drain(..) {
            if let Step::Sent(tag, permit) = abort.step {
                controller.forget_abort(tag, permit);
            }
        }
    }
}

/// Resets the controller, and returns the reason why the queue takes no turns after that.
fn reset<T>(queue: &Queue<T>, controller: &Inner) -> Result<()> {
    let done = controller.reset(ResetKind::Controller, Some(queue.epoch()));
    queue.check_live().and(done)
}

fn note_refusal(controller: &Inner, qid: u16, command: &Overdue, answer: Result<bool, Status>) {
    let reason = match answer {
        Ok(_) => "it was not aborted".into(),
        Err(status) => status.to_string(),
    };
    tracing::warn!(
        device = controller.name(),
        qid,
        command = command.id,
        reason,
        "resetting the controller: Abort had no effect"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Controller,
        controller::{PRIORITY, create},
        engine::SglUse,
    };
    use upcie_core::dma::DmaBuf;

    /// An Abort that was lost took one of the admin queue's places, which not even a reset gave back.
    #[test]
    fn an_error_loses_no_abort() {
        let controller = Controller::open("emu:size=1M,latency=60s").unwrap();
        let namespace = controller.namespace(1).unwrap();
        let inner = controller.inner();
        let (sgl, mut whole) = ((None, SglUse::Never), inner.limit());
        let mut queue = create::<u64>(inner, 8, None, sgl, None, PRIORITY, &mut whole).unwrap();
        for tag in 0..2 {
            queue.turn().unwrap().flush(&namespace, tag).unwrap();
        }
        // The first look begins to measure.
        let [limit, begin, late] = [1, 10, 20].map(Duration::from_secs);
        assert!(queue.look_for_overdue(begin, Some(limit), usize::MAX).is_empty());
        let found = queue.look_for_overdue(late, Some(limit), usize::MAX);
        assert_eq!(found.len(), 2);
        let (tag, permit) = inner.send_abort(queue.qid(), found[1].id).unwrap().expect("the first Abort");
        let mut deadlines = Deadlines::new(Some(limit), OnTimeout::Abort);
        for (command, step) in found.into_iter().zip([Step::Send, Step::Sent(tag, permit)]) {
            deadlines.aborts.push(Abort { command, since: late, step });
        }
        // Another user seems to have stopped the controller: its admin queue takes no command.
        inner.live().end();
        deadlines.go_on(&mut queue, inner, late).unwrap_err();
        assert_eq!(deadlines.aborts.len(), 2);
        deadlines.forget(inner);
        controller.reset().unwrap();
        assert!(inner.end_queue(&mut queue, &mut DmaBuf::empty(), &mut whole));
    }
}
