//! Creation and deletion of queue pairs on the controller: their memory, ids and commands.

use super::{
    Cmb, Inner, Limit,
    ending::Unsettled,
    late::Late,
    queue_ids::{DELETE_TIMEOUT, Next, Step, Ticket},
    subsystem::Member,
    unwinding::OnUnwind,
};
use crate::{
    Error, Failure, Result,
    engine::{ListPool, Live, Parts, Queue, Retired, SglUse},
    spec::{Command, QueuePriority, Status},
};
use std::{sync::Arc, time::Duration};
use upcie_core::{
    dma::{DmaBuf, Heap},
    events::emit,
    mmio::Caching,
};

/// The least time in which the deletion of a queue pair goes on beside other commands.
const LEAST_FOR_DELETION: Duration = Duration::from_millis(20);
/// The default bytes of a queue's PRP list memory.
const LIST_BYTES: usize = 64 << 10;
/// The default priority class; it has no effect under round robin.
pub(crate) const PRIORITY: QueuePriority = QueuePriority::MEDIUM;

/// Creates a queue pair on the controller within `limit`, with its submission ring in `buffer` if there is one. The
/// controller has the SGLs that `sgl` asks for ([`Inner::check_sgl`]).
pub(crate) fn create<T>(
    inner: &Inner,
    entries: u32,
    vector: Option<u16>,
    (list_bytes, sgl): (Option<usize>, SglUse),
    buffer: Option<&Cmb>,
    priority: QueuePriority,
    limit: &mut Limit<'_>,
) -> Result<Queue<T>> {
    let budget = limit.budget();
    let page = 1 << inner.page_shift();
    let memory_of = |heap: &Arc<Heap>, bytes: usize| -> Result<DmaBuf> {
        // On overflow pass usize::MAX: the heap refuses it with its own error.
        let bytes = bytes.checked_next_multiple_of(page).unwrap_or(usize::MAX);
        Ok(heap.alloc_aligned(bytes, page)?)
    };
    let memory = |bytes| memory_of(inner.private(), bytes);
    let sq = memory_of(buffer.map_or(inner.private(), Cmb::heap), entries as usize * 64)?;
    let sq_combining = buffer.is_some_and(|buffer| buffer.caching() == Caching::WriteCombining);
    let cq = memory(entries as usize * 16)?;
    let chunk = ListPool::chunk_bytes(inner.max_transfer(), inner.page_shift());
    let least = ListPool::least_bytes(inner.max_transfer(), inner.page_shift());
    let list_bytes = list_bytes.unwrap_or(LIST_BYTES).max(least);
    let lists = ListPool::new(memory(list_bytes)?, chunk, inner.page_shift()).with_shape(inner.shape(sgl));
    drop(budget);
    inner.reap_late();
    // Half of the time stays for the creation.
    let half = limit.left() / 2;
    inner.finish_deletions(&mut limit.part(half));
    inner.check_owner("creating a queue pair")?;
    inner.wait_for_reset(limit, &|| "creating a queue pair".into())?;
    let (qid, ticket) = inner.queue_ids.take(inner.name())?;
    let doorbells = inner
        .registers()
        .doorbell(qid, false)
        .and_then(|sq| Ok((sq, inner.registers().doorbell(qid, true)?)));
    let (sq_doorbell, cq_doorbell) = doorbells.inspect_err(|_| inner.queue_ids.give_back(ticket))?;
    let mut queue = Queue::new(Parts {
        name: inner.shared_name().clone(),
        qid,
        entries,
        sq,
        sq_combining,
        cq,
        sq_doorbell,
        cq_doorbell,
        lists,
        live: inner.live().clone(),
    });
    // A reset after this look ends the creation, for it forgets the ticket.
    if queue.is_over() {
        inner.queue_ids.give_back(ticket);
        return Err(Error::reset_call(inner.name(), "creating a queue pair"));
    }
    let mut held = DmaBuf::empty();
    let mut made = Unsettled::new(inner, &mut queue, &mut held, Some(ticket));
    if let Err(error) = inner.create_on_controller(made.queue, ticket, vector, priority, limit) {
        // Unless it is undone, for which it has a deadline of its own, the controller may use the rings.
        if inner.take_back(ticket, &mut inner.limit()).is_ok() {
            made.settle();
        }
        return Err(error);
    }
    // A panic from here on ends a queue pair that exists.
    made.ticket = None;
    let device = inner.shared_name().clone();
    emit(move || tracing::debug!(%device, qid, entries, ?vector, "made a queue pair"));
    inner.finish_deletions(limit);
    made.settle();
    Ok(queue)
}

