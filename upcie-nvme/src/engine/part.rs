//! Data pointers for ranges of buffers that are not plain.

use super::{Refusal, prp::DataPointer, ring::Queue};
use crate::spec::NvmOpcode;
use upcie_core::dma::DmaBuf;

/// Makes the data pointer for a range of a buffer that is not plain, or returns the reason why it can't be
/// transferred.
#[inline(never)]
pub(super) fn part_pointer<T>(
    queue: &mut Queue<T>,
    opcode: NvmOpcode,
    held: &DmaBuf,
    start: usize,
    len: usize,
) -> Result<DataPointer, Refusal> {
    let space = queue.lists.space();
    let is_ours = match held.spans() {
        Some(spans) => spans.is_in(space),
        None => held.segments().all(|segment| segment.prepared().space == space || segment.is_empty()),
    };
    if !is_ours {
        Err(Refusal::ForeignBuffer)
    } else if start.checked_add(len).is_none_or(|end| end > held.total_len()) {
        Err(Refusal::Length)
    } else if let Some(reason) = queue.live.device_memory.refuse(opcode, held) {
        Err(reason)
    } else {
        let built = queue.lists.build_range(held, start, len);
        built.map_err(|reason| queue.lists.shape().explain(reason, held, start..start + len))
    }
}
