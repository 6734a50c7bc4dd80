//! Registers that describe memory in the controller, its memory buffer (CMB) and persistent memory region
//! (PMR): Base, "Controller Properties".

use bitfield_struct::bitfield;
use std::time::Duration;

/// CMBLOC, Controller Memory Buffer Location.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CmbLocation {
    /// The BAR that holds the buffer: 0, 2, 3, 4 or 5.
    #[bits(3)]
    pub bir: u8,
    /// A queue may lie partly in the buffer.
    pub cqmms: bool,
    /// A queue in the buffer may be physically discontiguous.
    pub cqpds: bool,
    /// One command's PRP list or SGL may lie partly in the buffer.
    pub cdpmls: bool,
    /// A command in the buffer may have its PRP list or SGL outside of it, and the other way round.
    pub cdpcils: bool,
    /// One command's data and metadata may lie partly in the buffer.
    pub cdmmms: bool,
    /// Queues in the buffer need dword-aligned addresses only.
    pub cqda: bool,
    #[bits(3)]
    __: u8,
    /// Offset in the BAR, in units of CMBSZ.SZU.
    #[bits(20)]
    pub ofst: u32,
}

/// CMBSZ, Controller Memory Buffer Size. All zero if there is no buffer, or CMBMSC.CRE isn't set.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CmbSize {
    /// Submission queues may be in the buffer.
    pub sqs: bool,
    /// Completion queues may be in the buffer.
    pub cqs: bool,
    /// PRP and SGL lists may be in the buffer.
    pub lists: bool,
    /// Data of commands like Read, from the controller to the host, may be in the buffer.
    pub rds: bool,
    /// Data of commands like Write, from the host to the controller, may be in the buffer.
    pub wds: bool,
    #[bits(3)]
    __: u8,
    /// Unit of sizes and offsets: 4 KiB × 16 ^ SZU.
    #[bits(4)]
    pub szu: u8,
    /// Size, in units.
    #[bits(20)]
    pub sz: u32,
}

impl CmbSize {
    /// Returns the unit of `sz` and CMBLOC.OFST in bytes, 4 KiB to 64 GiB; `None` for a reserved SZU.
    #[must_use]
    pub const fn unit(self) -> Option<u64> {
        if self.szu() <= 6 { Some(4096 << (4 * self.szu())) } else { None }
    }

    /// Returns the buffer's size in bytes; `None` for a reserved SZU.
    #[must_use]
    pub const fn bytes(self) -> Option<u64> {
        match self.unit() {
            Some(unit) => Some(unit * self.sz() as u64),
            None => None,
        }
    }
}

/// CMBMSC, Controller Memory Buffer Memory Space Control.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CmbMemorySpaceControl {
    /// Capabilities registers enabled: CMBLOC and CMBSZ are valid.
    pub cre: bool,
    /// Controller memory space enabled: the controller decodes its own buffer's addresses.
    pub cmse: bool,
    #[bits(10)]
    __: u16,
    /// Bits 63:12 of the address by which commands refer to the buffer.
    #[bits(52)]
    pub cba: u64,
}

/// PMRCAP, Persistent Memory Region Capabilities.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PmrCapabilities {
    #[bits(3)]
    __: u8,
    /// Data of commands like Read, from the controller to the host, may be in the region.
    pub rds: bool,
    /// Data of commands like Write, from the host to the controller, may be in the region.
    pub wds: bool,
    /// The BAR that holds the region.
    #[bits(3)]
    pub bir: u8,
    /// Unit of `pmrto`: 0 is 500 ms, 1 is minutes.
    #[bits(2)]
    pub pmrtu: u8,
    /// Write barriers: bit 0 a read of the region, bit 1 a read of PMRSTS.
    #[bits(4)]
    pub pmrwbm: u8,
    #[bits(2)]
    __: u8,
    /// Time for PMRSTS.NRDY to follow PMRCTL.EN, in units of `pmrtu`.
    pub pmrto: u8,
    /// The region can be given controller memory addresses (PMRMSCL, PMRMSCU).
    pub cmss: bool,
    #[bits(7)]
    __: u8,
}

impl PmrCapabilities {
    /// Returns the time that PMRSTS.NRDY may take to follow PMRCTL.EN; `None` for a reserved unit.
    #[must_use]
    pub const fn timeout(self) -> Option<Duration> {
        match self.pmrtu() {
            0 => Some(Duration::from_millis(500 * self.pmrto() as u64)),
            1 => Some(Duration::from_secs(60 * self.pmrto() as u64)),
            _ => None,
        }
    }
}

/// PMRSTS, Persistent Memory Region Status.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PmrStatus {
    /// 0 while writes to the region since it was enabled have succeeded.
    pub err: u8,
    /// Not ready: reads and writes of the region are not carried out.
    pub nrdy: bool,
    /// 0 normal, 1 restore error, 2 read-only, 3 unreliable.
    #[bits(3)]
    pub hsts: u8,
    /// PMRMSCL and PMRMSCU hold an address that the controller can't use.
    pub cbai: bool,
    #[bits(19)]
    __: u32,
}
