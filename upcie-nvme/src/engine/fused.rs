//! The fused operation Compare and Write (Base, "Fused Operations"; NVM, "Compare and Write").

use super::{Extent, Refusal, Turn, common::first_words, plan::Plan, prp::DataPointer};
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
        let len = expected.total_len();
        let made = match new.total_len() == len {
            true => self.fuse(namespace.as_ref(), slba, [(&expected, 0), (&new, 0)], len),
            false => Err(Refusal::Length),
        };
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
        let [(compare, first), (write, second)] = self.fuse(extent, slba, [(held, 0), (held, len)], len)?;
        self.push(compare, DmaBuf::empty(), tag, first);
        self.push(write, DmaBuf::empty(), last, second);
        Ok(())
    }

    /// Makes the data pointer of one command: of `len` bytes from an offset of a buffer. A whole buffer has its list already.
    fn half(
        &mut self,
        opcode: NvmOpcode,
        (held, start): (&DmaBuf, usize),
        len: usize,
    ) -> Result<DataPointer, Refusal> {
        let data = held.prepared();
        // Not 0: that many bytes are blocks.
        if start == 0 && data.len as usize == len && data.space == self.queue.space {
            return Ok(DataPointer { prp1: data.iova, prp2: data.second, list: 0, psdt: 0 });
        }
        self.pointer(opcode, held, start, len)
    }

    /// Makes the words of both commands, each with its PRP list: of `len` bytes from an offset of a buffer.
    fn fuse(
        &mut self,
        extent: &Extent,
        slba: u64,
        [expected, new]: [(&DmaBuf, usize); 2],
        len: usize,
    ) -> Result<[([u64; 8], u32); 2], Refusal> {
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
        let plan = Plan::new(extent, NvmOpcode::COMPARE, None, false)?;
        let most = extent.fused.min(extent.max_blocks);
        if let Some(reason) = plan.misplaced(extent, slba, len as u64, most.into()) {
            return Err(reason);
        }
        let last = plan.unit.last(len as u64);
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
        let command = |opcode, fuse, DataPointer { prp1, prp2, list, psdt }| {
            ([first_words(opcode, extent) | psdt | fuse, 0, 0, prp1, prp2, slba, last, 0], list)
        };
        Ok([command(NvmOpcode::COMPARE, FIRST, compare), command(NvmOpcode::WRITE, SECOND, write)])
    }
}
