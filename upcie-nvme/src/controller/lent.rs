//! Memory that a controller has borrowed.

use super::lock;
use std::sync::Mutex;
use upcie_core::{dma::DmaBuf, gate::Gate};

/// The memory that a controller has borrowed.
#[derive(Debug, Default)]
pub(super) struct HostBuffer {
    /// For one thread at a time that lends or takes.
    pub(super) calls: Gate<()>,
    /// Never locked while a command is under way: a reset looks at it, and commands wait for resets.
    pub(super) lent: Mutex<Option<LentMemory>>,
}

/// Memory that the controller writes to until it is taken back, reset or stopped: it is dropped after one of these.
#[derive(Debug)]
pub(super) struct LentMemory {
    /// No buffer of the program's leads to them.
    pub(super) pieces: Vec<DmaBuf>,
    pub(super) list: DmaBuf,
    pub(super) bytes: u64,
    /// The controller has it for sure, and gets it again after a reset: no thread is about to lend or take it.
    pub(super) confirmed: bool,
    /// A command that lends it was not answered in time: the controller may still carry it out, after any later one.
    pub(super) unanswered: bool,
}

impl HostBuffer {
    /// Returns the bytes that the controller has for sure.
    pub(super) fn confirmed(&self) -> Option<usize> {
        lock(&self.lent).as_ref().filter(|lent| lent.confirmed).map(|lent| lent.bytes as usize)
    }
}
