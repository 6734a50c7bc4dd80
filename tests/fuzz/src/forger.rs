//! A device that writes any completion entries: the embedded controller, and a forger beside it.

use crate::lock;
use std::{
    fmt, io,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use upcie_core::{
    Error, Result,
    clock::Clock,
    device::Device,
    dma::DmaSpace,
    irq::IrqKind,
    mmio::{Area, Bar, Mapping, RegionIo},
    testing::FakeIommu,
    vfio_user::server::Delivery,
};
use upcie_nvme::{
    emu::{HostMemory, Interrupts, Machine, Region},
    spec::{AdminOpcode, Command, FromBytes, offset},
};

const NAME: &str = "forger";

/// The driver's memory, and the controller's accesses to it.
#[derive(Debug, Default)]
struct Host {
    iommu: FakeIommu,
    /// The address and the entries of the I/O completion queue that was created last.
    ring: (u64, u64),
    /// The ids of the I/O commands that were fetched from its queue.
    fetched: Vec<u16>,
}

impl Host {
    fn note(&mut self, entry: &[u8]) {
        let Ok(command) = Command::read_from_bytes(entry) else { return };
        if command.opcode == AdminOpcode::CREATE_CQ.0 {
            self.ring = (command.prp1(), u64::from(command.cdw10 >> 16) + 1);
            self.fetched.clear();
        } else {
            self.fetched.push(command.cid);
        }
    }
}

// SAFETY: no address is translated.
unsafe impl HostMemory for Host {
    fn translate(&mut self, _: u64, _: usize) -> Option<NonNull<u8>> {
        None
    }

    fn generation(&self) -> u64 {
        0
    }

    fn read(&mut self, iova: u64, data: &mut [u8]) -> io::Result<()> {
        let from = self.iommu.pointer(iova, data.len());
        for (index, byte) in data.iter_mut().enumerate() {
            // SAFETY: `pointer` has checked as many bytes as the data has.
            let from = unsafe { from.add(index) };
            // SAFETY: a byte of the driver's mapped memory.
            *byte = unsafe { from.read_volatile() };
        }
        if data.len() == size_of::<Command>() {
            self.note(data);
        }
        Ok(())
    }

    fn write(&mut self, iova: u64, data: &[u8]) -> io::Result<()> {
        let to = self.iommu.pointer(iova, data.len());
        for (index, &byte) in data.iter().enumerate() {
            // SAFETY: `pointer` has checked as many bytes as the data has.
            let to = unsafe { to.add(index) };
            // SAFETY: a byte of the driver's mapped memory.
            unsafe { to.write_volatile(byte) };
        }
        Ok(())
    }
}

impl Interrupts for Host {
    fn trigger(&mut self, _: IrqKind, _: u32) {}

    fn set_pin(&mut self, _: bool) {}

    fn set_delivery(&mut self, _: IrqKind, _: Delivery) {}

    fn set_masked(&mut self, _: IrqKind, _: u32, _: bool) {}

    fn is_masked(&self, _: IrqKind, _: u32) -> bool {
        false
    }

    fn is_pending(&self, _: IrqKind, _: u32) -> bool {
        false
    }
}

#[derive(Debug)]
struct State {
    machine: Machine,
    host: Host,
}

/// The device. It takes its steps in the clock's `sleep`, or when the forger lets it.
#[derive(Debug)]
pub struct Forger {
    state: Arc<Mutex<State>>,
    dma: Arc<DmaSpace>,
    now: AtomicU64,
}

impl Forger {
    pub fn new(options: &str) -> Arc<Self> {
        let (machine, host) =
            (Machine::new(&options.parse().expect("options")).expect("a controller"), Host::default());
        let dma = DmaSpace::new(NAME, [0x1000..=(1 << 47) - 1], 4096, Box::new(host.iommu.clone()));
        let state = Arc::new(Mutex::new(State { machine, host }));
        let forger = Self { state, dma, now: AtomicU64::new(0) };
        // Memory and bus master, as the kernel turns them on.
        forger.config().write_now(4, &[6, 0]);
        Arc::new(forger)
    }

    fn config(&self) -> Call {
        Call { state: self.state.clone(), region: Region::Config }
    }

    /// Lets the honest controller serve its queues.
    pub fn step(&self) {
        let State { machine, host } = &mut *lock(&self.state);
        machine.step(host, || Duration::from_nanos(self.now.load(Ordering::Relaxed)));
    }

    /// Writes an entry of the I/O completion queue, or of the admin completion queue: its upper half. `low` is dword 0.
    pub fn forge(&self, admin: bool, place: u64, low: u64, upper: u64) {
        let State { machine, host } = &mut *lock(&self.state);
        let (base, entries) = if admin {
            let mut address = [0; 8];
            machine.read(host, Region::Registers, offset::ACQ as u64, &mut address);
            let mut attributes = [0; 4];
            machine.read(host, Region::Registers, offset::AQA as u64, &mut attributes);
            let entries = u64::from(u32::from_le_bytes(attributes) >> 16) + 1;
            (u64::from_le_bytes(address), entries)
        } else {
            host.ring
        };
        if base != 0 {
            let at = base + place % entries * 16;
            let _ = (host.write(at, &low.to_le_bytes()), host.write(at + 8, &upper.to_le_bytes()));
        }
    }

    /// Returns an id that the controller has fetched; 0 if there is none.
    pub fn fetched(&self, choice: usize) -> u16 {
        let ids = &lock(&self.state).host.fetched;
        ids.iter().rev().nth(choice % ids.len().max(1)).copied().unwrap_or(0)
    }
}

/// Time that passes only in `sleep`, where the controller takes its steps.
#[derive(Debug)]
pub struct Simulated(pub Arc<Forger>);

impl Clock for Simulated {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.now.load(Ordering::Relaxed))
    }

    fn sleep(&self, time: Duration) {
        self.0.now.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        self.0.step();
    }

    fn runs(&self) -> bool {
        false
    }
}

