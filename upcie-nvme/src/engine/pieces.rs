//! A transfer of any length, split into commands.

use super::{
    Extent, Io, Live, Refusal, Refused, Shape, Turn,
    common::{first_words, misfit, refuse_namespace},
    plan::{Plan, metadata_pointer},
    prp::{Place, TableRange},
};
use crate::spec::NvmOpcode;
use std::ops::Range;
use upcie_core::dma::DmaBuf;

/// A transfer of a part of a buffer, piece by piece. The place, the address space and the direction are checked
/// once, before the first piece.
#[derive(Debug)]
pub(crate) struct Pieces<'n> {
    opcode: NvmOpcode,
    io: Io<'n>,
    /// The first byte in the buffer, and the number of bytes.
    start: usize,
    len: usize,
    sent: usize,
    /// The place of the next piece in the table of a gathered chain.
    place: Option<Place>,
    plan: Plan,
    /// The device address of the metadata, if it has a buffer of its own.
    metadata: u64,
}

impl<'n> Pieces<'n> {
    /// Checks a Read, a Write or a Compare, whose opcode may differ from that of the direction, of the bytes `part` of all segments of `buffer`, for the controller of `live`, its address
    /// `space` and the forms of its data pointers. `metadata` is the buffer of metadata, if it has one of its own.
    ///
    /// # Errors
    /// The reason to send none of it.
    pub(crate) fn new(
        live: &Live,
        (space, shape): (u64, Shape),
        (opcode, io): (NvmOpcode, Io<'n>),
        buffer: &DmaBuf,
        part: Range<usize>,
        metadata: Option<&DmaBuf>,
    ) -> Result<Self, Refusal> {
        let plan = Plan::new(io.extent, opcode, io.protect, metadata.is_some())?;
        let Some(len) = part.end.checked_sub(part.start).filter(|_| part.end <= buffer.total_len()) else {
            return Err(Refusal::Length);
        };
        // No piece begins or ends within a dword if the whole does not, for they are whole blocks.
        let reason = misfit(live, space, (opcode, io.extent, io.slba), &plan, buffer, len, u64::MAX)
            .or_else(|| shape.refuse(buffer, part.start..part.start + len));
        if let Some(reason) = reason {
            return Err(reason);
        }
        let metadata = match metadata {
            None => 0,
            Some(metadata) => {
                let whole = (plan.unit.last(len as u64) + 1).saturating_mul(plan.metadata as u64);
                if metadata.total_len() as u64 != whole {
                    return Err(Refusal::MetadataLength);
                }
                if let Some(reason) = live.device_memory.refuse_with(opcode, buffer, metadata) {
                    return Err(reason);
                }
                metadata_pointer(metadata, space, 0, whole as usize)?
            }
        };
        Ok(Self { opcode, io, start: part.start, len, sent: 0, place: None, plan, metadata })
    }

    /// Goes back to the piece that was sent with `tag`, to send it and all after it again.
    pub(crate) fn rewind(&mut self, tag: u64) {
        self.sent = self.sent.min(usize::try_from(tag).unwrap_or(usize::MAX));
        self.place = None;
    }

    /// Returns the bytes of data of the longest piece.
    fn most(&self, extent: &Extent) -> usize {
        // Metadata of each piece begins at a dword.
        let blocks = match self.plan.metadata % 4 {
            0 => extent.max_blocks,
            _ => extent.max_blocks & !3,
        };
        blocks as usize * self.plan.block
    }

    /// Submits the next piece of `buffer`, tagged with its offset; `true` when there are more.
    ///
    /// # Safety
    /// `buffer` is the one that [`new`](Self::new) checked. It is neither freed, nor written to, nor (for a
    /// read) looked at, before the command has completed or the controller is known to use its memory no
    /// more.
    ///
    /// # Errors
    /// A [`Refused`] with the empty buffer; nothing was sent.
    pub(crate) unsafe fn send(
        &mut self,
        turn: &mut Turn<'_, u64>,
        buffer: &DmaBuf,
    ) -> Result<bool, Refused<u64>> {
        let Io { extent, slba, flags, .. } = self.io;
        let mut len = self.most(extent).min(self.len - self.sent);
        if extent.is_zoned() {
            // No command may cross the end of a zone.
            let done = self.plan.unit.last(self.sent as u64).wrapping_add(1);
            let left = extent.left_in_zone(slba + done);
            len = left.checked_mul(self.plan.block as u64).map_or(len, |left| len.min(left as usize));
        }
        let refused = |reason| Refused { reason, buffer: DmaBuf::empty(), tag: 0 };
        // A stamp belongs to one controller, so the queue is that of the controller that `new` checked for.
        if extent.stamp != turn.namespaces || len == 0 || turn.is_full() {
            return Err(refused(refuse_namespace(extent, turn.queue.live.controller, turn.namespaces)));
        }
        let queue = &mut *turn.queue;
        let start = self.start + self.sent;
        let pointer = match buffer.spans() {
            Some(spans) => {
                let place = self.place.unwrap_or_else(|| Place::default().further(spans, start as u64));
                let pointer = queue.lists.describe(&TableRange { spans, place, len: len as u64 }, |_| ());
                self.place = pointer.is_ok().then(|| place.further(spans, len as u64));
                pointer
            }
            None => queue.lists.build_range(buffer, start, len),
        };
        let pointer = pointer.map_err(refused)?;
        let unit = self.plan.unit;
        let (before, last) = (unit.last(self.sent as u64).wrapping_add(1), unit.last(len as u64));
        let metadata = match self.plan.metadata {
            0 => 0,
            size => self.metadata + before * size as u64,
        };
        let mut words = [
            first_words(self.opcode, extent) | pointer.psdt,
            0,
            metadata,
            pointer.prp1,
            pointer.prp2,
            slba + before,
            last | flags.word(),
            0,
        ];
        self.plan.put(&mut words, extent, slba, before);
        turn.push(words, DmaBuf::empty(), self.sent as u64, pointer.list);
        self.sent += len;
        Ok(self.sent < self.len)
    }
}
