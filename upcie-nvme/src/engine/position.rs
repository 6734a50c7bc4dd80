//! The positions of a queue's rings, for messages about commands that don't come back.

use super::ring::{CQE_WORDS, Queue};
use std::fmt;

impl<T> Queue<T> {
    /// Returns the positions of both rings.
    #[cold]
    pub(crate) fn position(&self) -> Position {
        let before = if self.cqe == self.cq { self.cq_end } else { self.cqe };
        // SAFETY: the second word of the entry before the next one, in the ring.
        let word = unsafe { before.sub(CQE_WORDS - 1) };
        // SAFETY: aligned, and the ring lives as long as `self`. Zero before the first completion.
        let fetched = (unsafe { word.read_volatile() }) & 0xffff;
        Position {
            in_flight: self.in_flight(),
            tail: self.tail(),
            fetched,
            head: self.head().0,
            phase: self.phase != 0,
        }
    }
}

/// The positions of a queue's rings, for a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    in_flight: u32,
    tail: u32,
    /// The submission head that the last completion reported.
    fetched: u64,
    head: u32,
    phase: bool,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { in_flight, tail, fetched, head, phase } = *self;
        write!(
            f,
            "{in_flight} commands in flight (submission tail {tail}, by the last completion fetched up to {fetched}; \
             completion head {head}, phase {})",
            u8::from(phase)
        )
    }
}
