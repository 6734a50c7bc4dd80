//! The I/O of jobs that need more than plain reads and writes: metadata, protection information, other commands, or blocks
//! whose size is no power of two. `hot.rs` calls this file instead of its own loops where a target has no plain queue.

use crate::{
    errors::Failure,
    ffi::{self, Op, Slot},
    form::Form,
    job::{Job, Unsent},
    metadata::MetadataMemory,
    options::WriteMode,
    target::{RANGE_STRIDE, Target},
};
use std::{mem::ManuallyDrop, ops::Range};
use upcie_nvme::{
    Direction, DmaBuf, Io, IoFlags, Namespace, QueuePair, Refusal, Refused, Turn, Zeroes,
    protection::Protect,
    spec::{DatasetRange, DirectiveType},
};

/// The queue of a target whose units need more than plain reads and writes.
#[derive(Debug)]
pub(crate) struct Custom {
    pub(crate) queue: QueuePair<u32>,
    pub(crate) form: Form,
    pub(crate) metadata: MetadataMemory,
    /// The protection of Verify commands, and of Write Zeroes.
    pub(crate) verified: Option<Protect>,
    pub(crate) zeroed: Option<Protect>,
    /// Reads of the current reap whose protection information is to be checked; with room for all units.
    pub(crate) to_check: Vec<u32>,
}

/// A part of a unit, which one command carries out.
struct Part {
    slba: u64,
    blocks: u64,
    /// Byte range of the part in the job's memory.
    bytes: Range<usize>,
    /// Byte range of the part's metadata in the metadata memory.
    metadata: Range<usize>,
    /// The directive of a write.
    directive: Option<(DirectiveType, u16)>,
}

/// Submits the pending units of a target, with one doorbell; with `alone` all units are the target's.
#[inline(never)]
pub(crate) fn submit(job: &mut Job, target: *mut Target, alone: bool) {
    if job.broken != 0 {
        return;
    }
    // SAFETY: the caller has a box of the job's, and uses no other reference to it during the call.
    let this = unsafe { &mut *target };
    let Target { custom: Some(custom), namespace, held, base, in_flight, ranges, .. } = this else { return };
    let custom = &mut **custom;
    let pending = |job: &Job, at: usize| {
        // SAFETY: fio queues at most `depth` units between two commits.
        let entry = unsafe { job.shared.pending.add(at) };
        // SAFETY: the entry is below `queued`, so the shim has written it.
        let index = unsafe { *entry };
        // SAFETY: the index of a unit is below `depth`.
        let slot = unsafe { job.shared.slots.add(index as usize) };
        // SAFETY: the shim has filled in the slot.
        let is_mine = alone || unsafe { &*slot }.target == target.cast();
        is_mine.then_some((index, slot))
    };
    // Before the turn: whatever goes wrong here leaves the queue alone.
    for at in 0..job.shared.queued as usize {
        let Some((index, slot)) = pending(job, at) else { continue };
        // SAFETY: the shim is not running now, and no other reference to the slot is alive.
        custom.prepare(job.thread, index, unsafe { &mut *slot });
    }
    let mut turn = match custom.queue.turn() {
        Ok(turn) => ManuallyDrop::new(turn),
        Err(error) => return job.abort_job(&Failure::from(error)),
    };
    let source = Source {
        namespace,
        // SAFETY: the job's memory in the target's address space, or the empty buffer; both outlive the queue.
        held: unsafe { &**held },
        base: base.addr(),
        ranges,
        form: &custom.form,
        metadata: &custom.metadata,
        verified: custom.verified,
        zeroed: custom.zeroed,
    };
    let mut sent = 0;
    for at in 0..job.shared.queued as usize {
        let Some((index, slot)) = pending(job, at) else { continue };
        // SAFETY: the shim is not running now, and no other reference to the slot is alive.
        let slot = unsafe { &mut *slot };
        slot.since = job.tick;
        let result = source.send(&mut turn, slot, index);
        sent += slot.pieces;
        if let Err(reason) = result {
            // Add one for the part that was not submitted, so that the unit's commands in flight are waited for.
            slot.pieces += 1;
            if let Some(unsent) = job.unsent.get_mut(job.unsent_count) {
                *unsent = Unsent { index, reason };
                job.unsent_count += 1;
            }
        }
    }
    *in_flight += sent;
    drop(ManuallyDrop::into_inner(turn));
}

