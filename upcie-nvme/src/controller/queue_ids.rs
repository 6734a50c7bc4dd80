//! The ids of I/O queue pairs, and the queue pairs whose creation or deletion the controller has not confirmed.
//!
//! An id and the memory of its queues can be used again when the controller has shown that it uses them no
//! more: it has completed the Delete commands, however late, or has stopped. Until then the memory is kept
//! here.

use super::lock;
use crate::{
    Error, Result,
    engine::{Retired, unique},
    spec::Status,
};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The time that the deletion of a queue may take before its memory is kept.
pub(super) const DELETE_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of a queue pair's id.
#[derive(Debug)]
enum Id {
    Free,
    /// The blocking calls' own queue.
    Driver,
    /// A queue pair of the program's, of so many entries.
    Pair(u32),
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
    pub(super) fn name(self) -> &'static str {
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
struct Moving {
    /// Names this use of the id in late answers: never used again.
    ticket: Ticket,
    step: Step,
    /// The step's command was sent and is not answered.
    waits: bool,
    /// No thread works on it any more.
    left: bool,
    /// The entries of a queue pair that is the program's, and keeps the id if it is not created again.
    owned: Option<u32>,
    memory: Vec<Retired>,
}

impl Moving {
    fn begin(step: Step) -> Self {
        Self { ticket: unique(), step, waits: false, left: false, owned: None, memory: Vec::new() }
    }

    /// Returns the state of the id when nothing is left of the queue pair on the controller.
    fn ended(&self) -> Id {
        self.owned.map_or(Id::Free, Id::Pair)
    }

    /// Returns `true` while it is being created: it has nothing in flight yet.
    fn is_new(&self) -> bool {
        matches!(self.step, Step::CreateCq | Step::CreateSq) && !self.left
    }
}

/// One use of a queue pair's id.
pub(crate) type Ticket = u64;

/// The states of the ids from 1 on.
#[derive(Debug, Default)]
struct Ids(Vec<Id>);

impl Ids {
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

    /// Frees the ids of abandoned queue pairs, with `all` also of those that a thread creates or deletes, and returns their
    /// memory, which the controller uses no more.
    fn release(&mut self, all: bool) -> Vec<Retired> {
        let mut memory = Vec::new();
        for id in &mut self.0 {
            if let Id::Moving(moving) = id {
                if moving.left || all {
                    memory.append(&mut moving.memory);
                    *id = moving.ended();
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
                *id = moving.ended();
                memory
            }
        }
    }
}

/// The next step of a queue pair's deletion.
pub(super) enum Next {
    /// Nothing: it is gone.
    Gone,
    /// Nothing now: it is abandoned.
    Abandoned,
    /// Send the command of a step for the queue pair with this id.
    Send(u16, Step),
}

/// The ids of a controller's I/O queue pairs.
#[derive(Debug, Default)]
pub(super) struct QueueIds {
    ids: Mutex<Ids>,
    /// The controller did not answer when a queue was to be deleted, nor has it completed an admin command since:
    /// further deletions don't wait for it.
    silent: AtomicBool,
}

impl QueueIds {
    /// Provides `count` ids, all free.
    pub(super) fn grant(&mut self, count: u16) {
        self.ids = Mutex::new(Ids((0..count).map(|_| Id::Free).collect()));
    }

    /// Notes whether the controller answers.
    pub(super) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    pub(super) fn has_free(&self) -> bool {
        lock(&self.ids).0.iter().any(|id| matches!(id, Id::Free))
    }

