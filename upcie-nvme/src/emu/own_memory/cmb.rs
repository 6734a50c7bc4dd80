//! The controller memory buffer (`cmb=`): memory of the controller in BAR 2, for queues, lists and data. (Base 1.4,
//! "Controller Memory Buffer")
//!
//! A queue is in one memory (CMBLOC.CQMMS is 0), and so is the data of a command with its metadata (CMBLOC.CDMMMS);
//! lists may be anywhere (CDPMLS, CDPCILS). The contents are zeros after a loss of power.

use super::{super::Error, bar::BarMemory};
use crate::spec::{CmbLocation, CmbMemorySpaceControl, CmbSize, offset};
use std::ops::Range;

/// The BAR with the buffer.
pub const CMB_BAR: u8 = 2;
/// The offsets of the register that is written.
pub(super) const REGISTERS: Range<usize> = offset::CMBMSC..offset::CMBSTS;
/// Bytes of a unit of CMBSZ.SZ: CMBSZ.SZU is 0.
const UNIT: u64 = 4096;
/// The reserved bits of CMBMSC.
const RESERVED: u64 = 0xffc;

/// The buffer, and the register that says where the host has it.
#[derive(Debug)]
pub(super) struct Cmb {
    pub(super) memory: BarMemory,
    control: CmbMemorySpaceControl,
    /// The host has it at the address of `control`.
    pub(super) is_placed: bool,
}

/// The registers of a buffer; those of a controller without one are 0.
#[derive(Debug, Default)]
pub struct CmbProperties {
    pub location: CmbLocation,
    pub size: CmbSize,
    pub control: CmbMemorySpaceControl,
    /// CMBSTS.
    pub status: u32,
}

impl Cmb {
    /// Makes a buffer of zeros at no address; `None` of 0 bytes.
    pub fn new(bytes: u64) -> Result<Option<Self>, Error> {
        if bytes == 0 {
            return Ok(None);
        }
        let (memory, control) = (BarMemory::new(bytes)?, CmbMemorySpaceControl::new());
        Ok(Some(Self { memory, control, is_placed: false }))
    }

    /// Clears CMBMSC.
    pub fn forget(&mut self) {
        self.control = CmbMemorySpaceControl::new();
    }

    /// Returns the registers. Those of capabilities are 0 until the host has set CMBMSC.CRE.
    pub fn properties(&self) -> CmbProperties {
        let control = self.control;
        let (location, size) = if control.cre() {
            let units = (self.memory.len() / UNIT) as u32;
            let size = CmbSize::new().with_sqs(true).with_cqs(true).with_lists(true).with_sz(units);
            (
                CmbLocation::new().with_bir(CMB_BAR).with_cdpmls(true).with_cdpcils(true),
                size.with_rds(true).with_wds(true),
            )
        } else {
            (CmbLocation::new(), CmbSize::new())
        };
        // CMBSTS.CBAI: the host wants the buffer at its address, and it is not there.
        let status = u32::from(control.cre() && control.cmse() && !self.is_placed);
        CmbProperties { location, size, control, status }
    }

    /// Writes a half of CMBMSC.
    pub fn set(&mut self, at: usize, value: u32) {
        let (old, value) = (self.control.into_bits(), u64::from(value));
        let new = match at {
            offset::CMBMSC => old & !0xffff_ffff | value & !RESERVED,
            _ => old & 0xffff_ffff | value << 32,
        };
        self.control = CmbMemorySpaceControl::from_bits(new);
    }

    /// Returns the address that CMBMSC gives it, if it does.
    pub fn address(&self) -> Option<u64> {
        (self.control.cre() && self.control.cmse()).then(|| self.control.cba() << 12)
    }
}
