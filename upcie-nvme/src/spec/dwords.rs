//! Command dwords that hold more than one field: Base, "Admin Command Set"; NVM, "Read command".
//! The builders of [`Command`](super::Command) write them; the embedded controller reads them.

use bitfield_struct::bitfield;

use super::features::{FeatureId, FeatureSelect};
use super::identify::{Cns, Csi};
use super::log::LogPageId;
use super::macros::named_values;

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
