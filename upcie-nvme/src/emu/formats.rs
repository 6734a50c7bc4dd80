//! Block formats, with metadata and protection information or without.

use crate::spec::{Command, ExtendedLbaFormat, IdentifyDword11, LbaFormat, ProtectionFormat, Status};

/// A block format that hosts can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// Bytes of data, as a power of two.
    pub shift: u8,
    /// Bytes of metadata.
    pub metadata: u16,
    /// The form of protection information.
    pub form: ProtectionFormat,
    /// Bits of the storage tag.
    pub storage_bits: u8,
}

const fn format(shift: u8, metadata: u16, form: ProtectionFormat, storage_bits: u8) -> Format {
    Format { shift, metadata, form, storage_bits }
}

/// The formats by their index.
pub(super) const FORMATS: [Format; 11] = [
    format(9, 0, ProtectionFormat::GUARD_16, 0),
    format(12, 0, ProtectionFormat::GUARD_16, 0),
    format(9, 8, ProtectionFormat::GUARD_16, 0),
    format(12, 8, ProtectionFormat::GUARD_16, 0),
    format(12, 64, ProtectionFormat::GUARD_16, 0),
    format(9, 16, ProtectionFormat::GUARD_64, 0),
    format(12, 16, ProtectionFormat::GUARD_64, 0),
    format(12, 16, ProtectionFormat::GUARD_32, 16),
    format(12, 64, ProtectionFormat::GUARD_64, 16),
    format(9, 8, ProtectionFormat::GUARD_16, 16),
    format(12, 64, ProtectionFormat::GUARD_32, 40),
];

/// Returns the format whose index an Identify names.
pub(super) fn named_format(command: &Command) -> Result<Format, Status> {
    let index = usize::from(IdentifyDword11::from_bits(command.cdw11).cnssi());
    FORMATS.get(index).copied().ok_or(Status::INVALID_FIELD.with_do_not_retry())
}

impl Format {
    /// Returns the bytes of its protection information.
    pub fn protection_size(self) -> u16 {
        if self.form == ProtectionFormat::GUARD_16 { 8 } else { 16 }
    }

    /// Returns the bytes of a block, data and metadata.
    const fn stride(self) -> u64 {
        (1 << self.shift) + self.metadata as u64
    }

    /// Returns it as Identify Namespace lists it.
    pub fn listed(self) -> LbaFormat {
        LbaFormat::new().with_lbads(self.shift).with_ms(self.metadata)
    }

    /// Returns its extension, as Identify of the command set lists it.
    pub fn extension(self) -> ExtendedLbaFormat {
        ExtendedLbaFormat::new()
            .with_storage_tag_size(self.storage_bits)
            .with_protection_information_format(self.form.0)
    }
}

/// The format of a namespace, with the choices that its host has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The index of the format.
    index: u8,
    /// Metadata is at the end of each block.
    pub extended: bool,
    /// The type of protection information, 0 for none.
    pub protection: u8,
    /// Protection information is in the first bytes of the metadata.
    pub first: bool,
}

impl Layout {
    /// Blocks of 512 bytes without metadata.
    pub const PLAIN: Self = Self { index: 0, extended: false, protection: 0, first: false };

    /// Returns the layout of a host's choices; `None` if they do not go together.
    pub fn chosen(index: usize, extended: bool, protection: u8, first: bool) -> Option<Self> {
        let format = FORMATS.get(index)?;
        let fits = protection <= 3 && (protection == 0 || format.metadata >= format.protection_size());
        let good = fits && (format.metadata != 0 || !extended);
        let first = first && protection != 0;
        good.then_some(Self { index: index as u8, extended, protection, first })
    }

    /// Returns the layout of blocks of `1 << shift` bytes without metadata.
    pub fn plain(shift: u8) -> Self {
        let index = FORMATS.iter().position(|format| (format.shift, format.metadata) == (shift, 0));
        Self { index: index.unwrap_or(0) as u8, ..Self::PLAIN }
    }

    /// Returns the layout of blocks of `1 << shift` bytes and `metadata` bytes beside them; `protection` is the type, the bits of
    /// the guard and those of the storage tag. `None` if there is no such format.
    pub fn find(
        (shift, metadata): (u8, u16),
        (protection, guard, storage_bits): (u8, u8, u8),
        extended: bool,
        first: bool,
    ) -> Option<Self> {
        let form = match guard {
            32 => ProtectionFormat::GUARD_32,
            64 => ProtectionFormat::GUARD_64,
            _ => ProtectionFormat::GUARD_16,
        };
        let found = FORMATS.iter().position(|format| {
            (format.shift, format.metadata) == (shift, metadata)
                && (protection == 0 || (format.form, format.storage_bits) == (form, storage_bits))
        });
        Self::chosen(found?, extended && metadata != 0, protection, first)
    }

    /// Returns the format.
    pub const fn format(self) -> Format {
        // Only formats of the list are chosen.
        FORMATS[self.index as usize % FORMATS.len()]
    }

    /// Returns the bytes of metadata of a block.
    pub fn metadata(self) -> usize {
        self.format().metadata.into()
    }

    /// Returns the blocks that `capacity` bytes of the media have room for.
    pub const fn blocks(self, capacity: u64) -> u64 {
        capacity / self.format().stride()
    }

    /// Returns the bytes of the media that `blocks` blocks take, if there can be so many.
    pub fn bytes(self, blocks: u64) -> Option<u64> {
        blocks.checked_mul(self.format().stride())
    }

    /// Returns the place of protection information in the metadata of a block, if it has some.
    pub fn protection_place(self) -> Option<std::ops::Range<usize>> {
        let size = usize::from(self.format().protection_size());
        let start = if self.first { 0 } else { self.metadata().checked_sub(size)? };
        (self.protection != 0).then_some(start..start + size)
    }

    /// Returns FLBAS and DPS.
    pub fn settings(self) -> (u8, u8) {
        let index = self.index & 0xf | self.index >> 4 << 5;
        (index | u8::from(self.extended) << 4, self.protection | u8::from(self.first) << 3)
    }
}
