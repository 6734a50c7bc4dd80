//! Namespaces as parts of the media.

use super::formats::Layout;
use crate::spec::{Csi, Status};

/// NWPC: a namespace can have all states of write protection.
pub(super) const WRITE_PROTECTION: u8 = 0b111;

/// A namespace: blocks of one size, one part of the media.
#[derive(Debug, Clone, Copy)]
pub(super) struct Namespace {
    /// Offset of the namespace in the media, in bytes.
    pub start: u64,
    /// Size in blocks; 0 while the namespace is [away](Self::away).
    pub blocks: u64,
    /// The data of its blocks in bytes, as a power of two.
    pub shift: u8,
    /// Metadata and protection of its blocks.
    pub layout: Layout,
    /// The bytes of its part of the media: it never becomes larger.
    pub capacity: u64,
    /// The reason why it takes no commands.
    pub away: Away,
    /// Set for a namespace with zones, which has no blocks for the commands of plain namespaces.
    pub zoned: bool,
    /// Set for a namespace with keys, which has no blocks for the commands of plain namespaces.
    pub keys: bool,
    /// The state of its write protection (WPS), of feature 84h.
    pub write_protection: u8,
    /// Namespaces that had this identifier before: each has an identity of its own.
    pub generation: u32,
}

/// The reason why a namespace takes no commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Away {
    /// The namespace takes commands.
    Not,
    /// The namespace was removed, or never existed.
    Removed,
    /// The namespace exists, and is not attached to the controller.
    Detached,
    /// The namespace is being erased, by a Format NVM or because a fault plan has reformatted it.
    Formatting,
    /// A fault plan has reformatted the namespace, and no host has read its Identify data since: a command with the old block size
    /// in mind would move more or less data than its host expects.
    Reformatted,
    /// A reset has stopped a Format NVM when a part of the namespace was erased: it has to be formatted again.
    Unformatted,
    /// The namespace is being erased, and is gone then.
    Deleting,
    /// All namespaces are being erased.
    Sanitizing,
    /// The last Sanitize has failed, and left old data.
    NotSanitized,
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
    /// The identifier of no namespace.
    pub const NONE: Self = Self::new(0, 0, Layout::PLAIN, Away::Removed);

    /// Makes a namespace of `capacity` bytes of the media.
    pub const fn new(start: u64, capacity: u64, layout: Layout, away: Away) -> Self {
        let plain = Self {
            start,
            blocks: 0,
            shift: 9,
            layout,
            capacity,
            away,
            zoned: false,
            keys: false,
            write_protection: 0,
            generation: 0,
        };
        plain.with_layout(layout)
    }

    /// Gives its blocks another format, all of its part of the media.
    #[must_use]
    pub const fn with_layout(mut self, layout: Layout) -> Self {
        (self.layout, self.shift) = (layout, layout.format().shift);
        let takes_plain = matches!(self.away, Away::Not) && !self.zoned && !self.keys;
        self.blocks = if takes_plain { layout.blocks(self.capacity) } else { 0 };
        self
    }

    /// Returns it with zones of `size` bytes, whole ones.
    pub fn with_zones(self, size: u64) -> Self {
        Self { zoned: true, blocks: 0, capacity: self.capacity / size * size, ..self }
    }

    /// Returns it with keys in place of blocks.
    pub fn with_keys(self) -> Self {
        Self { keys: true, ..self }.with_layout(Layout::PLAIN)
    }

    /// Returns its command set.
    pub fn command_set(&self) -> Csi {
        match (self.zoned, self.keys) {
            (true, _) => Csi::ZONED,
            (_, true) => Csi::KEY_VALUE,
            (false, false) => Csi::NVM,
        }
    }

    /// Returns the offset of the metadata of a block in the media: behind the data of all blocks.
    pub fn metadata(&self, slba: u64) -> u64 {
        let all = self.layout.blocks(self.capacity);
        self.start + (all << self.shift) + slba * self.layout.metadata() as u64
    }

    /// Returns `false` if its identifier is inactive: the namespace does not exist, is being deleted, or is not attached.
    pub fn is_active(&self) -> bool {
        !matches!(self.away, Away::Removed | Away::Detached | Away::Deleting)
    }

    /// Returns `true` if it has its part of the medium: it exists, attached or not, or is being deleted.
    pub fn is_allocated(&self) -> bool {
        self.away != Away::Removed
    }

    /// Returns `true` if it exists, attached or not, and is not being deleted.
    pub fn exists(&self) -> bool {
        !matches!(self.away, Away::Removed | Away::Deleting)
    }

    /// Returns its size in blocks, whether it takes commands or not.
    pub fn size(&self) -> u64 {
        if self.blocks == 0 { self.layout.blocks(self.capacity) } else { self.blocks }
    }

    /// Lets it take commands, or none for a reason. It has all blocks of its part of the media then.
    pub fn set_away(&mut self, away: Away) {
        *self = Self { away, ..*self }.with_layout(self.layout);
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
    pub fn refusal(&self) -> Status {
        match self.away {
            Away::Formatting | Away::Reformatted => Status::FORMAT_IN_PROGRESS,
            Away::Unformatted => Status::NAMESPACE_NOT_READY.with_do_not_retry(),
            Away::Sanitizing => Status::SANITIZE_IN_PROGRESS,
            Away::NotSanitized => Status::SANITIZE_FAILED.with_do_not_retry(),
            // Its identifier is inactive.
            Away::Not | Away::Removed | Away::Detached | Away::Deleting => {
                Status::INVALID_FIELD.with_do_not_retry()
            }
        }
    }
}

/// Returns the status of a command to a namespace that takes none, or to an identifier that no namespace can have.
#[cold]
#[inline(never)]
pub(super) fn refusal(namespace: Option<&Namespace>) -> Status {
    namespace.map_or(Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry(), Namespace::refusal)
}