impl Inner {
    /// Creates both queues on the controller, within `limit`.
    ///
    /// # Errors
    /// Those of [`create_step`](Self::create_step).
    fn create_on_controller<T>(
        &self,
        queue: &Queue<T>,
        ticket: Ticket,
        vector: Option<u16>,
        priority: QueuePriority,
        limit: &mut Limit<'_>,
    ) -> Result<()> {
        let (qid, entries, (sq, cq)) = (queue.qid(), queue.capacity() + 1, queue.addresses());
        let cq = Command::create_completion_queue(qid, entries, cq, vector);
        let sq = Command::create_submission_queue(qid, entries, sq, qid, priority);
        for (step, command) in [(Step::CreateCq, cq), (Step::CreateSq, sq)] {
            self.create_step(ticket, step, &command, limit)?;
        }
        if self.queue_ids.created(ticket) {
            return Ok(());
        }
        Err(Error::reset_call(self.name(), "creating a queue pair"))
    }

    /// Creates the program's queue pair again under its id, after a reset, within `limit`; nothing of it is in flight.
    ///
    /// # Errors
    /// The controller was reset again, or is down; its status, or a timeout. The `bool` says whether the queue can be
    /// tried again; if not, its memory is kept until the controller stops.
    pub(crate) fn create_again<T>(
        &self,
        queue: &mut Queue<T>,
        vector: Option<u16>,
        priority: QueuePriority,
        limit: &mut Limit<'_>,
    ) -> Result<(), (Error, bool)> {
        let what = "recovering a queue pair";
        self.check_owner(what).map_err(|error| (error, true))?;
        let settled = self.wait_for_reset(limit, &|| what.into());
        settled.map_err(|error| (error, true))?;
        queue.renew();
        let ticket = self.queue_ids.begin_again(queue.qid(), queue.capacity() + 1);
        let epoch = self.link.live.epoch();
        if epoch.is_over() {
            self.queue_ids.give_back(ticket);
            return Err((Error::reset_queue(self.name(), what, queue.qid()), true));
        }
        match self.create_on_controller(queue, ticket, vector, priority, limit) {
            Ok(()) => {
                queue.join(epoch);
                Ok(())
            }
            Err(error) => {
                // A deadline of its own, as for closing it.
                let mut limit = self.limit();
                let Err(ticket) = self.take_back(ticket, &mut limit) else { return Err((error, true)) };
                // A reset that began meanwhile ends the creation, too.
                if epoch.is_over() {
                    let _ = self.wait_for_reset(&limit, &|| what.into());
                }
                // It may be over since by an answer, too, and is the pair's again then.
                if !self.queue_ids.disown(ticket) {
                    return Err((error, true));
                }
                self.keep_for(ticket, queue.retire());
                Err((error, false))
            }
        }
    }

    /// Sends the command of a creation's step.
    ///
    /// # Errors
    /// The controller's status, or a timeout. Then undo the creation with [`take_back`](Self::take_back).
    fn create_step(
        &self,
        ticket: Ticket,
        step: Step,
        command: &Command,
        limit: &mut Limit<'_>,
    ) -> Result<()> {
        self.queue_ids.sending(ticket, step);
        match self.exchange(command, DmaBuf::empty(), step.name(), limit, Late::Step(ticket)) {
            Ok(_) => {
                self.queue_ids.settled(ticket);
                Ok(())
            }
            Err((error, sent)) => {
                match error.status() {
                    Some(status) => self.queue_ids.answered(ticket, Err(status)),
                    // A command that was not sent counts as refused.
                    None if !sent => self.queue_ids.answered(ticket, Err(Status::INVALID_QUEUE_ID)),
                    _ => {}
                }
                Err(error)
            }
        }
    }

