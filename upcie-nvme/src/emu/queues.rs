//! The queues of an enabled controller.

use super::{
    doorbell_buffers::DoorbellBuffers,
    queue::{Cq, Sq},
};
use std::time::Duration;

/// All queues of an enabled controller.
#[derive(Debug)]
pub(super) struct Queues {
    pub admin_sq: Sq,
    pub admin_cq: Cq,
    /// The I/O submission queues in the order of their creation, as a round serves them.
    pub sqs: Vec<Sq>,
    /// The I/O completion queues by identifier.
    pub cqs: Vec<Option<Cq>>,
    /// The index of the submission queue with which the next round begins.
    pub next: usize,
    /// Present if the host has configured them.
    pub doorbell_buffers: Option<Box<DoorbellBuffers>>,
}

impl Queues {
    /// Returns `true` if there is a submission queue, or a completion queue, with this identifier.
    pub fn exists(&self, qid: u16, completion: bool) -> bool {
        match (qid, completion) {
            (0, _) => true,
            (_, true) => self.cqs.get(usize::from(qid)).is_some_and(Option::is_some),
            (_, false) => self.sqs.iter().any(|sq| sq.id == qid),
        }
    }

    /// Returns the time at which the next completion that is held back is due.
    pub fn next_due(&self) -> Option<Duration> {
        // A queue's commands have one latency, so the first is due first.
        let delayed = self.sqs.iter().filter_map(|sq| sq.delayed.front().map(|held| held.due));
        delayed.chain(self.sqs.iter().chain([&self.admin_sq]).filter_map(Sq::next_stage)).min()
    }

    /// Returns all completion queues, including the admin queue's.
    pub fn completion_queues(&mut self) -> impl Iterator<Item = &mut Cq> {
        std::iter::once(&mut self.admin_cq).chain(self.cqs.iter_mut().flatten())
    }
}
