//! Reap and submit in one pass.

use super::{
    Completion, Refusal, Refused,
    ring::{Cursor, FREE, Queue, Slot},
};
use crate::{
    Namespace,
    namespace::Extent,
    prp::{DataPointer, ListPool},
    spec::{Command, NvmOpcode},
};
use std::fmt;
use upcie_core::{
    barrier::{dma_rmb, dma_wmb},
    dma::DmaBuf,
};

/// An open guard of a queue: an iterator over finished commands that also takes new ones. Each doorbell is written
/// once, when it is dropped.
///
/// It hands back at most what was in flight when it was opened, so a loop that submits one command for each that it
/// reaps ends. A turn that is leaked (`mem::forget`) closes its queue for good.
///
/// Nothing here allocates, locks, counts references or calls the system.
// Nothing out of line takes a `Turn` by reference, however cold: one such call pins its fields to memory.
pub struct Turn<'q, T> {
    at: Cursor,
    sq: *mut u64,
    cq: *const u64,
    slots: *mut Slot<T>,
    free: *mut u16,
    entries: u32,
    mask: u32,
    /// Completions that may still be handed back.
    left: u32,
    /// The stamp of namespace handles that are good now.
    namespaces: u64,
    space: u64,
    queue: &'q mut Queue<T>,
}

impl<'q, T> Turn<'q, T> {
    #[inline(always)]
    pub(super) fn open(queue: &'q mut Queue<T>, namespaces: u64) -> Self {
        Self {
            at: queue.at,
            sq: queue.sq,
            cq: queue.cq,
            slots: queue.slots,
            free: queue.free,
            entries: queue.entries,
            mask: queue.mask,
            left: queue.entries - 1 - queue.at.free,
            namespaces,
            space: queue.space,
            queue,
        }
    }

    /// Reads as many blocks as `buffer` has room for, from block `slba` on.
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag, and nothing sent.
    #[inline(always)]
    pub fn read(
        &mut self,
        namespace: &Namespace,
        slba: u64,
        buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        self.transfer(NvmOpcode::READ, &namespace.extent, slba, buffer, tag)
    }

    /// Writes `buffer`, a whole number of blocks, from block `slba` on.
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag, and nothing sent.
    #[inline(always)]
    pub fn write(
        &mut self,
        namespace: &Namespace,
        slba: u64,
        buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        self.transfer(NvmOpcode::WRITE, &namespace.extent, slba, buffer, tag)
    }

    /// Makes what was written to the namespace, as far as its writes have completed, last (NVM, "Flush").
    ///
    /// # Errors
    /// A [`Refused`] with the tag, and nothing sent.
    #[inline(always)]
    pub fn flush(&mut self, namespace: &Namespace, tag: T) -> Result<(), Refused<T>> {
        let extent = &namespace.extent;
        if extent.stamp != self.namespaces || self.at.free == 0 || extent.max_bytes == 0 {
            let reason = refuse_namespace(*extent, self.queue.live.controller, self.at.free, self.namespaces);
            return Err(Refused { reason, buffer: DmaBuf::empty(), tag });
        }
        self.push(
            [u64::from(NvmOpcode::FLUSH.0) | u64::from(extent.nsid) << 32, 0, 0, 0],
            DmaBuf::empty(),
            tag,
            0,
        );
        Ok(())
    }

    /// Submits `command` as it is, but for its command id, with whatever data pointer it has. `buffer` stays with it
    /// until it completes.
    ///
    /// # Safety
    /// The controller does what the command says. The caller owes that the memory that its data and metadata pointers
    /// name may be read or written until it completes (it lies in `buffer`, say), that no command id or queue is
    /// disturbed by it (Abort, Delete Queue and the like belong to the driver), and that what it changes on the
    /// controller is told to the driver ([`Controller::rescan`](crate::Controller::rescan)).
    ///
    /// # Errors
    /// [`Refusal::Full`], with the buffer and the tag.
    #[inline(always)]
    pub unsafe fn submit_raw(&mut self, command: &Command, buffer: DmaBuf, tag: T) -> Result<(), Refused<T>> {
        if self.at.free == 0 {
            return Err(Refused { reason: Refusal::Full, buffer, tag });
        }
        let words: &[u64; 8] = zerocopy::transmute_ref!(command);
        let [first, second, metadata, prp1, prp2, rest @ ..] = *words;
        let sqe = self.push([first, prp1, prp2, 0], buffer, tag, 0);
        for (word, value) in [(1, second), (2, metadata), (5, rest[0]), (6, rest[1]), (7, rest[2])] {
            // SAFETY: `push` gave a whole entry; nobody reads it before the doorbell.
            let at = unsafe { sqe.add(word) };
            // SAFETY: as above.
            unsafe { at.write(value) };
        }
        Ok(())
    }

