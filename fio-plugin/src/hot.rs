//! Submits queued units and reaps completions: no allocation, no lock, no panic.
//!
//! The unwind path would reap_all `&mut Turn` and force its fields to the stack; `ManuallyDrop` removes it. A leaked turn
//! closes its queue, so a defect here would be noticed.

use crate::{
    custom,
    errors::Failure,
    ffi::Op,
    job::{Job, TargetPtr, Unsent},
    target::{RANGE_STRIDE, Target},
    waiting,
};
use libc::timespec;
use std::mem::ManuallyDrop;
use upcie_nvme::{Direction, DmaBuf, Io, IoFlags, Refusal, Refused, spec::DatasetRange};

/// Submits all pending units, with one turn and one doorbell for each queue.
///
/// # Safety
/// `job` is a live job, and only this thread uses it now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_submit(job: *mut Job) {
    // SAFETY: the caller promises that only this thread uses the live job.
    let job = unsafe { &mut *job };
    if let [TargetPtr(target)] = job.targets[..] {
        // SAFETY: a box of the job's; nothing else refers to it during the call.
        submit(job, unsafe { &mut *target }, true);
        return;
    }
    for at in 0..job.targets.len() {
        let Some(&TargetPtr(target)) = job.targets.get(at) else { break };
        // SAFETY: a box of the job's; nothing else refers to it during the call.
        submit(job, unsafe { &mut *target }, false);
    }
}

