//! Zone Append: blocks that the controller places at a zone's write pointer.

use super::{
    Extent, Io, Refusal, Refused, Turn, ZoneSelect,
    metadata::{WithMetadata, submit, submit_held},
    plan::Plan,
    slot::Cursor,
    slow::submit_slowly,
};
use crate::spec::NvmOpcode;
use std::ops::Range;
use upcie_core::dma::DmaBuf;

impl<T> Turn<'_, T> {
    /// Submits a Zone Append of all of `buffer`, a whole number of blocks, to the zone whose first block is `zone`: the
    /// controller writes it at the zone's write pointer, and the completion tells where
    /// ([`Completion::block`](super::Completion::block)). So several may be in flight for one zone, unlike writes.
    ///
    /// ```
    /// # use upcie_nvme::{Controller, Wait};
    /// # let controller = Controller::open("emu:size=1M,zoned=true,zone-size=64K")?;
    /// # let namespace = controller.namespace(1)?;
    /// # let mut queue = controller.queue_pair().create::<u64>()?;
    /// let zone = namespace.zones()?.start_of(3);
    /// queue.turn()?.append(&namespace, zone, controller.alloc(4096)?, 7)?;
    /// # assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(10))?);
    /// let done = queue.turn()?.next().unwrap();
    /// done.result()?;
    /// assert_eq!(done.block(), zone); // the first blocks of the zone
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag; nothing was sent. The reason is [`Refusal::NotZoned`] for a namespace without
    /// zones, [`Refusal::ZoneStart`] if `zone` is no first block of a zone, and [`Refusal::TooLong`] for more than one append
    /// may write ([`Zones::max_append`](crate::Zones::max_append)).
    pub fn append(
        &mut self,
        namespace: &impl AsRef<Extent>,
        zone: u64,
        buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        self.append_with(Io::write(namespace, zone), buffer, tag)
    }

    /// Submits a Zone Append like [`append`](Self::append), with the flags, the directive and the protection of `io`, a write
    /// whose block is the first one of the zone. Reference tags begin with that of the zone's first block; with type 1 the
    /// controller makes them those of the blocks that it writes (PIREMAP).
    ///
    /// # Errors
    /// Those of [`append`](Self::append); [`Refusal::Unprotected`] if `io` has protection and the namespace has none.
    pub fn append_with(&mut self, io: Io<'_>, buffer: DmaBuf, tag: T) -> Result<(), Refused<T>> {
        if let Err(reason) = self.check_append(&io, buffer.total_len(), false) {
            return Err(Refused { reason, buffer, tag });
        }
        let Io { extent, slba, flags, protect, .. } = io;
        let at = Cursor { sqe: self.sqe, top: self.top };
        let kind = (NvmOpcode::ZONE_APPEND, flags, protect);
        let at = submit_slowly(self.queue, at, self.namespaces, kind, extent, slba, (buffer, tag))?;
        (self.sqe, self.top) = (at.sqe, at.top);
        Ok(())
    }

    /// Submits a Zone Append like [`append_with`](Self::append_with), of data and, apart from it, metadata.
    ///
    /// # Errors
    /// Those of [`append_with`](Self::append_with) and of [`submit_with_metadata`](Self::submit_with_metadata), with both buffers
    /// in one chain.
    pub fn append_with_metadata(
        &mut self,
        io: Io<'_>,
        buffers: WithMetadata,
        tag: T,
    ) -> Result<(), Refused<T>> {
        if let Err(reason) = self.check_append(&io, buffers.data.total_len(), true) {
            return Err(Refused { reason, buffer: buffers.join(), tag });
        }
        let at = Cursor { sqe: self.sqe, top: self.top };
        let at = submit(self.queue, at, self.namespaces, (NvmOpcode::ZONE_APPEND, &io), (buffers, tag))?;
        (self.sqe, self.top) = (at.sqe, at.top);
        Ok(())
    }

    /// Submits a Zone Append like [`append`](Self::append), of the bytes `part` of `held`, which stays with the caller.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held).
    ///
    /// # Errors
    /// Those of [`append`](Self::append), with the empty buffer.
    pub unsafe fn append_held(
        &mut self,
        namespace: &impl AsRef<Extent>,
        zone: u64,
        held: &DmaBuf,
        part: Range<usize>,
        tag: T,
    ) -> Result<(), Refused<T>> {
        // SAFETY: the caller's promise.
        unsafe { self.append_held_with(Io::write(namespace, zone), held, part, tag) }
    }

    /// Submits a Zone Append like [`append_with`](Self::append_with), of the bytes `part` of `held`, which stays with the caller.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held).
    ///
    /// # Errors
    /// Those of [`append_with`](Self::append_with), with the empty buffer.
    pub unsafe fn append_held_with(
        &mut self,
        io: Io<'_>,
        held: &DmaBuf,
        part: Range<usize>,
        tag: T,
    ) -> Result<(), Refused<T>> {
        if let Err(reason) = self.check_append(&io, part.end.wrapping_sub(part.start), false) {
            return Err(Refused { reason, buffer: DmaBuf::empty(), tag });
        }
        let at = Cursor { sqe: self.sqe, top: self.top };
        let command = (NvmOpcode::ZONE_APPEND, &io);
        let at = submit_held(self.queue, at, self.namespaces, command, (held, part), None, tag)?;
        (self.sqe, self.top) = (at.sqe, at.top);
        Ok(())
    }

    /// Checks the zone of an append, and its length.
    fn check_append(&self, io: &Io<'_>, len: usize, has_metadata: bool) -> Result<(), Refusal> {
        self.zone_of(io.extent, ZoneSelect::At(io.slba))?;
        let plan = Plan::new(io.extent, NvmOpcode::ZONE_APPEND, io.protect, has_metadata)?;
        match plan.unit.blocks(len as u64) {
            None => Err(Refusal::Length),
            Some(blocks) if blocks > io.extent.zones.append.into() => Err(Refusal::TooLong),
            Some(_) => Ok(()),
        }
    }
}