/// Polls the queue of a target once, filling in events from `found` on, and returns their number.
#[inline(never)]
pub(crate) fn reap(job: &mut Job, target: &mut Target, mut found: u32, most: u32) -> u32 {
    let Some(custom) = target.custom.as_deref_mut() else { return found };
    let mut turn = match custom.queue.turn() {
        Ok(turn) => ManuallyDrop::new(turn),
        Err(error) => {
            job.abort_job(&Failure::from(error));
            return found;
        }
    };
    custom.to_check.clear();
    while found < most {
        let Some(done) = turn.next() else { break };
        let status = done.status();
        let (index, _, buffer) = done.into_parts();
        // The buffer is the empty one, as for every command here, and its drop does nothing.
        std::mem::forget(buffer);
        target.in_flight -= 1;
        // SAFETY: the tag of a command is its unit's index.
        let slot = unsafe { job.shared.slots.add(index as usize) };
        // SAFETY: no other reference to the slot is alive here.
        let slot = unsafe { &mut *slot };
        slot.pieces -= 1;
        slot.failed |= u32::from(!status.is_success());
        let Slot { pieces, unit, op, failed, .. } = *slot;
        if !status.is_success() {
            job.command_failed(index, status);
        }
        if pieces == 0 {
            if op == Op::READ && failed == 0 && custom.form.in_software {
                custom.to_check.push(index);
            }
            // SAFETY: `found` is below `depth`.
            let event = unsafe { job.shared.events.add(found as usize) };
            // SAFETY: `event` points to an entry of the array.
            unsafe { *event = unit };
            found += 1;
        }
    }
    drop(ManuallyDrop::into_inner(turn));
    // After the turn, and before fio sees the events.
    for index in custom.to_check.drain(..) {
        // SAFETY: the index of a unit is below `depth`.
        let slot = unsafe { job.shared.slots.add(index as usize) };
        // SAFETY: no other reference to the slot is alive here.
        let slot = unsafe { &*slot };
        if let Err(error) = custom.metadata.check(&custom.form, index, slot) {
            job.protection_failed(index, &error);
        }
    }
    found
}

impl Custom {
    /// Readies the memory of a unit before its submission.
    fn prepare(&self, thread: *mut std::ffi::c_void, index: u32, slot: &mut Slot) {
        (slot.pieces, slot.failed, slot.directive) = (0, 0, 0);
        if self.form.is_directed && matches!(slot.op, Op::WRITE | Op::WRITE_FUA) {
            slot.directive = ffi::directive(slot.unit);
        }
        match slot.op {
            // The call fills in the pattern.
            Op::READ if self.form.compares && ffi::fill_expected(thread, slot.unit) => slot.op = Op::COMPARE,
            Op::WRITE | Op::WRITE_FUA => match self.form.write_mode {
                WriteMode::Write if self.form.in_software => self.metadata.generate(&self.form, index, slot),
                WriteMode::Write => {}
                WriteMode::Uncorrectable => slot.op = Op::UNCORRECTABLE,
                WriteMode::Zeroes if slot.op == Op::WRITE => slot.op = Op::ZEROES,
                WriteMode::Zeroes => slot.op = Op::ZEROES_FUA,
                WriteMode::Verify => slot.op = Op::VERIFY,
            },
            _ => {}
        }
    }
}

/// All that the commands of a target are made of.
struct Source<'t> {
    namespace: &'t Namespace,
    held: &'t DmaBuf,
    base: usize,
    ranges: &'t DmaBuf,
    form: &'t Form,
    metadata: &'t MetadataMemory,
    verified: Option<Protect>,
    zeroed: Option<Protect>,
}

