//! A function driven through sysfs, with or without uio_pci_generic.

use super::{
    check::{DRIVER, bound, failed, untranslated},
    replaced::Replaced,
    resource,
    sysfs::{Enabled, open_uio, reset},
    thread::Signaller,
};
use crate::{
    Error, ErrorKind, Failure, Result,
    device::{Address, Device},
    dma::{DmaSpace, Untranslated},
    events::Hold,
    irq::IrqKind,
    mmio::{Bar, Caching},
    pci::{
        BarInfo, Bdf, ConfigFile, ConfigSpace, Function, FunctionLock, Messages, command, offset, turn_off,
        turn_on,
    },
    process::Owner,
};
use std::{
    fmt,
    fs::File,
    io,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Offset of the interrupt pin in configuration space: 0 for none (PCI Express Base 6.0, 7.5.1.1.13).
const INTERRUPT_PIN: u16 = 0x3d;

/// A PCI function without an IOMMU.
///
/// Opening it resets it (if the kernel can) and enables memory accesses and bus mastering. Dropping the last handle, in
/// the process that opened it, turns bus mastering off.
///
/// ```no_run
/// use upcie_core::{uio::UioDevice, device::Device};
/// let device = UioDevice::open("0000:01:00.0".parse()?)?;
/// let region = device.dma().allocate(2 << 20, None)?;
/// println!("2 MiB at the physical address {:#x}", region.iova(0));
/// # Ok::<(), upcie_core::Error>(())
/// ```
pub struct UioDevice {
    name: String,
    owner: Owner,
    function: Function,
    config: ConfigFile,
    bars: Vec<BarInfo>,
    /// `/dev/uioN`; `None` without a driver. While it is open, the kernel clears the bus master bit when the process
    /// ends.
    uio: Option<Arc<File>>,
    mapped: Mutex<[Option<Bar>; 6]>,
    /// Forwards the interrupt.
    relay: Replaced<Signaller>,
    /// Notices that the function was taken.
    removal: Replaced<Signaller>,
    space: Arc<DmaSpace>,
    /// Keeps a function without a driver powered up until this is dropped.
    enabled: Option<Enabled>,
}

impl UioDevice {
    /// Opens the function at `bdf`, which is bound to uio_pci_generic.
    ///
    /// # Errors
    /// Each cause has an error of its own, which says what to do: no such function, another driver bound, an IOMMU that
    /// translates for it, in use by another process, missing rights.
    pub fn open(bdf: Bdf) -> Result<Self> {
        Self::open_in(bdf, true, None)
    }

    /// Opens the function at `bdf`, which has no driver and so no interrupts.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_unbound(bdf: Bdf) -> Result<Self> {
        Self::open_in(bdf, false, None)
    }

    fn open_in(bdf: Bdf, with_uio: bool, space: Option<&Arc<DmaSpace>>) -> Result<Self> {
        let name = if with_uio { Address::Uio(bdf) } else { Address::Sysfs(bdf) }.to_string();
        let function = Function::at(bdf)?;
        // Checked first: if an IOMMU translates, advice about the driver would be useless.
        untranslated(&function)?;
        bound(&function, with_uio.then_some(DRIVER))?;
        let bars = function.bars()?;
        let lock = FunctionLock::take(bdf)?;
        let uio = if with_uio { Some(Arc::new(open_uio(&name, &function.path)?)) } else { None };
        let enabled = if with_uio { None } else { Some(Enabled::new(&name, &function.path)?) };
        tracing::debug!(device = name, uio = with_uio, "opened through sysfs, with physical addresses");
        let config = function.config()?;
        // Stops DMA of the former user, and keeps the interrupt pin quiet until interrupts are set.
        let before = config.command()?;
        let silent = (before | command::INTX_DISABLE) & !command::BUS_MASTER;
        // SAFETY: this process holds its lock, and it has no driver; clearing the bus master bit only stops requests.
        let silenced = unsafe { config.set_config_u16(offset::COMMAND, silent) };
        silenced.map_err(|error| {
            error
                .into_os()
                .map_or_else(|other| other, |(operation, source)| failed(&name, &operation, source))
        })?;
        let was_reset = match reset(&name, &function.path) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(device = name, %error, "the reset failed: opening it without one");
                false
            }
        };
        // Turns a killed user's messages off, which the kernel restores after a reset. No driver bound here uses
        // messages.
        match Messages::find(&config).and_then(|messages| messages.turn_off(&config)) {
            // Without CAP_SYS_ADMIN the capabilities can't be read. Looking up physical addresses needs it too, and its
            // error says so.
            Err(error)
                if matches!(error.failure(), Failure::Os { source }
                    if source.kind() == io::ErrorKind::PermissionDenied) => {}
            other => other?,
        }
        // SAFETY: the lock is the function's, and `was_reset` is the kernel's report of the reset just now.
        let untranslated = unsafe { Untranslated::new(&function, lock, was_reset) }?;
        let space = match space {
            Some(space) => {
                space.join(untranslated)?;
                space.clone()
            }
            None => DmaSpace::physical(&name, untranslated),
        };
        space.prefer_node(function.numa_node);
        let (owner, mapped) = (Owner::current(), Mutex::default());
        let (relay, removal) = (Replaced::default(), Replaced::default());
        let device =
            Self { name, owner, function, config, bars, uio, mapped, relay, removal, space, enabled };
        // Dropping `device` on a failure from here on turns bus mastering off.
        // SAFETY: this process holds its lock, and it was reset, as far as the kernel can do that.
        unsafe { turn_on(&device) }?;
        Ok(device)
    }

    /// Returns an error if the function's driver has changed since it was opened, or in a forked child, because the
    /// parent drives the device. The fork is checked before any lock is taken: another thread of the parent may have held
    /// the lock at the fork.
    fn check(&self, operation: &str) -> Result<()> {
        self.owner.check(&self.name, operation)?;
        let now = Function::at(self.function.bdf)?;
        if now.driver == self.function.driver {
            return Ok(());
        }
        Err(Error::unusable(
            self.name.clone(),
            format!(
                "{operation}: its driver was {} when it was opened and is {} now: close it, bind it again, and open it \
                 anew",
                self.function.driver.as_deref().unwrap_or("none"),
                now.driver.as_deref().unwrap_or("none"),
            ),
        ))
    }

    fn info(&self, index: u8) -> Result<&BarInfo> {
        self.bars.iter().find(|bar| bar.index == index).ok_or_else(|| {
            Error::not_found(
                format!("{} BAR {index}", self.name),
                "the function has no such base address register",
            )
        })
    }

    fn unsupported(&self, what: String, reason: impl Into<String>) -> Error {
        Error::unsupported(self.name.clone(), what, reason)
    }

    /// Locks the mapped registers, by index.
    fn mapped(&self) -> MutexGuard<'_, [Option<Bar>; 6]> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// SAFETY: the space is one of physical addresses, as the device uses; areas are mapped from the register's own file; the
