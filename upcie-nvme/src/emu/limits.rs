//! Limits of single commands beside MDTS, which controllers report from version 2.0 on. (NVM, "I/O Command Set specific Identify
//! Controller data structure")

use super::Options;
use crate::spec::{DatasetRange, IdentifyNvmController, Status};
use zerocopy::{FromZeros, IntoBytes};

/// The most bytes of a Verify, Write Zeroes or Write Uncorrectable, if two memory pages are not more.
const BYTES: u64 = 8 << 20;
/// The most ranges of a Dataset Management, blocks of a range, and blocks of all ranges.
const RANGES: u8 = 128;
const RANGE_BLOCKS: u32 = 1 << 24;
const ALL_BLOCKS: u64 = 1 << 30;

/// The limits of a controller.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The most bytes of a Verify, Write Zeroes or Write Uncorrectable.
    bytes: u64,
    /// Dataset Management has limits.
    of_ranges: bool,
}

impl Limits {
    /// Returns the limits of a controller: none before version 2.0.
    pub fn of(options: &Options) -> Self {
        let of_ranges = options.is_new();
        // In memory pages 0 would stand for no limit.
        let bytes = if of_ranges { BYTES.max(2 * u64::from(options.mpsmin)) } else { u64::MAX };
        Self { bytes, of_ranges }
    }

    /// Returns the Identify data with the limits of such a controller.
    pub fn page(options: &Options) -> Vec<u8> {
        let (this, mut id) = (Self::of(options), IdentifyNvmController::new_zeroed());
        if this.of_ranges {
            let pages = (this.bytes / u64::from(options.mpsmin)).ilog2() as u8;
            (id.vsl, id.wzsl, id.wusl) = (pages, pages, pages);
            (id.dmrl, id.dmrsl, id.dmsl) = (RANGES, RANGE_BLOCKS, ALL_BLOCKS);
        }
        id.as_bytes().to_vec()
    }

    /// Refuses a Verify, Write Zeroes or Write Uncorrectable of too many bytes.
    pub fn check(self, bytes: u64) -> Result<(), Status> {
        if bytes > self.bytes { Err(Status::INVALID_FIELD.with_do_not_retry()) } else { Ok(()) }
    }

    /// Refuses a Dataset Management of too many ranges or blocks.
    pub fn check_ranges(self, ranges: &[DatasetRange]) -> Result<(), Status> {
        let all: u64 = ranges.iter().map(|range| u64::from(range.nlb)).sum();
        let is_long = ranges.iter().any(|range| range.nlb > RANGE_BLOCKS);
        if self.of_ranges && (ranges.len() > usize::from(RANGES) || is_long || all > ALL_BLOCKS) {
            return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED.with_do_not_retry());
        }
        Ok(())
    }
}
