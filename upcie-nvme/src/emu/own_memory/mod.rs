//! Memory of the controller itself: its memory buffer (`cmb=`), and its persistent memory region (`pmr=`).
//!
//! While its registers give it an address, it is in the [host's memory](super::HostMemory::set_own_memory) there, in
//! front of what the host has at that address. So rings, lists and data are found like any others, and a controller
//! without such memory pays nothing. A queue is in one memory, and so is the data of a command with its metadata:
//! [`OneMemory`].
//!
//! Registers and contents outlast a controller reset and a function level reset. Every other reset clears the
//! registers. Each client gets other memory.

mod bar;
mod cmb;
mod control;
mod one_memory;
mod pmr;

pub(super) use cmb::CMB_BAR;
pub(super) use one_memory::OneMemory;
pub(super) use pmr::PMR_BAR;

use super::{
    Error, Host, Options, Region,
    shared::{copy_bytes, read_bytes, write_bytes},
};
use bar::BarMemory;
use cmb::{Cmb, CmbProperties};
use pmr::{Pmr, PmrProperties};
use std::{ops::Range, sync::Arc};
use upcie_core::memory::Memory;

/// The memory of a controller.
#[derive(Debug)]
pub(super) struct OwnMemory {
    cmb: Option<Cmb>,
    pmr: Option<Pmr>,
}

/// The registers of the memory; those of memory that is not there are 0.
#[derive(Debug, Default)]
pub(super) struct OwnProperties {
    pub cmb: CmbProperties,
    pub pmr: PmrProperties,
}

impl OwnMemory {
    /// Makes memory of zeros at no address, as the options say.
    pub fn new(options: &Options) -> Result<Self, Error> {
        Ok(Self { cmb: Cmb::new(options.cmb)?, pmr: Pmr::new(options.pmr)? })
    }

    /// Returns the memory that there is, and the BAR of each.
    pub fn bars(&self) -> impl Iterator<Item = (u8, &Arc<Memory>)> {
        let cmb = self.cmb.iter().map(|cmb| (CMB_BAR, &cmb.memory.memory));
        cmb.chain(self.pmr.iter().map(|pmr| (PMR_BAR, &pmr.memory.memory)))
    }

    /// Returns the registers.
    pub fn properties(&self) -> OwnProperties {
        OwnProperties {
            cmb: self.cmb.as_ref().map(Cmb::properties).unwrap_or_default(),
            pmr: self.pmr.as_ref().map(Pmr::properties).unwrap_or_default(),
        }
    }

    /// Returns `true` while the host has enabled the persistent memory region.
    pub fn is_region_enabled(&self) -> bool {
        self.pmr.as_ref().is_some_and(Pmr::is_enabled)
    }

    /// Clears the registers.
    pub fn forget(&mut self) {
        if let Some(cmb) = &mut self.cmb {
            cmb.forget();
        }
        if let Some(pmr) = &mut self.pmr {
            pmr.forget();
        }
    }

    /// Clears the registers, and the contents that don't outlast a loss of power.
    pub fn lose_power(&mut self) {
        self.forget();
        if let Some(cmb) = &self.cmb {
            cmb.memory.clear();
        }
    }

    /// Prepares the memory for another client. The persistent memory region keeps its contents.
    fn renew(&mut self) -> Result<(), Error> {
        self.forget();
        if let Some(cmb) = &mut self.cmb {
            cmb.memory.renew(|_, _| {})?;
        }
        if let Some(pmr) = &mut self.pmr {
            pmr.memory.renew(copy_bytes)?;
        }
        Ok(())
    }

    /// Erases the persistent memory region.
    pub fn sanitize(&self) {
        if let Some(pmr) = &self.pmr {
            pmr.memory.clear();
        }
    }

    /// Writes a register of 4 bytes; returns `false` if it is none of this memory.
    fn set(&mut self, at: usize, value: u32) -> bool {
        match (&mut self.cmb, &mut self.pmr) {
            (Some(cmb), _) if cmb::REGISTERS.contains(&at) => cmb.set(at, value),
            (_, Some(pmr)) if pmr::REGISTERS.contains(&at) => pmr.set(at, value),
            _ => return false,
        }
        true
    }

    /// Returns the buffer and the region with the address that the registers give each; `None` if it has none, or would
    /// not end before the last address. A region that would overlap the buffer has none either.
    fn wanted(&self) -> [Option<Placed>; 2] {
        let placed = |memory: &BarMemory, start: u64| {
            start.checked_add(memory.len())?;
            Some((start, memory.memory.clone()))
        };
        let cmb = self.cmb.as_ref().and_then(|cmb| placed(&cmb.memory, cmb.address()?));
        let pmr = self.pmr.as_ref().and_then(|pmr| placed(&pmr.memory, pmr.address()?));
        let pmr = pmr.filter(|pmr| {
            let (pmr, cmb) = (range(pmr), cmb.as_ref().map(range));
            cmb.is_none_or(|cmb| cmb.end <= pmr.start || pmr.end <= cmb.start)
        });
        [cmb, pmr]
    }

    /// Puts the memory where its registers say, if the host has it elsewhere. Returns whether any is there; `None` if the
    /// controller has no memory.
    fn place(&mut self, host: &mut impl Host) -> Option<bool> {
        if self.cmb.is_none() && self.pmr.is_none() {
            return None;
        }
        let wanted = self.wanted();
        let are_wanted = wanted.each_ref().map(Option::is_some);
        let places: Vec<_> = wanted.into_iter().flatten().collect();
        // The addresses alone don't tell: one memory may have come in the other's place.
        let is_there = self.places() == are_wanted
            && (0..2).all(|index| host.own_memory(index) == places.get(index).map(range));
        let is_done = is_there || host.set_own_memory(places);
        self.note_places(are_wanted.map(|is_wanted| is_wanted && is_done));
        Some(is_done && are_wanted != [false; 2])
    }

    /// Returns whether the host has the buffer and the region at their addresses.
    fn places(&self) -> [bool; 2] {
        let (cmb, pmr) = (self.cmb.as_ref(), self.pmr.as_ref());
        [cmb.is_some_and(|cmb| cmb.is_placed), pmr.is_some_and(|pmr| pmr.is_placed)]
    }

    /// Notes whether the host has the buffer and the region at their addresses.
    fn note_places(&mut self, [of_cmb, of_pmr]: [bool; 2]) {
        if let Some(cmb) = &mut self.cmb {
            cmb.is_placed = of_cmb;
        }
        if let Some(pmr) = &mut self.pmr {
            pmr.is_placed = of_pmr;
        }
    }

    /// Returns the memory in the BAR of a region.
    fn of(&self, region: Region) -> Option<&BarMemory> {
        match region {
            Region::PersistentMemory => self.pmr.as_ref().map(|pmr| &pmr.memory),
            _ => self.cmb.as_ref().map(|cmb| &cmb.memory),
        }
    }

    /// Reads bytes of a BAR.
    pub fn read(&self, region: Region, offset: u64, data: &mut [u8]) {
        if let Some(memory) = self.of(region) {
            read_bytes(&memory.memory, offset, data);
        }
    }

    /// Writes bytes of a BAR.
    pub fn write(&self, region: Region, offset: u64, data: &[u8]) {
        if let Some(memory) = self.of(region) {
            write_bytes(&memory.memory, offset, data);
        }
    }
}

/// Memory at an address of the host.
type Placed = (u64, Arc<Memory>);

/// Returns its addresses, which end before the last one.
fn range((start, memory): &Placed) -> Range<u64> {
    *start..*start + memory.len() as u64
}
