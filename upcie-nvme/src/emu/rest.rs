//! The rest of a command that was carried out in part ([pieces](super::pieces)), which its queue or its flight keeps.

use crate::spec::Command;

/// Marks the number of bytes that a command processed: it is not finished, and [`Io::rest`](super::io::Io::rest) has its rest.
pub(super) const IS_PART: u64 = 1 << 61;

/// The rest of a command.
#[derive(Debug)]
pub(super) struct Rest {
    /// The command as its host sent it, but for the data pointer.
    pub command: Command,
    pub left: Left,
}

/// The blocks of a command that are left.
#[derive(Debug)]
pub(super) enum Left {
    /// Those after the first ones, of which this is the number.
    After(u64),
    /// Ranges: the first block and the number of blocks of each.
    Ranges(Vec<(u64, u64)>),
}

impl Rest {
    /// Returns the number of blocks that are left of a command other than Dataset Management.
    pub fn blocks(&self) -> u64 {
        match self.left {
            Left::After(done) => u64::from(self.command.block_count()) - done,
            Left::Ranges(_) => 0,
        }
    }
}