/// Access to a region by a call.
struct Call {
    state: Arc<Mutex<State>>,
    region: Region,
}

impl Call {
    fn write_now(&self, offset: u64, data: &[u8]) {
        let State { machine, host } = &mut *lock(&self.state);
        machine.write(host, self.region, offset, data);
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.region)
    }
}

// SAFETY: a call reaches the region of the controller and no memory of this process except the data.
unsafe impl RegionIo for Call {
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<()> {
        let State { machine, host } = &mut *lock(&self.state);
        machine.read(host, self.region, offset, data);
        Ok(())
    }

    unsafe fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.write_now(offset, data);
        Ok(())
    }
}

// SAFETY: the controller reaches memory through the address space alone, in calls of this value; it is a device of its own.
unsafe impl Device for Forger {
    fn name(&self) -> &str {
        NAME
    }

    fn dma(&self) -> &Arc<DmaSpace> {
        &self.dma
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.config().read(offset.into(), data)
    }

    unsafe fn config_write(&self, offset: u16, data: &[u8]) -> Result<()> {
        self.config().write_now(offset.into(), data);
        Ok(())
    }

    fn bar(&self, index: u8) -> Result<Bar> {
        if index != 0 {
            return Err(Error::not_found(NAME, format!("there is no BAR {index}")));
        }
        let layout = lock(&self.state).machine.layout().regions[0].clone();
        let mut areas = Vec::new();
        if let Some(mappable) = &layout.mappable {
            for &(offset, len) in &mappable.areas {
                let Some(file) = mappable.memory.shared_file() else { continue };
                let mapping = Mapping::new(file, offset, len as usize, NAME)?;
                areas.push(Area { offset, mapping: Arc::new(mapping) });
            }
        }
        let call = Call { state: self.state.clone(), region: Region::Registers };
        Ok(Bar::new(NAME, layout.size, areas, Arc::new(call)))
    }

    fn irq_count(&self, _: IrqKind) -> Result<u32> {
        Ok(0)
    }

    fn set_irqs(&self, _: IrqKind, _: &[BorrowedFd<'_>]) -> Result<()> {
        Ok(())
    }

    fn mask_irq(&self, _: IrqKind, _: u32, _: bool) -> Result<()> {
        Ok(())
    }

    unsafe fn reset(&self) -> Result<()> {
        lock(&self.state).machine.reset();
        self.config().write_now(4, &[6, 0]);
        Ok(())
    }
}
