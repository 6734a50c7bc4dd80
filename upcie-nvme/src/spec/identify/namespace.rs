//! NVM, "Identify Namespace Data Structure" and "LBA Format Data Structure"; Base, "Namespace List".

use core::fmt;

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::command::ALL_NAMESPACES;
use super::super::macros::assert_size;

/// An LBA format.
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LbaFormat {
    /// Metadata per block, in bytes.
    pub ms: u16,
    /// Block size without metadata: 2 ^ LBADS bytes; 0 if the format isn't available, 1 to 8 are invalid.
    pub lbads: u8,
    /// Relative performance: 0 best to 3 degraded.
    #[bits(2)]
    pub rp: u8,
    #[bits(6)]
    __: u8,
}
assert_size!(LbaFormat, 4);

impl LbaFormat {
    /// Returns the block size without metadata in bytes; `None` below 512 bytes (the format isn't available)
    /// and if it doesn't fit in 64 bits.
    #[must_use]
    pub const fn block_size(self) -> Option<u64> {
        if self.lbads() < 9 { None } else { 1_u64.checked_shl(self.lbads() as u32) }
    }
}

/// Identify Namespace (CNS 00h) of the NVM command set, 4096 bytes.
///
/// All zero for a namespace that isn't active.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IdentifyNamespace {
    /// Size, in blocks.
    pub nsze: u64,
    /// Capacity: blocks that may be allocated at a time.
    pub ncap: u64,
    /// Utilization: blocks allocated.
    pub nuse: u64,
    /// Features: bit 0 thin provisioning, 1 own atomic units, 2 deallocated block errors, 4 preferred write
    /// sizes.
    pub nsfeat: u8,
    /// Number of LBA formats, 0's based.
    pub nlbaf: u8,
    /// Formatted LBA size: the format's index and, in bit 4, metadata at the end of each block.
    pub flbas: u8,
    /// Metadata capabilities: bit 0 with the data, bit 1 in a separate buffer.
    pub mc: u8,
    /// Protection capabilities.
    pub dpc: u8,
    /// Protection settings: bits 2:0 type, 0 for none; bit 3 in the first bytes of the metadata.
    pub dps: u8,
    /// Multi-path and sharing: bit 0 the namespace may be attached to several controllers.
    pub nmic: u8,
    /// Reservation capabilities.
    pub rescap: u8,
    /// Format progress: bit 7 supported, bits 6:0 percent that remain.
    pub fpi: u8,
    /// Deallocation features: bits 2:0 the contents of a deallocated block (1 zeros, 2 FFh), bit 3 by Write
    /// Zeroes.
    pub dlfeat: u8,
    /// Atomic write unit normal, in blocks, 0's based.
    pub nawun: u16,
    /// Atomic write unit at power fail, in blocks, 0's based.
    pub nawupf: u16,
    /// Atomic compare and write unit, in blocks, 0's based.
    pub nacwu: u16,
    /// Atomic boundary size normal, in blocks, 0's based; 0 for none.
    pub nabsn: u16,
    /// Atomic boundary offset: the block where the first boundary is.
    pub nabo: u16,
    /// Atomic boundary size at power fail, in blocks, 0's based; 0 for none.
    pub nabspf: u16,
    /// Optimal I/O boundary, in blocks; 0 for none.
    pub noiob: u16,
    /// Capacity of the namespace, bytes, little endian.
    pub nvmcap: [u8; 16],
    /// Preferred write granularity, in blocks, 0's based.
    pub npwg: u16,
    /// Preferred write alignment, in blocks, 0's based.
    pub npwa: u16,
    /// Preferred deallocate granularity, in blocks, 0's based.
    pub npdg: u16,
    /// Preferred deallocate alignment, in blocks, 0's based.
    pub npda: u16,
    /// Optimal write size, in blocks, 0's based.
    pub nows: u16,
    /// Copy: most blocks of a source range.
    pub mssrl: u16,
    /// Copy: most blocks in all.
    pub mcl: u32,
    /// Copy: most source ranges, 0's based.
    pub msrc: u8,
    /// Key per I/O status (2.1).
    pub kpios: u8,
    /// Number of formats with unique capabilities, beside those of NLBAF.
    pub nulbaf: u8,
    /// Reserved.
    pub reserved83: u8,
    /// Alignment and granularity of commands with a key of their own, in blocks; 0 for none (2.1).
    pub kpiodaag: u32,
    /// Reserved.
    pub reserved88: [u8; 4],
    /// ANA group identifier.
    pub anagrpid: u32,
    /// Reserved.
    pub reserved96: [u8; 3],
    /// Attributes: bit 0 write protected.
    pub nsattr: u8,
    /// NVM set identifier.
    pub nvmsetid: u16,
    /// Endurance group identifier.
    pub endgid: u16,
    /// Globally unique identifier, big endian; zeros if there is none.
    pub nguid: [u8; 16],
    /// IEEE extended unique identifier, big endian; zeros if there is none.
    pub eui64: [u8; 8],
    /// LBA formats; see [`Self::lba_format`].
    pub lbaf: [LbaFormat; 64],
    /// Vendor specific.
    pub vendor: [u8; 3712],
}
assert_size!(IdentifyNamespace, 4096);

