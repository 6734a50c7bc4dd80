//! The fused operation Compare and Write (Base, "Fused Operations"; NVM, "Compare and Write").

use super::{
    Extent, Io, Refusal, Turn,
    common::first_words,
    metadata::WithMetadata,
    plan::{Plan, metadata_pointer},
    prp::DataPointer,
};
use crate::spec::NvmOpcode;
use std::fmt;
use upcie_core::dma::DmaBuf;

/// FUSE of a command's first dword: the first, and the second command of a fused operation.
const FIRST: u64 = 1 << 8;
const SECOND: u64 = 2 << 8;

/// A fused operation that was refused, returned with the reason.
#[must_use = "it holds the commands' buffers"]
pub struct RefusedPair<T> {
    /// The reason for the refusal.
    pub reason: Refusal,
    /// The buffer of the Compare, unchanged.
    pub expected: DmaBuf,
    /// The buffer of the Write, unchanged.
    pub new: DmaBuf,
    /// The tags of the Compare and of the Write.
    pub tags: [T; 2],
}

impl<T> fmt::Debug for RefusedPair<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T> fmt::Display for RefusedPair<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<T> std::error::Error for RefusedPair<T> {}

/// The buffers of one of both commands: its data from `start` on, and metadata apart from it.
#[derive(Debug, Clone, Copy)]
struct Half<'b> {
    data: &'b DmaBuf,
    start: usize,
    metadata: Option<&'b DmaBuf>,
}

impl<'b> Half<'b> {
    fn of(buffers: &'b WithMetadata) -> Self {
        let metadata = Some(&buffers.metadata).filter(|metadata| !metadata.is_empty());
        Self { data: &buffers.data, start: 0, metadata }
    }
}

