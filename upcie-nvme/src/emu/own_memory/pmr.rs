//! The persistent memory region (`pmr=`): memory of the controller in BAR 5, for data. (Base 1.4, "Persistent Memory
//! Region")
//!
//! It is ready as soon as it is enabled (PMRCTL.EN), and answers to its address while it is. The contents outlast
//! resets, clients and a loss of power, as long as the controller exists; a Sanitize erases them.

use super::{super::Error, bar::BarMemory};
use crate::spec::{PmrCapabilities, PmrStatus, offset};
use std::ops::Range;

/// The BAR with the region. BARs 4 and 5 have 32 bits each if there is one.
pub const PMR_BAR: u8 = 5;
/// The offsets of the registers.
pub(super) const REGISTERS: Range<usize> = offset::PMRCAP..offset::PMRMSCU + 4;
/// PMRCTL.EN.
const EN: u32 = 1;
/// PMRMSCL.CMSE.
const CMSE: u64 = 2;
/// The reserved bits of PMRMSCL.
const RESERVED: u64 = 0xffd;

/// The region, and the registers that say whether the host uses it and where it has it.
#[derive(Debug)]
pub(super) struct Pmr {
    pub(super) memory: BarMemory,
    /// PMRCTL.
    control: u32,
    /// PMRMSCU and PMRMSCL.
    space: u64,
    /// The host has it at the address of `space`.
    pub(super) is_placed: bool,
}

/// The registers of a region; those of a controller without one are 0. PMREBS and PMRSWTP are 0, too: they state
/// nothing.
#[derive(Debug, Default)]
pub struct PmrProperties {
    pub capabilities: PmrCapabilities,
    pub control: u32,
    pub status: PmrStatus,
    /// PMRMSCU and PMRMSCL.
    pub space: u64,
}

impl Pmr {
    /// Makes a region of zeros that is not enabled; `None` of 0 bytes.
    pub fn new(bytes: u64) -> Result<Option<Self>, Error> {
        if bytes == 0 {
            return Ok(None);
        }
        Ok(Some(Self { memory: BarMemory::new(bytes)?, control: 0, space: 0, is_placed: false }))
    }

    /// Clears PMRCTL, PMRMSCL and PMRMSCU.
    pub fn forget(&mut self) {
        (self.control, self.space) = (0, 0);
    }

    /// Returns `true` while PMRCTL.EN is set.
    pub fn is_enabled(&self) -> bool {
        self.control & EN != 0
    }

    /// Returns the registers. Both reads that PMRCAP.PMRWBM names are write barriers; PMRTO allows 500 ms, the least
    /// time.
    pub fn properties(&self) -> PmrProperties {
        let data = PmrCapabilities::new().with_rds(true).with_wds(true).with_cmss(true);
        let is_misplaced = self.is_enabled() && self.space & CMSE != 0 && !self.is_placed;
        PmrProperties {
            capabilities: data.with_bir(PMR_BAR).with_pmrwbm(0b11).with_pmrto(1),
            control: self.control,
            status: PmrStatus::new().with_nrdy(!self.is_enabled()).with_cbai(is_misplaced),
            space: self.space,
        }
    }

    /// Writes a register of 4 bytes; ignores one that is read-only.
    pub fn set(&mut self, at: usize, value: u32) {
        match at {
            offset::PMRCTL => self.control = value & EN,
            offset::PMRMSCL => self.space = self.space & !0xffff_ffff | u64::from(value) & !RESERVED,
            offset::PMRMSCU => self.space = self.space & 0xffff_ffff | u64::from(value) << 32,
            _ => tracing::debug!(at, value, "a write to a register that can't be written"),
        }
    }

    /// Returns the address that PMRMSCL and PMRMSCU give it, if they do.
    pub fn address(&self) -> Option<u64> {
        (self.is_enabled() && self.space & CMSE != 0).then_some(self.space & !0xfff)
    }
}
