//! A PCI function driven through VFIO.

use super::{
    abi,
    attachment::Attachment,
    info::{IommuInfo, RegionCaps},
    ioas::Ioas,
    region::{Region, failed},
};
use crate::{
    Error, Result,
    deadline::{Backoff, Stopwatch},
    device::{Address, Device},
    dma::DmaSpace,
    events::Hold,
    irq::IrqKind,
    memory::host_page_size,
    mmio::{Area, Bar, Mapping, RegionIo},
    pci::{BarInfo, ConfigSpace, allow_pin, cap, command, offset},
    process::Owner,
};
use std::{
    fmt,
    fs::File,
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

const KINDS: [IrqKind; 5] = [IrqKind::Intx, IrqKind::Msi, IrqKind::Msix, IrqKind::Error, IrqKind::Request];

/// A PCI function, opened through VFIO.
///
/// Opening it enables memory accesses and bus mastering, and otherwise changes nothing. Dropping the last handle, in the
/// process that opened it, restores the bus master bit, turns interrupts off, and closes the file. The kernel then resets
/// the function, once no mapped BAR holds the file any longer.
///
/// Through a group, the page tables of mapped BARs are filled when they are mapped and after a reset, so that no access
/// faults. iommufd's kernel interface can't do that: the first access to each page faults, once.
///
/// ```no_run
/// use upcie_core::{dma::DmaSpace, memory::{Memory, PageSize}, vfio::VfioDevice, device::Device};
/// let device = VfioDevice::open(&"vfio:0000:01:00.0".parse()?)?;
/// let registers = device.bar(0)?;
/// println!("CAP {:#x}", registers.read_u64(0)?);
/// let region = device.dma().map(Memory::new(4096, PageSize::Small)?)?;
/// println!("4 KiB at {:#x}", region.iova(0));
/// # Ok::<(), upcie_core::Error>(())
/// ```
pub struct VfioDevice {
    pub(super) name: String,
    pub(super) owner: Owner,
    pub(super) info: abi::DeviceInfo,
    /// The command register before opening.
    pub(super) command: u16,
    pub(super) config: Region,
    pub(super) state: Mutex<State>,
    /// Declared before the address space, so that it is closed first: the device's last access precedes the IOMMU's end.
    pub(super) file: Arc<File>,
    pub(super) attachment: Attachment,
    pub(super) space: Arc<DmaSpace>,
    pub(super) group: u32,
    /// BARs as sysfs reports them, because VFIO does not report their bus addresses.
    pub(super) bars: Vec<BarInfo>,
}

#[derive(Default)]
pub(super) struct State {
    /// BARs, mapped on first use and then shared.
    bars: [Option<Bar>; 6],
    /// Set for each kind that has an eventfd.
    wired: [bool; KINDS.len()],
}

impl VfioDevice {
    /// Returns the properties of its IOMMU; `None` without one. A small range is reserved to populate mapped BARs, and is
    /// missing here.
    pub fn iommu(&self) -> Option<&IommuInfo> {
        self.attachment.info()
    }

    /// Returns the iommufd address space of the device, if it was opened through iommufd.
    pub fn ioas(&self) -> Option<&Arc<Ioas>> {
        match &self.attachment {
            Attachment::Iommufd(ioas) => Some(ioas),
            Attachment::Type1(_) | Attachment::Noiommu(_) => None,
        }
    }

    /// Returns the number of its IOMMU group; without an IOMMU, of the group that VFIO made instead.
    pub fn group(&self) -> u32 {
        self.group
    }

    /// Restores the bus master bit.
    fn restore_bus_master(&self) -> Result<()> {
        if self.command & command::BUS_MASTER == 0 {
            let now = self.command()?;
            // SAFETY: the last handle is being dropped, so nobody drives the device; clearing the bit only stops
            // requests.
            unsafe { self.set_config_u16(offset::COMMAND, now & !command::BUS_MASTER) }?;
        }
        Ok(())
    }

    /// Returns the range of the MSI-X table, if it is in BAR `index`.
    fn msix_table(&self, index: u8) -> Result<Option<Range<u64>>> {
        let Some(at) = self.find_capability(cap::MSIX)? else { return Ok(None) };
        let entries = u64::from(self.config_u16(at + 2)? & 0x7ff) + 1;
        let table = self.config_u32(at + 4)?;
        let start = u64::from(table & !7);
        Ok((table & 7 == u32::from(index)).then_some(start..start + entries * 16))
    }

    fn map_bar(&self, index: u8) -> Result<Bar> {
        let name = format!("{} BAR {index}", self.name);
        let not_there = || Error::not_found(name.clone(), "the function has no such base address register");
        if index > 5 {
            return Err(not_there());
        }
        let (info, bytes) = abi::region_info(self.file.as_fd(), index.into())
            .map_err(|e| failed(&name, "querying its properties", e))?;
        if info.size == 0 {
            return Err(not_there());
        }
        let caps = RegionCaps::parse(&info, &bytes)
            .map_err(|reason| Error::protocol(name.clone(), "querying its properties", reason))?;
        let mut areas = Vec::new();
        for area in caps.areas(&info, self.msix_table(index)?, host_page_size() as u64) {
            let len = usize::try_from(area.end - area.start).ok();
            let (Some(len), Some(at)) = (len, info.offset.checked_add(area.start)) else { continue };
            let mapping = Mapping::new(self.file.as_fd(), at, len, &name)?;
            self.attachment.prefault(&mapping);
            areas.push(Area { offset: area.start, mapping: Arc::new(mapping) });
        }
        let io = Region::new(&self.name, &format!("BAR {index}"), &self.file, &info);
        let bus_address = self.bars.iter().find(|bar| bar.index == index).map(|bar| bar.base);
        let bar = Bar::new(name, info.size, areas, Arc::new(io));
        // SAFETY: the kernel reports this address of the register.
        Ok(unsafe { bar.with_bus_address(bus_address) })
    }

    fn irq_info(&self, kind: IrqKind) -> Result<abi::IrqInfo> {
        let none = abi::IrqInfo::default();
        if kind as u32 >= self.info.num_irqs {
            return Ok(none);
        }
        match abi::irq_info(self.file.as_fd(), kind as u32) {
            // A function that is not PCI Express has no ERR interrupt.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(none),
            other => other.map_err(|e| failed(&self.name, &format!("querying its {kind} interrupts"), e)),
        }
    }

    fn irqs_off(&self, kind: IrqKind) -> Result<()> {
        let flags = abi::IRQ_DATA_NONE | abi::IRQ_ACTION_TRIGGER;
        abi::set_irqs(self.file.as_fd(), flags, kind as u32, 0, 0, &[])
            .map(drop)
            .map_err(|e| failed(&self.name, &format!("turning {kind} interrupts off"), e))
    }

    fn unsupported(&self, what: String, reason: &str) -> Error {
        Error::unsupported(self.name.clone(), what, reason)
    }

    /// Refuses `operation` in a forked child, because the parent drives the device. This comes before any lock: another
    /// thread of the parent may have held the lock at the fork.
    fn check_owner(&self, operation: &str) -> Result<()> {
        self.owner.check(&self.name, operation)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: the space is that of the group's container, of the IOAS to which the device is attached, or physical; areas are
// mapped from the device's own file, for its registers; the kernel opens a group once, and a lock gives functions in
// no-IOMMU mode one user.
unsafe impl Device for VfioDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn dma(&self) -> &Arc<DmaSpace> {
        &self.space
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.check_owner("reading configuration space")?;
        self.config.read(offset.into(), data)
    }

    unsafe fn config_write(&self, offset: u16, data: &[u8]) -> Result<()> {
        self.check_owner("writing configuration space")?;
        // SAFETY: the caller of `config_write` owes what a write of the region requires.
        unsafe { self.config.write(offset.into(), data) }
    }

    fn bar(&self, index: u8) -> Result<Bar> {
        self.check_owner("mapping a base address register")?;
        let _hold = Hold::new();
        let mut state = self.state();
        if let Some(Some(bar)) = state.bars.get(usize::from(index)) {
            return Ok(bar.clone());
        }
        let bar = self.map_bar(index)?;
        state.bars[usize::from(index)] = Some(bar.clone());
        Ok(bar)
    }

    fn open_beside(&self, address: &Address) -> Result<Arc<dyn Device>> {
        self.check_owner("opening another device beside it")?;
        Ok(Self::open_address_beside(address, self)?)
    }

    fn irq_count(&self, kind: IrqKind) -> Result<u32> {
        self.check_owner("counting interrupts")?;
        self.irq_info(kind).map(|info| info.count)
    }

    fn set_irqs(&self, kind: IrqKind, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.check_owner("setting interrupts")?;
        let count = self.irq_count(kind)?;
        if fds.len() > count as usize {
            let what = format!("setting {} {kind} interrupts", fds.len());
            return Err(self.unsupported(what, &format!("the function has {count}")));
        }
        let mut state = self.state();
        let wired = &mut state.wired[kind as usize];
        if *wired {
            self.irqs_off(kind)?;
            *wired = false;
        }
        if kind == IrqKind::Intx {
            // The kernel enables messages when they are set; the pin stays disabled until somebody waits for it.
            allow_pin(self, !fds.is_empty())?;
        }
        if fds.is_empty() {
            return Ok(());
        }
        let flags = abi::IRQ_DATA_EVENTFD | abi::IRQ_ACTION_TRIGGER;
        let set = abi::set_irqs(self.file.as_fd(), flags, kind as u32, 0, fds.len() as u32, fds);
        match set {
            Ok(0) => {
                *wired = true;
                Ok(())
            }
            Ok(fewer) => {
                let what = format!("setting {} {kind} interrupts", fds.len());
                Err(self.unsupported(what, &format!("the system has only {fewer} left: use fewer")))
            }
            Err(e) => {
                // Some may have been set: unset all.
                let _ = self.irqs_off(kind);
                if kind == IrqKind::Intx {
                    let _ = allow_pin(self, false);
                }
                let hint = match e.raw_os_error() {
                    Some(libc::EINVAL) => " (only one of INTx, MSI and MSI-X can be on at a time)",
                    _ => "",
                };
                Err(failed(&self.name, &format!("setting {} {kind} interrupts{hint}", fds.len()), e))
            }
        }
    }

    fn mask_irq(&self, kind: IrqKind, index: u32, masked: bool) -> Result<()> {
        let what = if masked { "masking" } else { "unmasking" };
        self.check_owner(&format!("{what} an interrupt"))?;
        let info = self.irq_info(kind)?;
        if info.flags & abi::IRQ_MASKABLE == 0 || index >= info.count {
            return Err(self.unsupported(format!("{what} {kind} {index}"), "VFIO masks INTx only"));
        }
        let action = if masked { abi::IRQ_ACTION_MASK } else { abi::IRQ_ACTION_UNMASK };
        abi::set_irqs(self.file.as_fd(), abi::IRQ_DATA_NONE | action, kind as u32, index, 1, &[])
            .map(drop)
            .map_err(|e| failed(&self.name, &format!("{what} {kind} {index}"), e))
    }

    unsafe fn reset(&self) -> Result<()> {
        self.check_owner("resetting it")?;
        if self.info.flags & abi::DEVICE_RESET == 0 {
            return Err(self.unsupported(
                "resetting it".into(),
                "the kernel can't reset this function alone (see reset_method in sysfs)",
            ));
        }
        // The lock is contended while another part of the kernel looks at the device, which is short.
        let mut backoff = Backoff::new(Stopwatch::new(), Duration::from_secs(2));
        loop {
            match abi::device_reset(self.file.as_fd()) {
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) && backoff.pause() => {}
                other => break other.map_err(|e| failed(&self.name, "resetting it", e))?,
            }
        }
        let _hold = Hold::new();
        // The kernel unmaps the pages of mapped BARs during a reset.
        for bar in self.state().bars.iter().flatten() {
            bar.areas().iter().for_each(|area| self.attachment.prefault(&area.mapping));
        }
        Ok(())
    }
}

impl Drop for VfioDevice {
    fn drop(&mut self) {
        if !self.owner.is_current() {
            // A forked child: the device belongs to the parent.
            return;
        }
        let mut failures = vec![self.restore_bus_master()];
        let wired = self.state().wired;
        failures
            .extend(KINDS.into_iter().filter(|&kind| wired[kind as usize]).map(|kind| self.irqs_off(kind)));
        failures.push(
            self.attachment.detach(self.file.as_fd()).map_err(|e| failed(&self.name, "detaching it", e)),
        );
        for error in failures.into_iter().filter_map(Result::err) {
            tracing::warn!(device = self.name, %error, "closing failed");
        }
        if let Attachment::Noiommu(noiommu) = &self.attachment {
            self.space.leave(noiommu.function());
        }
    }
}

impl fmt::Debug for VfioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioDevice")
            .field("name", &self.name)
            .field("group", &self.group())
            .finish_non_exhaustive()
    }
}
