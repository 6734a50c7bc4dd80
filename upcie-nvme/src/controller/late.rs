//! Admin commands whose answers no thread waits for any more, and the consequences of such an answer.

use super::{Permit, QueueIds, Subsystem, queue_ids::Ticket, subsystem::Change};
use crate::spec::Status;
use std::sync::Arc;

/// The meaning of an answer that comes after its command's deadline.
#[derive(Debug)]
pub(super) enum Late {
    /// The answer has no consequence.
    Nothing,
    /// Namespaces may have changed, and may still change until then.
    Change(#[expect(dead_code, reason = "ends when it is dropped")] Change),
    /// Namespaces may have changed, by a raw command.
    Raw,
    /// An Abort counts as unanswered until then.
    Abort(Permit),
    /// A queue pair's creation or deletion goes on.
    Step(Ticket),
}

/// The parts of a controller that a late answer changes.
pub(super) struct Affected<'a> {
    pub(super) name: &'a Arc<str>,
    pub(super) queue_ids: &'a QueueIds,
    pub(super) subsystem: &'a Subsystem,
}

impl Affected<'_> {
    /// Acts on the answer to a command that no thread waits for.
    pub(super) fn act(&self, late: Late, answer: Result<(), Status>) {
        match late {
            Late::Step(ticket) => self.queue_ids.answered(ticket, answer),
            Late::Raw => self.subsystem.make_stale(),
            // Dropping the change or the permit ends it.
            Late::Change(_) | Late::Abort(_) | Late::Nothing => {}
        }
    }
}
