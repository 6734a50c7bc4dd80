//! The blocks of a command in its buffers: with or without metadata, which the controller may insert and strip.

use super::{Extent, Refusal, extent::Unit};
use crate::{
    protection::{Checks, Protect, Protection, ProtectionType},
    spec::NvmOpcode,
};
use upcie_core::dma::DmaBuf;

/// Returns the protection that plain reads, writes and appends have where metadata has a buffer of its own and is nothing but protection
/// information: as Linux does it.
fn implied(protection: &Protection) -> Protect {
    let protect = Protect::new().action().check(Checks::GUARD);
    match protection.kind() {
        ProtectionType::Type3 => protect,
        ProtectionType::Type1 | ProtectionType::Type2 => protect.check(Checks::REFERENCE_TAG),
    }
}

/// The form of a command's buffers and its protection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// A block in the data buffer, for a division, and its bytes.
    pub(super) unit: Unit,
    pub(super) block: usize,
    /// The bytes of a block in the metadata buffer; 0 if the command has none.
    pub(super) metadata: usize,
    pub(super) protect: Option<Protect>,
}

impl Plan {
    /// Returns the plan of a command of `extent`, with a buffer for metadata or without.
    ///
    /// # Errors
    /// The command needs such a buffer, or can't have one; the namespace has no protection information.
    #[inline]
    pub(super) fn new(
        extent: &Extent,
        opcode: NvmOpcode,
        protect: Option<Protect>,
        has_metadata: bool,
    ) -> Result<Self, Refusal> {
        if extent.format.metadata_size() == 0 && protect.is_none() && !has_metadata {
            let block = extent.format.transfer_size();
            return Ok(Self { unit: extent.unit(), block, metadata: 0, protect: None });
        }
        Self::with_metadata(extent, opcode, protect, has_metadata)
    }

    #[inline(never)]
    fn with_metadata(
        extent: &Extent,
        opcode: NvmOpcode,
        protect: Option<Protect>,
        has_metadata: bool,
    ) -> Result<Self, Refusal> {
        let format = &extent.format;
        if protect.is_some() && format.protection().is_none() {
            return Err(Refusal::Unprotected);
        }
        // The controller can't insert or strip what it compares.
        let moves = matches!(opcode, NvmOpcode::READ | NvmOpcode::WRITE | NvmOpcode::ZONE_APPEND);
        let needs = format.is_separate() && !has_metadata;
        let implies = needs && moves && format.is_stripped();
        let protect = protect.or(format.protection().filter(|_| implies).map(implied));
        let protect = match opcode {
            NvmOpcode::ZONE_APPEND => protect.map(|protect| protect.of_append(format.protection())),
            _ => protect,
        };
        // The controller inserts or strips all of the metadata.
        if protect.is_some_and(|protect| protect.is_action()) && format.is_stripped() {
            return match has_metadata {
                true => Err(Refusal::NoMetadata),
                false => {
                    let block = format.data_size();
                    Ok(Self { unit: Unit::of(block), block, metadata: 0, protect })
                }
            };
        }
        match (format.is_separate(), has_metadata) {
            (true, false) => Err(Refusal::Metadata),
            (false, true) => Err(Refusal::NoMetadata),
            (separate, _) => {
                let metadata = if separate { format.metadata_size() } else { 0 };
                Ok(Self { unit: extent.unit(), block: format.transfer_size(), metadata, protect })
            }
        }
    }

    /// Returns the reason why `len` bytes of blocks from `slba` on are not in the namespace, or more than `most` blocks, if
    /// they are not.
    pub(super) fn misplaced(&self, extent: &Extent, slba: u64, len: u64, most: u64) -> Option<Refusal> {
        match self.unit.blocks(len) {
            None => Some(Refusal::Length),
            Some(blocks) => extent.misplaced(slba, blocks).or((blocks > most).then_some(Refusal::TooLong)),
        }
    }

    /// Adds the protection to the words of a command for the blocks from `slba + index` on, where `slba` is the first block
    /// of the whole transfer.
    pub(super) fn put(&self, words: &mut [u64; 8], extent: &Extent, slba: u64, index: u64) {
        if let Some(protect) = &self.protect {
            protect.put(words, &extent.format, slba, index);
        }
    }
}

/// Returns the device address of the bytes of metadata from `start` on, which a command with `len` bytes of it names by its
/// metadata pointer: contiguous, of whole dwords' alignment, in the address space `space`.
pub(super) fn metadata_pointer(
    metadata: &DmaBuf,
    space: u64,
    start: usize,
    len: usize,
) -> Result<u64, Refusal> {
    if metadata.prepared().space != space {
        return Err(Refusal::ForeignBuffer);
    }
    // A chain has further bytes than the first segment, which is all that the pointer reaches.
    if start.checked_add(len).is_none_or(|end| end > metadata.len()) {
        return Err(Refusal::MetadataLength);
    }
    let address = metadata.iova(start);
    let is_contiguous = metadata.is_linear() || {
        /// No memory has smaller pages.
        const STEP: usize = 4096;
        (0..len).step_by(STEP).chain([len - 1]).all(|at| metadata.iova(start + at) == address + at as u64)
    };
    if is_contiguous && address % 4 == 0 { Ok(address) } else { Err(Refusal::MetadataPlace) }
}