    /// Takes the id of an I/O queue pair that is to be created on the controller `device`.
    pub(super) fn take(&self, device: &str) -> Result<(u16, Ticket)> {
        let mut ids = lock(&self.ids);
        let Some(free) = ids.0.iter().position(|id| matches!(id, Id::Free)) else {
            let left = ids.0.iter().filter(|id| matches!(id, Id::Moving(moving) if moving.left)).count();
            let mut reason = format!(
                "all {} I/O queue pairs that the controller granted are in use: close one (the blocking calls need one of \
                 their own)",
                ids.0.len()
            );
            if left > 0 {
                reason += &format!(
                    "; {left} of them were closed, but the controller has not confirmed their deletion: open it again \
                     if it does not answer any more"
                );
            }
            return Err(Error::argument(device, reason));
        };
        let moving = Moving::begin(Step::CreateCq);
        let ticket = moving.ticket;
        ids.0[free] = Id::Moving(moving);
        Ok((free as u16 + 1, ticket))
    }

    /// Frees an id that the controller has not been told of.
    pub(super) fn give_back(&self, ticket: Ticket) {
        if let Some((_, id)) = lock(&self.ids).moving(ticket) {
            *id = match id {
                Id::Moving(moving) => moving.ended(),
                _ => Id::Free,
            };
        }
    }

    /// Notes that the command of `step` is about to be sent.
    pub(super) fn sending(&self, ticket: Ticket, step: Step) {
        if let Some(moving) = lock(&self.ids).entry(ticket) {
            (moving.step, moving.waits) = (step, true);
        }
    }

    /// Notes that no answer is outstanding.
    pub(super) fn settled(&self, ticket: Ticket) {
        if let Some(moving) = lock(&self.ids).entry(ticket) {
            moving.waits = false;
        }
    }

    /// Marks the queue pair as created. Returns `false` if a reset has ended the creation.
    pub(super) fn created(&self, ticket: Ticket) -> bool {
        match lock(&self.ids).moving(ticket) {
            Some((_, id)) => {
                *id = match id {
                    Id::Moving(Moving { owned: Some(entries), .. }) => Id::Pair(*entries),
                    _ => Id::Driver,
                };
            }
            None => return false,
        }
        true
    }

    /// Marks the program's queue pair of so many entries as one to create again; it keeps its id if that fails.
    pub(super) fn begin_again(&self, qid: u16, entries: u32) -> Ticket {
        let moving = Moving { owned: Some(entries), ..Moving::begin(Step::CreateCq) };
        let ticket = moving.ticket;
        lock(&self.ids).0[usize::from(qid) - 1] = Id::Moving(moving);
        ticket
    }

    /// Gives up the program's queue pair that was to be created again: its id is free once the controller lets go. Returns `false`
    /// if it has, so that the id is still the program's.
    pub(super) fn disown(&self, ticket: Ticket) -> bool {
        lock(&self.ids).entry(ticket).map(|moving| moving.owned = None).is_some()
    }

    /// Frees the id of a queue pair that the controller forgot in a reset. Returns `false` if it may know the queue pair again: a panic
    /// has ended its creation after the reset.
    pub(super) fn forget(&self, qid: u16) -> bool {
        let mut ids = lock(&self.ids);
        let id = &mut ids.0[usize::from(qid) - 1];
        let is_unknown = !matches!(id, Id::Moving(_));
        if is_unknown {
            *id = Id::Free;
        }
        is_unknown
    }

    /// Frees the id of an abandoned queue pair that the controller forgot in a reset. A thread that has taken it up frees it itself.
    pub(super) fn forget_abandoned(&self, ticket: Ticket) {
        let mut ids = lock(&self.ids);
        let Some((_, id)) = ids.moving(ticket) else { return };
        if let Id::Moving(moving) = id {
            if moving.left && !moving.waits {
                *id = moving.ended();
            }
        }
    }

    /// Ends all creations and deletions under way: the controller was reset, and knows none of the queue pairs. Returns their
    /// memory.
    pub(super) fn forget_moving(&self) -> Vec<Retired> {
        self.set_silent(false);
        lock(&self.ids).release(true)
    }

    /// Marks the queue pair of so many entries as the program's: while it exists, namespaces can't be changed.
    pub(super) fn hand_out(&self, qid: u16, entries: u32) {
        lock(&self.ids).0[usize::from(qid) - 1] = Id::Pair(entries);
    }