    /// Submits a transfer of the `len` bytes from `start` on of `held`, which stays with the caller; `len` 0 is a Flush.
    ///
    /// # Safety
    /// `held` is neither freed nor looked at before the command has completed or the controller has let go of the queue.
    /// The range is a whole number of blocks within the namespace, and within MDTS.
    pub(crate) unsafe fn submit_range(
        &mut self,
        opcode: NvmOpcode,
        extent: &Extent,
        slba: u64,
        held: &DmaBuf,
        start: usize,
        len: usize,
    ) -> Result<(), Refusal>
    where
        T: Default,
    {
        if extent.stamp != self.namespaces || self.at.free == 0 {
            return Err(refuse_namespace(*extent, self.queue.live.controller, self.at.free, self.namespaces));
        }
        let pointer = match (len, held.next()) {
            (0, _) => DataPointer { prp1: 0, prp2: 0, list: 0 },
            (_, None) => self.queue.lists.build_range(held, start, len)?,
            (_, Some(_)) if len == held.total_len() => self.queue.lists.build(held)?,
            // Only a chain that one command can take is split nowhere.
            _ => return Err(Refusal::TooLong),
        };
        let words = match len {
            0 => [0, 0],
            _ => [slba, (len as u64 >> extent.shift) - 1],
        };
        let first = u64::from(opcode.0) | u64::from(extent.nsid) << 32;
        let sqe = self.push(
            [first, pointer.prp1, pointer.prp2, words[1]],
            DmaBuf::empty(),
            T::default(),
            pointer.list,
        );
        // SAFETY: `push` gave a whole entry; nobody reads it before the doorbell.
        let at = unsafe { sqe.add(5) };
        // SAFETY: as above.
        unsafe { at.write(words[0]) };
        Ok(())
    }

    /// How many more commands the queue takes now.
    #[inline]
    pub fn room(&self) -> usize {
        self.at.free as usize
    }

    #[inline(always)]
    fn transfer(
        &mut self,
        opcode: NvmOpcode,
        extent: &Extent,
        slba: u64,
        mut buffer: DmaBuf,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let ready = buffer.transfer();
        let (mut prp1, mut prp2, mut list) = (ready.iova, ready.companion, 0);
        let mut blocks = ready.ready >> extent.shift;
        if blocks << extent.shift != ready.ready
            || ready.ready.wrapping_sub(1) >= extent.max_bytes
            || (extent.stamp ^ self.namespaces) | (ready.space ^ self.space) != 0
            || extent.blocks.saturating_sub(slba) < u64::from(blocks)
            || self.at.free == 0
        {
            let turn = (self.at.free, self.namespaces, self.space);
            let lists = (&raw mut self.queue.lists, self.queue.live.controller);
            // SAFETY: a field of the queue, which the turn borrows mutably and does not touch during the call.
            let lists = (unsafe { &mut *lists.0 }, lists.1);
            match look_closer(*extent, slba, buffer, turn, lists) {
                Ok((back, pointer, count)) => {
                    (buffer, blocks) = (back, count);
                    DataPointer { prp1, prp2, list } = pointer;
                }
                Err((reason, buffer)) => return Err(Refused { reason, buffer, tag }),
            }
        }
        let first = u64::from(opcode.0) | u64::from(extent.nsid) << 32;
        let sqe = self.push([first, prp1, prp2, u64::from(blocks - 1)], buffer, tag, list);
        // SAFETY: `push` gave a whole entry; nobody reads it before the doorbell.
        let at = unsafe { sqe.add(5) };
        // SAFETY: as above.
        unsafe { at.write(slba) };
        Ok(())
    }

    /// Takes a slot (the caller has seen that there is one) and writes the entry: dwords 0–1 but for the id, the data
    /// pointer, dwords 12–13; the rest zero. Gives the entry.
    #[inline(always)]
    fn push(
        &mut self,
        [first, prp1, prp2, dwords12]: [u64; 4],
        buffer: DmaBuf,
        tag: T,
        list: u32,
    ) -> *mut u64 {
        self.at.free -= 1;
        // SAFETY: `free` counts the indices on the stack, and was not 0.
        let index = unsafe { self.free.add(self.at.free as usize) };
        // SAFETY: as above; below `mask`, which bounds `slots`.
        let slot = unsafe { self.slots.add(usize::from(*index)) };
        // SAFETY: the stack holds distinct free slots, so nobody else refers to this one.
        let slot = unsafe { &mut *slot };
        let id = slot.word as u16;
        slot.word = u64::from(id) | u64::from(list) << 32;
        slot.buffer.write(buffer);
        slot.tag.write(tag);
        // SAFETY: `tail` is below `entries`.
        let sqe = unsafe { self.sq.add(self.at.tail as usize * 8) };
        let words = [first & !0xffff_0000 | u64::from(id) << 16, 0, 0, prp1, prp2, 0, dwords12, 0];
        // SAFETY: a whole entry of the ring; at most `entries - 1` are in flight, so the device is done with it.
        unsafe { sqe.cast::<[u64; 8]>().write(words) };
        let next = self.at.tail + 1;
        self.at.tail = if next == self.entries { 0 } else { next };
        sqe
    }
}

