//! The rest of a command that was carried out in part ([pieces](super::pieces)), which its queue or its flight keeps.

use super::{formats::Layout, metadata::Copying, prp::Position};
use crate::spec::Command;

/// Marks the number of bytes that a command processed: it is not finished, and [`Io::rest`](super::io::Io::rest) has its rest.
pub(super) const IS_PART: u64 = 1 << 61;

/// The rest of a command.
#[derive(Debug)]
pub(super) struct Rest {
    /// The command as its host sent it; without data pointer if the data was fetched.
    pub command: Command,
    pub left: Left,
    /// The generation of its namespace, and the layout of the blocks that it counts; `None` without such a namespace.
    pub format: Option<(u32, Layout)>,
}

/// The blocks of a command that are carried out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Begun {
    /// The number of the first ones, which are done; of zones if the command names zones.
    pub done: u64,
    /// The position in its data up to which they reach.
    pub position: Position,
}

/// The blocks of a command that are left.
#[derive(Debug)]
pub(super) enum Left {
    /// Those after the first ones.
    After(Begun),
    /// Ranges: the first block and the number of blocks of each.
    Ranges(Vec<(u64, u64)>),
    /// Ranges to copy, behind so many blocks that are copied.
    Copy { ranges: Vec<(u64, u64)>, done: u64 },
    /// Ranges to copy with their metadata.
    Protected(Box<Copying>),
}

impl From<u64> for Begun {
    /// Returns the state of a command without data, of which so many blocks or zones are done.
    fn from(done: u64) -> Self {
        Self { done, position: Position::default() }
    }
}

impl Left {
    /// Returns the number of blocks of `command` that are left to write, of a command that names the blocks that it writes.
    pub fn blocks(&self, command: &Command) -> u64 {
        match self {
            Self::After(begun) => u64::from(command.block_count()).saturating_sub(begun.done),
            Self::Copy { ranges, .. } => ranges.iter().map(|(_, blocks)| blocks).sum(),
            Self::Ranges(_) | Self::Protected(_) => 0,
        }
    }
}

impl Rest {
    /// Returns the number of blocks that are left to write.
    pub fn blocks(&self) -> u64 {
        self.left.blocks(&self.command)
    }
}

/// Returns the ranges of blocks that are left, each the first block and the number of blocks: that of the range `begun` behind its
/// first `done` blocks, if there are some, and those behind it.
pub(super) fn ranges_left(
    begun: (u64, u64),
    done: u64,
    behind: impl Iterator<Item = (u64, u64)>,
) -> Vec<(u64, u64)> {
    let begun = Some((begun.0 + done, begun.1 - done)).filter(|(_, blocks)| *blocks > 0);
    begun.into_iter().chain(behind).collect()
}
