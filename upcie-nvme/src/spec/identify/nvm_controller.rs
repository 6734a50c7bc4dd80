//! The controller's word on the NVM command set: optional commands, and NVM, "I/O Command Set specific Identify Controller data
//! structure".

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::macros::assert_size;

/// Returns the bytes of a limit reported as a power of two of pages; `None` for 0 (no limit) and above 64
/// bits.
pub(super) const fn pages(power: u8, page: u64) -> Option<u64> {
    match (power, 1_u64.checked_shl(power as u32)) {
        (0, _) | (_, None) => None,
        (_, Some(pages)) => pages.checked_mul(page),
    }
}

/// NVM, "I/O Command Set specific Identify Controller data structure" (CNS 06h, CSI 00h), 4096 bytes: limits of single
/// commands; 0 is not reported. Since version 2.0 of the Base specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IdentifyNvmController {
    /// Verify size limit, as `wzsl`; see [`Self::max_verify`].
    pub vsl: u8,
    /// Write Zeroes size limit, as a power of two of the smallest memory pages; see [`Self::max_write_zeroes`].
    pub wzsl: u8,
    /// Write Uncorrectable size limit, as `wzsl`; see [`Self::max_write_uncorrectable`].
    pub wusl: u8,
    /// Dataset Management: ranges.
    pub dmrl: u8,
    /// Dataset Management: blocks of a range.
    pub dmrsl: u32,
    /// Dataset Management: blocks of all ranges.
    pub dmsl: u64,
    reserved: [u8; 4080],
}
assert_size!(IdentifyNvmController, 4096);

impl IdentifyNvmController {
    /// Returns the most bytes that a Write Zeroes may zero, for a page of
    /// [`Capabilities::page_size_min`](crate::spec::Capabilities); `None` if no limit is reported.
    #[must_use]
    pub const fn max_write_zeroes(&self, page_size_min: u64) -> Option<u64> {
        pages(self.wzsl, page_size_min)
    }

    /// Returns the most bytes that a Verify may name, as [`max_write_zeroes`](Self::max_write_zeroes) does.
    #[must_use]
    pub const fn max_verify(&self, page_size_min: u64) -> Option<u64> {
        pages(self.vsl, page_size_min)
    }

    /// Returns the most bytes that a Write Uncorrectable may name, as [`max_write_zeroes`](Self::max_write_zeroes) does.
    #[must_use]
    pub const fn max_write_uncorrectable(&self, page_size_min: u64) -> Option<u64> {
        pages(self.wusl, page_size_min)
    }
}

bitflags::bitflags! {
    /// Optional NVM commands (ONCS).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct OptionalCommands: u16 {
        /// Compare.
        const COMPARE = 1 << 0;
        /// Write Uncorrectable.
        const WRITE_UNCORRECTABLE = 1 << 1;
        /// Dataset Management.
        const DATASET_MANAGEMENT = 1 << 2;
        /// Write Zeroes.
        const WRITE_ZEROES = 1 << 3;
        /// Set Features can save, and Get Features select.
        const SAVED_FEATURES = 1 << 4;
        /// Reservations.
        const RESERVATIONS = 1 << 5;
        /// The Timestamp feature.
        const TIMESTAMP = 1 << 6;
        /// Verify.
        const VERIFY = 1 << 7;
        /// Copy.
        const COPY = 1 << 8;
    }
}