// function's lock is held, so that it is opened once.
unsafe impl Device for UioDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn dma(&self) -> &Arc<DmaSpace> {
        &self.space
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.owner.check(&self.name, "reading configuration space")?;
        self.config.read_bytes(offset, data)
    }

    unsafe fn config_write(&self, offset: u16, data: &[u8]) -> Result<()> {
        self.check("writing configuration space")?;
        // SAFETY: the caller of `config_write` owes what `write_bytes` requires.
        unsafe { self.config.write_bytes(offset, data) }
    }

    fn bar(&self, index: u8) -> Result<Bar> {
        self.owner.check(&self.name, "mapping a base address register")?;
        let mapped = self.mapped().get(usize::from(index)).cloned().flatten();
        mapped.map_or_else(|| self.bar_as(index, Caching::Uncached), Ok)
    }

    fn cachings(&self, index: u8) -> Result<Vec<Caching>> {
        self.info(index).map(|info| resource::cachings(&self.function.path, info))
    }

    fn bar_as(&self, index: u8, caching: Caching) -> Result<Bar> {
        let info = self.info(index)?;
        self.check("mapping a base address register")?;
        let _hold = Hold::new();
        let mut mapped = self.mapped();
        let slot = &mut mapped[usize::from(index)];
        if let Some(bar) = slot {
            if bar.caching() == caching {
                return Ok(bar.clone());
            }
            if bar.areas().iter().any(|area| Arc::strong_count(&area.mapping) > 1) {
                // The processor allows one memory type at a time: the kernel would silently keep the present one.
                let reason = format!("it is mapped {} already: drop that first", bar.caching());
                return Err(self.unsupported(format!("mapping BAR {index} {caching}"), reason));
            }
            *slot = None;
        }
        let bar = resource::map(&self.name, &self.function.path, info, caching)?;
        *slot = Some(bar.clone());
        Ok(bar)
    }

    fn open_beside(&self, address: &Address) -> Result<Arc<dyn Device>> {
        self.owner.check(&self.name, "opening another device beside it")?;
        match address {
            Address::Uio(bdf) => Ok(Arc::new(Self::open_in(*bdf, true, Some(&self.space))?)),
            Address::Sysfs(bdf) => Ok(Arc::new(Self::open_in(*bdf, false, Some(&self.space))?)),
            other => Err(self.unsupported(
                format!("sharing its address space with {other}"),
                "open both without an IOMMU: `uio:` or `sysfs:`",
            )),
        }
    }

    fn irq_count(&self, kind: IrqKind) -> Result<u32> {
        self.owner.check(&self.name, "counting interrupts")?;
        match kind {
            IrqKind::Request => Ok(1),
            IrqKind::Intx if self.uio.is_some() => Ok(u32::from(self.config.config_u8(INTERRUPT_PIN)? != 0)),
            _ => Ok(0),
        }
    }

    fn set_irqs(&self, kind: IrqKind, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.owner.check(&self.name, "setting interrupts")?;
        let count = self.irq_count(kind)?;
        if fds.len() > count as usize {
            let reason = match &self.uio {
                Some(_) => {
                    format!("through uio_pci_generic the function has {count} (INTx only)")
                }
                None => "without a driver there are no interrupts: poll, or use `uio:` or `vfio:`".into(),
            };
            return Err(self.unsupported(format!("setting {} {kind} interrupts", fds.len()), reason));
        }
        let _hold = Hold::new();
        if kind == IrqKind::Request {
            let watch = |to: &BorrowedFd<'_>| {
                let (path, driver) = (self.function.path.clone(), self.function.driver.clone());
                Signaller::removal(&self.name, path, driver, *to)
            };
            return self.removal.replace(|| fds.first().map(watch).transpose()).map(drop);
        }
        let (Some(uio), IrqKind::Intx) = (&self.uio, kind) else { return Ok(()) };
        self.check("setting its interrupt")?;
        // Until the interrupt is unmasked.
        let _turn = self.relay.replace(|| {
            self.mask_irq(kind, 0, true)?;
            fds.first().map(|to| Signaller::interrupts(&self.name, uio, *to)).transpose()
        })?;
        if fds.is_empty() { Ok(()) } else { self.mask_irq(kind, 0, false) }
    }

    fn mask_irq(&self, kind: IrqKind, index: u32, masked: bool) -> Result<()> {
        self.owner
            .check(&self.name, if masked { "masking an interrupt" } else { "unmasking an interrupt" })?;
        if kind != IrqKind::Intx || index > 0 || self.uio.is_none() {
            let what = format!("{} {kind} {index}", if masked { "masking" } else { "unmasking" });
            return Err(self.unsupported(what, "only INTx 0 through uio_pci_generic can be masked"));
        }
        let now = self.config.command()?;
        let wanted = if masked { now | command::INTX_DISABLE } else { now & !command::INTX_DISABLE };
        // SAFETY: only the bit that keeps its interrupt pin quiet changes.
        unsafe { self.config.set_config_u16(offset::COMMAND, wanted) }
    }

    fn check_held(&self) -> Result<()> {
        self.check("looking for its driver")
    }

    unsafe fn reset(&self) -> Result<()> {
        self.check("resetting it")?;
        reset(&self.name, &self.function.path)?;
        // The kernel restores configuration space after a reset; this makes sure.
        // SAFETY: the caller drives the device, which is in the same state as after opening.
        unsafe { turn_on(self) }?;
        if self.relay.is_set() { self.mask_irq(IrqKind::Intx, 0, false) } else { Ok(()) }
    }
}

impl Drop for UioDevice {
    fn drop(&mut self) {
        if !self.owner.is_current() {
            // A forked child: the device and the thread belong to the parent. The lock is not taken, because its holder
            // may exist only in the parent.
            std::mem::forget((self.relay.take(), self.removal.take()));
            return;
        }
        *self.mapped() = Default::default();
        drop((self.relay.take(), self.removal.take()));
        match self.check("closing it").and_then(|()| turn_off(&self.config)) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Gone) => {}
            Err(error) => tracing::warn!(device = self.name, %error, "closing failed"),
        }
        self.enabled = None;
        self.space.leave(self.function.bdf);
    }
}

impl fmt::Debug for UioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UioDevice").field("name", &self.name).finish_non_exhaustive()
    }
}