impl<T> Turn<'_, T> {
    /// Submits a Compare and a Write that the controller carries out as one: it writes all of `new` to the blocks from `slba`
    /// on if they have the data of `expected`, which is as long. Both commands take adjacent entries, for which the doorbell
    /// is written once; each completes with its own tag.
    ///
    /// The Compare completes with [`Status::COMPARE_FAILURE`](crate::spec::Status::COMPARE_FAILURE) if the blocks differ. If it
    /// fails, the Write completes with [`Status::ABORTED_FAILED_FUSED`](crate::spec::Status::ABORTED_FAILED_FUSED), and
    /// nothing was written.
    ///
    /// ```
    /// # use upcie_nvme::{Controller, Wait, spec::Status};
    /// # let controller = Controller::open("emu:size=1M")?;
    /// # let namespace = controller.namespace(1)?;
    /// # let mut queue = controller.queue_pair().depth(8).create::<&str>()?;
    /// let (mut expected, mut new) = (controller.alloc(512)?, controller.alloc(512)?);
    /// expected.fill(0);
    /// new.fill(7);
    /// queue.turn()?.compare_and_write(&namespace, 3, expected, new, ["compare", "write"])?;
    /// let mut left = 2;
    /// while left > 0 {
    ///     # assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(10))?);
    ///     for done in queue.turn()? {
    ///         done.result()?;
    ///         left -= 1;
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A [`RefusedPair`] with the buffers and the tags; nothing was sent. The reason is [`Refusal::NoFused`] if the controller
    /// lacks the operation (FUSES), [`Refusal::Full`] if the queue has no room for both commands now, [`Refusal::Small`] if it
    /// never has, [`Refusal::Length`] if the buffers differ in length, [`Refusal::TooLong`] for more blocks than the
    /// controller compares and writes as one ([`Namespace::max_compare_and_write`](crate::Namespace::max_compare_and_write)).
    pub fn compare_and_write(
        &mut self,
        namespace: &impl AsRef<Extent>,
        slba: u64,
        expected: DmaBuf,
        new: DmaBuf,
        tags: [T; 2],
    ) -> Result<(), RefusedPair<T>> {
        let buffers = [expected, new].map(|data| WithMetadata { data, metadata: DmaBuf::empty() });
        self.compare_and_write_with(Io::write(namespace, slba), buffers, tags)
    }

    /// Submits a Compare and a Write like [`compare_and_write`](Self::compare_and_write), both with the flags and the protection of
    /// `io`, and with metadata apart from the data, which is empty where blocks have none. The first buffers are expected, the
    /// others are written. Controllers refuse the [action](crate::protection::Protect::action) of a Compare.
    ///
    /// # Errors
    /// Those of [`compare_and_write`](Self::compare_and_write), and of
    /// [`submit_with_metadata`](Self::submit_with_metadata), with data and metadata in one chain each.
    pub fn compare_and_write_with(
        &mut self,
        io: Io<'_>,
        [expected, new]: [WithMetadata; 2],
        tags: [T; 2],
    ) -> Result<(), RefusedPair<T>> {
        let len = expected.data.total_len();
        let made = match new.data.total_len() == len {
            true => self.fuse(&io, [Half::of(&expected), Half::of(&new)], len),
            false => Err(Refusal::Length),
        };
        let [expected, new] = [expected, new].map(|buffers| match buffers.metadata.is_empty() {
            true => buffers.data,
            false => buffers.join(),
        });
        match made {
            Ok([(compare, first), (write, second)]) => {
                let [tag, last] = tags;
                self.push(compare, expected, tag, first);
                self.push(write, new, last, second);
                Ok(())
            }
            Err(reason) => Err(RefusedPair { reason, expected, new, tags }),
        }
    }

    /// Submits a Compare and a Write like [`compare_and_write`](Self::compare_and_write): `len` bytes from the beginning of
    /// `held` are expected, and as many behind them are written. The buffer stays with the caller.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held).
    ///
    /// # Errors
    /// The reason why nothing was sent.
    pub(crate) unsafe fn compare_and_write_held(
        &mut self,
        extent: &Extent,
        slba: u64,
        held: &DmaBuf,
        len: usize,
        [tag, last]: [T; 2],
    ) -> Result<(), Refusal> {
        let halves = [0, len].map(|start| Half { data: held, start, metadata: None });
        let [(compare, first), (write, second)] = self.fuse(&Io::write(extent, slba), halves, len)?;
        self.push(compare, DmaBuf::empty(), tag, first);
        self.push(write, DmaBuf::empty(), last, second);
        Ok(())
    }

    /// Makes the data pointer of one command, of `len` bytes. A whole buffer has its list already.
    fn half(&mut self, opcode: NvmOpcode, half: Half<'_>, len: usize) -> Result<DataPointer, Refusal> {
        let data = half.data.prepared();
        // Not 0: that many bytes are blocks.
        let is_plain = data.space == self.queue.space && len as u64 <= self.queue.lists.shape().plain_bytes;
        if half.start == 0 && data.len as usize == len && is_plain {
            return Ok(DataPointer { prp1: data.iova, prp2: data.second, list: 0, psdt: 0 });
        }
        self.pointer(opcode, half.data, half.start, len)
    }

    /// Makes the metadata pointer of one command of `blocks` blocks.
    fn half_metadata(
        &self,
        opcode: NvmOpcode,
        half: Half<'_>,
        plan: &Plan,
        blocks: u64,
    ) -> Result<u64, Refusal> {
        let Some(metadata) = half.metadata else { return Ok(0) };
        let whole = blocks as usize * plan.metadata;
        if metadata.total_len() != whole {
            return Err(Refusal::MetadataLength);
        }
        match self.queue.live.device_memory.refuse_with(opcode, half.data, metadata) {
            Some(reason) => Err(reason),
            None => metadata_pointer(metadata, self.queue.lists.space(), 0, whole),
        }
    }

    /// Makes the words of both commands, each with its PRP list, of `len` bytes of data each.
    fn fuse(
        &mut self,
        io: &Io<'_>,
        [expected, new]: [Half<'_>; 2],
        len: usize,
    ) -> Result<[([u64; 8], u32); 2], Refusal> {
        let Io { extent, slba, flags, protect, .. } = *io;
        self.check_namespace(extent)?;
        if extent.fused == 0 {
            return Err(Refusal::NoFused);
        }
        if self.queue.capacity() < 2 {
            return Err(Refusal::Small);
        }
        if self.room() < 2 {
            return Err(Refusal::Full);
        }
        if expected.metadata.is_some() != new.metadata.is_some() {
            return Err(Refusal::MetadataLength);
        }
        let plan = Plan::new(extent, NvmOpcode::COMPARE, protect, expected.metadata.is_some())?;
        let most = extent.fused.min(extent.max_blocks);
        if let Some(reason) = plan.misplaced(extent, slba, len as u64, most.into()) {
            return Err(reason);
        }
        let last = plan.unit.last(len as u64);
        let compared = self.half_metadata(NvmOpcode::COMPARE, expected, &plan, last + 1)?;
        let written = self.half_metadata(NvmOpcode::WRITE, new, &plan, last + 1)?;
        let compare = self.half(NvmOpcode::COMPARE, expected, len)?;
        let write = match self.half(NvmOpcode::WRITE, new, len) {
            Ok(write) => write,
            Err(reason) => {
                if compare.list != 0 {
                    self.queue.lists.release(compare.list);
                }
                return Err(reason);
            }
        };
        let command = |opcode, fuse, mptr, DataPointer { prp1, prp2, list, psdt }| {
            let first = first_words(opcode, extent) | psdt | fuse;
            let mut words = [first, 0, mptr, prp1, prp2, slba, last | flags.word(), 0];
            plan.put(&mut words, extent, slba, 0);
            (words, list)
        };
        Ok([
            command(NvmOpcode::COMPARE, FIRST, compared, compare),
            command(NvmOpcode::WRITE, SECOND, written, write),
        ])
    }
}
