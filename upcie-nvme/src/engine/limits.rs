//! The controller's word on commands that take none of the short paths.

use super::Refusal;
use crate::spec::{DatasetRange, IdentifyNamespace, IdentifyNvmController, NvmOpcode};

/// The limits of commands to all namespaces of a controller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommandLimits {
    /// The formats of a Copy's source ranges that the controller takes now, one bit each (CDFS, CDFE).
    pub(crate) copy_formats: u16,
    pub(crate) dataset: DatasetLimits,
    /// Bytes that a Verify may name (VSL), and a Write Uncorrectable (WUSL).
    verify: u64,
    uncorrectable: u64,
}

/// The limits of a Dataset Management command; the greatest number is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DatasetLimits {
    /// Ranges (DMRL).
    pub(crate) ranges: usize,
    /// Blocks of a range (DMRSL).
    pub(crate) range: u32,
    /// Blocks of all ranges (DMSL).
    pub(crate) blocks: u64,
}

impl DatasetLimits {
    const NONE: Self = Self { ranges: DatasetRange::MOST, range: u32::MAX, blocks: u64::MAX };

    /// Returns the reason why `ranges` can't be those of one command, if they can't.
    pub(super) fn refuse(self, count: usize, ranges: impl Iterator<Item = DatasetRange>) -> Option<Refusal> {
        if self == Self::NONE {
            return None;
        }
        let (mut is_too_long, mut blocks) = (count > self.ranges, 0_u64);
        for range in ranges {
            is_too_long |= range.nlb > self.range;
            blocks += u64::from(range.nlb);
        }
        (is_too_long || blocks > self.blocks).then_some(Refusal::DatasetLimits)
    }
}

impl CommandLimits {
    /// No limit is known, and source ranges are in the command's own namespace.
    pub(crate) const NONE: Self =
        Self { copy_formats: 0b11, dataset: DatasetLimits::NONE, verify: u64::MAX, uncorrectable: u64::MAX };

    /// Returns the limits that a controller reports, with a least memory page of `page` bytes: 0 is none.
    pub(crate) fn of(id: &IdentifyNvmController, page: u64) -> Self {
        let reported = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        let dataset = DatasetLimits {
            ranges: reported(id.dmrl.into()).min(DatasetRange::MOST as u64) as usize,
            range: if id.dmrsl == 0 { u32::MAX } else { id.dmrsl },
            blocks: reported(id.dmsl),
        };
        Self {
            dataset,
            verify: id.max_verify(page).unwrap_or(u64::MAX),
            uncorrectable: id.max_write_uncorrectable(page).unwrap_or(u64::MAX),
            ..Self::NONE
        }
    }

    /// Returns them with these formats of a Copy's source ranges.
    pub(crate) fn with_copy_formats(self, copy_formats: u16) -> Self {
        Self { copy_formats, ..self }
    }

    /// Returns the bytes of blocks that a command without data may name.
    pub(super) fn named(&self, opcode: NvmOpcode) -> u64 {
        match opcode {
            NvmOpcode::VERIFY => self.verify,
            NvmOpcode::WRITE_UNCORRECTABLE => self.uncorrectable,
            _ => u64::MAX,
        }
    }
}

/// The limits of Copy commands to a namespace; zeros are none, for controllers that report nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CopyLimits {
    /// Blocks of all ranges (MCL).
    blocks: u32,
    /// Blocks of a range (MSSRL).
    range: u16,
    /// Ranges, 0's based (MSRC).
    last: u8,
}

impl CopyLimits {
    /// The limits of a namespace that reports none.
    #[cfg(test)]
    pub(crate) const NONE: Self = Self { blocks: 0, range: 0, last: 0 };

    pub(crate) fn of(id: &IdentifyNamespace) -> Self {
        Self { blocks: id.mcl, range: id.mssrl, last: id.msrc }
    }

    /// Returns the reason why ranges of so many blocks each can't be those of one Copy, if they can't.
    pub(super) fn refuse(self, ranges: impl Iterator<Item = u64>) -> Option<Refusal> {
        if self.blocks == 0 || self.range == 0 {
            return None;
        }
        let (mut count, mut blocks, mut is_too_long) = (0, 0, false);
        for range in ranges {
            is_too_long |= range > self.range.into();
            (count, blocks) = (count + 1, blocks + range);
        }
        let is_too_long = is_too_long || count > u64::from(self.last) + 1 || blocks > self.blocks.into();
        is_too_long.then_some(Refusal::CopyLimits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn copies_beyond_a_limit_are_refused() {
        let limits = CopyLimits { blocks: 20, range: 8, last: 2 };
        let refused = |ranges: &[u64]| limits.refuse(ranges.iter().copied());
        for good in [&[8, 8, 4][..], &[1]] {
            assert_eq!(refused(good), None, "{good:?}");
        }
        for wrong in [&[9][..], &[8, 8, 5], &[1, 1, 1, 1]] {
            assert_eq!(refused(wrong), Some(Refusal::CopyLimits), "{wrong:?}");
        }
        assert_eq!(CopyLimits::NONE.refuse([65536; 300].into_iter()), None, "it reports none");
    }

    #[test]
    fn datasets_beyond_a_limit_are_refused() {
        let mut id = IdentifyNvmController::new_zeroed();
        assert_eq!(CommandLimits::of(&id, 4096).dataset, DatasetLimits::NONE);
        (id.dmrl, id.dmrsl, id.dmsl, id.vsl) = (2, 8, 12, 1);
        let limits = CommandLimits::of(&id, 4096);
        let refused = |blocks: &[u32]| {
            limits.dataset.refuse(blocks.len(), blocks.iter().map(|&nlb| DatasetRange::new(0, nlb)))
        };
        assert_eq!((refused(&[8, 4]), refused(&[0])), (None, None));
        for wrong in [&[9][..], &[8, 5], &[1, 1, 1]] {
            assert_eq!(refused(wrong), Some(Refusal::DatasetLimits), "{wrong:?}");
        }
        assert_eq!(limits.named(NvmOpcode::VERIFY), 8192);
        assert_eq!(limits.named(NvmOpcode::WRITE_UNCORRECTABLE), u64::MAX);
    }
}
