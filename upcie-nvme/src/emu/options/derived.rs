//! Properties of the controller that follow from its options.

use super::Options;
use crate::spec::Version;

impl Options {
    /// Returns the command sets that CAP.CSS reports: zoned and key value namespaces need bit 6, and so does version 2.1.
    pub(in super::super) fn command_sets(&self) -> u8 {
        self.css | u8::from(self.zones.any() || self.keys.any() || self.is_new()) << 6
    }

    /// Returns `true` if the controller has what version 2.0 made mandatory.
    pub(in super::super) fn is_new(&self) -> bool {
        self.version >= Version::of(2, 0, 0)
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

    /// Returns the number of interrupt vectors that a queue may name, of the kind that has the most: of MSI-X it has `vectors`.
    pub(in super::super) fn interrupts(&self, vectors: u16) -> u16 {
        vectors.max(self.msi).max(self.intx.into())
    }
}
