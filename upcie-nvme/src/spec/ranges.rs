//! The ranges of blocks that a Copy and a Dataset Management have as their data, and the dwords of both commands: NVM, "Copy
//! command" and "Dataset Management command".

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::macros::assert_size;

/// Copy, command dword 12.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CopyDword12 {
    /// Number of source ranges, 0's based.
    pub nr: u8,
    /// Format of the descriptors of source ranges.
    #[bits(4)]
    pub desfmt: u8,
    /// Protection of the blocks that are read (PRINFOR): the action in bit 3, checks of guard, application tag and reference
    /// tag in bits 2 to 0.
    #[bits(4)]
    pub prinfor: u8,
    #[bits(4)]
    __: u8,
    /// Directive type of the blocks that are written.
    #[bits(4)]
    pub dtype: u8,
    /// Check of the storage tag of the blocks that are written (STCW).
    pub stcw: bool,
    /// Check of the storage tag of the blocks that are read (STCR).
    pub stcr: bool,
    /// Protection of the blocks that are written (PRINFOW), like `prinfor`.
    #[bits(4)]
    pub prinfow: u8,
    /// Force unit access.
    pub fua: bool,
    /// Limited retry.
    pub lr: bool,
}

/// A source range of a Copy command, of format 0 or 2: NVM, "Copy – Source Range Entries"; 32 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CopyRange {
    /// The namespace of the blocks in formats 2 and 3 (SNSID); 0 in formats 0 and 1, where it is that of the command.
    pub nsid: u32,
    reserved4: u32,
    /// The first block.
    pub slba: u64,
    /// Number of blocks, 0's based.
    pub nlb: u16,
    reserved18: [u8; 6],
    /// Expected initial logical block reference tag.
    pub eilbrt: u32,
    /// Expected logical block application tag.
    pub elbat: u16,
    /// Expected logical block application tag mask.
    pub elbatm: u16,
}
assert_size!(CopyRange, 32);

impl CopyRange {
    /// The most ranges that one command can name; Identify Namespace has the controller's limit (`msrc`).
    pub const MOST: usize = 256;

    /// Describes `nlb` blocks, 1 to 65536, from block `slba` on.
    ///
    /// # Panics
    ///
    /// In debug builds, if `nlb` is out of that range.
    #[inline]
    #[must_use]
    pub const fn new(slba: u64, nlb: u32) -> Self {
        debug_assert!(nlb >= 1 && nlb <= 65536);
        let nlb = nlb.wrapping_sub(1) as u16;
        Self { nsid: 0, reserved4: 0, slba, nlb, reserved18: [0; 6], eilbrt: 0, elbat: 0, elbatm: 0 }
    }

    /// Sets the namespace that has the blocks, one of the same controller.
    #[inline]
    #[must_use]
    pub const fn of_namespace(mut self, nsid: u32) -> Self {
        self.nsid = nsid;
        self
    }

    /// Sets what the blocks are checked for: the tags of the first one (reference tag, and above it the storage tag), and the
    /// application tag in the bits of `mask`.
    #[inline]
    #[must_use]
    pub const fn expecting(mut self, tags: u32, application_tag: u16, mask: u16) -> Self {
        (self.eilbrt, self.elbat, self.elbatm) = (tags, application_tag, mask);
        self
    }

    /// Returns the range as the command's data holds it: for [`DmaBuf::write_at`](crate::DmaBuf::write_at).
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        zerocopy::transmute!(self)
    }
}

/// A source range of a Copy command, of format 1 or 3, for namespaces with guards of 32 and 64 bits: NVM, "Copy – Source Range
/// Entries"; 40 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WideCopyRange {
    /// The namespace of the blocks in formats 2 and 3 (SNSID); 0 in formats 0 and 1, where it is that of the command.
    pub nsid: u32,
    reserved4: u32,
    /// The first block.
    pub slba: u64,
    /// Number of blocks, 0's based.
    pub nlb: u16,
    reserved18: [u8; 8],
    /// Expected tags of the first block, 80 bits with the most significant byte first: the storage tag above the reference tag.
    elbt: [u8; 10],
    /// Expected logical block application tag.
    pub elbat: u16,
    /// Expected logical block application tag mask.
    pub elbatm: u16,
}
assert_size!(WideCopyRange, 40);

impl WideCopyRange {
    /// Describes the blocks of `range`, whose tags are `tags`, of up to 80 bits.
    #[must_use]
    pub fn new(range: CopyRange, tags: u128) -> Self {
        let CopyRange { nsid, slba, nlb, elbat, elbatm, .. } = range;
        let mut elbt = [0; 10];
        elbt.copy_from_slice(&tags.to_be_bytes()[6..]);
        Self { nsid, reserved4: 0, slba, nlb, reserved18: [0; 8], elbt, elbat, elbatm }
    }

    /// Returns the expected tags.
    #[must_use]
    pub fn tags(&self) -> u128 {
        self.elbt.iter().fold(0, |tags, byte| tags << 8 | u128::from(*byte))
    }
}

/// Dataset Management, command dword 10.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DatasetDword10 {
    /// Number of ranges, 0's based: 1 to 256.
    pub nr: u8,
    #[bits(24)]
    __: u32,
}

/// Dataset Management, command dword 11.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DatasetDword11 {
    /// Integral dataset for read: the ranges are read together.
    pub idr: bool,
    /// Integral dataset for write: the ranges are written together.
    pub idw: bool,
    /// Attribute deallocate: the ranges' contents are no longer needed.
    pub ad: bool,
    #[bits(29)]
    __: u32,
}

/// A range of a Dataset Management command: NVM, "Dataset Management – Range Definition"; 16 bytes. The command's
/// data is 1 to [`Self::MOST`] of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DatasetRange {
    /// Context attributes: access hints, all of them optional.
    pub attributes: u32,
    /// Number of blocks. Not 0's based: 0 means none.
    pub nlb: u32,
    /// The first block.
    pub slba: u64,
}
assert_size!(DatasetRange, 16);

impl DatasetRange {
    /// The most ranges that one command takes.
    pub const MOST: usize = 256;

    /// Describes `nlb` blocks from `slba` on, without hints.
    #[inline]
    #[must_use]
    pub const fn new(slba: u64, nlb: u32) -> Self {
        Self { attributes: 0, nlb, slba }
    }

    /// Returns the range as the command's data holds it: for [`DmaBuf::write_at`](crate::DmaBuf::write_at).
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        zerocopy::transmute!(self)
    }
}
