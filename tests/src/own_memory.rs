//! The embedded controller with memory of its own: a controller memory buffer (CMB) and a persistent memory region (PMR).
//!
//! It forgets with each reset where its memory is and whether it decodes it, as a controller does that has lost power.

use std::{
    io,
    os::unix::net::UnixStream,
    ptr::NonNull,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};
use upcie_core::{
    irq::IrqKind,
    memory::{Memory, PageSize},
    vfio_user::{
        VfioUserDevice,
        server::{Backend, Client, Delivery, Layout, Mappable, RegionLayout, Server},
    },
};
use upcie_nvme::{
    Controller,
    emu::{HostMemory, Interrupts, Machine, Region},
    spec::{CmbLocation, CmbSize, PmrCapabilities, PmrStatus, offset},
};

/// Bytes of each memory.
const SIZE: usize = 256 << 10;
const CMB_BAR: u8 = 2;
const PMR_BAR: u8 = 5;
/// The upper half of CAP, with its bits PMRS and CMBS.
const CAP_UPPER: usize = offset::CAP + 4;
const CAP_BITS: u32 = 1 << 24 | 1 << 25;
/// CRE and CMSE of CMBMSC.
const CRE: u64 = 1;
const CMSE: u64 = 2;

/// Properties of the memory, as the registers report them.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// CMBLOC, without the BAR.
    pub location: CmbLocation,
    /// CMBSZ, without the size.
    pub size: CmbSize,
    /// PMRSTS.ERR: not 0 once writes to the region have failed.
    pub region_error: u8,
}

impl Default for Told {
    /// Allows data and submission queues in the buffer and lists outside of it; the region is well.
    fn default() -> Self {
        Self {
            location: CmbLocation::new().with_cdpcils(true),
            size: CmbSize::new().with_sqs(true).with_rds(true).with_wds(true),
            region_error: 0,
        }
    }
}

/// The memory, and the registers that say where the controller decodes it.
struct Own {
    told: Told,
    cmb: Arc<Memory>,
    pmr: Arc<Memory>,
    cmbmsc: u64,
    pmrctl: u32,
    pmrmsc: u64,
    /// Counts the changes of these registers.
    changes: u64,
}

impl Own {
    fn new(told: Told) -> Self {
        let memory = || Arc::new(Memory::new(SIZE, PageSize::Small).expect("memory").shared());
        Self { told, cmb: memory(), pmr: memory(), cmbmsc: 0, pmrctl: 0, pmrmsc: 0, changes: 0 }
    }

    fn forget(&mut self) {
        (self.cmbmsc, self.pmrctl, self.pmrmsc) = (0, 0, 0);
        self.changes += 1;
    }

    /// Returns the bits of a register of 4 bytes beside those that the controller without memory has.
    fn register(&self, at: usize) -> u32 {
        let enabled = self.cmbmsc & CRE != 0;
        let location = self.told.location.with_bir(CMB_BAR);
        let size = self.told.size.with_sz((SIZE / 4096) as u32);
        let status = PmrStatus::new().with_nrdy(self.pmrctl & 1 == 0).with_err(self.told.region_error);
        let region = PmrCapabilities::new().with_rds(true).with_wds(true).with_bir(PMR_BAR);
        match at {
            CAP_UPPER => CAP_BITS,
            offset::CMBLOC if enabled => location.into_bits(),
            offset::CMBSZ if enabled => size.into_bits(),
            offset::CMBMSC => self.cmbmsc as u32,
            0x54 => (self.cmbmsc >> 32) as u32,
            // A read of PMRSTS is the write barrier.
            offset::PMRCAP => region.with_pmrwbm(2).with_pmrto(1).with_cmss(true).into_bits(),
            offset::PMRCTL => self.pmrctl,
            offset::PMRSTS => status.into_bits(),
            offset::PMRMSCL => self.pmrmsc as u32,
            offset::PMRMSCU => (self.pmrmsc >> 32) as u32,
            _ => 0,
        }
    }

    /// Writes a register of 4 bytes; returns `false` if it is another one.
    fn set(&mut self, at: usize, value: u32) -> bool {
        let low = |old: u64| old & !0xffff_ffff | u64::from(value);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        match at {
            offset::CMBMSC => self.cmbmsc = low(self.cmbmsc),
            0x54 => self.cmbmsc = high(self.cmbmsc),
            offset::PMRCTL => self.pmrctl = value,
            offset::PMRMSCL => self.pmrmsc = low(self.pmrmsc),
            offset::PMRMSCU => self.pmrmsc = high(self.pmrmsc),
            _ => return false,
        }
        self.changes += 1;
        true
    }

    /// Returns the bytes of the memory that the controller decodes at `iova`.
    fn find(&self, iova: u64, len: usize) -> Option<NonNull<u8>> {
        let windows = [
            (self.cmbmsc & CMSE != 0, self.cmbmsc, &self.cmb),
            (self.pmrctl & 1 != 0 && self.pmrmsc & CMSE != 0, self.pmrmsc, &self.pmr),
        ];
        windows.iter().filter(|(enabled, ..)| *enabled).find_map(|(_, base, memory)| {
            let start = usize::try_from(iova.checked_sub(base & !0xfff)?).ok()?;
            if start.checked_add(len)? > memory.len() {
                return None;
            }
            // SAFETY: the offset is within the mapping.
            NonNull::new(unsafe { memory.as_ptr().add(start) })
        })
    }
}

/// The client's memory, with the controller's own at its addresses.
struct View<'v, 'c> {
    client: &'v mut Client<'c>,
    own: &'v Own,
}

