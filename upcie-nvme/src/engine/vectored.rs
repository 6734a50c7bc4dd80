//! Commands over several ranges of memory that stays with the caller.

use super::{
    Extent, Io, Refusal, Refused, Turn,
    common::{CLOSED, first_words, refuse_namespace},
    plan::Plan,
    prp::{DataPointer, Source},
    ring::Queue,
};
use crate::{error::SegmentFault, protection::Protect, spec::NvmOpcode};
use std::ops::Range;
use upcie_core::dma::DmaBuf;

/// A segment of a vectored command: the bytes of a range of a buffer. Of a chain, the range is within the first segment.
pub type HeldSegment<'b> = (&'b DmaBuf, Range<usize>);

impl<T> Turn<'_, T> {
    /// Submits `io` for the bytes of all `segments`, in their order; their buffers stay with the caller. A segment may have
    /// any length and begin anywhere in its buffer: what PRPs can't describe becomes a scatter gather list, if the
    /// controller takes such and the queue [may use them](crate::queue::SglUse).
    ///
    /// Memory that the command may own is submitted without `unsafe`: [`DmaBuf::gather`] makes one buffer of several, for
    /// [`read`](Self::read), [`write`](Self::write) and [`submit`](Self::submit).
    ///
    /// # Examples
    /// ```
    /// # use upcie_nvme::{Controller, Io, Wait};
    /// # let controller = Controller::open("emu:size=1M")?;
    /// # let namespace = controller.namespace(1)?;
    /// # let mut queue = controller.queue_pair().create::<u64>()?;
    /// let (header, body) = (controller.alloc(512)?, controller.alloc(64 << 10)?);
    /// let segments = [(&header, 0..512), (&body, 100..3684)];
    /// // SAFETY: neither buffer is touched before the completion below.
    /// unsafe { queue.turn()?.submit_vectored_held(Io::write(&namespace, 0), &segments, 7) }?;
    /// # assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(10))?);
    /// queue.turn()?.next().unwrap().into_parts().1?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held), for each buffer.
    ///
    /// # Errors
    /// A [`Refused`] with the empty buffer and the tag; nothing was sent. [`Refusal::Segment`] names a segment that can't be
    /// part of the command; the other reasons are those of [`read`](Self::read) for all bytes together.
    #[inline]
    pub unsafe fn submit_vectored_held(
        &mut self,
        io: Io<'_>,
        segments: &[HeldSegment<'_>],
        tag: T,
    ) -> Result<(), Refused<T>> {
        let Io { extent, direction, slba, flags, protect } = io;
        let state = (self.namespaces, self.is_full());
        match describe(self.queue, state, (direction.opcode(), protect), (extent, slba), segments) {
            Ok((DataPointer { prp1, prp2, list, psdt }, last, plan)) => {
                let first = first_words(direction.opcode(), extent) | psdt;
                let mut words = [first, 0, 0, prp1, prp2, slba, last | flags.word(), 0];
                plan.put(&mut words, extent, slba, 0);
                self.push(words, DmaBuf::empty(), tag, list);
                Ok(())
            }
            Err(reason) => Err(Refused { reason, buffer: DmaBuf::empty(), tag }),
        }
    }
}

/// Makes the data pointer of a vectored command; also returns its number of blocks, 0's based. `state` is the stamp of
/// the turn's namespaces, and `true` if the queue is full.
#[inline(never)]
fn describe<T>(
    queue: &mut Queue<T>,
    (namespaces, full): (u64, bool),
    (opcode, protect): (NvmOpcode, Option<Protect>),
    (extent, slba): (&Extent, u64),
    segments: &[HeldSegment<'_>],
) -> Result<(DataPointer, u64, Plan), Refusal> {
    if extent.stamp != namespaces || namespaces == CLOSED || full || extent.max_blocks == 0 {
        return Err(refuse_namespace(extent, queue.live.controller, namespaces));
    }
    let plan = Plan::new(extent, opcode, protect, false)?;
    if let Some(pages) = queue.lists.pages(segments.iter().cloned()) {
        // Linear memory is the host's, which the controller takes in any direction.
        return match place(&plan, extent, slba, pages.len) {
            Ok(last) => Ok((queue.lists.take_pages(pages)?, last, plan)),
            Err(reason) => Err(reason),
        };
    }
    describe_slowly(queue, opcode, &plan, (extent, slba), segments)
}

/// Returns the number of blocks of `len` bytes, 0's based.
#[inline(always)]
fn place(plan: &Plan, extent: &Extent, slba: u64, len: u64) -> Result<u64, Refusal> {
    match plan.misplaced(extent, slba, len, extent.max_blocks.into()) {
        Some(reason) => Err(reason),
        None => Ok(plan.unit.last(len)),
    }
}

/// Makes the data pointer of any other segments.
#[inline(never)]
fn describe_slowly<T>(
    queue: &mut Queue<T>,
    opcode: NvmOpcode,
    plan: &Plan,
    (extent, slba): (&Extent, u64),
    segments: &[HeldSegment<'_>],
) -> Result<(DataPointer, u64, Plan), Refusal> {
    let (space, mut total) = (queue.lists.space(), 0_u64);
    for (number, (buffer, range)) in (0..).zip(segments) {
        let wrong = |fault| Err(Refusal::Segment { number, fault });
        // A range that ends before it starts has more bytes than any buffer.
        let len = range.end.wrapping_sub(range.start);
        if range.end > buffer.len() || len.wrapping_sub(1) >= buffer.len() {
            return wrong(SegmentFault::Length);
        }
        if buffer.prepared().space != space {
            return wrong(SegmentFault::Foreign);
        }
        // No sum of so few lengths of memory overflows: each segment takes 24 bytes of it, too.
        total = total.saturating_add(len as u64);
    }
    let last = place(plan, extent, slba, total)?;
    if let Some(reason) =
        queue.live.device_memory.refuse_all(opcode, segments.iter().map(|segment| segment.0))
    {
        return Err(reason);
    }
    match queue.lists.describe(&Held(segments), |_| ()) {
        Ok(pointer) => Ok((pointer, last, *plan)),
        Err(reason) => Err(queue.lists.shape().explain_segments(reason, segments.iter().cloned())),
    }
}

/// The ranges as a source of pieces; they were checked.
struct Held<'s>(&'s [HeldSegment<'s>]);

impl Source for Held<'_> {
    #[inline(always)]
    fn each(&self, piece: &mut impl FnMut(u64, u64) -> Result<(), Refusal>) -> Result<(), Refusal> {
        self.0.iter().try_for_each(|(buffer, range)| super::prp::pieces(buffer, range.clone(), piece))
    }
}
