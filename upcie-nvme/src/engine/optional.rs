//! Optional commands of the NVM command set that a turn submits: Compare, Verify, Write Uncorrectable and Copy.

use super::{
    Extent, Io, Refusal, Refused, Turn,
    common::{first_words, refuse_blocks},
    io::Dwords,
    metadata::{WithMetadata, submit, submit_held},
    prp::DataPointer,
    slot::Cursor,
    slow::submit_slowly,
};
use crate::{
    protection::Protect,
    spec::{CopyDword12, CopyRange, NvmOpcode, OptionalCommands},
};
use std::ops::Range;
use upcie_core::dma::DmaBuf;
use zerocopy::IntoBytes;

impl<T> Turn<'_, T> {
    /// Submits a Compare of all of `buffer`, a whole number of blocks, with the blocks from `slba` on (NVM, "Compare"). It
    /// completes with [`Status::COMPARE_FAILURE`](crate::spec::Status::COMPARE_FAILURE) if they differ.
    ///
    /// ```
    /// # use upcie_nvme::{Controller, Wait, spec::Status};
    /// # let controller = Controller::open("emu:size=1M")?;
    /// # let namespace = controller.namespace(1)?;
    /// # let mut queue = controller.queue_pair().create::<u64>()?;
    /// let mut buffer = controller.alloc(4096)?;
    /// buffer.fill(7);
    /// queue.turn()?.compare(&namespace, 0, buffer, 1)?;
    /// # assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(10))?);
    /// let done = queue.turn()?.next().unwrap();
    /// assert_eq!(done.status(), Status::COMPARE_FAILURE); // the blocks are zeros
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag; nothing was sent. The reason is [`Refusal::NoCommand`] if the controller
    /// does not have the command.
    pub fn compare(
        &mut self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        self.compare_with(Io::write(namespace, slba), buffer, tag)
    }

    /// Submits a Compare like [`compare`](Self::compare), with the place, the flags and the protection of `io`, whose direction
    /// has no meaning. Protection information is checked, and not compared; controllers refuse the
    /// [action](Protect::action).
    ///
    /// # Errors
    /// Those of [`compare`](Self::compare); [`Refusal::Unprotected`] if `io` has protection and the namespace has none.
    pub fn compare_with(&mut self, io: Io<'_>, buffer: DmaBuf, tag: T) -> Result<(), Refused<T>> {
        let Io { extent, slba, flags, protect, .. } = io;
        if let Err(reason) = self.has(extent, OptionalCommands::COMPARE) {
            return Err(Refused { reason, buffer, tag });
        }
        let at = Cursor { sqe: self.sqe, top: self.top };
        let kind = (NvmOpcode::COMPARE, flags, protect);
        let at = submit_slowly(self.queue, at, self.namespaces, kind, extent, slba, (buffer, tag))?;
        (self.sqe, self.top) = (at.sqe, at.top);
        Ok(())
    }

    /// Submits a Compare like [`compare_with`](Self::compare_with), of data and, apart from it, metadata.
    ///
    /// # Errors
    /// Those of [`compare_with`](Self::compare_with) and of [`submit_with_metadata`](Self::submit_with_metadata), with both
    /// buffers in one chain.
    pub fn compare_with_metadata(
        &mut self,
        io: Io<'_>,
        buffers: WithMetadata,
        tag: T,
    ) -> Result<(), Refused<T>> {
        if let Err(reason) = self.has(io.extent, OptionalCommands::COMPARE) {
            return Err(Refused { reason, buffer: buffers.join(), tag });
        }
        let at = Cursor { sqe: self.sqe, top: self.top };
        let at = submit(self.queue, at, self.namespaces, (NvmOpcode::COMPARE, &io), (buffers, tag))?;
        (self.sqe, self.top) = (at.sqe, at.top);
        Ok(())
    }

    /// Submits a Compare like [`compare`](Self::compare), of the bytes `part` of `held`, which stays with the caller.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held); the bytes may be looked at.
    ///
    /// # Errors
    /// Those of [`compare`](Self::compare), with the empty buffer.
    pub unsafe fn compare_held(
        &mut self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        held: &DmaBuf,
        part: Range<usize>,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let extent = namespace.as_ref();
        if let Err(reason) = self.has(extent, OptionalCommands::COMPARE) {
            return Err(Refused { reason, buffer: DmaBuf::empty(), tag });
        }
        let at = Cursor { sqe: self.sqe, top: self.top };
        let command = (NvmOpcode::COMPARE, &Io::write(extent, slba));
        let at = submit_held(self.queue, at, self.namespaces, command, (held, part), None, tag)?;
        (self.sqe, self.top) = (at.sqe, at.top);
        Ok(())
    }

    /// Submits a Verify of `blocks` blocks (1 to 65536) from `slba` on: the controller reads them, and transfers nothing
    /// (NVM, "Verify").
    ///
    /// # Errors
    /// Those of [`compare`](Self::compare), with the empty buffer; [`Refusal::TooLong`] for more than the controller takes at once
    /// (VSL of Identify).
    pub fn verify(
        &mut self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        blocks: u32,
        tag: T,
    ) -> Result<(), Refused<T>> {
        self.verify_as(namespace.as_ref(), (slba, blocks), None, tag)
    }

    /// Submits a Verify like [`verify`](Self::verify): the controller also checks the protection information of the blocks
    /// as `protect` says.
    ///
    /// # Errors
    /// Those of [`verify`](Self::verify); the reason is [`Refusal::Unprotected`] if the namespace has none.
    pub fn verify_protected(
        &mut self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        blocks: u32,
        protect: Protect,
        tag: T,
    ) -> Result<(), Refused<T>> {
        self.verify_as(namespace.as_ref(), (slba, blocks), Some(protect), tag)
    }

    fn verify_as(
        &mut self,
        extent: &Extent,
        (slba, blocks): (u64, u32),
        protect: Option<Protect>,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let kind = (NvmOpcode::VERIFY, OptionalCommands::VERIFY, protect);
        self.without_data(kind, extent, slba, blocks, tag)
    }

    /// Submits a Write Uncorrectable of `blocks` blocks (1 to 65536) from `slba` on: reads of them fail until they are
    /// written (NVM, "Write Uncorrectable").
    ///
    /// # Errors
    /// Those of [`compare`](Self::compare), with the empty buffer; [`Refusal::TooLong`] for more than the controller takes at once
    /// (WUSL of Identify).
    pub fn write_uncorrectable(
        &mut self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        blocks: u32,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let kind = (NvmOpcode::WRITE_UNCORRECTABLE, OptionalCommands::WRITE_UNCORRECTABLE, None);
        self.without_data(kind, namespace.as_ref(), slba, blocks, tag)
    }

    /// Submits a Copy of the blocks in the first `count` [`CopyRange`]s of `ranges` (1 to [`CopyRange::MOST`]), one after
    /// the other, to the blocks from `slba` on (NVM, "Copy"). Identify Namespace has the limits (`mssrl`, `mcl`, `msrc`). The
    /// controller fails a command beyond the namespace.
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag; nothing was sent. The reason is [`Refusal::NoCommand`] if the controller
    /// does not have the command, [`Refusal::Length`] if `count` is 0, exceeds a command's limit, or exceeds the ranges in
    /// the buffer, [`Refusal::CopyLimits`] if the ranges exceed the namespace's limits.
    pub fn copy(
        &mut self,
        namespace: &impl AsRef<Extent>,
        ranges: DmaBuf,
        count: usize,
        slba: u64,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let made = self.copy_words(namespace.as_ref(), &ranges, count, slba, None);
        self.push_owned(made, ranges, tag)
    }

    /// Submits a Copy like [`copy`](Self::copy), with the placement of the copied blocks that
    /// [`Io::placement`](super::Io::placement) describes.
    ///
    /// # Errors
    /// Those of [`copy`](Self::copy).
    pub fn copy_placed(
        &mut self,
        namespace: &impl AsRef<Extent>,
        ranges: DmaBuf,
        count: usize,
        slba: u64,
        placement: u16,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let made = self.copy_words(namespace.as_ref(), &ranges, count, slba, Some(placement));
        self.push_owned(made, ranges, tag)
    }

    /// Makes the words of a Copy to `slba`, which names `count` ranges, and their data pointer.
    fn copy_words(
        &mut self,
        extent: &Extent,
        ranges: &DmaBuf,
        count: usize,
        slba: u64,
        placement: Option<u16>,
    ) -> Result<([u64; 8], DataPointer), Refusal> {
        self.has(extent, OptionalCommands::COPY)?;
        if count.wrapping_sub(1) >= CopyRange::MOST {
            return Err(Refusal::Length);
        }
        if let Some(reason) = extent.misplaced(slba, 1) {
            return Err(reason);
        }
        if count * size_of::<CopyRange>() <= ranges.len() {
            let range = |index: usize| {
                let mut range = CopyRange::default();
                ranges.read_at(index * size_of::<CopyRange>(), range.as_mut_bytes());
                u64::from(range.nlb) + 1
            };
            if let Some(reason) = extent.copy.refuse((0..count).map(range)) {
                return Err(reason);
            }
        }
        let last = CopyDword12::new().with_nr((count - 1) as u8).into_bits();
        let last = u64::from(last) | Dwords::placed(placement).word();
        let words = [first_words(NvmOpcode::COPY, extent), 0, 0, 0, 0, slba, last, 0];
        Ok((words, self.pointer(NvmOpcode::COPY, ranges, 0, count * size_of::<CopyRange>())?))
    }

    /// Refuses an optional command if the namespace takes none now, or the controller lacks it.
    pub(super) fn has(&self, extent: &Extent, command: OptionalCommands) -> Result<(), Refusal> {
        self.check_namespace(extent)?;
        if extent.optional.contains(command) { Ok(()) } else { Err(Refusal::NoCommand) }
    }

    fn without_data(
        &mut self,
        (opcode, command, protect): (NvmOpcode, OptionalCommands, Option<Protect>),
        extent: &Extent,
        slba: u64,
        blocks: u32,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let refused = |reason, tag| Err(Refused { reason, buffer: DmaBuf::empty(), tag });
        if let Err(reason) = self.has(extent, command) {
            return refused(reason, tag);
        }
        let last = blocks.wrapping_sub(1);
        let most = self.queue.live.limits().named(opcode) / extent.format.data_size().max(1) as u64;
        if last > u32::from(u16::MAX)
            || u64::from(last) >= most
            || extent.misplaced(slba, blocks.into()).is_some()
        {
            let at = (self.queue.live.controller, self.namespaces, false);
            return refused(refuse_blocks(extent, at, slba, extent.bytes(blocks), false), tag);
        }
        if protect.is_some() && extent.format.protection().is_none() {
            return refused(Refusal::Unprotected, tag);
        }
        let mut words = [first_words(opcode, extent), 0, 0, 0, 0, slba, last.into(), 0];
        if let Some(protect) = protect {
            protect.put(&mut words, &extent.format, slba, 0);
        }
        self.push(words, DmaBuf::empty(), tag, 0);
        Ok(())
    }
}