impl IdentifyNamespace {
    /// Returns the index of the format in use, 0 to 63: FLBAS bits 3:0 and, if there are more than 16
    /// formats, bits 6:5 above them.
    #[must_use]
    pub const fn format_index(&self) -> usize {
        let low = self.flbas & 0xf;
        let high = if self.format_count() > 16 { self.flbas >> 5 & 3 } else { 0 };
        (high << 4 | low) as usize
    }

    /// Returns the number of formats that `lbaf` holds, 1 to 64.
    #[must_use]
    pub const fn format_count(&self) -> usize {
        let count = self.nlbaf as usize + self.nulbaf as usize + 1;
        if count > 64 { 64 } else { count }
    }

    /// Returns the format in use; `None` if the controller names one that it doesn't have.
    #[must_use]
    pub const fn lba_format(&self) -> Option<LbaFormat> {
        let index = self.format_index();
        if index < self.format_count() { Some(self.lbaf[index]) } else { None }
    }

    /// Returns the block size in bytes without metadata; `None` if there is no usable format.
    #[must_use]
    pub const fn block_size(&self) -> Option<u64> {
        match self.lba_format() {
            Some(format) => format.block_size(),
            None => None,
        }
    }

    /// Returns `true` if a block's metadata follows its data in the same buffer.
    #[must_use]
    pub const fn metadata_is_extended(&self) -> bool {
        self.flbas & 0x10 != 0
    }

    /// Returns the type of protection information, 1 to 3; 0 for none (DPS bits 2:0).
    #[must_use]
    pub const fn protection_type(&self) -> u8 {
        self.dps & 7
    }

    /// Returns `true` if protection information is in the first bytes of the metadata, `false` in the last (DPS bit 3).
    #[must_use]
    pub const fn protection_is_first(&self) -> bool {
        self.dps & 8 != 0
    }

    /// Returns `true` if the namespace refuses writes for now.
    #[must_use]
    pub const fn is_write_protected(&self) -> bool {
        self.nsattr & 1 != 0
    }
}

/// Shows the size and the format; the other fields are public.
impl fmt::Debug for IdentifyNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentifyNamespace")
            .field("nsze", &self.nsze)
            .field("ncap", &self.ncap)
            .field("nuse", &self.nuse)
            .field("flbas", &format_args!("{:#04x}", self.flbas))
            .field("lba_format", &self.lba_format())
            .finish_non_exhaustive()
    }
}

/// A namespace list, 4096 bytes: identifiers in rising order, ended by 0 if there are fewer than 1024. It is
/// the answer to CNS 02h (identifiers above the command's NSID), and the Changed Namespace List log.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NamespaceList {
    /// The identifiers.
    pub nsids: [u32; 1024],
}
assert_size!(NamespaceList, 4096);

impl NamespaceList {
    /// Returns the identifiers, as an answer to a request for those above `nsid`: up to the end, or to the
    /// first that breaks the order or isn't a namespace's. A walk that continues above the last one therefore
    /// ends, whatever a controller answers.
    pub fn above(&self, nsid: u32) -> impl Iterator<Item = u32> + '_ {
        let mut last = nsid;
        self.nsids
            .iter()
            .copied()
            .take_while(move |&next| core::mem::replace(&mut last, next) < next && next != ALL_NAMESPACES)
    }

    /// Returns `true` for a Changed Namespace List that overflowed: any namespace may have changed.
    #[must_use]
    pub const fn is_overflowed(&self) -> bool {
        self.nsids[0] == ALL_NAMESPACES
    }
}

impl fmt::Debug for NamespaceList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.above(0)).finish()
    }
}
