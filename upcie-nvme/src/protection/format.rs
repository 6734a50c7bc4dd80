//! The format of a namespace's blocks: data, metadata, protection information.

use crate::spec::{IdentifyNamespace, NvmNamespace, ProtectionFormat};
use std::{fmt, ops::Range};

/// The type of protection information.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProtectionType {
    /// The reference tag is the number of the block.
    Type1 = 1,
    /// The reference tag counts up from the number that a command begins with.
    Type2 = 2,
    /// The reference tag is the application's: the same in all blocks of a command.
    Type3 = 3,
}

/// The guard of protection information.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guard {
    /// CRC-16/T10-DIF.
    Crc16,
    /// CRC-32C.
    Crc32,
    /// CRC-64/NVME.
    Crc64,
}

impl Guard {
    /// Returns the bytes of protection information.
    #[must_use]
    pub const fn protection_size(self) -> usize {
        match self {
            Self::Crc16 => 8,
            Self::Crc32 | Self::Crc64 => 16,
        }
    }

    /// Returns the bytes of the guard.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Crc16 => 2,
            Self::Crc32 => 4,
            Self::Crc64 => 8,
        }
    }

    /// Returns the bits that the storage tag and the reference tag have together.
    #[must_use]
    pub const fn tag_bits(self) -> u32 {
        match self {
            Self::Crc16 => 32,
            Self::Crc32 => 80,
            Self::Crc64 => 48,
        }
    }

    /// Returns the bits that a storage tag may have.
    const fn storage_bits(self) -> (u32, u32) {
        match self {
            Self::Crc16 => (0, 32),
            Self::Crc32 => (16, 64),
            Self::Crc64 => (0, 48),
        }
    }
}

/// Protection information of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    kind: ProtectionType,
    guard: Guard,
    first: bool,
    storage_bits: u32,
    storage_mask: u64,
}

impl Protection {
    /// Describes protection information in the last bytes of the metadata, without a storage tag; a 32-bit guard has one
    /// of 16 bits at least.
    #[must_use]
    pub const fn new(kind: ProtectionType, guard: Guard) -> Self {
        let storage_bits = guard.storage_bits().0;
        Self { kind, guard, first: false, storage_bits, storage_mask: low_bits(storage_bits) }
    }

    /// Moves it to the first bytes of the metadata.
    #[must_use]
    pub const fn first(mut self) -> Self {
        self.first = true;
        self
    }

    /// Gives the storage tag `bits` bits; `None` if the guard leaves no room for so many.
    #[must_use]
    pub const fn storage_tag(mut self, bits: u32) -> Option<Self> {
        let (least, most) = self.guard.storage_bits();
        if bits < least || bits > most {
            return None;
        }
        (self.storage_bits, self.storage_mask) = (bits, low_bits(bits));
        Some(self)
    }

    /// Returns the type.
    #[must_use]
    pub const fn kind(&self) -> ProtectionType {
        self.kind
    }

    /// Returns the guard.
    #[must_use]
    pub const fn guard(&self) -> Guard {
        self.guard
    }

    /// Returns `true` if it is in the first bytes of the metadata, `false` in the last.
    #[must_use]
    pub const fn is_first(&self) -> bool {
        self.first
    }

    /// Returns its bytes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.guard.protection_size()
    }

    /// Returns the bits of the storage tag (STS), 0 for none.
    #[must_use]
    pub const fn storage_tag_bits(&self) -> u32 {
        self.storage_bits
    }

    /// Returns the bits of the storage tag that are compared (LBSTM).
    #[must_use]
    pub const fn storage_tag_mask(&self) -> u64 {
        self.storage_mask
    }

    /// Returns the bits of the reference tag.
    #[must_use]
    pub const fn reference_tag_bits(&self) -> u32 {
        self.guard.tag_bits() - self.storage_bits
    }

    /// Returns the reference tag with all bits set.
    pub(super) const fn reference_mask(&self) -> u64 {
        low_bits(self.reference_tag_bits())
    }

    /// Returns a storage tag with all bits set.
    pub(super) const fn storage_limit(&self) -> u64 {
        low_bits(self.storage_bits)
    }
}

/// Returns a number whose low bits are set.
const fn low_bits(count: u32) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

/// The format of a namespace's blocks.
///
/// ```
/// use upcie_nvme::protection::{BlockFormat, Guard, Protection, ProtectionType};
///
/// // 512 bytes of data, and at their end 8 bytes of protection information.
/// let protection = Protection::new(ProtectionType::Type1, Guard::Crc16);
/// let format = BlockFormat::new(512, 8, true).with_protection(protection).expect("it takes 8 bytes");
/// assert_eq!((format.data_size(), format.metadata_size(), format.transfer_size()), (512, 8, 520));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockFormat {
    data: u32,
    metadata: u32,
    extended: bool,
    protection: Option<Protection>,
}

impl BlockFormat {
    /// Describes blocks of `data` bytes and `metadata` bytes beside them, which are at the end of each block
    /// (`extended`) or in a buffer of their own.
    #[must_use]
    pub const fn new(data: u32, metadata: u16, extended: bool) -> Self {
        Self { data, metadata: metadata as u32, extended: extended && metadata != 0, protection: None }
    }

