//! What the submission path reads of a namespace.

use super::Refusal;

/// Says where the blocks of a namespace are and what one command may do with them: all that a queue reads of it.
///
/// Each [`Namespace`](crate::Namespace) has one, and goes wherever an extent is asked for. A copy of it is as good as the
/// handle for commands on a queue, and goes stale with it, but keeps no controller open.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// The stamp of the controller's namespaces when the handle was made; unique among all controllers.
    pub(crate) stamp: u64,
    /// The last block.
    pub(crate) last: u64,
    /// The namespace's id, where it goes in the first 8 bytes of a command.
    pub(crate) nsid_high: u64,
    /// Blocks that one command may transfer, at most as many as the namespace has; 0 when it can't be used for I/O.
    pub(crate) max_blocks: u32,
    /// Log2 of the block size in bytes.
    pub(crate) shift: u32,
    /// The controller's id.
    pub(crate) controller: u64,
    /// Blocks that one Write Zeroes may name, at most the size of the namespace; 0 when there is no such command.
    pub(crate) max_zeroes: u32,
    /// There is Dataset Management.
    pub(crate) deallocates: bool,
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

    /// Why `blocks` blocks from `slba` on are no place in it, if so.
    pub(crate) fn misplaced(&self, slba: u64, blocks: u64) -> Option<Refusal> {
        if blocks == 0 {
            Some(Refusal::Length)
        } else if self.blocks().saturating_sub(slba) < blocks {
            Some(Refusal::OutOfRange)
        } else {
            None
        }
    }

    /// The same of the blocks that `len` bytes are.
    pub(crate) fn misplaced_bytes(&self, slba: u64, len: u64) -> Option<Refusal> {
        let blocks = len >> self.shift;
        if blocks << self.shift != len { Some(Refusal::Length) } else { self.misplaced(slba, blocks) }
    }

    /// Returns the most bytes that one command may transfer, a whole number of blocks; 0 where the namespace can't be used
    /// for I/O.
    pub fn max_transfer(&self) -> usize {
        (self.max_blocks as usize) << self.shift
    }

    /// Returns the bytes of a block; 0 where the format has none that this driver can address.
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
