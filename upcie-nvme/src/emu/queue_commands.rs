//! The admin commands that create and delete queues, Doorbell Buffer Config, and Abort.

use super::{
    Host, HostMemory,
    doorbell_buffers::DoorbellBuffers,
    flight::{Done, Flight},
    identify,
    media::Media,
    own_memory::OneMemory,
    queue::{Cq, Sq},
    queues::Queues,
    service,
    shared::Ring,
    state::Core,
};
use crate::spec::{
    AbortDword10, AdminOpcode, Command, CreateCqDword11, CreateQueueDword10, CreateSqDword11, Status,
};

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();
const INVALID_QUEUE_ID: Status = Status::INVALID_QUEUE_ID.with_do_not_retry();

impl<M: Media> Core<M> {
    pub fn create_cq(
        &mut self,
        queues: &mut Queues,
        host: &mut impl HostMemory,
        command: &Command,
    ) -> Result<u32, Status> {
        let (qid, entries) = self.new_queue(command, self.features.queues.1)?;
        let dword = CreateCqDword11::from_bits(command.cdw11);
        let slot = queues.cqs.get_mut(usize::from(qid)).filter(|cq| cq.is_none()).ok_or(INVALID_QUEUE_ID)?;
        if !dword.pc() {
            return Err(INVALID_FIELD);
        }
        let vector = dword.ien().then(|| dword.iv());
        if vector.is_some_and(|vector| vector >= self.vectors) {
            return Err(Status::INVALID_INTERRUPT_VECTOR.with_do_not_retry());
        }
        OneMemory::of(host).check(command.prp1(), entries as usize * 16)?;
        let ring = Ring::new(host, command.prp1(), entries);
        let cq = Cq::new(qid, entries, ring, self.doorbell(qid, true)?, vector);
        self.add_to_buffers(&mut queues.doorbell_buffers, host, (qid, true, entries))?;
        *slot = Some(cq);
        Ok(0)
    }

    pub fn create_sq(
        &mut self,
        queues: &mut Queues,
        host: &mut impl HostMemory,
        command: &Command,
    ) -> Result<u32, Status> {
        let (qid, entries) = self.new_queue(command, self.features.queues.0)?;
        let dword = CreateSqDword11::from_bits(command.cdw11);
        if queues.sqs.iter().any(|sq| sq.id == qid) {
            return Err(INVALID_QUEUE_ID);
        }
        if !dword.pc() {
            return Err(INVALID_FIELD);
        }
        let cqid = dword.cqid();
        if cqid == 0 || cqid > self.features.queues.1 {
            return Err(INVALID_QUEUE_ID);
        }
        let cq = queues.cqs.get_mut(usize::from(cqid)).and_then(Option::as_mut);
        let cq = cq.ok_or(Status::COMPLETION_QUEUE_INVALID.with_do_not_retry())?;
        OneMemory::of(host).check(command.prp1(), entries as usize * 64)?;
        let ring = Ring::new(host, command.prp1(), entries);
        let doorbell = self.doorbell(qid, false)?;
        let mut sq = Sq::new(qid, cqid, entries, ring, doorbell, !self.options.latency.is_zero());
        sq.priority = dword.qprio();
        self.add_to_buffers(&mut queues.doorbell_buffers, host, (qid, false, entries))?;
        queues.sqs.push(sq);
        cq.users += 1;
        Ok(0)
    }

    /// Parses the fields common to both kinds of queue: identifier and entries. `limit` is the largest
    /// identifier.
    fn new_queue(&self, command: &Command, limit: u16) -> Result<(u16, u32), Status> {
        let dword = CreateQueueDword10::from_bits(command.cdw10);
        let (qid, entries) = (dword.qid(), u32::from(dword.qsize()) + 1);
        if qid == 0 || qid > limit {
            return Err(INVALID_QUEUE_ID);
        }
        if !(2..=self.options.depth).contains(&entries) || !self.takes_io_queues {
            return Err(Status::INVALID_QUEUE_SIZE.with_do_not_retry());
        }
        if command.prp1() & (self.io.page - 1) != 0 {
            return Err(Status::PRP_OFFSET_INVALID.with_do_not_retry());
        }
        Ok((qid, entries))
    }

    /// Adds the doorbell of a new queue, whose identifier and entries are given, to the doorbell buffers, if there are any.
    fn add_to_buffers(
        &self,
        buffers: &mut Option<Box<DoorbellBuffers>>,
        host: &mut impl HostMemory,
        (qid, completion, entries): (u16, bool, u32),
    ) -> Result<(), Status> {
        let Some(buffers) = buffers else { return Ok(()) };
        let doorbell = self.doorbell(qid, completion)?;
        let added = buffers.add(host, (qid, completion, entries), doorbell);
        added.map_err(|_| Status::DATA_TRANSFER_ERROR)
    }

