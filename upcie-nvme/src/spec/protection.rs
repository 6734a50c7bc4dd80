//! End-to-end data protection: NVM, "End-to-end Data Protection"; the fields of commands in "Read command", dwords 2, 3, 12,
//! 14 and 15.

use bitfield_struct::bitfield;

use super::macros::named_values;
use super::ranges::CopyDword12;
use super::status::Status;

/// The bit of dword 12 of a Zone Append by which the controller counts the reference tag on from that of the zone's first block
/// to the block that it chooses (ZNS, "Zone Append command", PIREMAP). Type 1 needs it, and type 3 can't have it.
pub const REMAP_PROTECTION: u32 = 25;

bitflags::bitflags! {
    /// Protection information field of dword 12 (PRINFO, bits 29:26), and the check of the storage tag (STC, bit 24).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct ProtectionControl: u8 {
        /// STC: check the storage tag.
        const STORAGE_TAG = 1 << 0;
        /// PRCHK bit 0: check the reference tag.
        const REFERENCE_TAG = 1 << 2;
        /// PRCHK bit 1: check the application tag.
        const APPLICATION_TAG = 1 << 3;
        /// PRCHK bit 2: check the guard.
        const GUARD = 1 << 4;
        /// PRACT: the controller inserts protection information on the way to the media, and strips it on the way back.
        const ACTION = 1 << 5;
    }
}

impl ProtectionControl {
    /// Returns the bits at their position in dword 12.
    #[must_use]
    pub const fn dword12(self) -> u32 {
        (self.bits() as u32) << 24
    }

    /// Returns the fields of the blocks that a Copy reads (PRINFOR, STCR); those of the blocks that it writes are where other
    /// commands have them.
    #[must_use]
    pub const fn of_copy_source(dword: CopyDword12) -> Self {
        Self::from_bits_truncate(dword.prinfor() << 2 | dword.stcr() as u8)
    }

    /// Returns dword 12 of a Copy with these fields for the blocks that it reads.
    #[must_use]
    pub const fn for_copy_source(self, dword: CopyDword12) -> CopyDword12 {
        dword.with_prinfor(self.bits() >> 2).with_stcr(self.bits() & 1 != 0)
    }

    /// Returns the bits of a command's dword 12.
    #[must_use]
    pub const fn of_dword12(dword: u32) -> Self {
        Self::from_bits_truncate((dword >> 24) as u8)
    }
}

/// Read, Write, Compare, Write Zeroes and Verify, command dword 15.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ApplicationTagDword15 {
    /// The application tag: of the blocks to write (LBAT), or expected of those to read (ELBAT).
    pub lbat: u16,
    /// The bits of the application tag that are compared (LBATM, ELBATM).
    pub lbatm: u16,
}

named_values! {
    /// The form of protection information (PIF of [`ExtendedLbaFormat`](super::ExtendedLbaFormat)).
    ProtectionFormat(u8) {
        GUARD_16 = 0, "16-bit guard";
        GUARD_32 = 1, "32-bit guard";
        GUARD_64 = 2, "64-bit guard";
        QUALIFIED = 3, "see the qualified format";
    }
}

named_values! {
    /// The field of protection information that a check is about.
    ProtectionField(u8) {
        GUARD = 0, "guard";
        APPLICATION_TAG = 1, "application tag";
        REFERENCE_TAG = 2, "reference tag";
        STORAGE_TAG = 3, "storage tag";
    }
}

impl Status {
    /// Returns the field of protection information that the controller found to be wrong, if the status is about one.
    #[must_use]
    pub fn protection_field(self) -> Option<ProtectionField> {
        let all = [
            (Self::GUARD_CHECK_ERROR, ProtectionField::GUARD),
            (Self::APPLICATION_TAG_CHECK_ERROR, ProtectionField::APPLICATION_TAG),
            (Self::REFERENCE_TAG_CHECK_ERROR, ProtectionField::REFERENCE_TAG),
            (Self::STORAGE_TAG_CHECK_ERROR, ProtectionField::STORAGE_TAG),
        ];
        all.into_iter().find(|(status, _)| *status == self).map(|(_, field)| field)
    }
}

/// Dwords 2, 3 and 14 of a command: the storage tag (LBST) and, below it, the initial reference tag (ILBRT, EILBRT), one
/// number of 32, 80 or 48 bits with a 16-, 32- or 64-bit guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockTagDwords {
    /// Bits 79:64, in the low half.
    pub dword2: u32,
    /// Bits 63:32.
    pub dword3: u32,
    /// Bits 31:0.
    pub dword14: u32,
}

impl BlockTagDwords {
    /// Splits a number of up to 80 bits.
    #[must_use]
    pub const fn new(tags: u128) -> Self {
        Self { dword2: (tags >> 64) as u32 & 0xffff, dword3: (tags >> 32) as u32, dword14: tags as u32 }
    }

    /// Returns the number.
    #[must_use]
    pub const fn tags(self) -> u128 {
        (self.dword2 as u128 & 0xffff) << 64 | (self.dword3 as u128) << 32 | self.dword14 as u128
    }
}
