//! Commands: submitted, reaped and compared with the model.

use super::{Broken, Class, Io, Pending, Run};
use crate::{
    ledger::Ticket,
    stamp::{BLOCK, ZEROS, stamped},
};
use upcie_core::{clock::Clock, dma::DmaBuf};
use upcie_nvme::{
    Completion, Controller, Failure, QueuePair, Refusal, ResetKind, Zeroes,
    queue::OnTimeout,
    spec::{DatasetRange, NvmOpcode, Status},
};

/// The most blocks of a command: MDTS of the case's options.
const MOST: u32 = (16 << 10) / BLOCK as u32;

impl Run<'_> {
    /// Opens a turn: reaps everything, then submits commands as far as there is room, then resets the controller if `reset`.
    /// Returns `true` if the queue took the turn.
    pub(super) fn turn(&mut self, at: usize, commands: &[Io], reset: bool) -> Result<bool, Broken> {
        let Some(mut queue) = self.queues[at].take() else { return Ok(false) };
        let result = self.turn_of(&mut queue, at, commands, reset);
        self.queues[at] = Some(queue);
        self.renew_namespace()?;
        match result? {
            None => Ok(true),
            Some(error) => self.trouble(at, &error).map(|()| false),
        }
    }

    /// Returns the error of the queue if it takes no turn.
    fn turn_of(
        &mut self,
        queue: &mut QueuePair<Ticket>,
        at: usize,
        commands: &[Io],
        reset: bool,
    ) -> Result<Option<upcie_nvme::Error>, Broken> {
        let (mut expected, left) = (queue.is_ready() && queue.in_flight() > 0, queue.in_flight());
        let qid = queue.id();
        let mut turn = match queue.turn() {
            Ok(turn) => turn,
            Err(error) => return Ok(Some(error)),
        };
        for done in turn.by_ref() {
            expected = false;
            self.reaped(done, at)?;
        }
        if expected {
            drop(turn);
            return match queue.turn() {
                Ok(_) => Err(format!(
                    "a completion is there, and a turn with {left} in flight neither takes nor refuses it"
                )),
                Err(error) => Ok(Some(error)),
            };
        }
        for &io in commands {
            let Some((controller, namespace)) = &self.open else { break };
            if turn.room() == 0 {
                break;
            }
            let (id, version) = (self.next + 1, self.version(io, self.next + 1));
            let buffer = buffer(controller, io, version).map_err(|error| error.to_string())?;
            let iova = if buffer.is_empty() { 0 } else { buffer.iova(0) };
            let ticket = self.ledger.issue(id);
            let sent = match io.opcode {
                NvmOpcode::READ => turn.read(namespace, io.lba, buffer, ticket),
                NvmOpcode::WRITE => turn.write(namespace, io.lba, buffer, ticket),
                NvmOpcode::FLUSH => turn.flush(namespace, ticket),
                NvmOpcode::WRITE_ZEROES => {
                    turn.write_zeroes(Zeroes::new(namespace, io.lba, io.blocks), ticket)
                }
                _ => turn.deallocate(namespace, buffer, 1, ticket),
            };
            self.next = id;
            match sent {
                Ok(()) => self.submitted(id, at, io, version, iova),
                Err(refused) if refused.tag.id != id => {
                    return Err("a refused command has another tag".into());
                }
                Err(refused) if matches!(refused.reason, Refusal::Full) && turn.room() == 0 => break,
                // Lists of long transfers come from a pool that may run out.
                Err(refused) if matches!(refused.reason, Refusal::ListsInUse) => break,
                // A notice has arrived.
                Err(refused) if matches!(refused.reason, Refusal::StaleNamespace) && self.may_be_stale() => {
                    self.is_stale = true;
                    break;
                }
                Err(refused) => return Err(format!("{io} was refused: {}", refused.reason)),
            }
        }
        if reset {
            let is_up = self.reset(ResetKind::Controller);
            drop(turn);
            is_up?;
            if self.is_strict() && self.world.is_rung(qid).map_err(|error| error.to_string())? {
                return Err("a turn rings a doorbell after a reset".into());
            }
        }
        Ok(None)
    }

    /// Returns `true` if the namespace handle may be stale: by a notice, since no new one was to be had, or by a reset in which the
    /// controller did not say that the namespace is as it was.
    fn may_be_stale(&self) -> bool {
        self.case.events || self.is_stale || self.case.may_fail_anywhere()
    }

    /// Returns the version that a command writes.
    fn version(&self, io: Io, id: u64) -> u64 {
        if io.opcode == NvmOpcode::WRITE { id } else { ZEROS }
    }

    fn submitted(&mut self, id: u64, queue: usize, io: Io, version: u64, iova: u64) {
        let since = if writes(io) { self.written_from_now(io, version) } else { 0 };
        let read = (io.opcode == NvmOpcode::READ).then(|| self.model.read(io.lba, io.blocks));
        let flush = (io.opcode == NvmOpcode::FLUSH).then(|| self.model.flush());
        let sent = self.world.now();
        self.pending.insert(id, Pending { queue, io, version, since, read, flush, iova, sent });
    }

    /// Notes a write in flight, for itself and for the reads and flushes that may see it.
    pub(super) fn written_from_now(&mut self, io: Io, version: u64) -> u64 {
        let (mut reads, mut flushes) = (Vec::new(), Vec::new());
        for pending in self.pending.values_mut() {
            reads.extend(&mut pending.read);
            flushes.extend(&mut pending.flush);
        }
        self.model.write((io.lba, io.blocks), version, reads.into_iter(), flushes.into_iter())
    }

    pub(super) fn reaped(&mut self, done: Completion<Ticket>, at: usize) -> Result<(), Broken> {
        let (ticket, result, buffer) = done.into_parts();
        let text = result.as_ref().map_or_else(ToString::to_string, |()| "ok".into());
        let Some(pending) = self.pending.remove(&ticket.id).filter(|pending| pending.queue == at) else {
            return Err(format!("command {} came back, and was not in flight", ticket.id));
        };
        self.world.note(format_args!("  {} ({}) came back: {text}", ticket.id, pending.io));
        let iova = if buffer.is_empty() { 0 } else { buffer.iova(0) };
        if iova != pending.iova {
            return Err(format!("command {} came back with another buffer", ticket.id));
        }
        if let (Some(read), Ok(())) = (&pending.read, &result) {
            self.check_read(read, &buffer.to_vec())?;
        }
        let aborted = self.limits[at].is_some_and(|limit| limit.policy == OnTimeout::Abort)
            && result == Err(Status::ABORT_REQUESTED);
        let may_fail = !matches!(self.case.class, Class::Healthy | Class::Power | Class::Hanging);
        if result.is_err() && !may_fail && !aborted {
            return Err(format!("command {} ({}) failed without a cause: {text}", ticket.id, pending.io));
        }
        self.ended(pending, result.is_ok());
        Ok(())
    }

    /// Notes the end of a command for the model.
    pub(super) fn ended(&mut self, pending: Pending, success: bool) {
        let Pending { io, version, since, flush, .. } = pending;
        if writes(io) {
            self.model.written((io.lba, io.blocks), version, since, success);
        }
        if let Some(flush) = flush.filter(|_| success) {
            self.model.flushed(flush);
        }
    }

    /// Makes a blocking call.
    pub(super) fn blocking(&mut self, io: Io) -> Result<(), Broken> {
        let Some((controller, namespace)) = self.open.take() else { return Ok(()) };
        let id = self.next + 1;
        self.next = id;
        let version = self.version(io, id);
        let (offset, len) = (io.lba * BLOCK as u64, io.blocks as usize * BLOCK);
        let (read, flush) = (self.model.read(io.lba, io.blocks), self.model.flush());
        let since = if writes(io) { self.written_from_now(io, version) } else { 0 };
        let mut data = vec![0; len];
        let known: Vec<u16> = self.queues.iter().flatten().map(QueuePair::id).collect();
        let fetched = self.world.fetched_beside(&known);
        let result = match io.opcode {
            NvmOpcode::READ => namespace.read_at(offset, &mut data),
            NvmOpcode::WRITE => namespace.write_at(offset, &content(io, version)),
            NvmOpcode::FLUSH => namespace.flush(),
            NvmOpcode::WRITE_ZEROES => namespace.write_zeroes(io.lba, io.blocks.into()),
            _ => namespace.deallocate(&[DatasetRange::new(io.lba, io.blocks)]),
        };
        self.open = Some((controller, namespace));
        self.world.note(format_args!("  {}", if result.is_ok() { "ok" } else { "failed" }));
        let fetched = self.world.fetched_beside(&known) - fetched;
        // A queue that the controller did not delete goes on.
        let is_alone = self.case.class != Class::Admin;
        if is_alone && io.opcode == NvmOpcode::WRITE && fetched > u64::from(io.blocks.div_ceil(MOST)) {
            return Err(format!("it was sent as {fetched} commands"));
        }
        let success = result.is_ok();
        if success && io.opcode == NvmOpcode::READ {
            self.check_read(&read, &data)?;
        }
        if success && io.opcode == NvmOpcode::FLUSH {
            self.model.flushed(flush);
        }
        // After a failure in `Hanging` the controller may still work on the command.
        if writes(io) && (success || self.case.class == Class::Failing) {
            self.model.written((io.lba, io.blocks), version, since, success);
        }
        if result.as_ref().is_err_and(|error| self.may_be_stale() && is_stale(error)) {
            self.is_stale = true;
            return self.renew_namespace();
        }
        match result {
            Err(error) if !matches!(self.case.class, Class::Failing | Class::Hanging) => self.excuse(&error),
            _ => Ok(()),
        }
    }
}

