//! Reservation commands that a turn submits for the blocking calls.

use super::{Extent, Refused, Turn, common::two_dwords};
use crate::spec::{Command, NvmOpcode, OptionalCommands};
use upcie_core::dma::DmaBuf;

impl<T> Turn<'_, T> {
    /// Submits a reservation command of the namespace: opcode and dwords 10 and 11 of `command`, with the first `len` bytes
    /// of `held` as its data, which stays with the caller.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held). The controller moves no more than `len` bytes for such a
    /// command.
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
        let made = self.has(extent, OptionalCommands::RESERVATIONS).and_then(|()| {
            let pointer = self.pointer(NvmOpcode(command.opcode), held, 0, len)?;
            Ok((two_dwords(command, extent), pointer))
        });
        self.push_held(made, tag)
    }
}
