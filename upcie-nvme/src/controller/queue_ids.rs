//! The ids of I/O queue pairs, and the queue pairs whose creation or deletion the controller has not confirmed.
//!
//! An id and the memory of its queues can be used again when the controller has shown that it uses them no
//! more: it has completed the Delete commands, however late, or has stopped. Until then the memory is kept
//! here.

use super::{Inner, admin::Late, lock};
use crate::{
    Error, Result,
    engine::{Retired, unique},
    spec::{Command, Status},
};
use std::{sync::atomic::Ordering, time::Duration};
use upcie_core::{dma::DmaBuf, events::emit};

/// How long the deletion of a queue may take before its memory is kept.
const DELETE_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of a queue pair's id.
#[derive(Debug)]
pub(super) enum Id {
    Free,
    /// The blocking calls' own queue.
    Driver,
    /// A queue pair of the program's.
    Pair,
    /// The queue pair is being created or deleted, or such a command was never answered.
    Moving(Moving),
}

/// The command of a creation or deletion to send next, or sent last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    CreateCq,
    CreateSq,
    DeleteSq,
    DeleteCq,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::CreateCq => "Create I/O Completion Queue",
            Self::CreateSq => "Create I/O Submission Queue",
            Self::DeleteSq => "Delete I/O Submission Queue",
            Self::DeleteCq => "Delete I/O Completion Queue",
        }
    }

    /// Returns the step after a late answer to this one, when the creation can't go on; `None`: the id is
    /// free.
    fn back(self, answer: Result<(), Status>) -> Option<Self> {
        let deleted = match answer {
            Ok(()) => true,
            Err(status) => status == Status::INVALID_QUEUE_ID,
        };
        match self {
            Self::CreateCq => answer.is_ok().then_some(Self::DeleteCq),
            Self::CreateSq if answer.is_ok() => Some(Self::DeleteSq),
            Self::CreateSq => Some(Self::DeleteCq),
            Self::DeleteSq => Some(if deleted { Self::DeleteCq } else { Self::DeleteSq }),
            Self::DeleteCq => (!deleted).then_some(Self::DeleteCq),
        }
    }
}

/// A queue pair that is neither usable nor known to be deleted.
#[derive(Debug)]
pub(super) struct Moving {
    /// Names this use of the id in late answers: never used again.
    ticket: Ticket,
    step: Step,
    /// The step's command was sent and is not answered.
    waits: bool,
    /// No thread works on it any more.
    left: bool,
    memory: Vec<Retired>,
}

impl Moving {
    /// Returns `true` while it is being created: it has nothing in flight yet.
    fn is_new(&self) -> bool {
        matches!(self.step, Step::CreateCq | Step::CreateSq) && !self.left
    }
}

/// One use of a queue pair's id.
pub(crate) type Ticket = u64;

/// The ids of a controller's I/O queue pairs, from 1 on.
#[derive(Debug, Default)]
pub(super) struct Ids(Vec<Id>);

impl Ids {
    pub(super) fn new(count: u16) -> Self {
        Self((0..count).map(|_| Id::Free).collect())
    }

    fn moving(&mut self, ticket: Ticket) -> Option<(u16, &mut Id)> {
        let is_it = |id: &Id| matches!(id, Id::Moving(moving) if moving.ticket == ticket);
        let index = self.0.iter().position(is_it)?;
        Some((index as u16 + 1, &mut self.0[index]))
    }

    fn entry(&mut self, ticket: Ticket) -> Option<&mut Moving> {
        match self.moving(ticket)?.1 {
            Id::Moving(moving) => Some(moving),
            _ => None,
        }
    }

    /// Frees all abandoned ids, and returns their memory, which the controller uses no more.
    pub(super) fn release(&mut self) -> Vec<Retired> {
        let mut memory = Vec::new();
        for id in &mut self.0 {
            if let Id::Moving(moving) = id {
                if moving.left {
                    memory.append(&mut moving.memory);
                    *id = Id::Free;
                }
            }
        }
        memory
    }

