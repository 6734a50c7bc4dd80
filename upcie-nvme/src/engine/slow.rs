//! Transfers that the short path of a turn does not take: it makes a data pointer for them, or says why not.

use super::{
    Extent, Refusal, Refused,
    common::{first_words, misfit, refuse_namespace},
    fill::fill,
    io::Dwords,
    plan::Plan,
    prp::DataPointer,
    ring::Queue,
    slot::Cursor,
};
use crate::{protection::Protect, spec::NvmOpcode};
use upcie_core::dma::DmaBuf;

/// Submits a transfer whose buffer has no prepared data pointer, or whose blocks have metadata or protection: makes a data
/// pointer, or refuses the transfer. Returns the cursors after it.
#[inline(never)]
pub(super) fn submit_slowly<T>(
    queue: &mut Queue<T>,
    at: Cursor,
    namespaces: u64,
    (opcode, flags, protect): (NvmOpcode, Dwords, Option<Protect>),
    extent: &Extent,
    slba: u64,
    (buffer, tag): (DmaBuf, T),
) -> Result<Cursor, Refused<T>> {
    let plan = Plan::new(extent, opcode, protect, false);
    let made = match plan {
        _ if at.top == queue.end_of_free => Err(Refusal::Full),
        Err(reason) => Err(reason),
        // Walk the segments once: each is a step in memory. If a later check fails, release the list.
        Ok(plan) => queue.lists.build(&buffer).and_then(|(pointer, len)| {
            let last = plan.unit.last(len);
            let good = last < u64::from(extent.max_blocks)
                && slba <= extent.last.wrapping_sub(last)
                && extent.stamp == namespaces
                && queue.live.device_memory.refuse(opcode, &buffer).is_none();
            if good {
                return Ok((pointer, last, plan));
            }
            if pointer.list != 0 {
                queue.lists.release(pointer.list);
            }
            Err(Refusal::Length)
        }),
    };
    match made {
        Ok((DataPointer { prp1, prp2, list, psdt }, last, plan)) => {
            let first = first_words(opcode, extent) | psdt;
            let mut words = [first, 0, 0, prp1, prp2, slba, last | flags.word(), 0];
            plan.put(&mut words, extent, slba, 0);
            // SAFETY: the caller's turn has lent the queue, with its cursors, and it is not full.
            Ok(unsafe { fill(queue, at, words, buffer, tag, list) })
        }
        Err(refusal) => {
            let full = at.top == queue.end_of_free;
            let reason = why_refused(queue, full, namespaces, (opcode, extent, slba), plan, &buffer)
                .unwrap_or(refusal);
            Err(Refused { reason, buffer, tag })
        }
    }
}

/// Returns the reason why a transfer was refused, in the order in which a caller can act on it; `None` if the
/// list could not be made.
#[cold]
#[inline(never)]
fn why_refused<T>(
    queue: &Queue<T>,
    full: bool,
    namespaces: u64,
    (opcode, extent, slba): (NvmOpcode, &Extent, u64),
    plan: Result<Plan, Refusal>,
    buffer: &DmaBuf,
) -> Option<Refusal> {
    if extent.stamp != namespaces || extent.max_blocks == 0 || full {
        return Some(refuse_namespace(extent, queue.live.controller, namespaces));
    }
    let plan = match plan {
        Ok(plan) => plan,
        Err(reason) => return Some(reason),
    };
    let (space, len) = (queue.lists.space(), buffer.total_len());
    misfit(&queue.live, space, (opcode, extent, slba), &plan, buffer, len, extent.max_blocks.into())
        .or_else(|| queue.lists.shape().refuse(buffer, 0..len))
}
