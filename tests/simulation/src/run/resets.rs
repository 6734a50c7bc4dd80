//! Resets of the controller: every command comes back once, from a queue that takes commands again.

use super::{Broken, QUEUES, Run};
use crate::ledger::Ticket;
use upcie_core::Chain;
use upcie_nvme::{
    Error, Failure, ResetKind,
    queue::{OnTimeout, Returned},
};

impl Run<'_> {
    /// Resets the controller.
    pub(super) fn reset(&mut self, kind: ResetKind) -> Result<(), Broken> {
        let Some((controller, _)) = &self.open else { return Ok(()) };
        let done = controller.reset_by(kind);
        self.over = [true; QUEUES];
        self.world.note("  controller reset");
        done.or_else(|error| self.excuse(&error))
    }

    /// Goes on after an error of a queue, if the case explains it.
    pub(super) fn trouble(&mut self, at: usize, error: &Error) -> Result<(), Broken> {
        if self.case.may_fail_anywhere() {
            return match error.failure() {
                Failure::Reset { .. } => self.recover(at),
                _ => self.excuse(error),
            };
        }
        let policy = self.limits[at].map(|limit| limit.policy);
        self.world.note(format_args!("  {}", Chain(error)));
        match error.failure() {
            Failure::Overdue { .. } if policy == Some(OnTimeout::Report) => self.check_age(at),
            Failure::Reset { .. } if self.over[at] => self.recover(at),
            Failure::Reset { .. } if matches!(policy, Some(OnTimeout::Abort | OnTimeout::Reset)) => {
                self.check_age(at)?;
                self.over = [true; QUEUES];
                self.recover(at)
            }
            Failure::Down { .. } if policy == Some(OnTimeout::GiveUp) => {
                self.is_down = true;
                self.check_age(at)
            }
            _ => self.excuse(error),
        }
    }

    /// Brings a queue back after a reset.
    fn recover(&mut self, at: usize) -> Result<(), Broken> {
        let Some(queue) = &mut self.queues[at] else { return Ok(()) };
        match queue.recover() {
            Ok(all) => {
                self.world.note("  recovered");
                self.over[at] = false;
                if queue.in_flight() != 0 || queue.room() != queue.capacity() {
                    return Err("a recovered queue is not empty".into());
                }
                self.returned(at, all)
            }
            Err(error) => self.excuse(&error),
        }
    }

    /// Takes the commands that a queue has given back: all that were in flight, each once.
    pub(super) fn returned(&mut self, at: usize, all: Vec<Returned<Ticket>>) -> Result<(), Broken> {
        for one in all {
            let (tag, buffer) = match one {
                Returned::Completed(done) => {
                    self.reaped(done, at)?;
                    continue;
                }
                Returned::Unknown { tag, buffer } => (tag, buffer),
            };
            let Some(pending) = self.pending.remove(&tag.id).filter(|pending| pending.queue == at) else {
                return Err(format!("command {} was given back, and was not in flight", tag.id));
            };
            self.world.note(format_args!("  {} ({}) was given back", tag.id, pending.io));
            let iova = if buffer.is_empty() { 0 } else { buffer.iova(0) };
            if iova != pending.iova {
                return Err(format!("command {} was given back with another buffer", tag.id));
            }
            self.ended(pending, false);
        }
        match self.pending.iter().find(|(_, pending)| pending.queue == at) {
            Some((id, _)) => Err(format!("queue {at}: command {id} was not given back")),
            None => Ok(()),
        }
    }

    /// Opens the controller anew after it was given up: all queues give their commands back.
    pub(super) fn replace(&mut self) -> Result<(), Broken> {
        (0..QUEUES).try_for_each(|at| self.close(at))?;
        self.drop_all();
        self.check_balance()?;
        self.open()
    }
}
