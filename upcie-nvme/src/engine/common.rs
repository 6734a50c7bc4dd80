//! Code that all ways to submit a command share: the first words, and the reason for a refusal.

use super::{Extent, Live, Refusal, plan::Plan};
use crate::spec::{Command, NvmOpcode};
use upcie_core::dma::DmaBuf;

/// The stamp of a turn that takes no more commands: that of no namespace, and of no epoch.
pub(super) const CLOSED: u64 = u64::MAX;

/// Marks a branch as cold, so that it stays a branch: predicted, whereas a conditional move has to wait for
/// its operands.
#[cold]
#[inline]
pub(super) fn cold() {}

/// Returns the first two dwords of a command, without its id.
#[inline(always)]
pub(super) fn first_words(opcode: NvmOpcode, extent: &Extent) -> u64 {
    u64::from(opcode.0) | extent.nsid_high
}

/// Returns the words of a command that has dwords 10 and 11 alone, without a data pointer.
pub(super) fn two_dwords(command: &Command, extent: &Extent) -> [u64; 8] {
    let dwords = u64::from(command.cdw10) | u64::from(command.cdw11) << 32;
    [first_words(NvmOpcode(command.opcode), extent), 0, 0, 0, 0, dwords, 0, 0]
}

/// Returns the reason why a transfer of `len` bytes of `buffer`, at most `most` blocks, does not fit the namespace, the
/// address space or the controller's own memory.
pub(super) fn misfit(
    live: &Live,
    space: u64,
    (opcode, extent, slba): (NvmOpcode, &Extent, u64),
    plan: &Plan,
    buffer: &DmaBuf,
    len: usize,
    most: u64,
) -> Option<Refusal> {
    let foreign = |segment: &DmaBuf| segment.prepared().space != space && !segment.is_empty();
    if buffer.segments().any(foreign) {
        return Some(Refusal::ForeignBuffer);
    }
    let reason = plan.misplaced(extent, slba, len as u64, most);
    reason.or_else(|| live.device_memory.refuse(opcode, buffer))
}

/// Returns the reason why a command for a namespace was refused, if it does not depend on the payload.
#[cold]
#[inline(never)]
pub(super) fn refuse_namespace(extent: &Extent, controller: u64, namespaces: u64) -> Refusal {
    if namespaces == CLOSED {
        Refusal::Closed
    } else if extent.controller != controller {
        Refusal::ForeignNamespace
    } else if extent.stamp != namespaces {
        Refusal::StaleNamespace
    } else if extent.is_key_value() {
        Refusal::HasKeys
    } else if extent.max_blocks == 0 {
        Refusal::Unsupported
    } else {
        Refusal::Full
    }
}

/// Returns the reason why a command for `len` bytes of blocks was refused. `at` is the queue's controller,
/// the stamp of its namespaces, and `true` if the queue is full.
#[cold]
#[inline(never)]
pub(super) fn refuse_blocks(
    extent: &Extent,
    at: (u64, u64, bool),
    slba: u64,
    len: u64,
    lacks: bool,
) -> Refusal {
    let (controller, namespaces, full) = at;
    if extent.stamp != namespaces || extent.max_blocks == 0 || full {
        refuse_namespace(extent, controller, namespaces)
    } else if lacks {
        Refusal::NoCommand
    } else {
        extent.misplaced_bytes(slba, len).unwrap_or(Refusal::TooLong)
    }
}
