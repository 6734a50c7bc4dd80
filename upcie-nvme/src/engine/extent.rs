//! What the submission path reads of a namespace.

use super::Refusal;

/// What the submission path reads of a namespace: one copy in each handle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
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
    pub(crate) fn nsid(&self) -> u32 {
        (self.nsid_high >> 32) as u32
    }

    /// Blocks of the namespace, if it can be used for I/O at all.
    pub(crate) fn blocks(&self) -> u64 {
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

    /// Bytes that one command may transfer: whole blocks.
    pub(crate) fn max_bytes(&self) -> usize {
        (self.max_blocks as usize) << self.shift
    }
}
