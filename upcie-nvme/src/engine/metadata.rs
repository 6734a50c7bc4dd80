//! Commands whose metadata has a buffer of its own.

use super::{
    Io, Refusal, Refused, Turn,
    common::{CLOSED, first_words, misfit, refuse_blocks, refuse_namespace},
    fill::fill,
    part::part_pointer,
    plan::{Plan, metadata_pointer},
    prp::DataPointer,
    ring::Queue,
    slot::Cursor,
};
use crate::spec::NvmOpcode;
use std::ops::Range;
use upcie_core::dma::DmaBuf;

/// The buffers of a command: data and, apart from it, metadata.
///
/// In flight they are one chain, the metadata last. [`from`](Self::from) takes the buffer of a completion (or of a command
/// that was refused) apart again.
///
/// # Examples
/// ```
/// use upcie_nvme::{Controller, Io, Wait, WithMetadata};
///
/// let controller = Controller::open("emu:size=1M,ms=8")?;
/// let namespace = controller.namespace(1)?;
/// let mut queue = controller.queue_pair().create::<u64>()?;
/// let buffers = WithMetadata { data: controller.alloc(4096)?, metadata: controller.alloc(64)? };
/// queue.turn()?.submit_with_metadata(Io::write(&namespace, 0), buffers, 7)?;
/// assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(10))?);
/// let (tag, result, buffer) = queue.turn()?.next().unwrap().into_parts();
/// result?;
/// let buffers = WithMetadata::from(buffer);
/// assert_eq!((tag, buffers.data.len(), buffers.metadata.len()), (7, 4096, 64));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "it holds buffers"]
pub struct WithMetadata {
    /// The data of whole blocks; it may be a chain.
    pub data: DmaBuf,
    /// The metadata of as many blocks, one after the other: one buffer, contiguous for the device, aligned to dwords.
    pub metadata: DmaBuf,
}

impl WithMetadata {
    /// Chains both buffers. Address tables of gathered data are lost.
    pub(crate) fn join(self) -> DmaBuf {
        let Self { mut data, metadata } = self;
        data.chain(metadata);
        data
    }
}

impl From<DmaBuf> for WithMetadata {
    /// Takes a chain apart: the last segment is the metadata. A buffer of one segment has none.
    fn from(mut buffer: DmaBuf) -> Self {
        match buffer.unchain() {
            None => Self { data: buffer, metadata: DmaBuf::empty() },
            Some(next) if next.next_segment().is_none() => Self { data: buffer, metadata: next },
            Some(next) => {
                let mut segments = next.into_segments();
                let metadata = segments.pop().unwrap_or_else(DmaBuf::empty);
                for segment in segments {
                    buffer.chain(segment);
                }
                Self { data: buffer, metadata }
            }
        }
    }
}

impl<T> Turn<'_, T> {
    /// Submits `io` for `buffers`: data, and metadata in a buffer of its own, as namespaces with
    /// [separate](crate::protection::BlockFormat::is_separate) metadata have it.
    ///
    /// # Errors
    /// A [`Refused`] with both buffers in one chain ([`WithMetadata::from`]) and the tag; nothing was sent. The reason is
    /// [`Refusal::NoMetadata`] if the blocks have no such metadata, or the controller inserts and strips all of it,
    /// [`Refusal::MetadataLength`] if the metadata is not that of as many blocks, [`Refusal::MetadataPlace`] if it is not
    /// contiguous for the device or not aligned to dwords.
    #[inline]
    pub fn submit_with_metadata(
        &mut self,
        io: Io<'_>,
        buffers: WithMetadata,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let at = Cursor { sqe: self.sqe, top: self.top };
        let at = submit(self.queue, at, self.namespaces, (io.direction.opcode(), &io), (buffers, tag))?;
        (self.sqe, self.top) = (at.sqe, at.top);
        Ok(())
    }

    /// Submits `io` like [`submit_held`](Self::submit_held), with the metadata in the bytes of another range.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held), for both buffers.
    ///
    /// # Errors
    /// Those of [`submit_with_metadata`](Self::submit_with_metadata), with the empty buffer.
    #[inline]
    pub unsafe fn submit_held_with_metadata(
        &mut self,
        io: Io<'_>,
        (held, part): (&DmaBuf, Range<usize>),
        metadata: (&DmaBuf, Range<usize>),
        tag: T,
    ) -> Result<(), Refused<T>> {
        let at = Cursor { sqe: self.sqe, top: self.top };
        let command = (io.direction.opcode(), &io);
        let at = submit_held(self.queue, at, self.namespaces, command, (held, part), Some(metadata), tag)?;
        (self.sqe, self.top) = (at.sqe, at.top);
        Ok(())
    }
}