    /// Carries out Doorbell Buffer Config, for the queues that there are and those created later. A failed one leaves the buffers
    /// of the last.
    pub fn configure_doorbells(
        &self,
        queues: &mut Queues,
        host: &mut impl HostMemory,
        command: &Command,
    ) -> Result<u32, Status> {
        let (values, events, page) = (command.prp1(), command.prp2(), self.io.page);
        // Aligned pages overlap only if they are the same.
        if (values | events) & (page - 1) != 0 || values == events {
            return Err(INVALID_FIELD);
        }
        let mut buffers = DoorbellBuffers::new(host, (values, events), page).map_err(|_| INVALID_FIELD)?;
        let sqs = queues.sqs.iter().chain([&queues.admin_sq]).map(|sq| (sq.id, false, sq.entries));
        let cqs = queues.cqs.iter().flatten().chain([&queues.admin_cq]).map(|cq| (cq.id, true, cq.entries));
        for (qid, completion, entries) in sqs.chain(cqs) {
            let doorbell = self.doorbell(qid, completion)?;
            buffers.add(host, (qid, completion, entries), doorbell).map_err(|_| INVALID_FIELD)?;
        }
        queues.doorbell_buffers = Some(Box::new(buffers));
        Ok(0)
    }

    pub fn abort(
        &mut self,
        queues: &mut Queues,
        host: &mut impl Host,
        command: &Command,
    ) -> Result<u32, Status> {
        // Only a fault plan leaves an Abort without its completion.
        let is_abort = |flight: &&Flight| flight.command.opcode == AdminOpcode::ABORT.0;
        if queues.admin_sq.flights.iter().filter(is_abort).count() > usize::from(identify::AERL) {
            return Err(Status::ABORT_LIMIT_EXCEEDED);
        }
        let dword = AbortDword10::from_bits(command.cdw10);
        let (sqid, cid) = (dword.sqid(), dword.cid());
        if sqid == 0 {
            if let Some(at) = self.admin.requests.iter().position(|&request| request == cid) {
                self.admin.requests.remove(at);
                self.admin.done.push_back((Done { dw0: 0, cid, status: Status::ABORT_REQUESTED }, 0));
                return Ok(0);
            }
            return Ok(1);
        }
        let Some(sq) = queues.sqs.iter_mut().find(|sq| sq.id == sqid) else { return Err(INVALID_FIELD) };
        let Some(Some(cq)) = queues.cqs.get_mut(usize::from(sq.cq)) else { return Ok(1) };
        // An Abort can find a command only with `latency=` or a fault plan.
        if !matches!(cq.room(), Ok(1..)) {
            return Ok(1);
        }
        let Some(done) = sq.abort(cid).or_else(|| sq.abort_flight(cid)) else { return Ok(1) };
        cq.post(host, sq, done).map_err(|_| Status::INTERNAL_ERROR)?;
        cq.interrupt(host);
        Ok(0)
    }
}

pub(super) fn delete_sq(queues: &mut Queues, host: &mut impl Host, command: &Command) -> Result<u32, Status> {
    let qid = command.cdw10 as u16;
    let at = queues.sqs.iter().position(|sq| sq.id == qid).ok_or(INVALID_QUEUE_ID)?;
    let mut sq = queues.sqs.remove(at);
    sq.forget_doorbell();
    if let Some(buffers) = &mut queues.doorbell_buffers {
        buffers.remove(qid, false);
    }
    if let Some(Some(cq)) = queues.cqs.get_mut(usize::from(sq.cq)) {
        // Post finished commands as far as there is room; the others end with their queue.
        if let Err(fault) = service::release(&mut sq, cq, host, None) {
            tracing::debug!(sq = qid, ?fault, "completions of a deleted queue are lost");
        }
        cq.users = cq.users.saturating_sub(1);
    }
    Ok(0)
}

pub(super) fn delete_cq(queues: &mut Queues, command: &Command) -> Result<u32, Status> {
    let qid = command.cdw10 as u16;
    let slot = queues.cqs.get_mut(usize::from(qid)).filter(|cq| cq.is_some());
    let slot = slot.ok_or(INVALID_QUEUE_ID)?;
    if slot.as_ref().is_some_and(|cq| cq.users > 0) {
        return Err(Status::INVALID_QUEUE_DELETION.with_do_not_retry());
    }
    if let Some(cq) = slot.take() {
        cq.forget_doorbell();
    }
    if let Some(buffers) = &mut queues.doorbell_buffers {
        buffers.remove(qid, true);
    }
    Ok(0)
}
