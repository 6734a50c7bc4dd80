//! Commands that come back without a turn, and a queue that begins anew after a reset.

use super::{
    Completion, Epoch,
    ring::{CQE_WORDS, PHASE, Queue, State},
    slot::{Cursor, FREE, FREE_MASK},
};
use crate::spec::Status;
use std::{fmt, sync::Arc};
use upcie_core::{barrier::dma_rmb, dma::DmaBuf};

/// A command that was in flight when its queue was [recovered](crate::QueuePair::recover) or
/// [closed](crate::QueuePair::close), with its tag and its buffer. The controller uses the buffer no more.
///
/// # Examples
/// ```
/// use upcie_nvme::{Controller, queue::Returned};
///
/// let controller = Controller::open("emu:size=1M")?;
/// let namespace = controller.namespace(1)?;
/// let mut queue = controller.queue_pair().create::<u64>()?;
/// queue.turn()?.read(&namespace, 0, controller.alloc(4096)?, 7)?;
/// controller.reset()?;
/// for returned in queue.recover()? {
///     assert_eq!(*returned.tag(), 7);
///     match returned {
///         Returned::Completed(done) => println!("read before the reset: {}", done.status()),
///         Returned::Unknown { buffer, tag } => queue.turn()?.read(&namespace, 0, buffer, tag)?,
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "it holds the command's buffer"]
pub enum Returned<T> {
    /// The controller had completed the command, and the completion was not reaped.
    Completed(Completion<T>),
    /// The controller let go of the command without a completion: it is not known whether it was executed, in whole or
    /// in part. The bytes of a read's buffer are unspecified.
    Unknown {
        /// The tag.
        tag: T,
        /// The buffer, empty if the command had none.
        buffer: DmaBuf,
    },
}

impl<T> Returned<T> {
    /// Returns the tag.
    pub fn tag(&self) -> &T {
        match self {
            Self::Completed(done) => done.tag(),
            Self::Unknown { tag, .. } => tag,
        }
    }

    /// Returns the result of a command that was completed; `None` if it is not known whether it was executed.
    pub fn result(&self) -> Option<Result<(), Status>> {
        match self {
            Self::Completed(done) => Some(done.result()),
            Self::Unknown { .. } => None,
        }
    }

    /// Takes it apart: the tag, the [result](Self::result), and the buffer.
    pub fn into_parts(self) -> (T, Option<Result<(), Status>>, DmaBuf) {
        match self {
            Self::Completed(done) => {
                let (tag, result, buffer) = done.into_parts();
                (tag, Some(result), buffer)
            }
            Self::Unknown { tag, buffer } => (tag, None, buffer),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Returned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed(done) => f.debug_tuple("Completed").field(done).finish(),
            Self::Unknown { tag, buffer } => {
                f.debug_struct("Unknown").field("tag", tag).field("buffer", buffer).finish()
            }
        }
    }
}

impl<T> Queue<T> {
    /// Takes all commands out of the queue, first those that the controller has completed. Each comes back once. The
    /// controller must have let go of the queue: it was stopped, or has deleted the queue. Rings no doorbell.
    pub(crate) fn take_all(&mut self) -> Vec<Returned<T>> {
        let mut all = Vec::new();
        while let Some(done) = self.take_completed() {
            all.push(Returned::Completed(done));
        }
        let step = self.step;
        for slot in self.slots_mut() {
            if slot.word & FREE_MASK == 0 {
                slot.word = u64::from(slot.word as u32 + step);
                // SAFETY: a slot that is not free was filled when it was taken, and is marked free now.
                let buffer = unsafe { slot.buffer.assume_init_read() };
                // SAFETY: the tag was filled together with the buffer, and is read once: the slot is free now.
                let tag = unsafe { slot.tag.assume_init_read() };
                all.push(Returned::Unknown { tag, buffer });
            }
        }
        all
    }

    /// Takes the tags of the commands whose buffers were [retired](Self::retire), each once; none of a queue that was not.
    pub(crate) fn take_tags(&mut self) -> Vec<T> {
        if !self.rings.0.is_empty() {
            return Vec::new();
        }
        // The rings are gone, and the buffers are empty ones.
        self.take_all().into_iter().map(|command| command.into_parts().0).collect()
    }

    /// Takes the next command whose completion was posted and not reaped. A completion of a command that is not in
    /// flight ends the search.
    pub(super) fn take_completed(&mut self) -> Option<Completion<T>> {
        if self.cqe == self.reap_limit || !self.is_ready() {
            return None;
        }
        // The rest of the entry, and the data, were written before its phase tag.
        dma_rmb();
        // SAFETY: the first word of an entry of the ring, aligned, in memory that the queue owns.
        let result = unsafe { self.cqe.read_volatile() };
        // SAFETY: the last dword of the entry.
        let last = unsafe { self.cqe.cast::<u32>().add(3) };
        // SAFETY: aligned, in the ring, which the queue owns.
        let dword3 = unsafe { last.read_volatile() };
        let (id, step) = (dword3 & 0xffff, self.step);
        let index = (id & self.mask) as usize;
        let slot = &mut self.slots_mut()[index];
        if slot.word as u32 != id {
            return None;
        }
        slot.word = u64::from(id + step);
        // SAFETY: its word said that the slot was in flight, so it was filled; it is marked free now.
        let buffer = unsafe { slot.buffer.assume_init_read() };
        // SAFETY: it was filled together with the buffer, and is read once: the slot is free now.
        let tag = unsafe { slot.tag.assume_init_read() };
        // SAFETY: to the next entry, or behind the last.
        self.cqe = unsafe { self.cqe.add(CQE_WORDS) };
        if self.cqe == self.cq_end {
            self.cqe = self.cq;
            self.phase ^= PHASE;
        }
        Some(Completion { buffer, tag, result, dword3 })
    }

    /// Makes the queue as new, for the controller to create it again, and closed until [`join`](Self::join): empty rings,
    /// all slots and lists free. Commands that are still in flight are dropped; the controller uses none of its memory.
    ///
    /// The ids of commands go on counting the uses of their slots, so an entry that a device writes late names no new
    /// command.
    pub(crate) fn renew(&mut self) {
        drop(self.take_all());
        self.link_slots();
        self.clear_rings();
        self.at = Cursor { sqe: self.sq, top: 0 };
        (self.cqe, self.reap_limit) = (self.cq, self.cq);
        (self.phase, self.empty_turns, self.lapped) = (PHASE, 0, 0);
        self.lists.release_all();
    }

    /// Makes the list of free slots, of all in order.
    fn link_slots(&mut self) {
        let link = self.link;
        for (index, slot) in (0_u64..).zip(self.slots_mut()) {
            slot.word = slot.word & 0xffff | u64::from(FREE) | (index + 1) << link << 32;
        }
    }

    /// Lets the list of free slots name each by its number, shifted: for a queue with all slots free, in order.
    pub(super) fn link_by(&mut self, link: u32) {
        self.link = link;
        self.link_slots();
    }

    /// Opens the queue in `epoch`: the controller has created it.
    pub(crate) fn join(&mut self, epoch: Arc<Epoch>) {
        self.set_epoch(epoch);
        (self.state, self.guard) = (State::Ready, 0);
    }
}