impl<T> Iterator for Turn<'_, T> {
    type Item = Completion<T>;

    /// The next finished command, in the order in which the controller finished them; `None` when there is none now.
    #[inline(always)]
    fn next(&mut self) -> Option<Completion<T>> {
        // SAFETY: `head` is below `entries`.
        let entry = unsafe { self.cq.add(self.at.head as usize * 2) };
        // SAFETY: as above.
        let second = unsafe { entry.add(1) };
        // SAFETY: aligned, in the ring, which the queue owns. The device writes it at any time: one volatile read.
        let high = unsafe { second.read_volatile() };
        if (high >> 48) as u32 & 1 != self.at.phase || self.left == 0 {
            return None;
        }
        // The rest of the entry, and the data, were written before its phase tag.
        dma_rmb();
        // SAFETY: as above.
        let low = unsafe { entry.read_volatile() };
        let id = (high >> 32) as u16;
        let index = u32::from(id) & self.mask;
        // SAFETY: masked to the number of slots.
        let slot = unsafe { self.slots.add(index as usize) };
        // SAFETY: inside the turn nobody else refers to the slots.
        let slot = unsafe { &mut *slot };
        if slot.word != u64::from(id) {
            // A command with a PRP list to give back, or a lie.
            if slot.word as u32 != u32::from(id) {
                self.queue.lied = true;
                self.left = 0;
                return None;
            }
            release(&mut self.queue.lists, (slot.word >> 32) as u32);
        }
        let next = self.at.head + 1;
        let wrapped = next == self.entries;
        self.at.head = if wrapped { 0 } else { next };
        self.at.phase ^= u32::from(wrapped);
        self.left -= 1;
        slot.word = FREE | u64::from(id.wrapping_add(self.queue.step));
        // SAFETY: one more index than before, of at most `entries - 1`: each slot is on the stack once.
        let free = unsafe { self.free.add(self.at.free as usize) };
        // SAFETY: as above.
        unsafe { free.write(index as u16) };
        self.at.free += 1;
        Some(Completion {
            // SAFETY: its word said that the slot was in flight, so it was filled; it is marked free now.
            buffer: unsafe { slot.buffer.assume_init_read() },
            // SAFETY: as above.
            tag: unsafe { slot.tag.assume_init_read() },
            low,
            high,
        })
    }
}

impl<T> Drop for Turn<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Neither goes all the way round in one turn: at most `entries - 1` are in flight.
        let reaped = self.at.head != self.queue.at.head;
        let submitted = self.at.tail != self.queue.at.tail;
        self.queue.at = self.at;
        self.queue.closed = self.queue.lied;
        // What was put into the rings is there before the doorbell is.
        dma_wmb();
        if reaped {
            self.queue.cq_doorbell.write(self.at.head);
        }
        if submitted {
            self.queue.sq_doorbell.write(self.at.tail);
        }
    }
}

impl<T> fmt::Debug for Turn<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("at", &self.at).finish_non_exhaustive()
    }
}

#[cold]
#[inline(never)]
fn release(lists: &mut ListPool, list: u32) {
    lists.release(list);
}

/// Why a transfer is not a plain one: a buffer without a ready data pointer, for which one is made, or a refusal.
#[cold]
#[inline(never)]
fn look_closer(
    extent: Extent,
    slba: u64,
    buffer: DmaBuf,
    (free, namespaces, space): (u32, u64, u64),
    (lists, controller): (&mut ListPool, u64),
) -> Result<(DmaBuf, DataPointer, u32), (Refusal, DmaBuf)> {
    let len = buffer.total_len();
    let blocks = (len as u64) >> extent.shift;
    let reason = if extent.stamp != namespaces || extent.max_bytes == 0 || free == 0 {
        refuse_namespace(extent, controller, free, namespaces)
    } else if buffer.segments().any(|segment| segment.transfer().space != space && !segment.is_empty()) {
        Refusal::ForeignBuffer
    } else if blocks == 0 || blocks << extent.shift != len as u64 {
        Refusal::Length
    } else if len as u64 > u64::from(extent.max_bytes) {
        Refusal::TooLong
    } else if extent.blocks.saturating_sub(slba) < blocks {
        Refusal::OutOfRange
    } else {
        match lists.build(&buffer) {
            Ok(pointer) => return Ok((buffer, pointer, blocks as u32)),
            Err(reason) => reason,
        }
    };
    Err((reason, buffer))
}

#[cold]
#[inline(never)]
fn refuse_namespace(extent: Extent, controller: u64, free: u32, namespaces: u64) -> Refusal {
    if extent.controller != controller {
        Refusal::ForeignNamespace
    } else if extent.stamp != namespaces {
        Refusal::StaleNamespace
    } else if extent.max_bytes == 0 {
        Refusal::Unsupported
    } else {
        debug_assert_eq!(free, 0);
        Refusal::Full
    }
}
