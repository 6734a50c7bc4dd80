//! Namespaces, and what may happen to them while commands come: removal, another size, another format.

use super::{io::Io, media::Media};
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
    away: Away,
}

/// The reason why a namespace takes no commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
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

impl<M: Media> Io<M> {
    /// Returns the namespace `nsid`, if there is one that takes commands.
    #[inline(always)]
    pub fn namespace(&self, nsid: u32) -> Result<&Namespace, Status> {
        match self.namespaces.get(nsid.wrapping_sub(1) as usize) {
            Some(namespace) if namespace.blocks != 0 => Ok(namespace),
            other => Err(refusal(other)),
        }
    }

    /// Changes a namespace; returns `false` if nothing has changed.
    pub fn change(&mut self, nsid: u32, change: Change) -> bool {
        let Some(namespace) = self.namespaces.get_mut(nsid.wrapping_sub(1) as usize) else { return false };
        match (change, namespace.away) {
            (_, Away::Removed) | (Change::Resize(_), Away::Formatting) => return false,
            (Change::Remove, _) => (namespace.away, namespace.blocks) = (Away::Removed, 0),
            (Change::Resize(blocks), Away::Not) => {
                let before = namespace.blocks;
                namespace.blocks = blocks.clamp(1, namespace.capacity >> namespace.shift);
                return namespace.blocks != before;
            }
            (Change::Reformat(size), _) => {
                let shift = size.trailing_zeros() as u8;
                if namespace.capacity >> shift == 0 {
                    return false;
                }
                (namespace.away, namespace.blocks, namespace.shift) = (Away::Formatting, 0, shift);
                let (start, capacity) = (namespace.start, namespace.capacity);
                self.erase(start, capacity);
            }
        }
        true
    }

    /// Zeroes a namespace's part of the media for good.
    fn erase(&mut self, start: u64, capacity: u64) {
        if self.protected {
            return;
        }
        let erased = self.media.zero(start, capacity).and_then(|()| self.media.flush());
        if let Err(status) = erased {
            tracing::error!(%status, "a namespace that is reformatted keeps old data");
        }
    }

    /// Notes that a host reads the Identify data of a namespace: its formatting ends.
    pub fn identified(&mut self, nsid: u32) {
        let found = self.namespaces.get_mut(nsid.wrapping_sub(1) as usize);
        if let Some(namespace) = found.filter(|namespace| namespace.away == Away::Formatting) {
            *namespace = Namespace::new(namespace.start, namespace.capacity, namespace.shift);
        }
    }
}

#[cold]
#[inline(never)]
fn refusal(namespace: Option<&Namespace>) -> Status {
    namespace.map_or(Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry(), Namespace::refusal)
}