    /// Advances after an answer; returns the memory that may be freed.
    fn answered(&mut self, ticket: Ticket, answer: Result<(), Status>) -> Vec<Retired> {
        let Some((_, id)) = self.moving(ticket) else { return Vec::new() };
        let Id::Moving(moving) = id else { return Vec::new() };
        moving.waits = false;
        match moving.step.back(answer) {
            Some(step) => {
                moving.step = step;
                Vec::new()
            }
            None => {
                let memory = std::mem::take(&mut moving.memory);
                *id = Id::Free;
                memory
            }
        }
    }
}

impl Inner {
    pub(super) fn has_free_queue_id(&self) -> bool {
        lock(&self.queue_ids).0.iter().any(|id| matches!(id, Id::Free))
    }

    /// Takes the id of an I/O queue pair that is to be created.
    pub(crate) fn take_queue_id(&self) -> Result<(u16, Ticket)> {
        self.check_owner("creating a queue pair")?;
        let mut ids = lock(&self.queue_ids);
        let Some(free) = ids.0.iter().position(|id| matches!(id, Id::Free)) else {
            let left = ids.0.iter().filter(|id| matches!(id, Id::Moving(moving) if moving.left)).count();
            let mut reason = format!(
                "all {} I/O queue pairs that the controller granted are in use: close one (the blocking calls need one of \
                 their own)",
                self.granted
            );
            if left > 0 {
                reason += &format!(
                    "; {left} of them were closed, but the controller has not confirmed their deletion: open it again \
                     if it does not answer any more"
                );
            }
            return Err(Error::Argument { device: self.name().into(), reason });
        };
        let ticket = unique();
        let moving = Moving { ticket, step: Step::CreateCq, waits: false, left: false, memory: Vec::new() };
        ids.0[free] = Id::Moving(moving);
        Ok((free as u16 + 1, ticket))
    }

    /// Frees an id that the controller has not been told of.
    pub(crate) fn return_queue_id(&self, ticket: Ticket) {
        if let Some((_, id)) = lock(&self.queue_ids).moving(ticket) {
            *id = Id::Free;
        }
    }

    /// Sends the command of a creation's step.
    ///
    /// # Errors
    /// The controller's status, or a timeout. Then undo the creation with [`take_back`](Self::take_back).
    pub(crate) fn create_step(&self, ticket: Ticket, step: Step, command: &Command) -> Result<()> {
        if let Some(moving) = lock(&self.queue_ids).entry(ticket) {
            (moving.step, moving.waits) = (step, true);
        }
        let outcome =
            self.exchange(command, DmaBuf::empty(), step.name(), self.options.timeout, Late::Step(ticket));
        match outcome {
            Ok(_) => {
                if let Some(moving) = lock(&self.queue_ids).entry(ticket) {
                    moving.waits = false;
                }
                Ok(())
            }
            Err((error, sent)) => {
                match &error {
                    Error::Status { status, .. } => self.queue_answered(ticket, Err(*status)),
                    // A command that was not sent counts as refused.
                    _ if !sent => self.queue_answered(ticket, Err(Status::INVALID_QUEUE_ID)),
                    _ => {}
                }
                Err(error)
            }
        }
    }

    /// Marks the queue pair as created.
    pub(crate) fn created(&self, ticket: Ticket) {
        if let Some((_, id)) = lock(&self.queue_ids).moving(ticket) {
            *id = Id::Driver;
        }
    }

    /// Hands the queue pair to the program: while it exists, namespaces can't be changed.
    pub(crate) fn hand_out(&self, qid: u16) {
        lock(&self.queue_ids).0[usize::from(qid) - 1] = Id::Pair;
    }

    /// Deletes a queue pair on the controller. `Ok`: it uses the queues' memory, and that of their commands
    /// in flight, no more. After an error give that memory to [`keep_for`](Self::keep_for).
    pub(crate) fn delete_queue(&self, qid: u16) -> Result<(), Ticket> {
        self.reap_late();
        self.finish_deletions();
        let ticket = unique();
        let moving = Moving { ticket, step: Step::DeleteSq, waits: false, left: false, memory: Vec::new() };
        lock(&self.queue_ids).0[usize::from(qid) - 1] = Id::Moving(moving);
        self.take_back(ticket)
    }