    /// Returns the id and the entries of the first of the program's queue pairs that has more than `most` entries.
    pub(super) fn larger_than(&self, most: u32) -> Option<(u16, u32)> {
        lock(&self.ids).0.iter().zip(1..).find_map(|(id, qid)| match id {
            Id::Pair(entries) if *entries > most => Some((qid, *entries)),
            _ => None,
        })
    }

    /// Marks the queue pair as one to delete. A creation that a panic has ended is undone from where it stands.
    pub(super) fn begin_deletion(&self, qid: u16) -> Ticket {
        let mut ids = lock(&self.ids);
        let id = &mut ids.0[usize::from(qid) - 1];
        if let Id::Moving(moving) = id {
            moving.owned = None;
            return moving.ticket;
        }
        let moving = Moving::begin(Step::DeleteSq);
        let ticket = moving.ticket;
        *id = Id::Moving(moving);
        ticket
    }

    /// Returns the next thing to do about a queue pair that is to go; the caller does it.
    pub(super) fn next(&self, ticket: Ticket) -> Next {
        let mut ids = lock(&self.ids);
        let Some((qid, Id::Moving(moving))) = ids.moving(ticket) else { return Next::Gone };
        // Don't wait a whole deadline for each further queue: they would add up.
        if moving.waits || self.silent.load(Ordering::Relaxed) {
            moving.left = true;
            return Next::Abandoned;
        }
        moving.waits = true;
        Next::Send(qid, moving.step)
    }

    /// Abandons a queue pair: no thread works on it any more.
    pub(super) fn abandon(&self, ticket: Ticket) {
        if let Some(moving) = lock(&self.ids).entry(ticket) {
            moving.left = true;
        }
    }

    pub(super) fn is_gone(&self, ticket: Ticket) -> bool {
        lock(&self.ids).moving(ticket).is_none()
    }

    /// Takes up the abandoned queue pairs whose last command has been answered since.
    pub(super) fn resume(&self) -> Vec<Ticket> {
        let left = |id: &mut Id| match id {
            Id::Moving(moving) if moving.left && !moving.waits => {
                moving.left = false;
                Some(moving.ticket)
            }
            _ => None,
        };
        lock(&self.ids).0.iter_mut().filter_map(left).collect()
    }

    /// Takes note of an answer to a queue pair's step, in time or late.
    pub(super) fn answered(&self, ticket: Ticket, answer: Result<(), Status>) {
        let memory = lock(&self.ids).answered(ticket, answer);
        // Dropped outside of the lock: its heap has a lock of its own.
        drop(memory);
    }

    /// Keeps memory of a queue pair until the controller is known to use it no more.
    pub(super) fn keep_for(&self, ticket: Ticket, retired: Retired) {
        let mut ids = lock(&self.ids);
        match ids.entry(ticket) {
            Some(moving) => moving.memory.push(retired),
            // The answer has come meanwhile: the memory is free.
            None => {
                drop(ids);
                drop(retired);
            }
        }
    }

    /// Frees all abandoned ids, and returns their memory, which the controller uses no more.
    pub(super) fn release(&self) -> Vec<Retired> {
        lock(&self.ids).release(false)
    }

    /// Returns the ids of the program's queue pairs, and of those whose deletion is not confirmed: either may
    /// have commands in flight.
    pub(super) fn pairs(&self) -> (Vec<u16>, Vec<u16>) {
        let ids = lock(&self.ids);
        let of = |wanted: fn(&Id) -> bool| {
            let found = ids.0.iter().zip(1..).filter(|(id, _)| wanted(id));
            found.map(|(_, qid)| qid).collect()
        };
        (of(|id| matches!(id, Id::Pair(_))), of(|id| matches!(id, Id::Moving(moving) if !moving.is_new())))
    }
}
