//! Reservation commands that a turn submits for the blocking calls.

use super::{
    Extent, Refusal, Refused, Turn,
    common::{first_words, refuse_namespace},
};
use crate::spec::{Command, NvmOpcode, OptionalCommands};
use upcie_core::dma::DmaBuf;

impl<T> Turn<'_, T> {
    /// Submits a reservation command of the namespace: opcode and dwords 10 and 11 of `command`, with the first `len` bytes
    /// of `held` as its data, which stays with the caller.
    ///
    /// # Safety
    /// As for [`submit_held`](Self::submit_held). The controller moves no more than `len` bytes for such a command.
    ///
    /// # Errors
    /// A [`Refused`] with the tag; nothing was sent.
    pub(crate) unsafe fn submit_reservation_held(
        &mut self,
        extent: &Extent,
        command: &Command,
        held: &DmaBuf,
        len: usize,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let opcode = NvmOpcode(command.opcode);
        let pointer = match () {
            () if extent.stamp != self.namespaces || self.is_full() || extent.max_blocks == 0 => {
                Err(refuse_namespace(extent, self.queue.live.controller, self.namespaces))
            }
            () if !extent.optional.contains(OptionalCommands::RESERVATIONS) => Err(Refusal::NoCommand),
            () => self.pointer(opcode, held, 0, len),
        };
        match pointer {
            Ok(pointer) => {
                let first = first_words(opcode, extent) | pointer.psdt;
                let dwords = u64::from(command.cdw10) | u64::from(command.cdw11) << 32;
                let words = [first, 0, 0, pointer.prp1, pointer.prp2, dwords, 0, 0];
                self.push(words, DmaBuf::empty(), tag, pointer.list);
                Ok(())
            }
            Err(reason) => Err(Refused { reason, buffer: DmaBuf::empty(), tag }),
        }
    }
}
