//! The part of a namespace that the submission path reads.

use super::Refusal;
use crate::spec::OptionalCommands;

/// The location of a namespace's blocks and the limits of one command: everything that a queue reads of a
/// namespace.
///
/// Each [`Namespace`](crate::Namespace) has one and can be passed wherever an extent is expected. A copy
/// works for commands on a queue like the handle does, and goes stale with it, but does not keep the
/// controller open.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// The stamp of the controller's namespaces when the handle was made; unique among all controllers.
    pub(crate) stamp: u64,
    /// The last block.
    pub(crate) last: u64,
    /// The namespace's id, in the position that it has in the first 8 bytes of a command.
    pub(crate) nsid_high: u64,
    /// Blocks that one command may transfer, at most as many as the namespace has; 0 when it can't be used for I/O.
    pub(crate) max_blocks: u32,
    /// Log2 of the block size in bytes.
    pub(crate) shift: u32,
    /// The controller's id.
    pub(crate) controller: u64,
    /// Blocks that one Write Zeroes may cover, at most the size of the namespace; 0 if there is no such
    /// command.
    pub(crate) max_zeroes: u32,
    /// The controller has Dataset Management.
    pub(crate) deallocates: bool,
    /// The controller's optional commands (ONCS).
    pub(crate) optional: OptionalCommands,
    /// The namespace's zones.
    pub(crate) zones: ZoneLimits,
}

/// The zones of a namespace, as far as submission depends on them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ZoneLimits {
    /// Blocks of a zone; 0 for a namespace without zones.
    pub(crate) blocks: u64,
    /// Blocks that one Zone Append may write.
    pub(crate) append: u32,
}

impl Extent {
    /// Returns the namespace's id.
    pub fn nsid(&self) -> u32 {
        (self.nsid_high >> 32) as u32
    }

    /// Returns the namespace's size in blocks (NSZE).
    pub fn blocks(&self) -> u64 {
        self.last.wrapping_add(1)
    }

    /// Returns the reason why `blocks` blocks from `slba` on are not in the namespace, if they are not.
    pub(crate) fn misplaced(&self, slba: u64, blocks: u64) -> Option<Refusal> {
        if blocks == 0 {
            Some(Refusal::Length)
        } else if self.blocks().saturating_sub(slba) < blocks {
            Some(Refusal::OutOfRange)
        } else {
            None
        }
    }

    /// Returns the same for `len` bytes of blocks.
    pub(crate) fn misplaced_bytes(&self, slba: u64, len: u64) -> Option<Refusal> {
        let blocks = len >> self.shift;
        if blocks << self.shift != len { Some(Refusal::Length) } else { self.misplaced(slba, blocks) }
    }

    /// Returns the number of blocks from `slba` on to the end of its zone; of a namespace without zones any number.
    pub(crate) fn left_in_zone(&self, slba: u64) -> u64 {
        match slba.checked_rem(self.zones.blocks) {
            Some(into) => self.zones.blocks - into,
            None => u64::MAX,
        }
    }

    /// Returns `true` for a namespace with zones: the writes to a zone must come one after the other.
    pub(crate) fn is_zoned(&self) -> bool {
        self.zones.blocks != 0
    }

    /// Returns the most bytes that one command may transfer, a whole number of blocks; 0 if the namespace
    /// can't be used for I/O.
    pub fn max_transfer(&self) -> usize {
        (self.max_blocks as usize) << self.shift
    }

    /// Returns the size of a block in bytes; 0 if this driver can't address the format's blocks.
    pub fn block_size(&self) -> usize {
        if self.shift == 0 { 0 } else { 1 << self.shift }
    }
}

impl AsRef<Extent> for Extent {
    #[inline(always)]
    fn as_ref(&self) -> &Extent {
        self
    }
}
