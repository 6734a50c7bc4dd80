//! Sending what fio queued, and reaping what is done: no allocation, no lock, no panic.
//!
//! Turns are dropped by hand: a destructor for a panic that can't be would take the turn by reference, which keeps its
//! fields in memory. One that is leaked closes its queue, so a defect would not go unnoticed.

use crate::{
    errors::Failure,
    ffi::Op,
    job::{Job, Unsent},
    target::{RANGE_STRIDE, Target},
    waiting,
};
use libc::timespec;
use std::mem::ManuallyDrop;
use upcie_nvme::{Direction, DmaBuf, IoFlags, Refusal, Refused, spec::DatasetRange};

/// Sends all pending units: one turn, and one doorbell, for each queue.
///
/// # Safety
/// `job` is one of ours, and this thread's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_submit(job: *mut Job) {
    // SAFETY: the caller's promise.
    let job = unsafe { &mut *job };
    if let [target] = job.targets[..] {
        // SAFETY: a box of the job's; nothing else refers to it during the call.
        send(job, unsafe { &mut *target }, true);
        return;
    }
    for at in 0..job.targets.len() {
        let Some(&target) = job.targets.get(at) else { break };
        // SAFETY: as above.
        send(job, unsafe { &mut *target }, false);
    }
}

/// Sends the pending units of a target; `alone` says that all are.
#[inline(always)]
fn send(job: &mut Job, target: &mut Target, alone: bool) {
    let this: *mut Target = target;
    let Target { queue, namespace, held, base, piece, shift, in_flight, ranges, .. } = target;
    let (held, base, piece, shift) = (*held, *base, *piece, *shift);
    let Some(queue) = queue else { return };
    if job.broken != 0 {
        return;
    }
    let mut turn = match queue.turn() {
        Ok(turn) => ManuallyDrop::new(turn),
        Err(error) => return closed(job, error),
    };
    // SAFETY: the job's memory in the target's address space, or the empty buffer; both outlive the queue.
    let held = unsafe { &*held };
    let mut sent = 0;
    for at in 0..job.shared.queued as usize {
        // SAFETY: fio queues at most `depth` units between two commits.
        let pending = unsafe { job.shared.pending.add(at) };
        // SAFETY: as above.
        let index = unsafe { *pending };
        // SAFETY: the index of a unit is below `depth`.
        let slot = unsafe { job.shared.slots.add(index as usize) };
        // SAFETY: the shim has filled it in, and is not running now.
        let slot = unsafe { &mut *slot };
        if !alone && slot.target != this.cast() {
            continue;
        }
        let start = slot.buf.addr().wrapping_sub(base.addr());
        let slba = slot.offset >> shift;
        let unaligned = slot.offset & ((1 << shift) - 1) != 0;
        let op = slot.op.0;
        let direction = if slot.op == Op::READ { Direction::Read } else { Direction::Write };
        let flags = if slot.op == Op::WRITE_FUA { IoFlags::FUA } else { IoFlags::empty() };
        let len = slot.len as usize;
        slot.since = job.tick;
        let result = if op <= Op::WRITE_FUA.0 && len <= piece && !unaligned {
            // SAFETY: fio leaves a unit's buffer alone until it is done, and the memory is freed after the queue's end
            // only (`Job::free`).
            unsafe { turn.transfer_held(direction, namespace, slba, held, start, len, flags, index) }
                .map(|()| slot.pieces = 1)
        } else if unaligned {
            Err(refused(Refusal::Unaligned, index))
        } else if op <= Op::WRITE_FUA.0 {
            let mut done = 0;
            loop {
                let part = piece.min(len - done);
                let block = slba + (done >> shift) as u64;
                // SAFETY: as above.
                let result = unsafe {
                    turn.transfer_held(direction, namespace, block, held, start + done, part, flags, index)
                };
                match result {
                    Ok(()) => {
                        slot.pieces += 1;
                        done += part;
                    }
                    Err(refused) => break Err(refused),
                }
                if done == len {
                    break Ok(());
                }
            }
        } else if slot.op == Op::FLUSH {
            turn.flush(namespace, index).map(|()| slot.pieces = 1)
        } else if slot.op == Op::TRIM {
            let blocks = slot.len >> shift;
            let start = index as usize * RANGE_STRIDE;
            let range = DatasetRange::new(slba, blocks as u32).to_bytes();
            if ranges.len() < start + RANGE_STRIDE || blocks == 0 || blocks << shift != slot.len {
                Err(refused(Refusal::Length, index))
            } else if blocks > u64::from(u32::MAX) {
                Err(refused(Refusal::TooLong, index))
            } else {
                // Not by a call that may panic: none that may is made while the turn is open.
                // SAFETY: within the buffer, as just seen.
                let place = unsafe { ranges.as_ptr().add(start) };
                // SAFETY: the unit's own range, which no command uses now.
                unsafe { place.cast::<[u8; 16]>().write_unaligned(range) };
                // SAFETY: written to again when this command is done, and freed after the queue.
                unsafe { turn.deallocate_held(namespace, ranges, start, 1, index) }.map(|()| slot.pieces = 1)
            }
        } else {
            Err(refused(Refusal::NoCommand, index))
        };
        sent += slot.pieces;
        if let Err(Refused { reason, buffer, .. }) = result {
            // The empty one.
            std::mem::forget(buffer);
            // One more, for what was not sent: what is in flight of the unit is waited for.
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

#[inline(always)]
fn refused(reason: Refusal, tag: u32) -> Refused<u32> {
    Refused { reason, buffer: DmaBuf::empty(), tag }
}

#[cold]
#[inline(never)]
fn closed(job: &mut Job, error: upcie_nvme::Error) {
    job.break_off(&Failure::from(error));
}

/// Fills in events with all that is done, `least` or more within `timeout` (null: as long as a command may take), after
/// those that fio was not given yet. Gives how many there are, or a negative errno once nothing works any more.
///
/// # Safety
/// As for [`upcie_submit`]; `timeout` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_reap(job: *mut Job, least: u32, timeout: *const timespec) -> i32 {
    // SAFETY: the caller's promise.
    let job = unsafe { &mut *job };
    let most = job.shared.depth;
    if job.broken != 0 {
        // Nor is anything looked at any more: fio is told that nothing is in flight.
        (job.shared.next, job.shared.end) = (0, 0);
        return -job.broken;
    }
    let mut found = take(job);
    if found < least {
        // SAFETY: as above.
        found = waiting::reap_more(job, found, least.min(most), most, unsafe { timeout.as_ref() });
    }
    (job.shared.next, job.shared.end) = (0, found);
    job.given = job.given.wrapping_add(u64::from(found));
    if found == 0 && job.broken != 0 { -job.broken } else { found as i32 }
}

/// Fills in events with all that is done, after those that fio was not given yet; gives how many there are.
#[inline(always)]
fn take(job: &mut Job) -> u32 {
    let kept = if job.shared.next == job.shared.end { 0 } else { to_the_front(job) };
    look(job, kept, job.shared.depth)
}

/// Has what is done ready for when fio asks.
#[cold]
#[inline(never)]
pub(crate) fn gather(job: &mut Job) {
    let found = take(job);
    (job.shared.next, job.shared.end) = (0, found);
}

/// Moves the events that fio was not given yet to the front; gives how many.
#[cold]
#[inline(never)]
fn to_the_front(job: &mut Job) -> u32 {
    let kept = job.shared.end - job.shared.next;
    // SAFETY: `next` is not beyond `end`, nor that beyond `depth`.
    let first = unsafe { job.shared.events.add(job.shared.next as usize) };
    // SAFETY: as above; the two may overlap.
    unsafe { first.copy_to(job.shared.events, kept as usize) };
    kept
}

/// Looks once at each queue, from event `found` on; gives how many there are then.
#[inline(never)]
pub(crate) fn reap(job: &mut Job, found: u32, most: u32) -> u32 {
    look(job, found, most)
}

#[inline(always)]
fn look(job: &mut Job, mut found: u32, most: u32) -> u32 {
    if job.unsent_count > 0 {
        found = reap_unsent(job, found, most);
    }
    if let [target] = job.targets[..] {
        // SAFETY: a box of the job's; nothing else refers to it during the call.
        return reap_target(job, unsafe { &mut *target }, found, most);
    }
    reap_each(job, found, most)
}

#[cold]
#[inline(never)]
fn reap_each(job: &mut Job, mut found: u32, most: u32) -> u32 {
    for at in 0..job.targets.len() {
        let Some(&target) = job.targets.get(at) else { break };
        // SAFETY: as above.
        let target = unsafe { &mut *target };
        if target.in_flight > 0 {
            found = reap_target(job, target, found, most);
        }
    }
    found
}

#[inline(always)]
fn reap_target(job: &mut Job, target: &mut Target, mut found: u32, most: u32) -> u32 {
    let Some(queue) = &mut target.queue else { return found };
    let mut turn = match queue.turn() {
        Ok(turn) => ManuallyDrop::new(turn),
        Err(error) => {
            closed(job, error);
            return found;
        }
    };
    while found < most {
        let Some(done) = turn.next() else { break };
        let status = done.status();
        let (index, _, buffer) = done.into_parts();
        // The empty one, as no command carries any other.
        std::mem::forget(buffer);
        target.in_flight -= 1;
        // SAFETY: the tag of a command is its unit's index.
        let slot = unsafe { job.shared.slots.add(index as usize) };
        // SAFETY: no other reference to it is alive here.
        let slot = unsafe { &mut *slot };
        slot.pieces -= 1;
        let (pieces, unit) = (slot.pieces, slot.unit);
        if !status.is_success() {
            job.command_failed(index, status);
        }
        if pieces == 0 {
            // SAFETY: `found` is below `depth`.
            let event = unsafe { job.shared.events.add(found as usize) };
            // SAFETY: as above.
            unsafe { *event = unit };
            found += 1;
        }
    }
    drop(ManuallyDrop::into_inner(turn));
    found
}

/// Units that were not sent, or in part: those of which nothing is in flight.
#[cold]
#[inline(never)]
fn reap_unsent(job: &mut Job, mut found: u32, most: u32) -> u32 {
    let mut kept = 0;
    for at in 0..job.unsent_count {
        let Some(&unsent) = job.unsent.get(at) else { break };
        // SAFETY: the index of a unit is below `depth`.
        let slot = unsafe { job.shared.slots.add(unsent.index as usize) };
        // SAFETY: no other reference to it is alive here.
        let slot = unsafe { &mut *slot };
        if slot.pieces == 1 && found < most {
            slot.pieces = 0;
            let unit = slot.unit;
            job.unit_unsent(unsent);
            // SAFETY: `found` is below `depth`.
            let event = unsafe { job.shared.events.add(found as usize) };
            // SAFETY: as above.
            unsafe { *event = unit };
            found += 1;
        } else if let Some(place) = job.unsent.get_mut(kept) {
            *place = unsent;
            kept += 1;
        }
    }
    job.unsent_count = kept;
    found
}
