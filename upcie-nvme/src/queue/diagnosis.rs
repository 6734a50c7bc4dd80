//! What there is to say of a queue when nothing comes.

use super::{
    Queue,
    ring::{CQE_WORDS, SQE_WORDS},
};
use crate::controller::Inner;

impl<T> Queue<T> {
    /// Where the next completion is looked for, as a number that changes with each that was taken.
    #[cold]
    pub(super) fn completion_cursor(&self) -> usize {
        self.cqe.addr() | usize::from(self.phase != 0)
    }

    /// The index of the next completion entry, and how many entries there are.
    pub(super) fn head(&self) -> (u32, u32) {
        let entries = |bytes: usize| (bytes / (CQE_WORDS * size_of::<u64>())) as u32;
        (entries(self.cqe.addr() - self.cq.addr()), entries(self.cq_end.addr() - self.cq.addr()))
    }

    /// How many commands are in flight, where the rings stand, and what may be the cause, for a message.
    #[cold]
    pub(super) fn diagnose(&self, controller: &Inner) -> String {
        let entry = |bytes: usize, words: usize| bytes / (words * size_of::<u64>());
        let tail = entry(self.at.sqe.addr() - self.sq.addr(), SQE_WORDS);
        let (head, _) = self.head();
        let after = if self.cqe == self.cq { self.cq_end } else { self.cqe };
        // SAFETY: the second word of the entry before the next one, in the ring.
        let word = unsafe { after.sub(CQE_WORDS - 1) };
        // SAFETY: aligned, and the ring lives as long as `self`. Zero before the first completion.
        let fetched = (unsafe { word.read_volatile() }) & 0xffff;
        format!(
            "{} commands in flight (submission tail {tail}, by the last completion fetched up to {fetched}; completion head \
             {head}, phase {}); {}",
            self.in_flight(),
            u8::from(self.phase != 0),
            self.cause(controller)
        )
    }

    fn cause(&self, controller: &Inner) -> String {
        if let Err(error) = controller.check_owner("looking for the cause") {
            return error.to_string();
        }
        // Before the status, which may well be a consequence.
        if let Err(error) = controller.heap().verify() {
            return error.to_string();
        }
        let status = match controller.registers().status() {
            Ok(status) => status,
            Err(error) => return error.to_string(),
        };
        let cause = if self.is_ready() {
            "a completion is there now: it came late, or its interrupt was lost"
        } else if status.cfs() {
            "the controller reports a fatal status"
        } else if !status.rdy() {
            "the controller is not enabled: something else has reset or stopped it"
        } else if status.pp() {
            "the controller has paused processing"
        } else {
            "the controller is enabled and reports no fault: it hangs, or needs more time"
        };
        format!("{cause} (CSTS {:x}h)", status.into_bits())
    }
}
