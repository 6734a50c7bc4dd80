//! Protection information made and checked by the host.

use super::{BlockFormat, Checks, Guard, Protect, Protection, ProtectionError, ProtectionType, Tags, crc};
use crate::spec::ProtectionField;

impl BlockFormat {
    /// Makes the protection information of `blocks`, whole blocks with their metadata at their end, from block `slba` on, with
    /// the tags of `protect`. Does nothing if the format has none.
    ///
    /// # Panics
    /// The format is not [extended](Self::is_extended), or the bytes are not whole blocks.
    pub fn generate(&self, slba: u64, blocks: &mut [u8], protect: &Protect) {
        let count = self.whole_blocks(blocks.len());
        let blocks = blocks.chunks_exact_mut(self.transfer_size()).map(|block| {
            let (data, metadata) = block.split_at_mut(self.data_size());
            (&*data, metadata)
        });
        self.generate_all(slba, blocks.take(count), protect);
    }

    /// Makes the protection information in `metadata` of the blocks whose data is `data`, from block `slba` on, with the tags
    /// of `protect`. Does nothing if the format has none.
    ///
    /// # Panics
    /// The metadata of the format is not [separate](Self::is_separate), or the bytes are not those of whole blocks.
    pub fn generate_separate(&self, slba: u64, data: &[u8], metadata: &mut [u8], protect: &Protect) {
        self.check_separate(data, metadata.len());
        let (data, metadata) =
            (data.chunks_exact(self.data_size()), metadata.chunks_exact_mut(self.metadata_size()));
        self.generate_all(slba, data.zip(metadata), protect);
    }

    /// Checks the protection information of `blocks`, whole blocks with their metadata at their end, from block `slba` on,
    /// as the checks and tags of `protect` say. Blocks whose tags are those without checks pass.
    ///
    /// # Errors
    /// The first block that does not pass, and why.
    ///
    /// # Panics
    /// Those of [`generate`](Self::generate).
    pub fn verify(&self, slba: u64, blocks: &[u8], protect: &Protect) -> Result<(), ProtectionError> {
        let count = self.whole_blocks(blocks.len());
        let blocks = blocks.chunks_exact(self.transfer_size()).map(|block| block.split_at(self.data_size()));
        self.verify_all(slba, blocks.take(count), protect)
    }

    /// Checks the protection information in `metadata` like [`verify`](Self::verify); `data` is the data of the blocks.
    ///
    /// # Errors
    /// The first block that does not pass, and why.
    ///
    /// # Panics
    /// Those of [`generate_separate`](Self::generate_separate).
    pub fn verify_separate(
        &self,
        slba: u64,
        data: &[u8],
        metadata: &[u8],
        protect: &Protect,
    ) -> Result<(), ProtectionError> {
        self.check_separate(data, metadata.len());
        let (data, metadata) =
            (data.chunks_exact(self.data_size()), metadata.chunks_exact(self.metadata_size()));
        self.verify_all(slba, data.zip(metadata), protect)
    }

    /// Returns the number of extended blocks that `len` bytes are.
    #[track_caller]
    fn whole_blocks(&self, len: usize) -> usize {
        let block = self.transfer_size();
        assert!(self.is_extended(), "blocks of {self} have no metadata at their end");
        assert!(len % block == 0, "{len} bytes are not whole blocks of {block} bytes");
        len / block
    }

    #[track_caller]
    fn check_separate(&self, data: &[u8], metadata: usize) {
        let (block, data) = (self.data_size(), data.len());
        assert!(self.is_separate(), "blocks of {self} have no metadata apart");
        assert!(data % block == 0, "{data} bytes are not whole blocks of {block} bytes");
        assert!(
            metadata / self.metadata_size() == data / block && metadata % self.metadata_size() == 0,
            "{metadata} bytes of metadata for {data} bytes of data in blocks of {self}"
        );
    }