    /// Adds protection information; `None` if the metadata has no room for it.
    #[must_use]
    pub const fn with_protection(mut self, protection: Protection) -> Option<Self> {
        if protection.size() > self.metadata as usize {
            return None;
        }
        self.protection = Some(protection);
        Some(self)
    }

    /// Reads the format of a namespace, with its Identify data of the NVM command set (CNS 05h) if the controller has it.
    ///
    /// # Errors
    /// The part of the format that is not known here, or contradicts another.
    pub fn of(identify: &IdentifyNamespace, specific: Option<&NvmNamespace>) -> Result<Self, String> {
        let index = identify.format_index();
        let Some(format) = identify.lba_format() else {
            return Err(format!("its format {index} is not in its own list of formats"));
        };
        if !(9..=16).contains(&format.lbads()) {
            return Err(format!(
                "its blocks have 2^{} bytes; 512 bytes to 64 KiB are supported",
                format.lbads()
            ));
        }
        let plain = Self::new(1 << format.lbads(), format.ms(), identify.metadata_is_extended());
        let kind = match identify.protection_type() {
            0 => return Ok(plain),
            1 => ProtectionType::Type1,
            2 => ProtectionType::Type2,
            3 => ProtectionType::Type3,
            other => return Err(format!("its protection information has the unknown type {other} (DPS)")),
        };
        let extended = specific.map(|specific| specific.extended_formats[index]).unwrap_or_default();
        let guard = match ProtectionFormat(extended.protection_information_format()) {
            ProtectionFormat::GUARD_16 => Guard::Crc16,
            ProtectionFormat::GUARD_32 => Guard::Crc32,
            ProtectionFormat::GUARD_64 => Guard::Crc64,
            other => return Err(format!("its protection information has the form {other} (PIF)")),
        };
        let bits = u32::from(extended.storage_tag_size());
        let mut protection = Protection::new(kind, guard).storage_tag(bits).ok_or_else(|| {
            format!("its storage tag has {bits} bits (STS), which its guard has no room for")
        })?;
        protection.first = identify.protection_is_first();
        if let Some(mask) = specific.map(|specific| specific.storage_tag_mask).filter(|mask| *mask != 0) {
            protection.storage_mask &= mask;
        }
        let wrong = || {
            let (has, needs) = (format.ms(), protection.size());
            format!("its metadata has {has} bytes, and its protection information {needs}")
        };
        plain.with_protection(protection).ok_or_else(wrong)
    }

    /// Returns the bytes of data of a block.
    #[must_use]
    pub const fn data_size(&self) -> usize {
        self.data as usize
    }

    /// Returns the bytes of metadata of a block, protection information included; 0 for none.
    #[must_use]
    pub const fn metadata_size(&self) -> usize {
        self.metadata as usize
    }

    /// Returns `true` if the metadata of a block is at its end, in the same buffer as the data.
    #[must_use]
    pub const fn is_extended(&self) -> bool {
        self.extended
    }

    /// Returns `true` if the metadata of blocks has a buffer of its own.
    #[must_use]
    pub const fn is_separate(&self) -> bool {
        self.metadata != 0 && !self.extended
    }

    /// Returns how the blocks are protected, if they are.
    #[must_use]
    pub const fn protection(&self) -> Option<&Protection> {
        self.protection.as_ref()
    }

    /// Returns the bytes of a block in a data buffer: with the metadata if that is at its end.
    #[must_use]
    pub const fn transfer_size(&self) -> usize {
        (if self.extended { self.data + self.metadata } else { self.data }) as usize
    }

    /// Returns `true` if the metadata is nothing but protection information, which the controller can insert and strip.
    #[must_use]
    pub const fn is_stripped(&self) -> bool {
        match &self.protection {
            Some(protection) => protection.size() == self.metadata as usize,
            None => false,
        }
    }

    /// Returns the place of protection information in the metadata.
    pub(super) fn place(&self, protection: &Protection) -> Range<usize> {
        let start = if protection.first { 0 } else { self.metadata_size() - protection.size() };
        start..start + protection.size()
    }
}

/// Prints the format: `512 bytes`, `512+8 bytes, protection type 1, 16-bit guard`.
impl fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.metadata {
            0 => return write!(f, "{} bytes", self.data),
            metadata => write!(f, "{}+{metadata} bytes", self.data)?,
        }
        f.write_str(if self.extended { ", metadata at the end of each block" } else { ", metadata apart" })?;
        if let Some(protection) = &self.protection {
            let bits = protection.guard.size() * 8;
            write!(f, ", protection type {} with a {bits}-bit guard", protection.kind as u8)?;
            if protection.storage_bits != 0 {
                write!(f, " and a {}-bit storage tag", protection.storage_bits)?;
            }
            if self.metadata_size() != protection.size() {
                f.write_str(if protection.first { " in the first bytes" } else { " in the last bytes" })?;
            }
        }
        Ok(())
    }
}
