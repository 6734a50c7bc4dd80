//! Rules for data in the controller's own memory.

use super::Refusal;
use crate::spec::NvmOpcode;
use std::{ops::Range, sync::OnceLock};
use upcie_core::dma::DmaBuf;

/// The device addresses that the controller decodes as its own memory.
#[derive(Debug)]
pub(crate) struct Window {
    pub(crate) addresses: Range<u64>,
    /// Data of Read commands may be there.
    pub(crate) reads: bool,
    /// Data of Write commands may be there.
    pub(crate) writes: bool,
    /// The data of one command may be partly there.
    pub(crate) mixed: bool,
}

impl Window {
    fn refuse<'b>(&self, opcode: NvmOpcode, segments: impl Iterator<Item = &'b DmaBuf>) -> Option<Refusal> {
        let inside = |segment: &DmaBuf| self.addresses.contains(&segment.prepared().iova);
        let mut segments = segments.filter(|segment| !segment.is_empty());
        let first = inside(segments.next()?);
        let mixed = segments.any(|segment| inside(segment) != first);
        let allowed = match opcode {
            NvmOpcode::READ => self.reads,
            // Commands whose data goes to the controller.
            NvmOpcode::WRITE | NvmOpcode::DATASET_MANAGEMENT | NvmOpcode::COMPARE | NvmOpcode::COPY => {
                self.writes
            }
            _ => self.reads && self.writes,
        };
        if mixed && !self.mixed {
            Some(Refusal::Mixed)
        } else if (first || mixed) && !allowed {
            Some(Refusal::Direction)
        } else {
            None
        }
    }
}

/// The windows of the controller's memory buffer and of its persistent memory region.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    pub(crate) buffer: OnceLock<Window>,
    pub(crate) persistent: OnceLock<Window>,
}

impl Windows {
    /// Returns the reason why the controller would not take the buffer. Not called on the plain path: a
    /// buffer that this can refuse is not [ready](upcie_core::dma::Prepared::len).
    pub(crate) fn refuse(&self, opcode: NvmOpcode, buffer: &DmaBuf) -> Option<Refusal> {
        self.windows().find_map(|window| window.refuse(opcode, buffer.segments()))
    }

    /// Returns the reason why the controller would not take data in the first segment of each of `buffers`.
    pub(crate) fn refuse_all<'b>(
        &self,
        opcode: NvmOpcode,
        buffers: impl Iterator<Item = &'b DmaBuf> + Clone,
    ) -> Option<Refusal> {
        self.windows().find_map(|window| window.refuse(opcode, buffers.clone()))
    }

    /// Returns the reason why the controller would not take data in `buffer` and metadata in `metadata`, which belong to one
    /// command.
    pub(crate) fn refuse_with(
        &self,
        opcode: NvmOpcode,
        buffer: &DmaBuf,
        metadata: &DmaBuf,
    ) -> Option<Refusal> {
        self.windows().find_map(|window| window.refuse(opcode, buffer.segments().chain([metadata])))
    }

    fn windows(&self) -> impl Iterator<Item = &Window> {
        [&self.buffer, &self.persistent].into_iter().filter_map(OnceLock::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::heap;

    #[test]
    fn data_is_refused_by_its_direction() {
        let buffer = heap().alloc(4096).unwrap();
        for (reads, writes) in [(true, false), (false, true)] {
            let window = Window { addresses: 0..u64::MAX, reads, writes, mixed: false };
            for (opcode, allowed) in [
                (NvmOpcode::READ, reads),
                (NvmOpcode::WRITE, writes),
                (NvmOpcode::DATASET_MANAGEMENT, writes),
            ] {
                let wanted = if allowed { None } else { Some(Refusal::Direction) };
                assert_eq!(window.refuse(opcode, buffer.segments()), wanted, "{opcode} where reads: {reads}");
            }
        }
    }
}