/// Submits the pending units of a target; with `alone` all units are the target's.
#[inline(always)]
fn submit(job: &mut Job, target: &mut Target, alone: bool) {
    let this: *mut Target = target;
    let Target { queue, namespace, held, base, piece, shift, in_flight, ranges, .. } = target;
    let (held, base, piece, shift) = (*held, *base, *piece, *shift);
    let Some(queue) = queue else { return custom::submit(job, target, alone) };
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
        // SAFETY: the entry is below `queued`, so the shim has written it.
        let index = unsafe { *pending };
        // SAFETY: the index of a unit is below `depth`.
        let slot = unsafe { job.shared.slots.add(index as usize) };
        // SAFETY: the shim has filled in the slot, and is not running now.
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
        let io = |slba| Io::new(direction, &*namespace, slba).flags(flags);
        let len = slot.len as usize;
        slot.since = job.tick;
        let result = if op <= Op::WRITE_FUA.0 && len <= piece && !unaligned {
            // SAFETY: fio does not touch a unit's buffer until the unit is done, and `Job::free` frees the memory only
            // after the queue's end.
            unsafe { turn.submit_held(io(slba), held, start..start.wrapping_add(len), index) }
                .map(|()| slot.pieces = 1)
        } else if unaligned {
            Err(refused(Refusal::Unaligned, index))
        } else if op <= Op::WRITE_FUA.0 {
            let mut done = 0;
            loop {
                let part = piece.min(len - done);
                let block = slba + (done >> shift) as u64;
                let from = start.wrapping_add(done);
                // SAFETY: fio does not touch a unit's buffer until the unit is done, and `Job::free` frees the memory
                // only after the queue's end.
                let result =
                    unsafe { turn.submit_held(io(block), held, from..from.wrapping_add(part), index) };
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
                // A method of the buffer could panic, and no panic may happen while the turn is open.
                // SAFETY: `start` and the range are within the buffer, as checked.
                let place = unsafe { ranges.as_ptr().add(start) };
                // SAFETY: the unit's own range, which no command uses now.
                unsafe { place.cast::<[u8; 16]>().write_unaligned(range) };
                // SAFETY: the range is written again only when this command is done, and freed after the queue.
                unsafe { turn.deallocate_held(namespace, ranges, start..start + 16, index) }
                    .map(|()| slot.pieces = 1)
            }
        } else {
            Err(refused(Refusal::NoCommand, index))
        };
        sent += slot.pieces;
        if let Err(Refused { reason, buffer, .. }) = result {
            // The buffer is the empty one, whose drop does nothing.
            std::mem::forget(buffer);
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

#[inline(always)]
fn refused(reason: Refusal, tag: u32) -> Refused<u32> {
    Refused { reason, buffer: DmaBuf::empty(), tag }
}

#[cold]
#[inline(never)]
fn closed(job: &mut Job, error: upcie_nvme::Error) {
    job.abort_job(&Failure::from(error));
}

/// Fills in events for all completed units, at least `least` of them within `timeout` (null: within the timeout of a
/// command), after those that fio has not received yet. Returns their number, or a negative errno once the job is broken.
///
/// # Safety
/// The caller owes the same as for [`upcie_submit`]; `timeout` is null or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn upcie_reap(job: *mut Job, least: u32, timeout: *const timespec) -> i32 {
    // SAFETY: the caller promises that only this thread uses the live job.
    let job = unsafe { &mut *job };
    let most = job.shared.depth;
    if job.broken != 0 {
        // A broken job polls nothing any more: report to fio that nothing is in flight.
        (job.shared.next, job.shared.end) = (0, 0);
        return -job.broken;
    }
    let mut found = reap_all(job);
    if found < least {
        // SAFETY: the caller promises that `timeout` is null or valid.
        found = waiting::reap_more(job, found, least.min(most), most, unsafe { timeout.as_ref() });
    }
    (job.shared.next, job.shared.end) = (0, found);
    job.given = job.given.wrapping_add(u64::from(found));
    if found == 0 && job.broken != 0 { -job.broken } else { found as i32 }
}

/// Fills in events for all completed units, after those that fio has not received yet, and returns their number.
#[inline(always)]
fn reap_all(job: &mut Job) -> u32 {
    let kept = if job.shared.next == job.shared.end { 0 } else { move_events_to_front(job) };
    poll_queues(job, kept, job.shared.depth)
}

/// Fills in events now, for fio's next request.
#[cold]
#[inline(never)]
pub(crate) fn fill_events(job: &mut Job) {
    let found = reap_all(job);
    (job.shared.next, job.shared.end) = (0, found);
}

/// Moves the events that fio has not received yet to the front, and returns their number.
#[cold]
#[inline(never)]
fn move_events_to_front(job: &mut Job) -> u32 {
    let kept = job.shared.end - job.shared.next;
    // SAFETY: `next` is at most `end`, and `end` is at most `depth`.
    let first = unsafe { job.shared.events.add(job.shared.next as usize) };
    // SAFETY: both ranges are within the `depth` entries of the array, and `copy_to` allows overlap.
    unsafe { first.copy_to(job.shared.events, kept as usize) };
    kept
}

/// Polls each queue once, filling in events from `found` on, and returns their number.
#[inline(never)]
pub(crate) fn reap(job: &mut Job, found: u32, most: u32) -> u32 {
    poll_queues(job, found, most)
}

#[inline(always)]
fn poll_queues(job: &mut Job, mut found: u32, most: u32) -> u32 {
    if job.unsent_count > 0 {
        found = reap_unsent(job, found, most);
    }
    if let [TargetPtr(target)] = job.targets[..] {
        // SAFETY: a box of the job's; nothing else refers to it during the call.
        return reap_target(job, unsafe { &mut *target }, found, most);
    }
    reap_each(job, found, most)
}

#[cold]
#[inline(never)]
fn reap_each(job: &mut Job, mut found: u32, most: u32) -> u32 {
    for at in 0..job.targets.len() {
        let Some(&TargetPtr(target)) = job.targets.get(at) else { break };
        // SAFETY: a box of the job's; nothing else refers to it during the call.
        let target = unsafe { &mut *target };
        if target.in_flight > 0 {
            found = reap_target(job, target, found, most);
        }
    }
    found
}

#[inline(always)]
fn reap_target(job: &mut Job, target: &mut Target, mut found: u32, most: u32) -> u32 {
    let Some(queue) = &mut target.queue else { return custom::reap(job, target, found, most) };
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
        // The buffer is the empty one, as for every command here, and its drop does nothing.
        std::mem::forget(buffer);
        target.in_flight -= 1;
        // SAFETY: the tag of a command is its unit's index.
        let slot = unsafe { job.shared.slots.add(index as usize) };
        // SAFETY: no other reference to the slot is alive here.
        let slot = unsafe { &mut *slot };
        slot.pieces -= 1;
        let (pieces, unit) = (slot.pieces, slot.unit);
        if !status.is_success() {
            job.command_failed(index, status);
        }
        if pieces == 0 {
            // SAFETY: `found` is below `depth`.
            let event = unsafe { job.shared.events.add(found as usize) };
            // SAFETY: `event` points to an entry of the array.
            unsafe { *event = unit };
            found += 1;
        }
    }
    drop(ManuallyDrop::into_inner(turn));
    found
}

/// Reaps units that were not submitted, or only in part, once nothing of them is in flight.
#[cold]
#[inline(never)]
fn reap_unsent(job: &mut Job, mut found: u32, most: u32) -> u32 {
    let mut kept = 0;
    for at in 0..job.unsent_count {
        let Some(&unsent) = job.unsent.get(at) else { break };
        // SAFETY: the index of a unit is below `depth`.
        let slot = unsafe { job.shared.slots.add(unsent.index as usize) };
        // SAFETY: no other reference to the slot is alive here.
        let slot = unsafe { &mut *slot };
        if slot.pieces == 1 && found < most {
            slot.pieces = 0;
            let unit = slot.unit;
            job.unit_unsent(unsent);
            // SAFETY: `found` is below `depth`.
            let event = unsafe { job.shared.events.add(found as usize) };
            // SAFETY: `event` points to an entry of the array.
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
