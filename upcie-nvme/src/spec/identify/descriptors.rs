//! Base, "Namespace Identification Descriptor".

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::macros::{assert_size, named_values};
use super::Csi;

named_values! {
    /// The kind of identifier in a namespace identification descriptor.
    NamespaceIdType(u8) {
        /// 8 bytes, big endian.
        EUI64 = 1, "EUI64";
        /// 16 bytes, big endian.
        NGUID = 2, "NGUID";
        /// 16 bytes, big endian.
        UUID = 3, "UUID";
        /// 1 byte, a [`Csi`].
        CSI = 4, "CSI";
    }
}

/// The header before a namespace identifier, 4 bytes. The emulated controller writes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DescriptorHeader {
    /// The identifier's type, a [`NamespaceIdType`].
    pub nidt: u8,
    /// The identifier's length in bytes; 0 ends the list.
    pub nidl: u8,
    /// Reserved.
    pub reserved2: [u8; 2],
}
assert_size!(DescriptorHeader, 4);

/// One identifier of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceDescriptor<'a> {
    /// The identifier's type.
    pub nidt: NamespaceIdType,
    /// The identifier, 1 to 255 bytes. The length is the controller's, even for types with a fixed length.
    pub nid: &'a [u8],
}

impl NamespaceDescriptor<'_> {
    /// Returns the command set, if this descriptor states it.
    #[must_use]
    pub const fn csi(&self) -> Option<Csi> {
        match (self.nidt, self.nid) {
            (NamespaceIdType::CSI, [csi]) => Some(Csi(*csi)),
            _ => None,
        }
    }
}

/// `eui.0123456789abcdef`, `nguid.…`, `uuid.…` in the usual groups, `csi.00`.
impl fmt::Display for NamespaceDescriptor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nidt {
            NamespaceIdType::EUI64 => f.write_str("eui.")?,
            NamespaceIdType::NGUID => f.write_str("nguid.")?,
            NamespaceIdType::UUID => f.write_str("uuid.")?,
            NamespaceIdType::CSI => f.write_str("csi.")?,
            NamespaceIdType(other) => write!(f, "type{other:02x}.")?,
        }
        let grouped = self.nidt == NamespaceIdType::UUID && self.nid.len() == 16;
        for (index, byte) in self.nid.iter().enumerate() {
            if grouped && matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// The descriptors in a Namespace Identification Descriptor list (CNS 03h).
///
/// Ends at the first descriptor of length 0, or at one that would pass the end of the bytes.
#[derive(Debug, Clone)]
pub struct NamespaceDescriptors<'a> {
    rest: &'a [u8],
}

impl<'a> NamespaceDescriptors<'a> {
    /// Walks the 4096 bytes that Identify returned.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for NamespaceDescriptors<'a> {
    type Item = NamespaceDescriptor<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (header, rest) = DescriptorHeader::read_from_prefix(core::mem::take(&mut self.rest)).ok()?;
        if header.nidl == 0 {
            return None;
        }
        let (nid, rest) = rest.split_at_checked(header.nidl.into())?;
        self.rest = rest;
        Some(NamespaceDescriptor { nidt: NamespaceIdType(header.nidt), nid })
    }
}

impl core::iter::FusedIterator for NamespaceDescriptors<'_> {}
