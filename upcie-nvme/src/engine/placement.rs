//! Commands of flexible data placement that a turn submits: the status of reclaim unit handles, and their update.

use super::{Extent, Refusal, Refused, Turn, common::two_dwords};
use crate::spec::{Command, HandleStatusHeader, NvmOpcode};
use std::ops::Range;
use upcie_core::dma::DmaBuf;

/// Bytes of a placement identifier.
const IDENTIFIER: usize = size_of::<u16>();
/// The most placement identifiers of one command (MOS, 0's based).
const MOST: usize = 1 << 16;

impl<T> Turn<'_, T> {
    /// Submits an I/O Management Receive: fills the bytes `part` of `held`, which stays with the caller, with a
    /// [`HandleStatusHeader`] and the [`HandleStatus`](crate::spec::HandleStatus)es of the namespace's placement handles, as
    /// many as fit. The controller completes it with
    /// [`Status::FDP_DISABLED`](crate::spec::Status::FDP_DISABLED) if flexible data placement is off.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held).
    ///
    /// # Errors
    /// A [`Refused`] with the tag; nothing was sent. The reason is [`Refusal::Length`] for a part that holds no header or ends
    /// within a dword.
    pub unsafe fn handle_status_held(
        &mut self,
        namespace: &impl AsRef<Extent>,
        held: &DmaBuf,
        part: Range<usize>,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let extent = namespace.as_ref();
        let len = part.end.wrapping_sub(part.start);
        let fits = len >= size_of::<HandleStatusHeader>() && len % 4 == 0 && len <= extent.max_transfer();
        let command = fits.then(|| Command::reclaim_unit_handle_status(extent.nsid(), len as u32));
        self.manage(extent, command, (held, part.start), len, tag)
    }

    /// Submits an I/O Management Send: the reclaim unit handles that the placement identifiers in the bytes `part` of `held`
    /// name refer to other, empty reclaim units afterwards. An identifier is 2 bytes, little endian; 1 to 65536 of them.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held).
    ///
    /// # Errors
    /// A [`Refused`] with the tag; nothing was sent. The reason is [`Refusal::Length`] for a part that holds no identifier, too
    /// many, or half of one.
    pub unsafe fn update_handles_held(
        &mut self,
        namespace: &impl AsRef<Extent>,
        held: &DmaBuf,
        part: Range<usize>,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let extent = namespace.as_ref();
        let len = part.end.wrapping_sub(part.start);
        let count = len / IDENTIFIER;
        let fits = (1..=MOST).contains(&count) && len % IDENTIFIER == 0 && len <= extent.max_transfer();
        let command = fits.then(|| Command::reclaim_unit_handle_update(extent.nsid(), count as u32));
        self.manage(extent, command, (held, part.start), len, tag)
    }

    /// Submits a management command with `len` bytes of data; without one the length was wrong.
    fn manage(
        &mut self,
        extent: &Extent,
        command: Option<Command>,
        (held, start): (&DmaBuf, usize),
        len: usize,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let made = self.check_namespace(extent).and_then(|()| {
            let command = command.ok_or(Refusal::Length)?;
            let pointer = self.pointer(NvmOpcode(command.opcode), held, start, len)?;
            Ok((two_dwords(&command, extent), pointer))
        });
        self.push_held(made, tag)
    }
}
