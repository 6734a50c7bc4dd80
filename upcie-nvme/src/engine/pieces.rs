//! A transfer of any length, split into commands.

use super::{
    Io, Live, Refusal, Refused, Shape, Turn,
    common::{first_words, misfit, refuse_namespace},
    prp::{Place, Stretch},
};
use std::ops::Range;
use upcie_core::dma::DmaBuf;

/// A transfer of a part of a buffer, piece by piece. The place, the address space and the direction are checked
/// once, before the first piece.
#[derive(Debug)]
pub(crate) struct Pieces<'n> {
    io: Io<'n>,
    /// The first byte in the buffer, and the number of bytes.
    start: usize,
    len: usize,
    sent: usize,
    /// The place of the next piece in the table of a gathered chain.
    place: Option<Place>,
}

impl<'n> Pieces<'n> {
    /// Checks a transfer of the bytes `part` of all segments of `buffer`, for the controller of `live`, its address
    /// `space` and the forms of its data pointers.
    ///
    /// # Errors
    /// The reason to send none of it.
    pub(crate) fn new(
        live: &Live,
        (space, shape): (u64, Shape),
        io: Io<'n>,
        buffer: &DmaBuf,
        part: Range<usize>,
    ) -> Result<Self, Refusal> {
        let Some(len) = part.end.checked_sub(part.start).filter(|_| part.end <= buffer.total_len()) else {
            return Err(Refusal::Length);
        };
        // No piece begins or ends within a dword if the whole does not, for they are whole blocks.
        let reason =
            misfit(live, space, (io.direction.opcode(), io.extent, io.slba), buffer, len, usize::MAX)
                .or_else(|| shape.refuse(buffer, part.start..part.start + len));
        match reason {
            Some(reason) => Err(reason),
            None => Ok(Self { io, start: part.start, len, sent: 0, place: None }),
        }
    }

    /// Goes back to the piece that was sent with `tag`, to send it and all after it again.
    pub(crate) fn rewind(&mut self, tag: u64) {
        self.sent = self.sent.min(usize::try_from(tag).unwrap_or(usize::MAX));
        self.place = None;
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
        let Io { extent, direction, slba, flags } = self.io;
        let mut len = extent.max_transfer().min(self.len - self.sent);
        if extent.is_zoned() {
            // No command may cross the end of a zone.
            let done = (self.sent >> extent.shift) as u64;
            let left = extent.left_in_zone(slba + done);
            len = left.checked_mul(1 << extent.shift).map_or(len, |left| len.min(left as usize));
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
                let pointer = queue.lists.describe(&Stretch { spans, place, len: len as u64 }, |_| ());
                self.place = pointer.is_ok().then(|| place.further(spans, len as u64));
                pointer
            }
            None => queue.lists.build_range(buffer, start, len),
        };
        let pointer = pointer.map_err(refused)?;
        let (block, blocks) = (slba + (self.sent >> extent.shift) as u64, (len >> extent.shift) as u64);
        let words = [
            first_words(direction.opcode(), extent) | pointer.psdt,
            0,
            0,
            pointer.prp1,
            pointer.prp2,
            block,
            (blocks - 1) | flags.word(),
            0,
        ];
        turn.push(words, DmaBuf::empty(), self.sent as u64, pointer.list);
        self.sent += len;
        Ok(self.sent < self.len)
    }
}
