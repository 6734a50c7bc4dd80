//! Commands of flexible data placement that a turn submits: the status of reclaim unit handles, and their update.

use super::{Extent, Refusal, Refused, Turn, common::two_dwords, prp::DataPointer};
use crate::spec::{Command, HandleStatusHeader, NvmOpcode};
use std::ops::Range;
use upcie_core::dma::DmaBuf;

/// Bytes of a placement identifier.
const IDENTIFIER: usize = size_of::<u16>();
/// The most placement identifiers of one command (MOS, 0's based).
const MOST: usize = 1 << 16;

impl<T> Turn<'_, T> {
    /// Submits an I/O Management Receive: fills all of `buffer` with the status of the namespace's placement handles, as many as
    /// fit ([`HandleStatus::list`](crate::spec::HandleStatus::list)). The controller completes it with
    /// [`Status::FDP_DISABLED`](crate::spec::Status::FDP_DISABLED) if flexible data placement is off.
    ///
    /// ```
    /// # use upcie_nvme::{Controller, Wait, spec::HandleStatus};
    /// let controller = Controller::open("emu:size=1M,fdp=true,fdp-handles=4,fdp-unit=64K")?;
    /// let namespace = controller.namespace(1)?;
    /// let mut queue = controller.queue_pair().create::<u64>()?;
    /// queue.turn()?.handle_status(&namespace, controller.alloc(4096)?, 0)?;
    /// # assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(10))?);
    /// let (_, result, buffer) = queue.turn()?.next().unwrap().into_parts();
    /// result?;
    /// let (count, handles) = HandleStatus::list(&buffer.to_vec());
    /// assert_eq!((count, handles.len(), handles[3].available_media_writes), (4, 4, 128));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag; nothing was sent. The reason is [`Refusal::Length`] for a buffer that holds no
    /// header, ends within a dword, or is longer than a transfer.
    pub fn handle_status(
        &mut self,
        namespace: &impl AsRef<Extent>,
        buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let made = self.status_of(namespace.as_ref(), &buffer, 0..buffer.total_len());
        self.push_owned(made, buffer, tag)
    }

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
        let made = self.status_of(namespace.as_ref(), held, part);
        self.push_held(made, tag)
    }

    /// Submits an I/O Management Send: the reclaim unit handles that the first `count` placement identifiers in `identifiers`
    /// (1 to 65536, each of 2 bytes, little endian) name refer to other, empty reclaim units afterwards.
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag; nothing was sent. The reason is [`Refusal::Length`] if `count` is 0, exceeds a
    /// command's limit, or exceeds the identifiers in the buffer.
    pub fn update_handles(
        &mut self,
        namespace: &impl AsRef<Extent>,
        identifiers: DmaBuf,
        count: usize,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let end = count.saturating_mul(IDENTIFIER);
        let made = self.update_of(namespace.as_ref(), &identifiers, 0..end);
        self.push_owned(made, identifiers, tag)
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
        let made = self.update_of(namespace.as_ref(), held, part);
        self.push_held(made, tag)
    }

    /// Makes the words of an I/O Management Receive for the bytes `part` of `held`, and their data pointer.
    fn status_of(
        &mut self,
        extent: &Extent,
        held: &DmaBuf,
        part: Range<usize>,
    ) -> Result<([u64; 8], DataPointer), Refusal> {
        let len = part.end.wrapping_sub(part.start);
        let fits = len >= size_of::<HandleStatusHeader>() && len % 4 == 0 && len <= extent.max_transfer();
        let command = fits.then(|| Command::reclaim_unit_handle_status(extent.nsid(), len as u32));
        self.manage(extent, command, (held, part.start), len)
    }

    /// Makes the words of an I/O Management Send of the identifiers in the bytes `part` of `held`, and their data pointer.
    fn update_of(
        &mut self,
        extent: &Extent,
        held: &DmaBuf,
        part: Range<usize>,
    ) -> Result<([u64; 8], DataPointer), Refusal> {
        let len = part.end.wrapping_sub(part.start);
        let count = len / IDENTIFIER;
        let fits = (1..=MOST).contains(&count) && len % IDENTIFIER == 0 && len <= extent.max_transfer();
        let command = fits.then(|| Command::reclaim_unit_handle_update(extent.nsid(), count as u32));
        self.manage(extent, command, (held, part.start), len)
    }

    /// Makes the words of a management command with `len` bytes of data, and their pointer; without a command the length was
    /// wrong.
    fn manage(
        &mut self,
        extent: &Extent,
        command: Option<Command>,
        (held, start): (&DmaBuf, usize),
        len: usize,
    ) -> Result<([u64; 8], DataPointer), Refusal> {
        self.check_namespace(extent)?;
        let command = command.ok_or(Refusal::Length)?;
        let pointer = self.pointer(NvmOpcode(command.opcode), held, start, len)?;
        Ok((two_dwords(&command, extent), pointer))
    }
}