/// Submits a command with its buffers. The opcode may differ from that of the direction.
#[inline(never)]
pub(super) fn submit<T>(
    queue: &mut Queue<T>,
    at: Cursor,
    namespaces: u64,
    command: (NvmOpcode, &Io<'_>),
    (buffers, tag): (WithMetadata, T),
) -> Result<Cursor, Refused<T>> {
    match describe(queue, at, namespaces, command, &buffers) {
        Ok((words, list)) => {
            let buffer = buffers.join();
            // SAFETY: `describe` has checked that the queue is not full; the caller's turn has lent it, with its cursors.
            Ok(unsafe { fill(queue, at, words, buffer, tag, list) })
        }
        Err(reason) => Err(Refused { reason, buffer: buffers.join(), tag }),
    }
}

/// Makes the words of a command and its PRP list.
fn describe<T>(
    queue: &mut Queue<T>,
    at: Cursor,
    namespaces: u64,
    (opcode, io): (NvmOpcode, &Io<'_>),
    buffers: &WithMetadata,
) -> Result<([u64; 8], u32), Refusal> {
    let Io { extent, slba, flags, protect, .. } = *io;
    if extent.stamp != namespaces || namespaces == CLOSED || extent.max_blocks == 0 || queue.is_out(at) {
        return Err(refuse_namespace(extent, queue.live.controller, namespaces));
    }
    let plan = Plan::new(extent, opcode, protect, true)?;
    let WithMetadata { data, metadata } = buffers;
    let (space, len) = (queue.lists.space(), data.total_len());
    let most = u64::from(extent.max_blocks);
    if let Some(reason) = misfit(&queue.live, space, (opcode, extent, slba), &plan, data, len, most) {
        return Err(reason);
    }
    let last = plan.unit.last(len as u64);
    let whole = (last + 1) as usize * plan.metadata;
    if metadata.total_len() != whole {
        return Err(Refusal::MetadataLength);
    }
    let pointer = metadata_pointer(metadata, space, 0, whole)?;
    if let Some(reason) = queue.live.device_memory.refuse_with(opcode, data, metadata) {
        return Err(reason);
    }
    let (data, _) =
        queue.lists.build(data).map_err(|reason| queue.lists.shape().explain(reason, data, 0..len))?;
    let DataPointer { prp1, prp2, list, psdt } = data;
    let first = first_words(opcode, extent) | psdt;
    let mut words = [first, 0, pointer, prp1, prp2, slba, last | flags.word(), 0];
    plan.put(&mut words, extent, slba, 0);
    Ok((words, list))
}

/// Submits a command for memory that stays with the caller: blocks with metadata, or with protection, or of a Compare or a Zone
/// Append. The opcode may differ from that of the direction.
#[inline(never)]
pub(super) fn submit_held<T>(
    queue: &mut Queue<T>,
    at: Cursor,
    namespaces: u64,
    command: (NvmOpcode, &Io<'_>),
    (held, part): (&DmaBuf, Range<usize>),
    metadata: Option<(&DmaBuf, Range<usize>)>,
    tag: T,
) -> Result<Cursor, Refused<T>> {
    match describe_held(queue, at, namespaces, command, (held, part), metadata) {
        // SAFETY: `describe_held` has checked that the queue is not full; the caller's turn has lent it, with its cursors.
        Ok((words, list)) => Ok(unsafe { fill(queue, at, words, DmaBuf::empty(), tag, list) }),
        Err(reason) => Err(Refused { reason, buffer: DmaBuf::empty(), tag }),
    }
}

fn describe_held<T>(
    queue: &mut Queue<T>,
    at: Cursor,
    namespaces: u64,
    (opcode, io): (NvmOpcode, &Io<'_>),
    (held, part): (&DmaBuf, Range<usize>),
    metadata: Option<(&DmaBuf, Range<usize>)>,
) -> Result<([u64; 8], u32), Refusal> {
    let Io { extent, slba, flags, protect, .. } = *io;
    let len = part.end.wrapping_sub(part.start);
    if extent.stamp != namespaces || namespaces == CLOSED || extent.max_blocks == 0 || queue.is_out(at) {
        let at = (queue.live.controller, namespaces, queue.is_out(at));
        return Err(refuse_blocks(extent, at, slba, len as u64, false));
    }
    let plan = Plan::new(extent, opcode, protect, metadata.is_some())?;
    let most = u64::from(extent.max_blocks);
    if let Some(reason) = plan.misplaced(extent, slba, len as u64, most) {
        return Err(reason);
    }
    let last = plan.unit.last(len as u64);
    let mut mptr = 0;
    if let Some((metadata, part)) = metadata {
        let whole = (last + 1) as usize * plan.metadata;
        if part.end.wrapping_sub(part.start) != whole {
            return Err(Refusal::MetadataLength);
        }
        mptr = metadata_pointer(metadata, queue.lists.space(), part.start, whole)?;
        if let Some(reason) = queue.live.device_memory.refuse_with(opcode, held, metadata) {
            return Err(reason);
        }
    }
    let DataPointer { prp1, prp2, list, psdt } = part_pointer(queue, opcode, held, part.start, len)?;
    let mut words = [first_words(opcode, extent) | psdt, 0, mptr, prp1, prp2, slba, last | flags.word(), 0];
    plan.put(&mut words, extent, slba, 0);
    Ok((words, list))
}
