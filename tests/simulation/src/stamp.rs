//! The content of blocks: each names its place and version.

use upcie_core::testing::mix;

/// Bytes of a block.
pub const BLOCK: usize = 512;

/// The content of a block that was never written, or zeroed.
pub const ZEROS: u64 = 0;

/// Returns the content of block `lba` in a version from 1 on.
pub fn stamped(lba: u64, version: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    for (index, word) in (0_u64..).zip(block.chunks_exact_mut(8)) {
        word.copy_from_slice(&word_at(lba, version, index).to_le_bytes());
    }
    block
}

fn word_at(lba: u64, version: u64, index: u64) -> u64 {
    if index == 0 { version } else { mix(lba << 40 ^ version << 8 ^ index) }
}

/// Returns the version of the content of block `lba`; `None` if it is no version of this block.
pub fn version_of(lba: u64, block: &[u8]) -> Option<u64> {
    if block.iter().all(|&byte| byte == 0) {
        return Some(ZEROS);
    }
    let version = u64::from_le_bytes(block.get(..8)?.try_into().ok()?);
    (stamped(lba, version)[..] == *block).then_some(version)
}
