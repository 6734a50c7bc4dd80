//! Data that shows where it belongs. Every 8 bytes of a block are computed from the namespace, the block's
//! number, the number of writes to it and the offset in the block. A byte at a wrong place or of an older
//! write is noticed.

use upcie_core::testing::mix;
use upcie_nvme::{DmaBuf, Namespace};

/// Bytes that a test looks at: in a slice, a vector, or a buffer.
pub trait Bytes {
    /// Returns the bytes.
    ///
    /// # Panics
    /// Panics for a buffer that can only be copied.
    #[track_caller]
    fn bytes(&self) -> &[u8];

    /// Returns the bytes for writing.
    ///
    /// # Panics
    /// Panics for a buffer that can only be copied.
    #[track_caller]
    fn bytes_mut(&mut self) -> &mut [u8];
}

impl Bytes for [u8] {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Bytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Bytes for DmaBuf {
    fn bytes(&self) -> &[u8] {
        self.as_slice().expect("a buffer that can only be copied")
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice().expect("a buffer that can only be copied")
    }
}

/// The data of a namespace's blocks.
#[derive(Debug, Clone, Copy)]
pub struct Pattern {
    nsid: u32,
    block_size: usize,
}

impl Pattern {
    /// Describes the data of `namespace`.
    pub fn of(namespace: &Namespace) -> Self {
        Self { nsid: namespace.nsid(), block_size: namespace.block_size() }
    }

    /// Returns the 8 bytes at offset `at` of the block.
    fn word(self, block: u64, version: u32, at: usize) -> [u8; 8] {
        mix(mix(block << 16 ^ u64::from(self.nsid)) ^ u64::from(version) << 32 ^ at as u64).to_le_bytes()
    }

    /// Fills `bytes` with whole blocks from `slba` on, all of one version.
    pub fn fill(self, bytes: &mut (impl Bytes + ?Sized), slba: u64, version: u32) {
        let bytes = bytes.bytes_mut();
        for (block, bytes) in (slba..).zip(bytes.chunks_exact_mut(self.block_size)) {
            for (at, word) in bytes.chunks_exact_mut(8).enumerate() {
                word.copy_from_slice(&self.word(block, version, at * 8));
            }
        }
    }

    /// Returns the bytes that [`fill`](Self::fill) writes, in a vector.
    pub fn bytes(self, slba: u64, blocks: usize, version: u32) -> Vec<u8> {
        let mut bytes = vec![0; blocks * self.block_size];
        self.fill(&mut bytes, slba, version);
        bytes
    }

    /// Checks whole blocks from `slba` on, all of one version.
    ///
    /// # Panics
    /// Panics if a byte differs. The message names the offset, and the block or version that the bytes belong
    /// to, if it is found.
    #[track_caller]
    pub fn verify(self, bytes: &(impl Bytes + ?Sized), slba: u64, version: u32) {
        let bytes = bytes.bytes();
        assert_eq!(bytes.len() % self.block_size, 0, "whole blocks");
        for (block, bytes) in (slba..).zip(bytes.chunks_exact(self.block_size)) {
            for (at, word) in bytes.chunks_exact(8).enumerate() {
                let wanted = self.word(block, version, at * 8);
                assert!(
                    word == wanted,
                    "block {block} of namespace {} at byte {}: {word:02x?} instead of {wanted:02x?} (version \
                     {version}){}",
                    self.nsid,
                    at * 8,
                    self.guess(word, slba, version)
                );
            }
        }
    }

    /// Finds the block nearby that the wrong data belongs to, for the message.
    fn guess(self, word: &[u8], slba: u64, version: u32) -> String {
        if word.iter().all(|&byte| byte == 0) {
            return "; these are zeroes".into();
        }
        for block in slba.saturating_sub(64)..slba + 1024 {
            for version in version.saturating_sub(4)..version + 4 {
                for at in (0..self.block_size).step_by(8) {
                    if self.word(block, version, at) == word {
                        return format!("; that is block {block}, version {version}, byte {at}");
                    }
                }
            }
        }
        String::new()
    }
}
