//! Namespaces as parts of the media.

use crate::spec::Status;

/// A namespace: blocks of one size, one part of the media.
#[derive(Debug, Clone, Copy)]
pub(super) struct Namespace {
    /// Its first byte in the media.
    pub start: u64,
    /// Its size in blocks; 0 while it is [away](Self::away).
    pub blocks: u64,
    /// Its block size, as a power of two.
    pub shift: u8,
    /// The bytes of its part of the media: it never becomes larger.
    pub capacity: u64,
    /// The reason why it takes no commands.
    pub away: Away,
}

/// The reason why a namespace takes no commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Away {
    /// None: it takes commands.
    Not,
    Removed,
    /// It is being formatted, until a host reads its Identify data: a command with the old block size in mind would
    /// move more or less data than its host expects.
    Formatting,
}

/// A change of a namespace.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Remove,
    /// To so many blocks.
    Resize(u64),
    /// To blocks of so many bytes.
    Reformat(u32),
}

impl Namespace {
    /// Makes a namespace of `capacity` bytes in blocks of `1 << shift` bytes.
    pub fn new(start: u64, capacity: u64, shift: u8) -> Self {
        Self { start, blocks: capacity >> shift, shift, capacity, away: Away::Not }
    }

    /// Returns `false` once it was removed: its identifier is inactive.
    pub fn is_active(&self) -> bool {
        self.away != Away::Removed
    }

    /// Returns the offset of `count` blocks from `slba` on in the media, and their bytes.
    #[inline(always)]
    pub fn range(&self, slba: u64, count: u64) -> Result<(u64, u64), Status> {
        if count > self.blocks || slba > self.blocks - count {
            return Err(Status::LBA_OUT_OF_RANGE.with_do_not_retry());
        }
        Ok((self.start + (slba << self.shift), count << self.shift))
    }

    /// Returns the status of a command to it while it is away.
    fn refusal(&self) -> Status {
        match self.away {
            Away::Formatting => Status::FORMAT_IN_PROGRESS,
            Away::Not | Away::Removed => Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry(),
        }
    }
}

/// Returns the status of a command to a namespace that takes none, or that does not exist.
#[cold]
#[inline(never)]
pub(super) fn refusal(namespace: Option<&Namespace>) -> Status {
    namespace.map_or(Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry(), Namespace::refusal)
}