    fn generate_all<'b>(
        &self,
        slba: u64,
        blocks: impl Iterator<Item = (&'b [u8], &'b mut [u8])>,
        protect: &Protect,
    ) {
        let Some(protection) = self.protection() else { return };
        let place = self.place(protection);
        let size = protection.guard().size();
        for (index, (data, metadata)) in (0..).zip(blocks) {
            let tags = protect.tags(protection, slba, index);
            let (before, rest) = metadata.split_at_mut(place.start);
            let guard = protection.guard().of(data, before);
            rest[..size].copy_from_slice(&guard.to_be_bytes()[8 - size..]);
            rest[size..size + 2].copy_from_slice(&tags.application.to_be_bytes());
            let bytes = tag_bytes(protection);
            rest[size + 2..protection.size()]
                .copy_from_slice(&tags.joined(protection).to_be_bytes()[16 - bytes..]);
        }
    }

    fn verify_all<'b>(
        &self,
        slba: u64,
        blocks: impl Iterator<Item = (&'b [u8], &'b [u8])>,
        protect: &Protect,
    ) -> Result<(), ProtectionError> {
        let Some(protection) = self.protection() else { return Ok(()) };
        let (place, checks) = (self.place(protection), protect.checks());
        for (index, (data, metadata)) in (0..).zip(blocks) {
            let found = Found::of(protection, &metadata[place.clone()]);
            if found.is_exempt(protection) {
                continue;
            }
            let guard = if checks.contains(Checks::GUARD) {
                protection.guard().of(data, &metadata[..place.start])
            } else {
                found.guard
            };
            let tags = protect.tags(protection, slba, index);
            if let Some((kind, expected, found)) = found.differs(protection, checks, guard, &tags) {
                return Err(ProtectionError { block: slba.wrapping_add(index), kind, expected, found });
            }
        }
        Ok(())
    }
}

impl Guard {
    /// Returns the guard of a block: the checksum of its data and of the metadata before protection information.
    fn of(self, data: &[u8], before: &[u8]) -> u64 {
        match self {
            Self::Crc16 => crc::update16(crc::update16(0, data), before).into(),
            Self::Crc32 => (!crc::update32(crc::update32(!0, data), before)).into(),
            Self::Crc64 => !crc::update64(crc::update64(!0, data), before),
        }
    }
}

/// Returns the bytes that the storage tag and the reference tag take together.
fn tag_bytes(protection: &Protection) -> usize {
    protection.guard().tag_bits() as usize / 8
}

/// The protection information of a block.
#[derive(Debug)]
struct Found {
    guard: u64,
    application: u16,
    reference: u64,
    storage: u64,
}

impl Found {
    fn of(protection: &Protection, bytes: &[u8]) -> Self {
        let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |all, &byte| all << 8 | u128::from(byte));
        let (guard, rest) = bytes.split_at(protection.guard().size());
        let (application, tags) = rest.split_at(2);
        let (tags, bits) = (number(tags), protection.reference_tag_bits());
        Self {
            guard: number(guard) as u64,
            application: number(application) as u16,
            reference: tags as u64 & protection.reference_mask(),
            storage: (tags >> bits) as u64 & protection.storage_limit(),
        }
    }

    /// Returns `true` if the block says that it is not to be checked.
    fn is_exempt(&self, protection: &Protection) -> bool {
        let by_reference =
            protection.kind() != ProtectionType::Type3 || self.reference == protection.reference_mask();
        self.application == u16::MAX && by_reference
    }

    /// Returns the first field that is not as expected, with the expected and the found value.
    fn differs(
        &self,
        protection: &Protection,
        checks: Checks,
        guard: u64,
        tags: &Tags,
    ) -> Option<(ProtectionField, u64, u64)> {
        let (mask, storage) = (tags.mask, protection.storage_tag_mask());
        let application = (u64::from(tags.application & mask), u64::from(self.application & mask));
        [
            (Checks::GUARD, ProtectionField::GUARD, guard, self.guard),
            (
                Checks::STORAGE_TAG,
                ProtectionField::STORAGE_TAG,
                tags.storage & storage,
                self.storage & storage,
            ),
            (Checks::APPLICATION_TAG, ProtectionField::APPLICATION_TAG, application.0, application.1),
            (Checks::REFERENCE_TAG, ProtectionField::REFERENCE_TAG, tags.reference, self.reference),
        ]
        .into_iter()
        .find(|(check, _, expected, found)| checks.contains(*check) && expected != found)
        .map(|(_, kind, expected, found)| (kind, expected, found))
    }
}
