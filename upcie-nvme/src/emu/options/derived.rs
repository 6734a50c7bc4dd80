//! Properties of the controller that follow from its options.

use super::Options;

impl Options {
    /// Returns the command sets that CAP.CSS reports: zoned and key value namespaces need bit 6.
    pub(in super::super) fn command_sets(&self) -> u8 {
        self.css | u8::from(self.zones.any() || self.keys.any()) << 6
    }

    /// Returns `true` if hosts can choose all command sets.
    pub(in super::super) fn has_command_sets(&self) -> bool {
        self.command_sets() & 1 << 6 != 0
    }

    /// Returns the largest identifier that a namespace can have.
    pub(in super::super) fn most_namespaces(&self) -> u32 {
        self.nn.unwrap_or(self.namespaces).max(self.namespaces)
    }

    /// Returns `true` if reservations can outlast a loss of power: those of a medium in memory, which outlasts it, too.
    /// A file does not keep them.
    pub(in super::super) fn keeps_reservations(&self) -> bool {
        self.file.is_none()
    }

    /// Returns the largest block size of a namespace, in bytes.
    pub(in super::super) fn largest_block(&self) -> u64 {
        self.lba.iter().copied().max().unwrap_or(512).into()
    }

    /// Returns the smallest block size of a namespace, in bytes.
    pub(in super::super) fn smallest_block(&self) -> u64 {
        self.lba.iter().copied().min().unwrap_or(512).into()
    }

    /// Returns the number of interrupt vectors that a queue may name, of the kind that has the most.
    pub(in super::super) fn interrupts(&self) -> u16 {
        self.vectors.max(self.msi).max(self.intx.into())
    }

    /// Returns the block size of a namespace, counted from 0.
    pub(in super::super) fn block_size(&self, index: u32) -> u32 {
        let last = self.lba.last().copied().unwrap_or(512);
        self.lba.get(index as usize).copied().unwrap_or(last)
    }
}