impl Source<'_> {
    /// Submits the commands of a unit, and counts them in `pieces`.
    fn send(&self, turn: &mut Turn<'_, u32>, slot: &mut Slot, index: u32) -> Result<(), Refusal> {
        let block = self.form.block;
        if slot.op == Op::FLUSH {
            return sent(slot, turn.flush(self.namespace, index));
        }
        if !slot.offset.is_multiple_of(block) {
            return Err(Refusal::Unaligned);
        }
        let (slba, blocks) = (slot.offset / block, slot.len / block);
        if blocks == 0 || blocks * block != slot.len {
            return Err(Refusal::Length);
        }
        if slot.op == Op::TRIM {
            return self.trim(turn, slot, index, (slba, blocks));
        }
        let most = match slot.op {
            Op::READ | Op::WRITE | Op::WRITE_FUA | Op::COMPARE => self.form.most_moved,
            _ => self.form.most_written,
        };
        let directive = directive(slot.directive);
        let start = slot.buf.addr().wrapping_sub(self.base);
        let apart = self.metadata.range(index, self.form.metadata_of(slot.len)).start;
        let mut done = 0;
        while done < blocks {
            let count = most.min(blocks - done);
            let place = |from: usize, size: u64| {
                let first = from.wrapping_add((done * size) as usize);
                first..first.wrapping_add((count * size) as usize)
            };
            let part = Part {
                slba: slba + done,
                blocks: count,
                bytes: place(start, block),
                metadata: place(apart, self.form.metadata),
                directive,
            };
            let result = self.send_part(turn, slot.op, part, index);
            sent(slot, result)?;
            done += count;
        }
        Ok(())
    }

    /// Submits one command for a part of a unit.
    fn send_part(&self, turn: &mut Turn<'_, u32>, op: Op, part: Part, tag: u32) -> Result<(), Refused<u32>> {
        let (namespace, Part { slba, blocks, bytes, metadata, directive }) = (self.namespace, part);
        match op {
            Op::READ | Op::WRITE | Op::WRITE_FUA => {
                let direction = if op == Op::READ { Direction::Read } else { Direction::Write };
                let flags = if op == Op::WRITE_FUA { IoFlags::FUA } else { IoFlags::empty() };
                let mut io = Io::new(direction, namespace, slba).flags(flags);
                if let Some(protect) = self.form.protect {
                    io = io.protect(protect);
                }
                if let Some((kind, specific)) = directive {
                    io = io.directive(kind, specific);
                }
                if self.form.metadata == 0 {
                    // SAFETY: fio does not touch a unit's buffer until the unit is done, and `Job::free` frees the memory only
                    // after the queue's end.
                    return unsafe { turn.submit_held(io, self.held, bytes, tag) };
                }
                let (data, metadata) = ((self.held, bytes), (self.metadata.buffer(), metadata));
                // SAFETY: fio does not touch a unit's buffer until the unit is done, and the metadata is the unit's own; both
                // are freed only after the queue's end.
                unsafe { turn.submit_held_with_metadata(io, data, metadata, tag) }
            }
            // SAFETY: fio does not touch a unit's buffer until the unit is done, and `Job::free` frees the memory only after
            // the queue's end.
            Op::COMPARE => unsafe { turn.compare_held(namespace, slba, self.held, bytes, tag) },
            Op::ZEROES | Op::ZEROES_FUA => {
                let mut zeroes = Zeroes::new(namespace, slba, blocks as u32);
                if op == Op::ZEROES_FUA {
                    zeroes = zeroes.fua();
                }
                if let Some(protect) = self.zeroed {
                    zeroes = zeroes.protect(protect);
                }
                if let Some((kind, specific)) = directive {
                    zeroes = zeroes.directive(kind, specific);
                }
                turn.write_zeroes(zeroes, tag)
            }
            Op::UNCORRECTABLE => turn.write_uncorrectable(namespace, slba, blocks as u32, tag),
            Op::VERIFY => match self.verified {
                Some(protect) => turn.verify_protected(namespace, slba, blocks as u32, protect, tag),
                None => turn.verify(namespace, slba, blocks as u32, tag),
            },
            _ => Err(Refused { reason: Refusal::NoCommand, buffer: DmaBuf::empty(), tag }),
        }
    }

    /// Submits a deallocation of all blocks of a unit.
    fn trim(
        &self,
        turn: &mut Turn<'_, u32>,
        slot: &mut Slot,
        index: u32,
        (slba, blocks): (u64, u64),
    ) -> Result<(), Refusal> {
        let count = u32::try_from(blocks).map_err(|_| Refusal::TooLong)?;
        let start = index as usize * RANGE_STRIDE;
        if self.ranges.len() < start + RANGE_STRIDE {
            return Err(Refusal::Length);
        }
        let range = DatasetRange::new(slba, count).to_bytes();
        // SAFETY: `start` and the range are within the buffer, as checked.
        let place = unsafe { self.ranges.as_ptr().add(start) };
        // SAFETY: the unit's own range, which no command uses now.
        unsafe { place.cast::<[u8; 16]>().write_unaligned(range) };
        // SAFETY: the range is written again only when this command is done, and freed after the queue.
        sent(slot, unsafe { turn.deallocate_held(self.namespace, self.ranges, start..start + 16, index) })
    }
}

/// Returns the type and the subject (DSPEC) of the directive that fio has chosen for a unit.
fn directive(of_unit: u32) -> Option<(DirectiveType, u16)> {
    (of_unit != 0).then_some((DirectiveType((of_unit >> 16) as u8), of_unit as u16))
}

/// Counts a command that was submitted, or returns why it was not.
fn sent(slot: &mut Slot, result: Result<(), Refused<u32>>) -> Result<(), Refusal> {
    match result {
        Ok(()) => {
            slot.pieces += 1;
            Ok(())
        }
        Err(Refused { reason, buffer, .. }) => {
            // The buffer is the empty one, whose drop does nothing.
            std::mem::forget(buffer);
            Err(reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DirectiveType, directive};

    #[test]
    fn a_directive_has_a_type_and_a_subject() {
        assert_eq!(directive(0), None);
        assert_eq!(directive(2 << 16), Some((DirectiveType::DATA_PLACEMENT, 0)));
        assert_eq!(directive(2 << 16 | 0xc003), Some((DirectiveType::DATA_PLACEMENT, 0xc003)));
        assert_eq!(directive(1 << 16 | 7), Some((DirectiveType::STREAMS, 7)));
    }
}
