//! A stand-in NVMe device in plain memory, driven by hand. The hot path is measured on it in one thread, so
//! that no hand-over between cores hides the driver's own instructions.
//!
//! Register accesses are messages, and a helper thread answers the admin queue during set-up. After
//! [`StandIn::release`] has taken an I/O queue, only [`Device::step`] touches that queue. The helper sleeps
//! during a measurement ([`StandIn::pause`]).
#![expect(clippy::multiple_unsafe_ops_per_block, reason = "a device in raw memory is one idea per block")]

use crate::bare::{ENTRIES, Rings};
use std::{
    collections::HashMap,
    ffi::c_void,
    fmt,
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use upcie_core::{
    Result,
    device::Device as Transport,
    dma::DmaSpace,
    irq::IrqKind,
    memory::{Memory, PageSize},
    mmio::{Area, Bar, Mapping, RegionIo},
    testing::FakeIommu,
};
use upcie_nvme::spec::{
    AdminOpcode, AdminQueueAttributes, Capabilities, Cns, Command, Configuration, CreateQueueDword10,
    IdentifyController, IdentifyDword10, IdentifyNamespace, NumberOfQueues, Version, doorbell_offset, offset,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const DOORBELLS: usize = 0x1000;

#[derive(Debug, Default, Clone, Copy)]
struct Registers {
    cc: Configuration,
    aqa: AdminQueueAttributes,
    asq: u64,
    acq: u64,
}

#[derive(Debug)]
struct Shared {
    registers: Mutex<Registers>,
    table: FakeIommu,
    doorbells: Arc<Mapping>,
    /// Maps a queue id to the device addresses of the submission and completion rings, and the number of
    /// entries.
    queues: Mutex<HashMap<u16, (u64, u64, u32)>>,
    namespaces: u32,
    paused: AtomicBool,
    stop: AtomicBool,
}

// SAFETY: the registers are atomic and belong to the stand-in.
unsafe impl RegionIo for Shared {
    fn read(&self, at: u64, data: &mut [u8]) -> Result<()> {
        let registers = self.registers.lock().unwrap();
        let ready = registers.cc.en();
        let value = match at as usize {
            offset::CAP => {
                Capabilities::new().with_mqes(u16::MAX).with_cqr(true).with_to(10).with_css(1).into_bits()
            }
            offset::VS => u64::from(Version::of(1, 4, 0).into_bits()),
            offset::CC => u64::from(registers.cc.into_bits()),
            // RDY follows EN, and a shutdown completes at once.
            offset::CSTS => u64::from(ready) | u64::from(registers.cc.shn().0 != 0) << 3,
            _ => 0,
        };
        data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
        Ok(())
    }

    unsafe fn write(&self, at: u64, data: &[u8]) -> Result<()> {
        let mut bytes = [0; 8];
        bytes[..data.len()].copy_from_slice(data);
        let value = u64::from_le_bytes(bytes);
        let mut registers = self.registers.lock().unwrap();
        match at as usize {
            offset::CC => registers.cc = Configuration::from_bits(value as u32),
            offset::AQA => registers.aqa = AdminQueueAttributes::from_bits(value as u32),
            offset::ASQ => registers.asq = value,
            offset::ACQ => registers.acq = value,
            _ => {}
        }
        Ok(())
    }
}

impl Shared {
    fn doorbell(&self, qid: u16, completion: bool) -> *mut u32 {
        let at = doorbell_offset(qid, completion, 0) - DOORBELLS;
        // SAFETY: a bench uses few queues, whose doorbells are in the one page.
        unsafe { self.doorbells.as_ptr().add(at) }.cast()
    }

    /// Answers the admin queue until it is told to stop.
    fn serve(&self) {
        let mut device: Option<Device> = None;
        while !self.stop.load(Ordering::Acquire) {
            if self.paused.load(Ordering::Acquire) {
                std::thread::park();
                continue;
            }
            let registers = *self.registers.lock().unwrap();
            if registers.cc.en() {
                // The driver's queues have as many entries each.
                let entries = u32::from(registers.aqa.asqs()) + 1;
                let make = || self.device(0, registers.asq, registers.acq, entries);
                device.get_or_insert_with(make).step_with(|command| self.admin(command));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn device(&self, qid: u16, sq: u64, cq: u64, entries: u32) -> Device {
        Device {
            sq: self.table.pointer(sq, entries as usize * 64),
            cq: self.table.pointer(cq, entries as usize * 16),
            tail: self.doorbell(qid, false),
            entries: entries as u16,
            head: 0,
            at: 0,
            phase: 1,
        }
    }

    fn admin(&self, command: &Command) -> u32 {
        let mut page = [0; 4096];
        match AdminOpcode(command.opcode) {
            AdminOpcode::IDENTIFY => {
                match IdentifyDword10::from_bits(command.cdw10).cns() {
                    Cns::CONTROLLER => {
                        let mut controller = IdentifyController::new_zeroed();
                        (controller.sqes, controller.cqes, controller.nn) = (0x66, 0x44, self.namespaces);
                        page.copy_from_slice(controller.as_bytes());
                    }
                    Cns::NAMESPACE => {
                        let mut namespace = IdentifyNamespace::new_zeroed();
                        namespace.nsze = 1 << 30;
                        // Format 0: blocks of 2^9 bytes, in bits 23:16.
                        page.copy_from_slice(namespace.as_bytes());
                        page[128..132].copy_from_slice(&(9_u32 << 16).to_le_bytes());
                    }
                    Cns::ACTIVE_NAMESPACES => {
                        for (entry, nsid) in page.chunks_mut(4).zip(command.nsid + 1..=self.namespaces) {
                            entry.copy_from_slice(&nsid.to_le_bytes());
                        }
                    }
                    _ => {}
                }
                // SAFETY: the driver gave one page for the answer.
                unsafe { self.table.pointer(command.prp1(), 4096).cast::<[u8; 4096]>().write(page) };
                0
            }
            AdminOpcode::SET_FEATURES => NumberOfQueues::of(32, 32).into_bits(),
            opcode @ (AdminOpcode::CREATE_CQ | AdminOpcode::CREATE_SQ) => {
                let dword = CreateQueueDword10::from_bits(command.cdw10);
                let mut queues = self.queues.lock().unwrap();
                let queue = queues.entry(dword.qid()).or_default();
                queue.2 = u32::from(dword.qsize()) + 1;
                if opcode == AdminOpcode::CREATE_CQ {
                    queue.1 = command.prp1()
                } else {
                    queue.0 = command.prp1()
                }
                0
            }
            _ => 0,
        }
    }
}

/// The device as the driver sees it.
pub struct StandIn {
    shared: Arc<Shared>,
    space: Arc<DmaSpace>,
    helper: Option<std::thread::JoinHandle<()>>,
}

impl StandIn {
    /// Makes a device with one namespace of 512-byte blocks.
    pub fn new() -> Arc<Self> {
        Self::with_namespaces(1)
    }

    /// Makes a device with this number of namespaces.
    ///
    /// # Panics
    /// Panics if there is no memory.
    pub fn with_namespaces(namespaces: u32) -> Arc<Self> {
        let memory = Memory::new(4096, PageSize::Small).expect("a page").shared();
        let file = memory.shared_file().expect("it is shared");
        let doorbells = Arc::new(Mapping::new(file, 0, 4096, "doorbells").expect("a mapping"));
        let table = FakeIommu::default();
        let space = DmaSpace::new("stand-in", [0..=u64::MAX >> 16], 4096, Box::new(table.clone()));
        let shared = Arc::new(Shared {
            registers: Mutex::default(),
            table,
            doorbells,
            queues: Mutex::default(),
            namespaces,
            paused: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let helper = std::thread::spawn({
            let shared = shared.clone();
            move || shared.serve()
        });
        Arc::new(Self { shared, space, helper: Some(helper) })
    }

    /// Puts the helper to sleep: the admin queue is not answered.
    pub fn pause(&self) {
        self.shared.paused.store(true, Ordering::Release);
    }

    /// Wakes the helper up.
    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::Release);
        if let Some(helper) = &self.helper {
            helper.thread().unpark();
        }
    }

    /// Takes the device side of I/O queue `qid`, for the caller to step.
    pub fn release(&self, qid: u16) -> Device {
        let (sq, cq, entries) = self.shared.queues.lock().unwrap()[&qid];
        self.shared.device(qid, sq, cq, entries)
    }

    /// Returns the rings of I/O queue `qid`, for another target.
    pub fn rings(&self, qid: u16) -> Rings {
        let (sq, cq, entries) = self.shared.queues.lock().unwrap()[&qid];
        assert_eq!(entries as usize, ENTRIES, "what a bare target takes");
        Rings {
            sq: self.shared.table.pointer(sq, ENTRIES * 64).cast(),
            cq: self.shared.table.pointer(cq, ENTRIES * 16).cast(),
            tail: self.shared.doorbell(qid, false).cast(),
            head: self.shared.doorbell(qid, true).cast(),
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.resume();
        if let Some(helper) = self.helper.take() {
            helper.join().expect("the helper");
        }
    }
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StandIn")
    }
}

// SAFETY: the device accesses memory only through its table, which its space fills; its doorbells are its own
// page.
unsafe impl Transport for StandIn {
    fn name(&self) -> &str {
        "stand-in"
    }
    fn dma(&self) -> &Arc<DmaSpace> {
        &self.space
    }
    fn config_read(&self, _offset: u16, data: &mut [u8]) -> Result<()> {
        data.fill(0);
        Ok(())
    }
    unsafe fn config_write(&self, _offset: u16, _data: &[u8]) -> Result<()> {
        Ok(())
    }
    fn bar(&self, _index: u8) -> Result<Bar> {
        let area = Area { offset: DOORBELLS as u64, mapping: self.shared.doorbells.clone() };
        Ok(Bar::new("stand-in BAR 0", 2 * DOORBELLS as u64, vec![area], self.shared.clone()))
    }
    fn irq_count(&self, _kind: IrqKind) -> Result<u32> {
        Ok(0)
    }
    fn set_irqs(&self, _kind: IrqKind, _fds: &[BorrowedFd<'_>]) -> Result<()> {
        Ok(())
    }
    fn mask_irq(&self, _kind: IrqKind, _index: u32, _masked: bool) -> Result<()> {
        Ok(())
    }
    unsafe fn reset(&self) -> Result<()> {
        Ok(())
    }
}

/// The device side of one queue pair: it completes each command in order, and moves no data.
#[derive(Debug)]
pub struct Device {
    sq: *const u8,
    cq: *mut u8,
    tail: *const u32,
    entries: u16,
    head: u16,
    at: u16,
    phase: u16,
}

impl Device {
    /// Makes a device over other rings, so that the hand-written loop has the same device.
    ///
    /// # Safety
    /// The rings have `entries` entries of 64 and 16 bytes, and live as long as the device.
    pub unsafe fn over(sq: *const u8, cq: *mut u8, tail: *const u32, entries: u16) -> Self {
        Self { sq, cq, tail, entries, head: 0, at: 0, phase: 1 }
    }

    /// Completes the submitted commands, by the same machine code for every side, including C.
    #[inline(always)]
    pub fn step(&mut self) {
        // SAFETY: the device is borrowed for this call.
        unsafe { step((&raw mut *self).cast()) }
    }

    #[inline(always)]
    fn complete(&mut self) {
        // SAFETY: aligned, and alive as long as the rings.
        let tail = unsafe { self.tail.read_volatile() } as u16;
        while self.head != tail {
            // SAFETY: `head` and `at` are below `entries`.
            let (command, entry) =
                unsafe { (self.sq.add(usize::from(self.head) * 64), self.cq.add(usize::from(self.at) * 16)) };
            self.head += 1;
            if self.head == self.entries {
                self.head = 0;
            }
            // SAFETY: in the entries.
            unsafe {
                let cid = command.add(2).cast::<u16>().read_volatile();
                // In one store, as a controller's write arrives. With two stores, each read of the entry
                // would wait until all earlier stores have left the core, and the bench would measure that.
                let high = u64::from(self.head) | u64::from(cid) << 32 | u64::from(self.phase) << 48;
                entry.cast::<u64>().add(1).write_volatile(high);
            }
            self.at += 1;
            if self.at == self.entries {
                self.at = 0;
                self.phase ^= 1;
            }
        }
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
    }

    /// Completes the submitted commands with dword 0 of each completion from `answer`.
    fn step_with(&mut self, mut answer: impl FnMut(&Command) -> u32) {
        // SAFETY: aligned, and alive as long as the rings.
        let tail = unsafe { self.tail.read_volatile() } as u16;
        while self.head != tail {
            // SAFETY: `head` is below `entries`.
            let bytes =
                unsafe { self.sq.add(usize::from(self.head) * 64).cast::<[u8; 64]>().read_volatile() };
            let command = Command::read_from_bytes(&bytes[..]).expect("64 bytes");
            self.head = (self.head + 1) % self.entries;
            let dwords = [
                u64::from(answer(&command)),
                u64::from(self.head) | u64::from(command.cid) << 32 | u64::from(self.phase) << 48,
            ];
            // SAFETY: `at` is below `entries`.
            let entry = unsafe { self.cq.add(usize::from(self.at) * 16) }.cast::<u64>();
            // SAFETY: both words are in the entry and aligned; the phase tag goes last.
            unsafe {
                entry.write_volatile(dwords[0]);
                std::sync::atomic::fence(Ordering::Release);
                entry.add(1).write_volatile(dwords[1]);
            }
            self.at += 1;
            if self.at == self.entries {
                self.at = 0;
                self.phase ^= 1;
            }
        }
    }
}

/// Calls [`Device::step`] for a caller in C.
///
/// # Safety
/// `device` points to a [`Device`] that nothing else uses now.
#[inline(never)]
pub unsafe extern "C" fn step(device: *mut c_void) {
    // SAFETY: the caller guarantees a valid device for its own use.
    unsafe { &mut *device.cast::<Device>() }.complete();
}
