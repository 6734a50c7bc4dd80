//! The end of a queue pair: its memory, and that of its commands, is free once the controller has let go of it.

use super::{Inner, Limit, queue_ids::Ticket};
use crate::engine::{Queue, Retired};
use upcie_core::dma::DmaBuf;

/// A queue pair that is being created or deleted. Unless that is [settled](Self::settle), dropping this leaves the queue pair to
/// the controller: after a deletion that was not confirmed, and in a panic of the program's clock or its subscriber of log
/// events.
pub(super) struct Unsettled<'q, T> {
    inner: &'q Inner,
    pub(super) queue: &'q mut Queue<T>,
    /// Memory of the caller's that commands in flight use.
    held: &'q mut DmaBuf,
    /// The creation or deletion under way.
    pub(super) ticket: Option<Ticket>,
}

impl<'q, T> Unsettled<'q, T> {
    /// Leaves `queue` and `held` to the controller when this is dropped. `ticket` is the creation under way.
    pub(super) fn new(
        inner: &'q Inner,
        queue: &'q mut Queue<T>,
        held: &'q mut DmaBuf,
        ticket: Option<Ticket>,
    ) -> Self {
        Self { inner, queue, held, ticket }
    }

    /// Leaves the memory to the caller: the controller uses it no more, or as the caller wishes.
    pub(super) fn settle(self) {
        std::mem::forget(self);
    }

    /// Deletes the queue pair on the controller within `limit`, unless a reset has done that. Returns `true` if the controller uses
    /// the memory no more.
    fn delete(&mut self, limit: &mut Limit<'_>) -> bool {
        let inner = self.inner;
        if !self.queue.is_over() {
            inner.reap_late();
            let answers = inner.answers(limit);
            let ticket = inner.queue_ids.begin_deletion(self.queue.qid());
            self.ticket = Some(ticket);
            if !answers {
                inner.queue_ids.abandon(ticket);
                if inner.unless_let_go(ticket).is_ok() {
                    return true;
                }
            } else if inner.take_back(ticket, limit).is_ok() {
                // After this one: those that others have left must not use up its time.
                inner.finish_deletions(limit);
                return true;
            }
            // A reset that began meanwhile deletes it, too.
            if !self.queue.is_over() {
                return false;
            }
        }
        self.end_by_reset(limit)
    }

    /// Waits for the end of a reset, which deletes the queue pair, within `limit`. Returns `true` if the controller uses the memory
    /// no more.
    fn end_by_reset(&self, limit: &Limit<'_>) -> bool {
        let (inner, ids) = (self.inner, &self.inner.queue_ids);
        let what = || "closing a queue pair".into();
        // Its success does not matter, nor whether it ends in time.
        let _ = inner.wait_for_reset(limit, &what);
        if self.ticket.is_some_and(|ticket| ids.is_gone(ticket)) {
            return true;
        }
        if !self.queue.epoch().has_let_go() {
            return false;
        }
        match self.ticket {
            // The deletion began after the reset had ended all others.
            Some(ticket) => {
                ids.forget_abandoned(ticket);
                true
            }
            None => ids.forget(self.queue.qid()),
        }
    }
}

impl<T> Drop for Unsettled<'_, T> {
    fn drop(&mut self) {
        self.inner.abandon_queue(self.queue, self.held, self.ticket);
    }
}

impl Inner {
    /// Ends a queue pair: deletes it on the controller within `limit`, unless a reset has done that. Returns `true` if the
    /// controller uses the queue's memory no more, nor `held`, which commands in flight use. Otherwise, and after a panic, the
    /// queue's memory and `held` are kept until the controller lets go of them, and `held` is empty.
    pub(crate) fn end_queue<T>(
        &self,
        queue: &mut Queue<T>,
        held: &mut DmaBuf,
        limit: &mut Limit<'_>,
    ) -> bool {
        let mut ending = Unsettled::new(self, queue, held, None);
        let has_let_go = ending.delete(limit);
        if has_let_go {
            ending.settle();
        }
        has_let_go
    }

    /// Leaves a queue pair to the controller, with `held`, which its commands in flight use: both are kept until the controller
    /// is known to use them no more. Whoever creates or deletes a queue pair next deletes it. `ticket` is its creation or
    /// deletion, if one has begun.
    ///
    /// Sends and waits for nothing, so a panicking thread may call it.
    pub(crate) fn abandon_queue<T>(&self, queue: &mut Queue<T>, held: &mut DmaBuf, ticket: Option<Ticket>) {
        let ticket = ticket.unwrap_or_else(|| self.queue_ids.begin_deletion(queue.qid()));
        self.queue_ids.abandon(ticket);
        self.keep_for(ticket, queue.retire());
        self.keep_for(ticket, Retired(vec![std::mem::take(held)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Controller,
        controller::{PRIORITY, create},
        engine::SglUse,
    };

    /// Such a deletion lost the commands in flight, although the controller had let go of them.
    #[test]
    fn a_deletion_that_begins_during_a_reset_ends_by_it() {
        let controller = Controller::open("emu:size=1M").unwrap();
        let (inner, mut held) = (controller.inner(), DmaBuf::empty());
        for is_taken_up in [false, true] {
            let sgl = (None, SglUse::Never);
            let mut limit = inner.limit();
            let mut queue = create::<u64>(inner, 8, None, sgl, None, PRIORITY, &mut limit).unwrap();
            controller.reset().unwrap();
            // A deletion that began once the controller had stopped, and waited for the rest of the reset in vain.
            let ticket = inner.queue_ids.begin_deletion(queue.qid());
            inner.queue_ids.abandon(ticket);
            if is_taken_up {
                assert_eq!(inner.queue_ids.resume(), [ticket]);
            }
            let ending = Unsettled::new(inner, &mut queue, &mut held, Some(ticket));
            assert!(ending.end_by_reset(&limit));
            ending.settle();
            assert_eq!(inner.queue_ids.is_gone(ticket), !is_taken_up, "who has taken it up frees the id");
        }
    }
}
