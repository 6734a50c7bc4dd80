//! Command dwords that hold more than one field: Base, "Admin Command Set"; NVM, "Read command".
//! The builders of [`Command`](super::Command) write them; the embedded controller reads them.

use bitfield_struct::bitfield;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::features::{FeatureId, FeatureSelect};
use super::identify::{Cns, Csi};
use super::log::LogPageId;
use super::macros::{assert_size, named_values};

named_values! {
    /// Priority class of a submission queue under weighted round robin; ignored under round robin.
    QueuePriority(u8) {
        URGENT = 0, "urgent";
        HIGH = 1, "high";
        MEDIUM = 2, "medium";
        LOW = 3, "low";
    }
}

/// Identify, command dword 10.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IdentifyDword10 {
    /// The structure to return.
    #[bits(8)]
    pub cns: Cns,
    __: u8,
    /// Controller identifier, where the CNS uses one.
    pub cntid: u16,
}

/// Identify, command dword 11.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IdentifyDword11 {
    /// CNS-specific identifier: an NVM set, a domain.
    pub cnssi: u16,
    __: u8,
    /// Command set, where the CNS uses one.
    #[bits(8)]
    pub csi: Csi,
}

/// Create I/O Submission or Completion Queue, command dword 10.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateQueueDword10 {
    /// Queue identifier, 1 to 65535.
    pub qid: u16,
    /// Entries, 0's based.
    pub qsize: u16,
}

/// Create I/O Completion Queue, command dword 11.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateCqDword11 {
    /// Physically contiguous: the PRP entry is the queue's address, not a list's.
    pub pc: bool,
    /// Interrupts enabled.
    pub ien: bool,
    #[bits(14)]
    __: u16,
    /// Interrupt vector: index into the MSI-X table or the MSI messages.
    pub iv: u16,
}

/// Create I/O Submission Queue, command dword 11.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateSqDword11 {
    /// Physically contiguous: the PRP entry is the queue's address, not a list's.
    pub pc: bool,
    /// Priority class.
    #[bits(2)]
    pub qprio: QueuePriority,
    #[bits(13)]
    __: u16,
    /// The completion queue to use.
    pub cqid: u16,
}

/// Get Features and Set Features, command dword 10.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct FeaturesDword10 {
    /// Feature identifier.
    #[bits(8)]
    pub fid: FeatureId,
    /// Get Features: the value to return.
    #[bits(3)]
    pub sel: FeatureSelect,
    #[bits(20)]
    __: u32,
    /// Set Features: keep the value over power cycles and resets.
    pub sv: bool,
}

/// Get Log Page, command dword 10.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct LogPageDword10 {
    /// Log page identifier.
    #[bits(8)]
    pub lid: LogPageId,
    /// Log-specific field.
    #[bits(7)]
    pub lsp: u8,
    /// Retain the asynchronous event, which reading the log would clear.
    pub rae: bool,
    /// Lower 16 bits of the number of dwords, 0's based.
    pub numdl: u16,
}

/// Get Log Page, command dword 11.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct LogPageDword11 {
    /// Upper 16 bits of the number of dwords, 0's based.
    pub numdu: u16,
    /// Log-specific identifier: an NVM set, an endurance group.
    pub lsi: u16,
}

/// Abort, command dword 10.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AbortDword10 {
    /// The submission queue of the command to abort.
    pub sqid: u16,
    /// The identifier of the command to abort.
    pub cid: u16,
}

/// Cancel, command dword 10.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CancelDword10 {
    /// The submission queue that the command is submitted to.
    pub sqid: u16,
    /// The identifier of the command to end; FFFFh for several.
    pub cid: u16,
}

/// Cancel, command dword 11.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CancelDword11 {
    /// Action code: 0 for one command, 1 for all others of the submission queue.
    #[bits(2)]
    pub acode: u8,
    #[bits(30)]
    __: u32,
}

/// Cancel, dword 0 of the completion.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CancelResult {
    /// Commands that were ended, whose completions were posted before this one; FFFFh for that many or more (CMDA).
    pub aborted: u16,
    /// Commands that may still end by it, or complete as if nothing had happened; FFFFh for that many or more (CEDA).
    pub deferred: u16,
}

/// Read, Write, Compare, Write Zeroes and Verify, command dword 12.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReadWriteDword12 {
    /// Number of logical blocks, 0's based.
    pub nlb: u16,
    #[bits(4)]
    __: u8,
    /// Directive type (Write).
    #[bits(4)]
    pub dtype: u8,
    /// Check the storage tag.
    pub stc: bool,
    /// Deallocate (Write Zeroes).
    pub deac: bool,
    /// Protection information: bit 3 action, bits 2:0 checks.
    #[bits(4)]
    pub prinfo: u8,
    /// Force unit access: to and from the media, past a volatile cache.
    pub fua: bool,
    /// Limited retry.
    pub lr: bool,
}

bitflags::bitflags! {
    /// The upper half of command dword 12 of Read, Write and Write Zeroes: the bits that hosts choose from.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct IoFlags: u16 {
        /// DEAC: the controller may deallocate the blocks if they read as zeros afterwards (Write Zeroes
        /// only).
        const DEALLOCATE = 1 << 9;
        /// FUA, force unit access: to and from the media, past a volatile cache.
        const FUA = 1 << 14;
        /// LR, limited retry: the controller gives up sooner.
        const LIMITED_RETRY = 1 << 15;
    }
}

impl IoFlags {
    /// Returns the bits at their position in dwords 12 and 13 taken as one word.
    #[inline(always)]
    pub(crate) const fn word(self) -> u64 {
        (self.bits() as u64) << 16
    }
}