// SAFETY: the controller's memory stays mapped as long as the controller, and nobody makes references to it; the rest is the
// client's. The generation changes with the window's registers and with the client's.
unsafe impl HostMemory for View<'_, '_> {
    fn translate(&mut self, iova: u64, len: usize) -> Option<NonNull<u8>> {
        self.own.find(iova, len).or_else(|| self.client.translate(iova, len))
    }

    fn generation(&self) -> u64 {
        self.client.generation() + (self.own.changes << 32)
    }

    fn read(&mut self, iova: u64, data: &mut [u8]) -> io::Result<()> {
        let Some(at) = self.own.find(iova, data.len()) else { return self.client.read(iova, data) };
        for (index, byte) in data.iter_mut().enumerate() {
            // SAFETY: `find` returned as many bytes as the data has.
            let from = unsafe { at.add(index) };
            // SAFETY: a mapped byte; the client writes it at any time.
            *byte = unsafe { from.read_volatile() };
        }
        Ok(())
    }

    fn write(&mut self, iova: u64, data: &[u8]) -> io::Result<()> {
        let Some(at) = self.own.find(iova, data.len()) else { return self.client.write(iova, data) };
        for (index, &byte) in data.iter().enumerate() {
            // SAFETY: `find` returned as many bytes as the data has.
            let to = unsafe { at.add(index) };
            // SAFETY: a mapped byte; the client reads it at any time.
            unsafe { to.write_volatile(byte) };
        }
        Ok(())
    }
}

impl Interrupts for View<'_, '_> {
    fn trigger(&mut self, kind: IrqKind, vector: u32) {
        self.client.trigger(kind, vector);
    }

    fn set_pin(&mut self, asserted: bool) {
        self.client.set_pin(asserted);
    }

    fn set_delivery(&mut self, kind: IrqKind, delivery: Delivery) {
        self.client.set_delivery(kind, delivery);
    }

    fn set_masked(&mut self, kind: IrqKind, vector: u32, masked: bool) {
        self.client.set_masked(kind, vector, masked);
    }

    fn is_masked(&self, kind: IrqKind, vector: u32) -> bool {
        self.client.is_masked(kind, vector)
    }

    fn is_pending(&self, kind: IrqKind, vector: u32) -> bool {
        self.client.is_pending(kind, vector)
    }
}

struct Equipped {
    machine: Machine,
    layout: Layout,
    own: Own,
    since: Instant,
}

impl Equipped {
    fn is_enabled(&mut self, client: &mut Client) -> bool {
        let mut configuration = [0];
        self.machine.read(client, Region::Registers, offset::CC as u64, &mut configuration);
        configuration[0] & 1 != 0
    }
}

/// Returns the part of the function behind a region of vfio-user.
pub(crate) fn part(region: u32) -> io::Result<Region> {
    match region {
        0 => Ok(Region::Registers),
        4 => Ok(Region::MsixTable),
        7 => Ok(Region::Config),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

impl Backend for Equipped {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn read(&mut self, client: &mut Client, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.machine.read(client, part(region)?, offset, data);
        if region == 0 {
            for (at, byte) in (offset as usize..).zip(data) {
                *byte |= self.own.register(at & !3).to_le_bytes()[at % 4];
            }
        }
        Ok(())
    }

    fn write(&mut self, client: &mut Client, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        if region != 0 || !data.len().is_multiple_of(4) {
            self.machine.write(client, part(region)?, offset, data);
            return Ok(());
        }
        for (at, word) in (offset as usize..).step_by(4).zip(data.chunks_exact(4)) {
            if self.own.set(at, u32::from_le_bytes([word[0], word[1], word[2], word[3]])) {
                continue;
            }
            let before = self.is_enabled(client);
            self.machine.write(client, Region::Registers, at as u64, word);
            if before && !self.is_enabled(client) {
                self.own.forget();
            }
        }
        Ok(())
    }

    fn poll(&mut self, client: &mut Client) -> usize {
        let (own, since) = (&self.own, self.since);
        self.machine.step(&mut View { client, own }, || since.elapsed())
    }

    fn update_interrupts(&mut self, client: &mut Client) {
        self.machine.update_interrupts(client);
    }

    fn reset(&mut self) {
        self.machine.reset();
        self.own.forget();
    }
}

/// Brings up a controller of the options `emu` with memory of its own.
///
/// # Panics
/// Panics if that fails.
pub fn open(emu: &str) -> Controller {
    open_with(emu, Told::default())
}

/// Brings up such a controller whose registers tell this of its memory.
///
/// # Panics
/// Panics if that fails.
pub fn open_with(emu: &str, told: Told) -> Controller {
    let (machine, own) =
        (Machine::new(&emu.parse().expect("options")).expect("a controller"), Own::new(told));
    let mut layout = machine.layout().clone();
    for (bar, memory) in [(CMB_BAR, &own.cmb), (PMR_BAR, &own.pmr)] {
        let mappable = Some(Mappable { memory: memory.clone(), areas: vec![(0, SIZE as u64)] });
        layout.regions[usize::from(bar)] = RegionLayout { size: SIZE as u64, mappable };
    }
    serve(Equipped { machine, layout, own, since: Instant::now() }).expect("a controller")
}

/// Serves a controller in a thread that ends with its connection, and brings it up.
pub(crate) fn serve(mut backend: impl Backend + Send + 'static) -> upcie_nvme::Result<Controller> {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    thread::spawn(move || {
        // The client notices the end, whatever its reason.
        let _ = Server::new().serve_stream(theirs, &mut backend, &AtomicBool::new(false));
    });
    let client = VfioUserDevice::with_deadline(ours, "odd", None, Duration::from_secs(30)).expect("a server");
    Controller::builder().from_device(Arc::new(client))
}
