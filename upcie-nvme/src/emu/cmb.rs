//! The controller memory buffer (`cmb=`): memory of the controller in BAR 2, for queues, lists and data. (Base 1.4, "Controller
//! Memory Buffer")
//!
//! While CMBMSC gives it an address, it is in the [host's memory](super::HostMemory::set_own_memory) there, in front of what the
//! host has at that address. So rings, lists and data are found like any others, and a controller without a buffer pays nothing.
//! A queue is in one of both memories (CMBLOC.CQMMS is 0), and so is the data of a command with its metadata (CMBLOC.CDMMMS);
//! lists may be anywhere (CDPMLS, CDPCILS).
//!
//! The contents and CMBMSC outlast a controller reset and a function level reset. Every other reset clears CMBMSC. The contents
//! are zeros after a loss of power, and each client gets other memory.

use super::{
    Error, Options,
    shared::{give_back, read_bytes, write_bytes, zero_bytes},
};
use crate::spec::{CmbLocation, CmbMemorySpaceControl, CmbSize, offset};
use std::sync::Arc;
use upcie_core::memory::{Memory, PageSize};

/// The BAR with the buffer.
pub(super) const CMB_BAR: u8 = 2;
/// Bytes of a unit of CMBSZ.SZ: CMBSZ.SZU is 0.
const UNIT: u64 = 4096;
/// The reserved bits of CMBMSC.
const RESERVED: u64 = 0xffc;

/// The buffer, and the register that says where the host has it.
#[derive(Debug)]
pub(super) struct Cmb {
    memory: Arc<Memory>,
    control: CmbMemorySpaceControl,
    /// No client has had the memory.
    is_unused: bool,
}

/// The registers of a buffer; those of a controller without one are 0.
#[derive(Debug, Default)]
pub(super) struct CmbProperties {
    pub location: CmbLocation,
    pub size: CmbSize,
    pub control: CmbMemorySpaceControl,
    /// CMBSTS.
    pub status: u32,
}

impl Cmb {
    /// Makes a buffer of zeros at no address; `None` without `cmb=`.
    pub fn new(options: &Options) -> Result<Option<Self>, Error> {
        if options.cmb == 0 {
            return Ok(None);
        }
        Ok(Some(Self { memory: memory(options)?, control: CmbMemorySpaceControl::new(), is_unused: true }))
    }

    /// Returns the memory.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Prepares the buffer for another client, which gets other memory than the last one: that one may have kept its mapping.
    pub fn renew(&mut self, options: &Options) -> Result<(), Error> {
        self.forget();
        if !std::mem::take(&mut self.is_unused) {
            let former = std::mem::replace(&mut self.memory, memory(options)?);
            give_back(&former);
        }
        Ok(())
    }

    /// Clears CMBMSC.
    pub fn forget(&mut self) {
        self.control = CmbMemorySpaceControl::new();
    }

    /// Loses address and contents.
    pub fn lose_power(&mut self) {
        self.forget();
        zero_bytes(&self.memory);
    }

    /// Returns the registers. Those of capabilities are 0 until the host has set CMBMSC.CRE. `is_placed`: the host has the buffer
    /// at the address of CMBMSC.
    pub fn properties(&self, is_placed: bool) -> CmbProperties {
        let control = self.control;
        let (location, size) = if control.cre() {
            let units = (self.memory.len() as u64 / UNIT) as u32;
            let size = CmbSize::new().with_sqs(true).with_cqs(true).with_lists(true).with_sz(units);
            (
                CmbLocation::new().with_bir(CMB_BAR).with_cdpmls(true).with_cdpcils(true),
                size.with_rds(true).with_wds(true),
            )
        } else {
            (CmbLocation::new(), CmbSize::new())
        };
        // CMBSTS.CBAI: the host wants the buffer at its address, and it is not there.
        let status = u32::from(control.cre() && control.cmse() && !is_placed);
        CmbProperties { location, size, control, status }
    }

    /// Writes a half of CMBMSC.
    pub fn set_control(&mut self, at: usize, value: u32) {
        let (old, value) = (self.control.into_bits(), u64::from(value));
        let new = match at {
            offset::CMBMSC => old & !0xffff_ffff | value & !RESERVED,
            _ => old & 0xffff_ffff | value << 32,
        };
        self.control = CmbMemorySpaceControl::from_bits(new);
    }

    /// Returns the memory and the address that CMBMSC gives it; `None` if it has none, or would not end before the last address.
    pub fn wanted(&self) -> Option<(u64, Arc<Memory>)> {
        let start = self.control.cba() << 12;
        start.checked_add(self.memory.len() as u64)?;
        (self.control.cre() && self.control.cmse()).then(|| (start, self.memory.clone()))
    }

    /// Reads bytes of the BAR.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        read_bytes(&self.memory, offset, data);
    }

    /// Writes bytes of the BAR.
    pub fn write(&self, offset: u64, data: &[u8]) {
        write_bytes(&self.memory, offset, data);
    }
}

/// Makes memory of zeros. It is shared with a host, which writes to it at any time, also after its session.
fn memory(options: &Options) -> Result<Arc<Memory>, Error> {
    Ok(Arc::new(Memory::new(options.cmb as usize, PageSize::Small)?.shared()))
}
