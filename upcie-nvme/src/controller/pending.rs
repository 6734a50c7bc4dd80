//! An admin command on its way: whatever ends the thread's wait for it, somebody heeds the answer.

use super::{Inner, admin::Whole, late::Late, queue_ids::Ticket};
use crate::{Result, spec::Status};

/// An admin command of a thread, from before it is sent until the thread has acted on the answer.
///
/// The thread runs code of the program meanwhile: its clock, and its subscriber of log events. If that panics, dropping this
/// gives the command up, as after a missed deadline: whoever reaps the answer acts on it.
pub(super) struct Pending<'i> {
    inner: &'i Inner,
    /// `None` until the command was sent.
    tag: Option<u64>,
    /// The meaning of the answer; `None` once that is no longer this value's to see to.
    late: Option<Late>,
    /// The answer, once the thread has taken it.
    answer: Option<Result<(), Status>>,
}

impl<'i> Pending<'i> {
    /// Makes a command that is not sent yet; `late` is the meaning of an answer that the thread does not wait for.
    pub(super) fn new(inner: &'i Inner, late: Late) -> Self {
        Self { inner, tag: None, late: Some(late), answer: None }
    }

    /// Returns the creation or deletion of a queue pair that the command is a step of.
    pub(super) fn step(&self) -> Option<Ticket> {
        match &self.late {
            Some(Late::Step(ticket)) => Some(*ticket),
            _ => None,
        }
    }

    /// Notes that the command was sent with this tag.
    pub(super) fn sent(&mut self, tag: u64) {
        self.tag = Some(tag);
    }

    /// Notes that the thread has taken the answer.
    pub(super) fn answered(&mut self, answer: Result<(), Status>) {
        self.answer = Some(answer);
    }

    /// Stops waiting: the answer counts as late. Returns the answer if it is there after all.
    pub(super) fn give_up(&mut self) -> Option<Whole> {
        let (done, late) = self.inner.admin.give_up(self.tag?, self.late.take()?)?;
        self.late = Some(late);
        Some(done)
    }

    /// Leaves the rest to the caller: the command was not sent, or has its answer. Returns the answer's meaning.
    pub(super) fn end(&mut self) -> Option<Late> {
        self.late.take()
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let Some(late) = self.late.take() else { return };
        let affected = self.inner.affected();
        match (self.tag, self.answer) {
            (Some(_), Some(answer)) => affected.act(late, answer),
            (Some(tag), None) => self.inner.admin.abandon(tag, late, &affected),
            // No answer is outstanding.
            (None, _) => {
                if let Late::Step(ticket) = late {
                    self.inner.queue_ids.settled(ticket);
                }
            }
        }
    }
}
