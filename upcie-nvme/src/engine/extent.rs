//! The part of a namespace that the submission path reads.

use super::{CopyLimits, Refusal};
use crate::{protection::BlockFormat, spec::OptionalCommands};

/// The location of a namespace's blocks and the limits of one command: everything that a queue reads of a
/// namespace.
///
/// Each [`Namespace`](crate::Namespace) has one and can be passed wherever an extent is expected. A copy
/// works for commands on a queue like the handle does, and goes stale with it, but does not keep the
/// controller open.
// Plain data with a field for each limit of a command: it is copied as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// The stamp of the controller's namespaces when the handle was made; unique among all controllers.
    pub(crate) stamp: u64,
    /// The last block.
    pub(crate) last: u64,
    /// The namespace's id, in the position that it has in the first 8 bytes of a command.
    pub(crate) nsid_high: u64,
    /// Blocks that one command may transfer on the plain path: `max_blocks`; fewer if the controller takes few PRPs, and 0 if
    /// blocks have metadata. So the plain path's compare sends such commands to the slow one.
    pub(crate) plain_blocks: u32,
    /// Log2 of the greatest power of two that divides the bytes of a block, and the inverse modulo 2^64 of the rest: 1 if
    /// their number is a power of two.
    pub(crate) shift: u32,
    pub(crate) inverse: u64,
    /// Blocks that one command may transfer, at most as many as the namespace has; 0 when it can't be used for I/O.
    pub(crate) max_blocks: u32,
    /// The controller's id.
    pub(crate) controller: u64,
    /// Blocks that one Write Zeroes may cover, at most the size of the namespace; 0 if there is no such
    /// command.
    pub(crate) max_zeroes: u32,
    /// The controller has Dataset Management.
    pub(crate) deallocates: bool,
    /// The controller's optional commands (ONCS).
    pub(crate) optional: OptionalCommands,
    pub(crate) format: BlockFormat,
    /// The namespace's zones.
    pub(crate) zones: ZoneLimits,
    /// The namespace's keys.
    pub(crate) keys: KeyLimits,
    /// Blocks that one Compare and Write may have; 0 if there is no such operation.
    pub(crate) fused: u32,
    /// The limits of a Copy to the namespace.
    pub(crate) copy: CopyLimits,
}

/// The zones of a namespace, as far as submission depends on them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ZoneLimits {
    /// Blocks of a zone; 0 for a namespace without zones.
    pub(crate) blocks: u64,
    /// Blocks that one Zone Append may write.
    pub(crate) append: u32,
    /// Bytes of a zone's descriptor extension; 0 if zones have none.
    pub(crate) extension: u32,
}

/// The keys of a namespace, as far as submission depends on them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeyLimits {
    /// Bytes of a key, 16 at most; 0 for a namespace without keys.
    pub(crate) key: u8,
    /// Bytes of a value that one Store sends.
    pub(crate) value: u32,
    /// Bytes that one command returns.
    pub(crate) transfer: u32,
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

    /// Makes queues refuse all commands for its blocks.
    pub(crate) fn take_no_io(&mut self) {
        // Each path looks at one of these.
        (self.plain_blocks, self.max_blocks, self.max_zeroes) = (0, 0, 0);
        (self.deallocates, self.fused) = (false, 0);
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
        match self.unit().blocks(len) {
            Some(blocks) => self.misplaced(slba, blocks),
            None => Some(Refusal::Length),
        }
    }

    /// Returns the bytes of `blocks` blocks.
    pub(super) fn bytes(&self, blocks: u32) -> u64 {
        u64::from(blocks) * self.format.transfer_size() as u64
    }

    /// Returns the bytes of a block in a data buffer, for a division.
    pub(super) fn unit(&self) -> Unit {
        Unit { shift: self.shift, inverse: self.inverse }
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

    /// Returns `true` for a namespace with keys, which has no blocks.
    pub(crate) fn is_key_value(&self) -> bool {
        self.keys.key != 0
    }

    /// Returns the most bytes that one command may transfer, a whole number of blocks; 0 if the namespace
    /// can't be used for I/O.
    pub fn max_transfer(&self) -> usize {
        self.max_blocks as usize * self.format.transfer_size()
    }

    /// Returns the size of a block in bytes, with metadata that is at its end; 0 if this driver can't address the format's
    /// blocks.
    pub fn block_size(&self) -> usize {
        self.format.transfer_size()
    }
}

/// The bytes of a block, for a division without a division: multiplied by the inverse of its odd part and rotated by its even
/// one, a multiple is the quotient, and any other number is greater than any quotient.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    shift: u32,
    inverse: u64,
}

impl Unit {
    pub(super) fn of(bytes: usize) -> Self {
        let (shift, inverse) = parts(bytes as u64);
        Self { shift, inverse }
    }

    /// Returns the number of blocks that `len` bytes are, 0's based; `u64::MAX` for none, and more than any limit if they
    /// are not whole blocks.
    #[inline(always)]
    pub(super) fn last(self, len: u64) -> u64 {
        len.wrapping_mul(self.inverse).rotate_right(self.shift).wrapping_sub(1)
    }

    /// Returns the number of blocks that `len` bytes are, if they are whole blocks.
    pub(super) fn blocks(self, len: u64) -> Option<u64> {
        let blocks = len.wrapping_mul(self.inverse).rotate_right(self.shift);
        // The product with a block is `len` again, and greater numbers of blocks would overflow.
        (blocks <= len).then_some(blocks)
    }
}

/// Returns the log2 of the greatest power of two that divides `bytes`, and the inverse modulo 2^64 of the rest; those of 1
/// for 0.
pub(crate) const fn parts(bytes: u64) -> (u32, u64) {
    if bytes == 0 {
        return (0, 1);
    }
    let shift = bytes.trailing_zeros();
    let odd = bytes >> shift;
    // An odd number is its own inverse modulo 8; each step doubles the bits that are right.
    let (mut inverse, mut step) = (odd, 0);
    while step < 5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    (shift, inverse)
}

impl AsRef<Extent> for Extent {
    #[inline(always)]
    fn as_ref(&self) -> &Extent {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks_have_a_number() {
        for bytes in [1, 7, 512, 520, 528, 4096, 4104, 4160, 65600] {
            let unit = Unit::of(bytes);
            for len in 0..10 * bytes as u64 {
                let wanted = (len % bytes as u64 == 0).then(|| len / bytes as u64);
                assert_eq!(unit.blocks(len), wanted, "{len} bytes in blocks of {bytes}");
                let last = unit.last(len);
                match wanted {
                    Some(blocks) => assert_eq!(last, blocks.wrapping_sub(1)),
                    None => assert!(last > u64::from(u32::MAX), "{len} bytes in blocks of {bytes}: {last}"),
                }
            }
        }
    }
}