    /// Hands the queue pair of so many entries to the program: while it exists, namespaces can't be changed.
    pub(crate) fn hand_out(&self, qid: u16, entries: u32) {
        self.queue_ids.hand_out(qid, entries);
    }

    /// Undoes a creation, or deletes a queue pair, as far as the controller answers. `Ok`: it uses the queues' memory,
    /// and that of their commands in flight, no more. After an error give that memory to [`keep_for`](Self::keep_for).
    /// Each command gets 5 s at most, and all of them `limit`; what an answer after that means is noted.
    pub(super) fn take_back(&self, ticket: Ticket, limit: &mut Limit<'_>) -> Result<(), Ticket> {
        let _budget = limit.budget();
        let unwinding = OnUnwind::new(|| self.queue_ids.abandon(ticket));
        let is_gone = self.send_deletions(ticket, limit);
        unwinding.end();
        if is_gone { Ok(()) } else { self.unless_let_go(ticket) }
    }

    /// Sends the commands of a deletion, as far as the controller answers. Returns `true` if the queue pair is gone,
    /// and abandons it otherwise.
    fn send_deletions(&self, ticket: Ticket, limit: &mut Limit<'_>) -> bool {
        loop {
            let (qid, step) = match self.queue_ids.next(ticket) {
                Next::Gone => return true,
                Next::Abandoned => return false,
                Next::Send(qid, step) => (qid, step),
            };
            let command = match step {
                Step::DeleteSq => Command::delete_submission_queue(qid),
                _ => Command::delete_completion_queue(qid),
            };
            let mut one = limit.part(DELETE_TIMEOUT.min(self.timeout()));
            if one.left().is_zero() {
                // Nothing was sent, which says nothing of the controller. Whoever creates or deletes a queue pair next
                // goes on.
                self.queue_ids.settled(ticket);
                self.queue_ids.abandon(ticket);
                return false;
            }
            let late = Late::Step(ticket);
            let outcome = self.exchange(&command, DmaBuf::empty(), step.name(), &mut one, late);
            let (answer, error) = match outcome {
                Ok(_) => (Some(Ok(())), None),
                Err((error, sent)) => match error.status() {
                    Some(status) => {
                        (Some(Err(status)), (status != Status::INVALID_QUEUE_ID).then_some(error))
                    }
                    None => {
                        // Only a reset, or the controller's end, deletes it then.
                        if matches!(
                            error.failure(),
                            Failure::Reset { .. } | Failure::Down { .. } | Failure::PciError { .. }
                        ) {
                            self.queue_ids.abandon(ticket);
                            return false;
                        }
                        self.queue_ids.set_silent(true);
                        if !sent {
                            self.queue_ids.settled(ticket);
                        }
                        (None, Some(error))
                    }
                },
            };
            if let Some(answer) = answer {
                self.queue_ids.answered(ticket, answer);
            }
            if let Some(error) = error {
                let device = self.link.name.clone();
                emit(move || {
                    tracing::error!(
                        %device, qid, %error,
                        "its memory is kept until the controller confirms that, or stops"
                    );
                });
                self.queue_ids.abandon(ticket);
                return false;
            }
        }
    }

    /// Returns `Ok` if the queue pair is gone after all: another thread has seen the late answer, or the
    /// controller has been stopped.
    pub(super) fn unless_let_go(&self, ticket: Ticket) -> Result<(), Ticket> {
        self.release_if_let_go();
        if self.queue_ids.is_gone(ticket) { Ok(()) } else { Err(ticket) }
    }

