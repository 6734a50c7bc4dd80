//! Commands of flexible data placement that a turn submits: the status of reclaim unit handles, and their update.

use super::{
    Extent, Refusal, Refused, Turn,
    common::{first_words, refuse_namespace},
    prp::DataPointer,
};
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
    /// As for [`submit_held`](Self::submit_held).
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
        let pointer = self.managed(extent, NvmOpcode::IO_MANAGEMENT_RECEIVE, fits, (held, part.start), len);
        self.send_managed(extent, pointer, |nsid| Command::reclaim_unit_handle_status(nsid, len as u32), tag)
    }

    /// Submits an I/O Management Send: the reclaim unit handles that the placement identifiers in the bytes `part` of `held`
    /// name refer to other, empty reclaim units afterwards. An identifier is 2 bytes, little endian; 1 to 65536 of them.
    ///
    /// # Safety
    /// As for [`submit_held`](Self::submit_held).
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
        let pointer = self.managed(extent, NvmOpcode::IO_MANAGEMENT_SEND, fits, (held, part.start), len);
        self.send_managed(
            extent,
            pointer,
            |nsid| Command::reclaim_unit_handle_update(nsid, count as u32),
            tag,
        )
    }

    /// Makes the data pointer of a management command, or returns the reason why it can't be sent.
    fn managed(
        &mut self,
        extent: &Extent,
        opcode: NvmOpcode,
        fits: bool,
        (held, start): (&DmaBuf, usize),
        len: usize,
    ) -> Result<DataPointer, Refusal> {
        if extent.stamp != self.namespaces || self.is_full() || extent.max_blocks == 0 {
            return Err(refuse_namespace(extent, self.queue.live.controller, self.namespaces));
        }
        if fits { self.pointer(opcode, held, start, len) } else { Err(Refusal::Length) }
    }

    fn send_managed(
        &mut self,
        extent: &Extent,
        pointer: Result<DataPointer, Refusal>,
        command: impl Fn(u32) -> Command,
        tag: T,
    ) -> Result<(), Refused<T>> {
        match pointer {
            Ok(pointer) => {
                let command = command(extent.nsid());
                let first = first_words(NvmOpcode(command.opcode), extent) | pointer.psdt;
                let dwords = u64::from(command.cdw10) | u64::from(command.cdw11) << 32;
                let words = [first, 0, 0, pointer.prp1, pointer.prp2, dwords, 0, 0];
                self.push(words, DmaBuf::empty(), tag, pointer.list);
                Ok(())
            }
            Err(reason) => Err(Refused { reason, buffer: DmaBuf::empty(), tag }),
        }
    }
}
