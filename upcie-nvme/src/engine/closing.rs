//! The end of a queue: why it is closed, and what becomes of the memory of its commands.

use super::{
    common::CLOSED,
    ring::{CQE_WORDS, PHASE, Queue, State},
    slot::{FREE, FREE_MASK},
};
use crate::{Error, Failure};
use upcie_core::dma::DmaBuf;

// Here, so that a reader of the path of I/O need not pass it.
impl<T> Queue<T> {
    /// Returns the reason why the queue is closed.
    #[cold]
    #[inline(never)]
    pub(super) fn why_closed(&self) -> Error {
        let (device, qid) = (self.name.to_string(), self.qid);
        if let Err(error) = self.live.check_owner(&device, &format!("using queue {qid}")) {
            return error;
        }
        let operation = format!("using queue {qid}");
        match self.state {
            _ if self.is_over() => match self.live.check_usable(&device, || operation.clone()) {
                Err(error) => error,
                Ok(()) => Error::reset_queue(device, operation, qid),
            },
            State::Forged => Error::forged_completion(device, qid),
            State::Fatal => Error::fatal(device, operation),
            State::Gone => Error::gone(device, operation),
            State::Disabled => Error::disabled(device, operation),
            State::Lost => upcie_core::Error::gone(device, operation).into(),
            State::Ready | State::Quiet => Error::leaked_turn(device, qid),
        }
    }

    /// Closes the queue for turns after a check of the controller found `error`. A message that was not
    /// answered in time does not close it: if the connection was given up, the next check notices.
    #[cold]
    pub(crate) fn fail(&mut self, error: &Error) {
        self.state = match error.failure() {
            Failure::Fatal { .. } => State::Fatal,
            Failure::Gone { .. } => State::Gone,
            Failure::Disabled { .. } => State::Disabled,
            // The epoch says so, or the queue goes on.
            Failure::Reset { .. }
            | Failure::Down { .. }
            | Failure::PciError { .. }
            | Failure::Overdue { .. } => return,
            Failure::Core(error) if error.kind() == upcie_core::ErrorKind::Timeout => return,
            _ => State::Lost,
        };
        self.guard = CLOSED;
    }

    /// Takes the buffers of the commands that are still in flight, which the device may still use, together
    /// with the rings: all memory that must not be freed before the device stops using it. The queue is
    /// closed after that; a reason that it had before stays.
    pub(crate) fn retire(&mut self) -> Retired {
        if self.state == State::Quiet {
            self.state = State::Ready;
        }
        self.guard = CLOSED;
        // The tags stay for `drop`: one whose destructor panics must not take the buffers with it.
        let in_flight = self.slots_mut().iter_mut().filter(|slot| slot.word & FREE_MASK == 0);
        let mut buffers: Vec<DmaBuf> = in_flight
            // SAFETY: a slot that is not free was filled when it was taken.
            .map(|slot| std::mem::take(unsafe { slot.buffer.assume_init_mut() }))
            .collect();
        buffers.extend([std::mem::take(&mut self.rings.0), std::mem::take(&mut self.rings.1)]);
        buffers.push(self.lists.take_memory());
        self.forget_rings();
        Retired(buffers)
    }

    /// Lets the queue look at an empty ring of nobody's: its own is not its own any more.
    fn forget_rings(&mut self) {
        /// Two entries. A look at the one before the next is in there, too.
        static EMPTY: [u64; 2 * CQE_WORDS] = [0; 2 * CQE_WORDS];
        let ends = EMPTY.as_ptr_range();
        (self.cq, self.cq_end) = (ends.start, ends.end);
        self.cqe = EMPTY[CQE_WORDS..].as_ptr();
        (self.reap_limit, self.phase) = (self.cqe, PHASE);
    }

    /// Frees the buffers of all commands in flight, and drops their tags: the device uses them no more, for
    /// the reason in `error`. The queue takes no commands after that.
    pub(crate) fn release(&mut self, error: &Error) {
        if self.is_open() {
            self.fail(error);
        }
        if !self.is_open() {
            drop(self.take_buffers());
        }
    }

    fn take_buffers(&mut self) -> Vec<DmaBuf> {
        let mut buffers = Vec::new();
        for slot in self.slots_mut() {
            if slot.word & FREE_MASK == 0 {
                slot.word = u64::from(FREE);
                // SAFETY: a slot that is not free was filled when it was taken, and is marked free now.
                buffers.push(unsafe { slot.buffer.assume_init_read() });
                // SAFETY: the tag was filled together with the buffer, and is dropped once: the slot is free now.
                unsafe { slot.tag.assume_init_drop() };
            }
        }
        buffers
    }
}

impl<T> Drop for Queue<T> {
    /// Frees the slots. Before dropping a queue, make sure that the device is done with it, or
    /// [retire](Self::retire) it.
    fn drop(&mut self) {
        drop(self.take_buffers());
        let slots = std::ptr::slice_from_raw_parts_mut(self.slots, self.mask as usize + 1);
        // SAFETY: from `Box::into_raw` in `new`, with this length; not used after.
        drop(unsafe { Box::from_raw(slots) });
    }
}

/// Memory that a device may still use.
#[derive(Debug)]
#[must_use = "dropping it gives the memory back: only once the device is known to have let go"]
pub(crate) struct Retired(
    #[cfg_attr(not(test), expect(dead_code, reason = "held, not read"))] pub(crate) Vec<DmaBuf>,
);