/// Returns `true` if the call was refused because a notice has made its namespace handle stale.
fn is_stale(error: &upcie_nvme::Error) -> bool {
    matches!(error.failure(), Failure::Refused { reason: Refusal::StaleNamespace, .. })
}

fn writes(io: Io) -> bool {
    !matches!(io.opcode, NvmOpcode::READ | NvmOpcode::FLUSH)
}

/// Returns the bytes of a write.
fn content(io: Io, version: u64) -> Vec<u8> {
    (io.lba..io.lba + u64::from(io.blocks)).flat_map(|lba| stamped(lba, version)).collect()
}

/// Makes the buffer of a command.
fn buffer(controller: &Controller, io: Io, version: u64) -> Result<DmaBuf, upcie_nvme::Error> {
    let len = io.blocks as usize * BLOCK;
    Ok(match io.opcode {
        NvmOpcode::READ => {
            let mut buffer = controller.alloc(len)?;
            buffer.fill(0xee);
            buffer
        }
        NvmOpcode::WRITE => {
            let mut buffer = controller.alloc(len)?;
            buffer.write_at(0, &content(io, version));
            buffer
        }
        NvmOpcode::DATASET_MANAGEMENT => {
            let mut buffer = controller.alloc(4096)?;
            buffer.write_at(0, &DatasetRange::new(io.lba, io.blocks).to_bytes());
            buffer
        }
        _ => DmaBuf::empty(),
    })
}
