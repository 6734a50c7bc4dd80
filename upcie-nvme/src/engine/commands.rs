//! The commands that a turn submits besides plain reads and writes.

use super::{
    Extent, Io, Refusal, Refused, Turn, Zeroes,
    common::{CLOSED, cold, first_words, refuse_blocks, refuse_namespace},
    limits::DatasetLimits,
    metadata::submit_held,
    part::part_pointer,
    prp::DataPointer,
    slot::Cursor,
};
use crate::spec::{Command, DatasetDword11, DatasetRange, NvmOpcode};
use std::ops::Range;
use upcie_core::dma::DmaBuf;
use zerocopy::IntoBytes;

/// The attribute of a deallocation alone.
const DEALLOCATE: DatasetDword11 = DatasetDword11::new().with_ad(true);

impl<T> Turn<'_, T> {
    /// Submits a Flush: every write completed before this becomes durable (NVM, "Flush").
    ///
    /// # Errors
    /// A [`Refused`] with the tag; nothing was sent.
    #[inline(always)]
    pub fn flush(&mut self, namespace: &impl AsRef<Extent>, tag: T) -> Result<(), Refused<T>> {
        let extent = namespace.as_ref();
        if extent.stamp != self.namespaces || self.is_full() || extent.max_blocks == 0 {
            let reason = refuse_namespace(extent, self.queue.live.controller, self.namespaces);
            return Err(Refused { reason, buffer: DmaBuf::empty(), tag });
        }
        self.push([first_words(NvmOpcode::FLUSH, extent), 0, 0, 0, 0, 0, 0, 0], DmaBuf::empty(), tag, 0);
        Ok(())
    }

    /// Submits a Write Zeroes: the blocks of `zeroes` read as zeros afterwards (NVM, "Write Zeroes").
    ///
    /// # Errors
    /// A [`Refused`] with the tag; nothing was sent. The reason is [`Refusal::NoCommand`] if the controller
    /// does not have the command ([`Namespace::max_write_zeroes`](crate::Namespace::max_write_zeroes) is 0).
    #[inline(always)]
    pub fn write_zeroes(&mut self, zeroes: Zeroes<'_>, tag: T) -> Result<(), Refused<T>> {
        let Zeroes { extent, slba, blocks, flags, protect } = zeroes;
        let last = blocks.wrapping_sub(1);
        // `max_zeroes` is at most the number of blocks, so the subtraction after the first check can't wrap.
        if last >= extent.max_zeroes
            || slba > extent.last.wrapping_sub(u64::from(last))
            || extent.stamp != self.namespaces
            || self.is_full()
        {
            let at = (self.queue.live.controller, self.namespaces, self.is_full());
            let reason = refuse_blocks(extent, at, slba, extent.bytes(blocks), extent.max_zeroes == 0);
            return Err(Refused { reason, buffer: DmaBuf::empty(), tag });
        }
        let mut words = [
            first_words(NvmOpcode::WRITE_ZEROES, extent),
            0,
            0,
            0,
            0,
            slba,
            u64::from(last) | flags.word(),
            0,
        ];
        if let Some(protect) = protect {
            cold();
            protect.put(&mut words, &extent.format, slba, 0);
        }
        self.push(words, DmaBuf::empty(), tag, 0);
        Ok(())
    }

    /// Submits a Dataset Management with the attribute Deallocate: the contents of the first `count`
    /// [`DatasetRange`]s in `ranges` (1 to [`DatasetRange::MOST`]) are no longer needed (NVM, "Dataset
    /// Management"). Identify Namespace states the contents of such blocks (`dlfeat`). A range beyond the
    /// namespace makes the controller fail the command.
    ///
    /// Some controllers read all 4 KiB that a command's ranges can take, whatever their count: a buffer of
    /// that size and alignment works with all.
    ///
    /// ```
    /// # use upcie_nvme::{Controller, Wait, spec::DatasetRange};
    /// # let controller = Controller::open("emu:size=1M")?;
    /// # let namespace = controller.namespace(1)?;
    /// # let mut queue = controller.queue_pair().create::<u64>()?;
    /// let mut ranges = controller.alloc(4096)?;
    /// for (index, range) in [DatasetRange::new(0, 8), DatasetRange::new(64, 8)].iter().enumerate() {
    ///     ranges.write_at(index * size_of::<DatasetRange>(), &range.to_bytes());
    /// }
    /// queue.turn()?.deallocate(&namespace, ranges, 2, 7)?;
    /// # assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(10))?);
    /// # queue.turn()?.next().unwrap().into_parts().1?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag; nothing was sent. The reason is [`Refusal::NoCommand`] if
    /// the controller does not have Dataset Management, [`Refusal::Length`] if `count` is 0, exceeds a
    /// command's limit, or exceeds the ranges in the buffer, [`Refusal::DatasetLimits`] if the ranges exceed the controller's limits.
    #[inline(always)]
    pub fn deallocate(
        &mut self,
        namespace: &impl AsRef<Extent>,
        ranges: DmaBuf,
        count: usize,
        tag: T,
    ) -> Result<(), Refused<T>> {
        match self.ranges(namespace.as_ref(), DEALLOCATE, &ranges, 0, count) {
            Ok((words, list)) => self.push(words, ranges, tag, list),
            Err(reason) => return Err(Refused { reason, buffer: ranges, tag }),
        }
        Ok(())
    }

    /// Submits a Dataset Management like [`deallocate`](Self::deallocate), with any attributes: that the ranges are no longer
    /// needed, or are read or written together (NVM, "Dataset Management"). Each range may have
    /// [hints](DatasetRange::attributes) of its own.
    ///
    /// # Errors
    /// Those of [`deallocate`](Self::deallocate).
    pub fn manage_dataset(
        &mut self,
        namespace: &impl AsRef<Extent>,
        attributes: DatasetDword11,
        ranges: DmaBuf,
        count: usize,
        tag: T,
    ) -> Result<(), Refused<T>> {
        match self.ranges(namespace.as_ref(), attributes, &ranges, 0, count) {
            Ok((words, list)) => {
                self.push(words, ranges, tag, list);
                Ok(())
            }
            Err(reason) => Err(Refused { reason, buffer: ranges, tag }),
        }
    }

    /// Submits a command like [`deallocate`](Self::deallocate), with the ranges in the bytes `part` of `held`,
    /// which stays with the caller.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held).
    ///
    /// # Errors
    /// Those of [`deallocate`](Self::deallocate), with the empty buffer.
    #[inline(always)]
    pub unsafe fn deallocate_held(
        &mut self,
        namespace: &impl AsRef<Extent>,
        held: &DmaBuf,
        part: Range<usize>,
        tag: T,
    ) -> Result<(), Refused<T>> {
        // SAFETY: the caller's promise.
        unsafe { self.manage_dataset_held(namespace, DEALLOCATE, held, part, tag) }
    }

    /// Submits a command like [`manage_dataset`](Self::manage_dataset), with the ranges in the bytes `part` of `held`, which stays
    /// with the caller.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held).
    ///
    /// # Errors
    /// Those of [`deallocate`](Self::deallocate), with the empty buffer.
    #[inline(always)]
    pub unsafe fn manage_dataset_held(
        &mut self,
        namespace: &impl AsRef<Extent>,
        attributes: DatasetDword11,
        held: &DmaBuf,
        part: Range<usize>,
        tag: T,
    ) -> Result<(), Refused<T>> {
        // A remainder of a range ends up in the top bits, above any limit.
        let len = part.end.wrapping_sub(part.start);
        let count = len.rotate_right(const { size_of::<DatasetRange>().trailing_zeros() });
        match self.ranges(namespace.as_ref(), attributes, held, part.start, count) {
            Ok((words, list)) => self.push(words, DmaBuf::empty(), tag, list),
            Err(reason) => return Err(Refused { reason, buffer: DmaBuf::empty(), tag }),
        }
        Ok(())
    }

    /// Submits `io` for the bytes `part` of `held`; the buffer stays with the caller. For callers that keep their
    /// memory in one buffer and name ranges of it (fio, and other C programs). Of a chain, the range is one of all its
    /// bytes.
    ///
    /// The checks are those of [`read`](Self::read) and [`write`](Self::write). A range of at most two of the
    /// controller's pages, in a [linear](DmaBuf::is_linear) buffer, is sent without an out-of-line call and
    /// without a list.
    ///
    /// # Safety
    /// Until the command has completed, or [`QueuePair::close`](crate::QueuePair::close) has returned `Ok`,
    /// `held` is neither freed, nor written to, nor (for a read) looked at. If the queue can't be closed that
    /// way, give `held` to [`Controller::keep`](crate::Controller::keep).
    ///
    /// # Errors
    /// A [`Refused`] with the empty buffer and the tag; nothing was sent. The reason is [`Refusal::Length`]
    /// also if the range is not within `held`.
    #[inline(always)]
    pub unsafe fn submit_held(
        &mut self,
        io: Io<'_>,
        held: &DmaBuf,
        part: Range<usize>,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let Io { extent, direction, slba, flags, protect } = io;
        // A range that ends before it starts has more bytes than any buffer.
        let (start, len) = (part.start, part.end.wrapping_sub(part.start));
        // The same trick as in `submit`: a remainder ends up in the top bits, above any limit.
        let last = (len as u64).rotate_right(extent.shift).wrapping_sub(1);
        let reason = if last >= u64::from(extent.plain_blocks)
            || slba > extent.last.wrapping_sub(last)
            || extent.stamp != self.namespaces
            || self.is_full()
            || protect.is_some()
        {
            if protect.is_some() || extent.plain_blocks != extent.max_blocks {
                let at = Cursor { sqe: self.sqe, top: self.top };
                let command = (direction.opcode(), &Io { extent, direction, slba, flags, protect });
                let at = submit_held(self.queue, at, self.namespaces, command, (held, part), None, tag)?;
                (self.sqe, self.top) = (at.sqe, at.top);
                return Ok(());
            }
            let at = (self.queue.live.controller, self.namespaces, self.is_full());
            refuse_blocks(extent, at, slba, len as u64, false)
        } else {
            match self.pointer(direction.opcode(), held, start, len) {
                Ok(DataPointer { prp1, prp2, list, psdt }) => {
                    let (first, last) = (first_words(direction.opcode(), extent) | psdt, last | flags.word());
                    let words = [first, 0, 0, prp1, prp2, slba, last, 0];
                    self.push(words, DmaBuf::empty(), tag, list);
                    return Ok(());
                }
                Err(reason) => reason,
            }
        };
        Err(Refused { reason, buffer: DmaBuf::empty(), tag })
    }

    /// Submits `command` as it is, except for its command id, with the data pointer that it has. `buffer`
    /// stays with the command until it completes.
    ///
    /// # Safety
    /// The memory that the command's data and metadata pointers name may be read or written until it
    /// completes (it lies in `buffer`, say). The command disturbs no other command id or queue (Abort, Delete
    /// Queue and the like belong to the driver). If it changes a namespace, the caller tells the driver
    /// ([`Controller::invalidate_namespaces`](crate::Controller::invalidate_namespaces)).
    ///
    /// # Errors
    /// [`Refusal::Full`] or [`Refusal::Closed`], with the buffer and the tag.
    #[inline(always)]
    pub unsafe fn submit_raw(&mut self, command: &Command, buffer: DmaBuf, tag: T) -> Result<(), Refused<T>> {
        if self.is_full() {
            let reason = if self.namespaces == CLOSED { Refusal::Closed } else { Refusal::Full };
            return Err(Refused { reason, buffer, tag });
        }
        let mut words: [u64; 8] = zerocopy::transmute!(*command);
        words[0] &= !0xffff_0000;
        self.push(words, buffer, tag, 0);
        Ok(())
    }

    /// Refuses a command if the namespace takes none now.
    #[inline(always)]
    pub(super) fn check_namespace(&self, extent: &Extent) -> Result<(), Refusal> {
        if extent.stamp != self.namespaces || self.is_full() || extent.max_blocks == 0 {
            return Err(refuse_namespace(extent, self.queue.live.controller, self.namespaces));
        }
        Ok(())
    }

    /// Submits a command for memory that stays with the caller: its words without a data pointer and the pointer, or the
    /// reason why it can't be sent.
    pub(super) fn push_held(
        &mut self,
        made: Result<([u64; 8], DataPointer), Refusal>,
        tag: T,
    ) -> Result<(), Refused<T>> {
        self.push_owned(made, DmaBuf::empty(), tag)
    }

    /// Submits a command with its buffer: its words without a data pointer and the pointer, or the reason why it can't be sent.
    pub(super) fn push_owned(
        &mut self,
        made: Result<([u64; 8], DataPointer), Refusal>,
        buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        match made {
            Ok((mut words, DataPointer { prp1, prp2, list, psdt })) => {
                words[0] |= psdt;
                (words[3], words[4]) = (prp1, prp2);
                self.push(words, buffer, tag, list);
                Ok(())
            }
            Err(reason) => Err(Refused { reason, buffer, tag }),
        }
    }

    /// Returns the words of a Dataset Management command, and its PRP list.
    #[inline(always)]
    fn ranges(
        &mut self,
        extent: &Extent,
        attributes: DatasetDword11,
        held: &DmaBuf,
        start: usize,
        count: usize,
    ) -> Result<([u64; 8], u32), Refusal> {
        self.check_namespace(extent)?;
        if !extent.deallocates {
            return Err(Refusal::NoCommand);
        }
        if count.wrapping_sub(1) >= DatasetRange::MOST {
            return Err(Refusal::Length);
        }
        check_ranges(self.queue.live.limits().dataset, held, start, count)?;
        let len = count * size_of::<DatasetRange>();
        let pointer = self.pointer(NvmOpcode::DATASET_MANAGEMENT, held, start, len)?;
        let dwords = (count - 1) as u64 | u64::from(attributes.into_bits()) << 32;
        let words = first_words(NvmOpcode::DATASET_MANAGEMENT, extent) | pointer.psdt;
        Ok(([words, 0, 0, pointer.prp1, pointer.prp2, dwords, 0, 0], pointer.list))
    }

    /// Makes the data pointer for the `len` bytes (at least one) from `start` on of `held`: by arithmetic for
    /// at most two pages.
    #[inline(always)]
    pub(super) fn pointer(
        &mut self,
        opcode: NvmOpcode,
        held: &DmaBuf,
        start: usize,
        len: usize,
    ) -> Result<DataPointer, Refusal> {
        let data = held.prepared();
        let mask = self.queue.lists.page_mask();
        // Neither sum overflows once the range is known to lie within the buffer, whose end has an address.
        let prp1 = data.iova.wrapping_add(start as u64);
        let end = (prp1 & mask).wrapping_add(len as u64);
        if start > held.len()
            || len > held.len() - start
            || !held.is_linear()
            || data.space != self.queue.space
            || prp1 & 3 != 0
            || end > 2 * (mask + 1)
        {
            cold();
            return part_pointer(self.queue, opcode, held, start, len);
        }
        let prp2 = if end > mask + 1 { (prp1 | mask) + 1 } else { 0 };
        Ok(DataPointer { prp1, prp2, list: 0, psdt: 0 })
    }
}

/// Checks the ranges from byte `start` on of `held` by the controller's limits. Bytes that are not in the buffer are refused by
/// what makes the data pointer.
#[inline(never)]
fn check_ranges(limits: DatasetLimits, held: &DmaBuf, start: usize, count: usize) -> Result<(), Refusal> {
    const SIZE: usize = size_of::<DatasetRange>();
    let is_inside = start.checked_add(count * SIZE).is_some_and(|end| end <= held.len());
    let range = |index: usize| {
        let mut range = DatasetRange::default();
        held.read_at(start + index * SIZE, range.as_mut_bytes());
        range
    };
    match limits.refuse(count, (0..if is_inside { count } else { 0 }).map(range)) {
        Some(reason) => Err(reason),
        None => Ok(()),
    }
}
