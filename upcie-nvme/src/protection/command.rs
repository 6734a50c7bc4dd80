//! The protection of one command: the action of the controller, its checks, and the tags.

use super::{BlockFormat, Protection, ProtectionType};
use crate::spec::{ApplicationTagDword15, BlockTagDwords, CopyDword12, ProtectionControl, REMAP_PROTECTION};

bitflags::bitflags! {
    /// The fields of protection information that are checked.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Checks: u8 {
        /// The guard: the data is what was written.
        const GUARD = 1 << 0;
        /// The application tag, by its mask.
        const APPLICATION_TAG = 1 << 1;
        /// The reference tag: the data belongs to the block. Controllers may refuse this check with type 3.
        const REFERENCE_TAG = 1 << 2;
        /// The storage tag. Namespaces without one have nothing to check.
        const STORAGE_TAG = 1 << 3;
    }
}

/// The protection of a command, and of blocks in memory.
///
/// ```
/// use upcie_nvme::protection::{Checks, Protect};
/// // The controller inserts or strips protection information, and checks what it reads.
/// let by_controller = Protect::new().action().check(Checks::GUARD | Checks::REFERENCE_TAG);
/// // Blocks of another number, of which the upper byte of the application tag is looked at.
/// let moved = Protect::new()
///     .check(Checks::all())
///     .reference_tag(4096)
///     .application_tag(0x1200)
///     .application_mask(0xff00);
/// # let _ = (by_controller, moved);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "`Io::protect` gives it to a command"]
pub struct Protect {
    action: bool,
    checks: Checks,
    application_tag: u16,
    application_mask: u16,
    reference_tag: Option<u64>,
    storage_tag: u64,
    /// The reference tag of an append is that of its zone's first block; the controller counts it on (PIREMAP).
    remaps: bool,
}

impl Default for Protect {
    fn default() -> Self {
        Self::new()
    }
}

impl Protect {
    /// Describes no action, no checks, and the tags 0; the reference tag is the number of the first block.
    pub const fn new() -> Self {
        Self {
            action: false,
            checks: Checks::empty(),
            application_tag: 0,
            application_mask: u16::MAX,
            reference_tag: None,
            storage_tag: 0,
            remaps: false,
        }
    }

    /// Lets the controller insert protection information into blocks that it writes, and take it out of those that it reads
    /// (PRACT). If the metadata is nothing but protection information, the buffers have data alone then.
    pub const fn action(mut self) -> Self {
        self.action = true;
        self
    }

    /// Adds checks (PRCHK, STC). The controller fails the command at the first block that does not pass.
    pub const fn check(mut self, checks: Checks) -> Self {
        self.checks = self.checks.union(checks);
        self
    }

    /// Sets the application tag: of blocks to write, or expected of blocks to read. FFFFh in a block ends its checks.
    pub const fn application_tag(mut self, tag: u16) -> Self {
        self.application_tag = tag;
        self
    }

    /// Sets the bits of the application tag that are compared. Default: all.
    pub const fn application_mask(mut self, mask: u16) -> Self {
        self.application_mask = mask;
        self
    }

    /// Sets the reference tag of the first block, whose upper bits are cut off if the format has fewer. Default: the number
    /// of the block, and 0 with type 3. Controllers take no other than that default with type 1.
    pub const fn reference_tag(mut self, tag: u64) -> Self {
        self.reference_tag = Some(tag);
        self
    }

    /// Sets the storage tag of all blocks, whose upper bits are cut off if the format has fewer.
    pub const fn storage_tag(mut self, tag: u64) -> Self {
        self.storage_tag = tag;
        self
    }

    /// Describes the same of a later part of a transfer, which begins `blocks` blocks after the first one: a reference tag that
    /// was set counts on, except with type 3, where it is that of all blocks.
    pub(crate) fn after(mut self, protection: Option<&Protection>, blocks: u64) -> Self {
        if protection.is_some_and(|protection| protection.kind() != ProtectionType::Type3) {
            self.reference_tag = self.reference_tag.map(|tag| tag.wrapping_add(blocks));
        }
        self
    }

    /// Describes the same of a Zone Append, which names the first block of its zone: with type 1 the controller makes the
    /// reference tags those of the blocks that it chooses.
    pub(crate) fn of_append(mut self, protection: Option<&Protection>) -> Self {
        self.remaps = protection.is_some_and(|protection| protection.kind() == ProtectionType::Type1);
        self
    }

    /// Returns the checks.
    pub const fn checks(&self) -> Checks {
        self.checks
    }

    /// Returns `true` if the controller inserts and strips protection information.
    pub(crate) const fn is_action(&self) -> bool {
        self.action
    }

    /// Returns the tags of the block `index` of a command that begins at `slba`.
    pub(crate) fn tags(&self, protection: &Protection, slba: u64, index: u64) -> Tags {
        let first = match (self.reference_tag, protection.kind()) {
            (Some(tag), _) => tag,
            (None, ProtectionType::Type3) => 0,
            (None, _) => slba,
        };
        let steps = if protection.kind() == ProtectionType::Type3 { 0 } else { index };
        Tags {
            application: self.application_tag,
            mask: self.application_mask,
            reference: first.wrapping_add(steps) & protection.reference_mask(),
            storage: self.storage_tag & protection.storage_limit(),
        }
    }

    /// Adds its fields to the words of a command for the blocks from `slba + index` on: `slba` is that of the first command
    /// of a transfer.
    pub(crate) fn put(&self, words: &mut [u64; 8], format: &BlockFormat, slba: u64, index: u64) {
        let Some(protection) = format.protection() else { return };
        let tags = self.tags(protection, slba, index);
        let BlockTagDwords { dword2, dword3, dword14 } = BlockTagDwords::new(tags.joined(protection));
        let dword15 =
            ApplicationTagDword15::new().with_lbat(tags.application).with_lbatm(tags.mask).into_bits();
        words[1] = u64::from(dword2) | u64::from(dword3) << 32;
        words[6] |= u64::from(self.control().dword12()) | u64::from(self.remaps) << REMAP_PROTECTION;
        words[7] = u64::from(dword14) | u64::from(dword15) << 32;
    }

    /// Returns dword 12 of a Copy whose blocks are read with these checks, and written as `target` says.
    pub(crate) fn copy_source(&self, dword: CopyDword12, target: &Self) -> CopyDword12 {
        let mut control = self.control();
        control.set(ProtectionControl::ACTION, target.action);
        control.for_copy_source(dword)
    }

    fn control(&self) -> ProtectionControl {
        let pairs = [
            (self.action, ProtectionControl::ACTION),
            (self.checks.contains(Checks::GUARD), ProtectionControl::GUARD),
            (self.checks.contains(Checks::APPLICATION_TAG), ProtectionControl::APPLICATION_TAG),
            (self.checks.contains(Checks::REFERENCE_TAG), ProtectionControl::REFERENCE_TAG),
            (self.checks.contains(Checks::STORAGE_TAG), ProtectionControl::STORAGE_TAG),
        ];
        pairs.into_iter().filter(|pair| pair.0).map(|pair| pair.1).collect()
    }
}

/// The tags of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tags {
    pub(crate) application: u16,
    pub(crate) mask: u16,
    pub(crate) reference: u64,
    pub(crate) storage: u64,
}

impl Tags {
    /// Returns the storage tag above the reference tag, as one number.
    pub(crate) fn joined(&self, protection: &Protection) -> u128 {
        u128::from(self.storage) << protection.reference_tag_bits() | u128::from(self.reference)
    }
}
