//! A transfer of any length, split into commands.

use super::{
    Direction, Extent, Live, Refusal, Refused, Turn,
    common::{first_words, misfit, refuse_namespace},
};
use crate::spec::NvmOpcode;
use upcie_core::dma::DmaBuf;

/// A transfer of a whole buffer, piece by piece. The place, the address space and the direction are checked
/// once, before the first piece.
#[derive(Debug)]
pub(crate) struct Pieces<'n> {
    extent: &'n Extent,
    opcode: NvmOpcode,
    slba: u64,
    /// In bytes.
    total: usize,
    sent: usize,
}

impl<'n> Pieces<'n> {
    /// Checks a transfer of all of `buffer`, from or to block `slba` on, for the controller of `live` and its
    /// address `space`.
    ///
    /// # Errors
    /// The reason to send none of it.
    pub(crate) fn new(
        live: &Live,
        space: u64,
        direction: Direction,
        extent: &'n Extent,
        slba: u64,
        buffer: &DmaBuf,
    ) -> Result<Self, Refusal> {
        let (opcode, total) = (direction.opcode(), buffer.total_len());
        // A chain is never split.
        let most = if buffer.next().is_some() { extent.max_transfer() } else { usize::MAX };
        match misfit(live, space, opcode, extent, slba, buffer, most) {
            Some(reason) => Err(reason),
            None => Ok(Self { extent, opcode, slba, total, sent: 0 }),
        }
    }

    /// Submits the next piece of `buffer`; `true` when there are more.
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
        let (extent, len) = (self.extent, self.extent.max_transfer().min(self.total - self.sent));
        let refused = |reason| Refused { reason, buffer: DmaBuf::empty(), tag: 0 };
        // A stamp belongs to one controller, so the queue is that of the controller that `new` checked for.
        if extent.stamp != turn.namespaces || len == 0 || turn.is_full() {
            return Err(refused(refuse_namespace(extent, turn.queue.live.controller, turn.namespaces)));
        }
        let queue = &mut *turn.queue;
        let pointer = match buffer.next() {
            Some(_) => queue.lists.build(buffer, queue.space).map(|(pointer, _)| pointer),
            None => queue.lists.build_range(buffer, self.sent, len),
        };
        let pointer = pointer.map_err(refused)?;
        let (block, blocks) = (self.slba + (self.sent >> extent.shift) as u64, (len >> extent.shift) as u64);
        let words =
            [first_words(self.opcode, extent), 0, 0, pointer.prp1, pointer.prp2, block, blocks - 1, 0];
        turn.push(words, DmaBuf::empty(), 0, pointer.list);
        self.sent += len;
        Ok(self.sent < self.total)
    }
}
