//! The end of a turn: its cursors go back to the queue, and its doorbells to the controller.

use super::{
    common::{CLOSED, cold},
    ring::{CQE_WORDS, EMPTY_TURNS, Queue, State},
    slot::{Cursor, SQE_WORDS},
};
use upcie_core::barrier::{dma_release, mmio_wmb};

/// Ends a turn with these cursors: gives the queue back, and writes the doorbells.
#[inline]
pub(super) fn end<T>(queue: &mut Queue<T>, at: Cursor, cqe: *const u64) {
    if queue.namespaces() == 0 {
        cold();
        if !end_slowly(queue) {
            (queue.at, queue.cqe) = (at, cqe);
            return;
        }
    } else {
        queue.guard = 0;
    }
    if !publish(queue, at, cqe) {
        count_empty_turn(queue);
    }
}

/// Writes the cursors of a turn back to its queue, and each doorbell whose ring has moved. Returns `true` if one has.
#[inline(always)]
pub(super) fn publish<T>(queue: &mut Queue<T>, at: Cursor, cqe: *const u64) -> bool {
    // Neither cursor can go full circle between two doorbells: at most `entries - 1` commands are in
    // flight.
    let reaped = cqe != queue.cqe;
    let submitted = at.sqe != queue.at.sqe;
    queue.at = at;
    queue.cqe = cqe;
    // Stores to the rings, and reads from the rings and from buffers, are complete before the device sees
    // the doorbell.
    dma_release();
    if reaped {
        // SAFETY: the entries before it were copied out, and their slots given back: the controller may use them again.
        unsafe { queue.cq_doorbell.write(index(queue.cq, cqe, CQE_WORDS) as u32) };
    } else if !submitted {
        return false;
    }
    if submitted {
        let tail = index(queue.sq, at.sqe, SQE_WORDS);
        // SAFETY: an index below the entries, which both rings have.
        queue.reap_limit = unsafe { queue.cq.add(tail * CQE_WORDS) };
        if queue.sq_combining {
            // Entries may still be in the processor's write-combining buffers.
            mmio_wmb();
        }
        // SAFETY: each entry up to the tail is a whole command, and its slot has the buffer that the command names.
        unsafe { queue.sq_doorbell.write(tail as u32) };
    }
    true
}

/// Ends a turn whose queue has the stamp 0. Returns `true` if its doorbells may be written, `false` after a reset.
///
/// A forged completion has closed the queue. After a lap all is as usual, but for a look for late commands now and then.
#[cold]
#[inline(never)]
fn end_slowly<T>(queue: &mut Queue<T>) -> bool {
    let is_due = queue.count_lap();
    if queue.state == State::Ready {
        if is_due {
            queue.state = State::Quiet;
        } else {
            queue.guard = 0;
        }
    }
    queue.epoch_stamp() != 0
}

/// Returns the index of `entry` in the ring that begins at `first`.
#[inline(always)]
pub(super) fn index<W>(first: *const W, entry: *const W, words: usize) -> usize {
    (entry.addr() - first.addr()) / (words * size_of::<W>())
}

/// Counts a turn that neither reaped nor submitted.
#[inline(always)]
fn count_empty_turn<T>(queue: &mut Queue<T>) {
    queue.empty_turns += 1;
    if queue.empty_turns == EMPTY_TURNS {
        cold();
        queue.empty_turns = 0;
        if queue.state == State::Ready {
            queue.state = State::Quiet;
            queue.guard = CLOSED;
        }
    }
}