/// Copy, command dword 12.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CopyDword12 {
    /// Number of source ranges, 0's based.
    pub nr: u8,
    /// Format of the descriptors of source ranges.
    #[bits(4)]
    pub desfmt: u8,
    /// Protection of the blocks that are read (PRINFOR): the action in bit 3, checks of guard, application tag and reference
    /// tag in bits 2 to 0.
    #[bits(4)]
    pub prinfor: u8,
    #[bits(4)]
    __: u8,
    /// Directive type of the blocks that are written.
    #[bits(4)]
    pub dtype: u8,
    /// Check of the storage tag of the blocks that are written (STCW).
    pub stcw: bool,
    /// Check of the storage tag of the blocks that are read (STCR).
    pub stcr: bool,
    /// Protection of the blocks that are written (PRINFOW), like `prinfor`.
    #[bits(4)]
    pub prinfow: u8,
    /// Force unit access.
    pub fua: bool,
    /// Limited retry.
    pub lr: bool,
}

/// A source range of a Copy command, of format 0: NVM, "Copy – Source Range Entries"; 32 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CopyRange {
    reserved0: u64,
    /// The first block.
    pub slba: u64,
    /// Number of blocks, 0's based.
    pub nlb: u16,
    reserved18: [u8; 6],
    /// Expected initial logical block reference tag.
    pub eilbrt: u32,
    /// Expected logical block application tag.
    pub elbat: u16,
    /// Expected logical block application tag mask.
    pub elbatm: u16,
}
assert_size!(CopyRange, 32);

impl CopyRange {
    /// The most ranges that one command can name; Identify Namespace has the controller's limit (`msrc`).
    pub const MOST: usize = 256;

    /// Describes `nlb` blocks, 1 to 65536, from block `slba` on.
    ///
    /// # Panics
    ///
    /// In debug builds, if `nlb` is out of that range.
    #[inline]
    #[must_use]
    pub const fn new(slba: u64, nlb: u32) -> Self {
        debug_assert!(nlb >= 1 && nlb <= 65536);
        let nlb = nlb.wrapping_sub(1) as u16;
        Self { reserved0: 0, slba, nlb, reserved18: [0; 6], eilbrt: 0, elbat: 0, elbatm: 0 }
    }

    /// Sets what the blocks are checked for: the tags of the first one (reference tag, and above it the storage tag), and the
    /// application tag in the bits of `mask`.
    #[inline]
    #[must_use]
    pub const fn expecting(mut self, tags: u32, application_tag: u16, mask: u16) -> Self {
        (self.eilbrt, self.elbat, self.elbatm) = (tags, application_tag, mask);
        self
    }

    /// Returns the range as the command's data holds it: for [`DmaBuf::write_at`](crate::DmaBuf::write_at).
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        zerocopy::transmute!(self)
    }
}

/// A source range of a Copy command, of format 1, for namespaces with guards of 32 and 64 bits: NVM, "Copy – Source Range
/// Entries"; 40 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WideCopyRange {
    reserved0: u64,
    /// The first block.
    pub slba: u64,
    /// Number of blocks, 0's based.
    pub nlb: u16,
    reserved18: [u8; 8],
    /// Expected tags of the first block, 80 bits with the most significant byte first: the storage tag above the reference tag.
    elbt: [u8; 10],
    /// Expected logical block application tag.
    pub elbat: u16,
    /// Expected logical block application tag mask.
    pub elbatm: u16,
}
assert_size!(WideCopyRange, 40);

impl WideCopyRange {
    /// Describes the blocks of `range`, whose tags are `tags`, of up to 80 bits.
    #[must_use]
    pub fn new(range: CopyRange, tags: u128) -> Self {
        let CopyRange { slba, nlb, elbat, elbatm, .. } = range;
        let mut elbt = [0; 10];
        elbt.copy_from_slice(&tags.to_be_bytes()[6..]);
        Self { reserved0: 0, slba, nlb, reserved18: [0; 8], elbt, elbat, elbatm }
    }

    /// Returns the expected tags.
    #[must_use]
    pub fn tags(&self) -> u128 {
        self.elbt.iter().fold(0, |tags, byte| tags << 8 | u128::from(*byte))
    }
}

/// Dataset Management, command dword 10.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DatasetDword10 {
    /// Number of ranges, 0's based: 1 to 256.
    pub nr: u8,
    #[bits(24)]
    __: u32,
}

/// Dataset Management, command dword 11.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DatasetDword11 {
    /// Integral dataset for read: the ranges are read together.
    pub idr: bool,
    /// Integral dataset for write: the ranges are written together.
    pub idw: bool,
    /// Attribute deallocate: the ranges' contents are no longer needed.
    pub ad: bool,
    #[bits(29)]
    __: u32,
}

/// A range of a Dataset Management command: NVM, "Dataset Management – Range Definition"; 16 bytes. The command's
/// data is 1 to [`Self::MOST`] of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DatasetRange {
    /// Context attributes: access hints, all of them optional.
    pub attributes: u32,
    /// Number of blocks. Not 0's based: 0 means none.
    pub nlb: u32,
    /// The first block.
    pub slba: u64,
}
assert_size!(DatasetRange, 16);

impl DatasetRange {
    /// The most ranges that one command takes.
    pub const MOST: usize = 256;

    /// Describes `nlb` blocks from `slba` on, without hints.
    #[inline]
    #[must_use]
    pub const fn new(slba: u64, nlb: u32) -> Self {
        Self { attributes: 0, nlb, slba }
    }

    /// Returns the range as the command's data holds it: for [`DmaBuf::write_at`](crate::DmaBuf::write_at).
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        zerocopy::transmute!(self)
    }
}
