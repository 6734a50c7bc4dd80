//! Ranges of blocks on the command line.

use crate::structures::parse;
use anyhow::ensure;

/// Blocks from a first one on: `64+8` on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRange {
    /// First block.
    pub slba: u64,
    /// Number of blocks.
    pub blocks: u32,
}

/// Parses a range.
pub fn parse_range(text: &str) -> Result<BlockRange, String> {
    let parts = text.split_once('+');
    let (slba, blocks) = parts.ok_or("a range is its first block and its number of blocks: 64+8")?;
    Ok(BlockRange { slba: parse(slba)?, blocks: parse(blocks)? })
}

/// Returns the ranges of a command that takes `most`: those that are `named`, or else those of nvme-cli's two lists.
///
/// # Errors
/// The lists have different lengths, or there are too many ranges.
pub fn pair(
    named: &[BlockRange],
    slbs: &[u64],
    blocks: impl ExactSizeIterator<Item = u32>,
    most: usize,
) -> anyhow::Result<Vec<BlockRange>> {
    ensure!(
        slbs.len() == blocks.len(),
        "--slbs has {} first blocks, and --blocks {} numbers of blocks: give one number for each",
        slbs.len(),
        blocks.len()
    );
    let listed = slbs.iter().zip(blocks).map(|(&slba, blocks)| BlockRange { slba, blocks });
    let all: Vec<_> = named.iter().copied().chain(listed).collect();
    ensure!(all.len() <= most, "{} ranges: one command takes {most} at most", all.len());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_block_and_a_number() {
        assert_eq!(parse_range("64+8"), Ok(BlockRange { slba: 64, blocks: 8 }));
        assert_eq!(parse_range("0x40+1"), Ok(BlockRange { slba: 64, blocks: 1 }));
        for text in ["", "64", "64+", "+8", "64-8", "64+8+8", "64+4294967296"] {
            assert!(parse_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn two_lists_are_joined_to_ranges() {
        let range = |slba, blocks| BlockRange { slba, blocks };
        let pair = |named: &[BlockRange], slbs: &[u64], blocks: &[u32]| {
            pair(named, slbs, blocks.iter().copied(), 2).map_err(|error| error.to_string())
        };
        assert_eq!(pair(&[], &[0, 64], &[8, 1]), Ok(vec![range(0, 8), range(64, 1)]));
        assert_eq!(pair(&[range(5, 6)], &[], &[]), Ok(vec![range(5, 6)]));
        assert!(pair(&[], &[0, 64], &[8]).unwrap_err().contains("2 first blocks, and --blocks 1"));
        assert!(pair(&[], &[0, 1, 2], &[1, 1, 1]).unwrap_err().contains("3 ranges"));
    }
}
