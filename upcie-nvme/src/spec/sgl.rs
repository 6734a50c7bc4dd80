//! Scatter gather lists: Base, "Scatter Gather List (SGL)".

use super::{command::Command, identify::IdentifyController, macros::assert_size};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A descriptor of a scatter gather list: 16 bytes, in a command's data pointer or in a segment of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SglDescriptor {
    /// The device address of the data, or of the next segment; 0 in a bit bucket.
    pub address: u64,
    /// Bytes of the data, of the segment (16 for each descriptor), or of a read's data to discard.
    pub length: u32,
    reserved: [u8; 3],
    /// Bits 7:4 the [type](Self::kind), bits 3:0 the [subtype](Self::subtype).
    pub identifier: u8,
}
assert_size!(SglDescriptor, 16);

impl SglDescriptor {
    /// The type of a descriptor of data.
    pub const DATA_BLOCK: u8 = 0;
    /// The type of a descriptor of data to discard.
    pub const BIT_BUCKET: u8 = 1;
    /// The type of a descriptor of the next segment, which is not the last.
    pub const SEGMENT: u8 = 2;
    /// The type of a descriptor of the last segment.
    pub const LAST_SEGMENT: u8 = 3;

    /// Makes a descriptor of a type, with the subtype "address".
    #[inline(always)]
    #[must_use]
    pub const fn new(kind: u8, address: u64, length: u32) -> Self {
        Self { address, length, reserved: [0; 3], identifier: kind << 4 }
    }

    /// Returns the type.
    #[inline]
    #[must_use]
    pub const fn kind(&self) -> u8 {
        self.identifier >> 4
    }

    /// Returns the subtype: 0 if `address` is an address.
    #[inline]
    #[must_use]
    pub const fn subtype(&self) -> u8 {
        self.identifier & 0xf
    }

    /// Returns both words, as they are in a command's data pointer.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> (u64, u64) {
        (self.address, self.length as u64 | (self.identifier as u64) << 56)
    }

    /// Makes a descriptor from a command's data pointer.
    #[inline]
    #[must_use]
    pub const fn from_words((address, second): (u64, u64)) -> Self {
        let bytes = second.to_le_bytes();
        Self {
            address,
            length: second as u32,
            reserved: [bytes[4], bytes[5], bytes[6]],
            identifier: bytes[7],
        }
    }
}

/// The data pointer as an SGL.
impl Command {
    /// The bits of `flags` that tell the form of the data pointer (PSDT): 0 for PRPs.
    pub const PSDT: u8 = 0xc0;
    /// The data pointer is an SGL descriptor, the metadata pointer an address.
    pub const PSDT_SGL: u8 = 0x40;
    /// The data pointer is an SGL descriptor, the metadata pointer that of an SGL segment.
    pub const PSDT_SGL_METADATA: u8 = 0x80;

    /// Returns the data pointer as an SGL descriptor, which it is if PSDT is not 0.
    #[inline]
    #[must_use]
    pub const fn sgl(&self) -> SglDescriptor {
        SglDescriptor::from_words((self.prp1, self.prp2))
    }

    /// Sets an SGL descriptor as the data pointer, with PSDT, for raw submission.
    #[inline]
    pub const fn set_sgl(&mut self, descriptor: SglDescriptor) {
        (self.prp1, self.prp2) = descriptor.words();
        self.flags = self.flags & !Self::PSDT | Self::PSDT_SGL;
    }
}

/// SGL support (SGLS).
impl IdentifyController {
    /// SGLS: data blocks of any alignment and length.
    pub const SGLS_BYTES: u32 = 1;
    /// SGLS: data blocks aligned to dwords, of whole dwords.
    pub const SGLS_DWORDS: u32 = 2;
    /// SGLS: the controller takes bit buckets.
    pub const SGLS_BIT_BUCKET: u32 = 1 << 16;
    /// SGLS: the metadata pointer may be that of an SGL segment.
    pub const SGLS_METADATA: u32 = 1 << 19;

    /// Returns `true` if the data blocks of SGLs must be aligned to dwords, and have whole dwords.
    #[must_use]
    pub const fn sgls_need_dwords(&self) -> bool {
        self.sgls & 3 != Self::SGLS_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_have_the_layout_of_the_specification() {
        let block = SglDescriptor::new(SglDescriptor::LAST_SEGMENT, 0x1122_3344_5566_7788, 0x99aa_bbcc);
        let bytes = [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xcc, 0xbb, 0xaa, 0x99, 0, 0, 0, 0x30];
        assert_eq!(block.as_bytes(), bytes);
        assert_eq!((block.kind(), block.subtype()), (3, 0));
        let mut command = Command::read(1, 0, 1);
        command.set_sgl(block);
        assert_eq!((command.flags, command.sgl()), (0x40, block));
        let odd = SglDescriptor::read_from_bytes(&[0xff; 16]).unwrap();
        assert_eq!(SglDescriptor::from_words((u64::MAX, u64::MAX)), odd, "reserved bytes are kept");
        assert_eq!((odd.kind(), odd.subtype()), (15, 15));
    }
}