    /// Undoes a creation, or deletes a queue pair, as far as the controller answers. The result is that of
    /// [`delete_queue`](Self::delete_queue).
    pub(crate) fn take_back(&self, ticket: Ticket) -> Result<(), Ticket> {
        loop {
            let (qid, step) = {
                let mut ids = lock(&self.queue_ids);
                let Some((qid, Id::Moving(moving))) = ids.moving(ticket) else { return Ok(()) };
                // Don't wait a whole deadline for each further queue: they would add up.
                if moving.waits || self.silent.load(Ordering::Relaxed) {
                    moving.left = true;
                    drop(ids);
                    return self.unless_let_go(ticket);
                }
                moving.waits = true;
                (qid, moving.step)
            };
            let command = match step {
                Step::DeleteSq => Command::delete_submission_queue(qid),
                _ => Command::delete_completion_queue(qid),
            };
            let after = DELETE_TIMEOUT.min(self.options.timeout);
            let outcome = self.exchange(&command, DmaBuf::empty(), step.name(), after, Late::Step(ticket));
            let (answer, error) = match outcome {
                Ok(_) => (Some(Ok(())), None),
                Err((Error::Status { status, .. }, _)) if status == Status::INVALID_QUEUE_ID => {
                    (Some(Err(status)), None)
                }
                Err((error @ Error::Status { status, .. }, _)) => (Some(Err(status)), Some(error)),
                Err((error, sent)) => {
                    self.silent.store(true, Ordering::Relaxed);
                    if !sent {
                        self.unsent(ticket);
                    }
                    (None, Some(error))
                }
            };
            if let Some(answer) = answer {
                self.queue_answered(ticket, answer);
            }
            if let Some(error) = error {
                let device = self.name.clone();
                emit(move || {
                    tracing::error!(
                        %device, qid, %error,
                        "its memory is kept until the controller confirms that, or stops"
                    );
                });
                if let Some(moving) = lock(&self.queue_ids).entry(ticket) {
                    moving.left = true;
                }
                return self.unless_let_go(ticket);
            }
        }
    }

    /// Returns `Ok` if the queue pair is gone after all: another thread has seen the late answer, or the
    /// controller has been stopped.
    fn unless_let_go(&self, ticket: Ticket) -> Result<(), Ticket> {
        self.release_if_let_go();
        lock(&self.queue_ids).moving(ticket).map_or(Ok(()), |_| Err(ticket))
    }

    fn unsent(&self, ticket: Ticket) {
        if let Some(moving) = lock(&self.queue_ids).entry(ticket) {
            moving.waits = false;
        }
    }

    /// Continues the deletion of abandoned queue pairs, as far as the controller has answered since.
    pub(crate) fn finish_deletions(&self) {
        let left = |id: &mut Id| match id {
            Id::Moving(moving) if moving.left && !moving.waits => {
                moving.left = false;
                Some(moving.ticket)
            }
            _ => None,
        };
        let tickets: Vec<_> = lock(&self.queue_ids).0.iter_mut().filter_map(left).collect();
        for ticket in tickets {
            // After a failure the others are marked again without being sent: no further deadline for each.
            let _ = self.take_back(ticket);
        }
    }

    /// Takes note of an answer to a queue pair's step, in time or late.
    pub(super) fn queue_answered(&self, ticket: Ticket, answer: Result<(), Status>) {
        let memory = lock(&self.queue_ids).answered(ticket, answer);
        // Dropped outside of the lock: its heap has a lock of its own.
        drop(memory);
    }

    /// Keeps memory of a queue pair until the controller is known to use it no more.
    pub(crate) fn keep_for(&self, ticket: Ticket, retired: Retired) {
        let mut ids = lock(&self.queue_ids);
        match ids.entry(ticket) {
            Some(moving) => moving.memory.push(retired),
            // The answer has come meanwhile: the memory is free.
            None => {
                drop(ids);
                drop(retired);
            }
        }
    }

    /// Returns the ids of the program's queue pairs, and of those whose deletion is not confirmed: either may
    /// have commands in flight.
    pub(super) fn queue_pairs(&self) -> (Vec<u16>, Vec<u16>) {
        let ids = lock(&self.queue_ids);
        let of = |wanted: fn(&Id) -> bool| {
            let found = ids.0.iter().zip(1..).filter(|(id, _)| wanted(id));
            found.map(|(_, qid)| qid).collect()
        };
        (of(|id| matches!(id, Id::Pair)), of(|id| matches!(id, Id::Moving(moving) if !moving.is_new())))
    }
}