    /// Continues the deletion of abandoned queue pairs, as far as the controller has answered since, within `limit`: 5
    /// s at most for all of them.
    pub(super) fn finish_deletions(&self, limit: &mut Limit<'_>) {
        let mut limit = limit.part(DELETE_TIMEOUT);
        // The messages of a command need a little time, too. The next command with more of it goes on.
        if limit.left() < LEAST_FOR_DELETION {
            return;
        }
        let tickets = self.queue_ids.resume();
        let unwinding = OnUnwind::new(|| tickets.iter().for_each(|&ticket| self.queue_ids.abandon(ticket)));
        for &ticket in &tickets {
            if limit.left() < LEAST_FOR_DELETION {
                self.queue_ids.abandon(ticket);
            } else {
                let _ = self.take_back(ticket, &mut limit);
            }
        }
        unwinding.end();
    }

    /// Keeps memory of a queue pair until the controller is known to use it no more.
    pub(crate) fn keep_for(&self, ticket: Ticket, retired: Retired) {
        self.queue_ids.keep_for(ticket, retired);
    }

    /// Deletes the blocking calls' own queue pair, within `limit`, if all I/O queue pairs are taken. The next such call
    /// makes another.
    pub(crate) fn free_queue_id(&self, limit: &mut Limit<'_>) {
        if self.queue_ids.has_free() {
            return;
        }
        // A blocking call has no commands in flight once it releases the gate; one under way keeps its queue
        // pair.
        let pass = limit.enter(&self.calls.queue);
        if let Some(mut queue) = pass.and_then(|mut slot| slot.take()) {
            self.end_queue(&mut queue, &mut DmaBuf::empty(), limit);
        }
    }
}

impl Member for Inner {
    fn name(&self) -> &str {
        self.name()
    }

    fn live(&self) -> &Arc<Live> {
        self.live()
    }

    fn queue_pairs(&self) -> (Vec<u16>, Vec<u16>) {
        self.queue_ids.pairs()
    }

    fn wait_for_blocking_call(&self, limit: &Limit<'_>) -> bool {
        limit.enter(&self.calls.queue).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Controller;

    /// Rings and lists are in regions that no buffer of a user leads to.
    #[test]
    fn no_buffer_is_in_a_region_of_rings_or_lists() {
        let controller = Controller::open("emu:size=1M").unwrap();
        let buffers = [512, 64 << 10].map(|len| controller.alloc(len).unwrap());
        let inner = controller.inner();
        let (sgl, mut limit) = ((None, SglUse::Never), inner.limit());
        let mut queue = create::<u64>(inner, 64, None, sgl, None, PRIORITY, &mut limit).unwrap();
        let ticket = inner.queue_ids.begin_deletion(queue.qid());
        assert!(inner.take_back(ticket, &mut limit).is_ok());
        let Retired(private) = queue.retire();
        assert_eq!(private.len(), 3, "two rings and the lists");
        let region = |buffer: &DmaBuf| buffer.region().map(|region| region.id());
        assert!(private.iter().all(|ring| buffers.iter().all(|buffer| region(ring) != region(buffer))));
    }

    /// A deletion whose call had no time left made the controller count as silent: no other queue pair was deleted
    /// then.
    #[test]
    fn a_deletion_without_time_does_not_blame_the_controller() {
        let controller = Controller::open("emu:size=1M").unwrap();
        let (inner, mut limit) = (controller.inner(), controller.inner().limit());
        let made = || {
            let sgl = (None, SglUse::Never);
            create::<u64>(inner, 8, None, sgl, None, PRIORITY, &mut inner.limit()).unwrap()
        };
        let (first, mut second) = (made(), made());
        let late = inner.queue_ids.begin_deletion(first.qid());
        assert!(inner.take_back(late, &mut inner.limit_of(Duration::ZERO)).is_err());
        assert!(inner.end_queue(&mut second, &mut DmaBuf::empty(), &mut limit));
        assert!(inner.queue_ids.is_gone(late), "the next deletion goes on with it");
    }
}
