//! The persistent memory region (Base Specification, "Persistent Memory Region").

use super::place::{Mapped, Owner, Place, broken, map_memory};
use crate::{
    Error, Result,
    controller::{Link, Registers, transitions::wait},
    engine::Window,
    spec::{PmrCapabilities, PmrStatus, offset},
};
use std::{fmt, sync::Arc, time::Duration};
use upcie_core::{
    barrier,
    dma::{DmaBuf, Heap},
    events::emit,
    mmio::{Caching, Register},
};

const WHAT: &str = "persistent memory region";
/// The shortest time that a region gets to become ready, whatever PMRCAP says.
const PATIENCE_MIN: Duration = Duration::from_secs(5);
const PATIENCE_MAX: Duration = Duration::from_secs(300);

/// Memory in the controller that keeps its contents without power.
///
/// Buffers from it are like those from a [`Cmb`](super::Cmb) if the controller gives the
/// region a device address ([`takes_data`](Self::takes_data)); otherwise only this process and peers can use
/// them. A new buffer holds the region's old contents, and they stay: [`offset_of`](Self::offset_of) returns
/// the place in the region. A buffer of the [whole region](Self::size), cut into slices, starts at offset 0.
///
/// ```
/// # let controller = upcie_nvme::Controller::open("emu:size=1M")?;
/// if let Some(region) = controller.pmr()? {
///     let mut log = region.alloc_unzeroed(4096)?;
///     log.write_at(0, b"kept without power");
///     region.flush()?;
/// }
/// # Ok::<(), upcie_nvme::Error>(())
/// ```
pub struct Pmr {
    device: Arc<str>,
    capabilities: PmrCapabilities,
    registers: Registers,
    /// The first word of the region: reading it is a write barrier if PMRCAP says so.
    first: Register<u32>,
    mapped: Mapped,
}

impl Pmr {
    /// Allocates a buffer of `len` bytes, at most 1 GiB, with the region's old contents.
    ///
    /// # Errors
    /// The region is full: it does not grow.
    pub fn alloc_unzeroed(&self, len: usize) -> Result<DmaBuf> {
        Ok(self.mapped.heap.alloc_unzeroed(len)?)
    }

    /// Returns the heap behind [`alloc_unzeroed`](Self::alloc_unzeroed). Its [`alloc`](Heap::alloc) zeroes, and so destroys what
    /// the region has kept there.
    pub fn heap(&self) -> &Arc<Heap> {
        &self.mapped.heap
    }

    /// Returns the offset of a buffer in the region in bytes; `None` for a buffer from elsewhere.
    pub fn offset_of(&self, buffer: &DmaBuf) -> Option<u64> {
        let transfer = buffer.prepared();
        let offset = transfer.iova.checked_sub(self.mapped.iova)?;
        (transfer.space == self.mapped.heap.space().id() && offset < self.mapped.len as u64).then_some(offset)
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> usize {
        self.mapped.len
    }

    /// Returns the caching of this process's accesses.
    pub fn caching(&self) -> Caching {
        self.mapped.bar.caching()
    }

    /// Returns the supported uses: PMRCAP.
    pub fn properties(&self) -> PmrCapabilities {
        self.capabilities
    }

    /// Returns `true` if the region has a device address (PMRCAP.CMSS), so that commands' data may be in it:
    /// data of Read if PMRCAP.RDS, data of Write if PMRCAP.WDS.
    pub fn takes_data(&self) -> bool {
        self.capabilities.cmss() && (self.capabilities.rds() || self.capabilities.wds())
    }

    /// Reads the health of the region, PMRSTS.
    ///
    /// # Errors
    /// The controller is gone.
    pub fn status(&self) -> Result<PmrStatus> {
        status(&self.registers)
    }

    /// Flushes this process's stores: every store before this survives a loss of power (PMRCAP.PMRWBM). Data
    /// that commands wrote is durable when they complete.
    ///
    /// # Errors
    /// The controller says that writes have failed, or that the region is not ready (it was stopped); or it
    /// is gone.
    pub fn flush(&self) -> Result<()> {
        self.registers.check_owner("flushing its persistent memory region")?;
        barrier::mmio_wmb();
        if self.capabilities.pmrwbm() & 0b10 == 0 {
            // The read follows all stores on the same path.
            self.first.read();
        }
        let status = self.status()?;
        if status.err() == 0 && !status.nrdy() {
            return Ok(());
        }
        Err(broken(&self.device, WHAT, format!("writes to it may be lost: {status:?}")))
    }

    /// Enables the region again after a reset, at its address.
    pub(super) fn restore(&self, link: &Link) -> Result<()> {
        turn_on(link, self.capabilities)?;
        if self.capabilities.cmss() { set_address(link, &self.mapped) } else { Ok(()) }
    }

    /// Checks that other devices of the address space can reach the memory.
    ///
    /// # Errors
    /// [`Failure::Unsupported`](crate::Failure::Unsupported) with the system's obstacle, and the transport that works.
    pub fn check_peers(&self) -> Result<()> {
        self.mapped.check_peers(&self.device, WHAT)
    }
}

fn status(registers: &Registers) -> Result<PmrStatus> {
    match registers.peek(offset::PMRSTS)? {
        u32::MAX => Err(Error::gone(registers.name(), "reading PMRSTS")),
        value => Ok(PmrStatus::from_bits(value)),
    }
}

/// Enables the persistent memory region; `None` if the controller has none.
pub(super) fn enable(controller: Owner<'_>) -> Result<Option<Arc<Pmr>>> {
    let registers = &controller.link.registers;
    if !registers.capabilities().pmrs() {
        return Ok(None);
    }
    let enabled = map(controller);
    if enabled.is_err() {
        // SAFETY: with CMSE clear it answers to no address.
        if let Err(error) = unsafe { registers.write_u32(offset::PMRMSCL, 0) } {
            let device = controller.link.name.clone();
            emit(move || tracing::warn!(%device, %error, "turning the persistent memory region off"));
        }
    }
    Ok(Some(Arc::new(enabled?)))
}

/// Turns the region on (PMRCTL.EN), and waits until it is ready.
fn turn_on(link: &Link, capabilities: PmrCapabilities) -> Result<()> {
    let patience =
        capabilities.timeout().ok_or_else(|| broken(&link.name, WHAT, "PMRCAP.PMRTU is reserved".into()))?;
    // SAFETY: it becomes ready in its own register; it answers to no device address that it was not given.
    unsafe { link.registers.write_u32(offset::PMRCTL, 1) }?;
    let patience = patience.min(PATIENCE_MAX).max(PATIENCE_MIN);
    wait(
        link.clock(),
        patience,
        &link.name,
        "waiting for the persistent memory region (PMRSTS.NRDY = 0)",
        || Ok(!status(&link.registers)?.nrdy()),
    )
}

/// Gives the controller the region's device address.
fn set_address(link: &Link, mapped: &Mapped) -> Result<()> {
    // SAFETY: CMSE is clear, or the address is the one that the controller has.
    unsafe { link.registers.write_u32(offset::PMRMSCU, (mapped.iova >> 32) as u32) }?;
    // Bit 1: CMSE.
    // SAFETY: the addresses were allocated for this memory in the device's space, and are nobody else's.
    unsafe { link.registers.write_u32(offset::PMRMSCL, mapped.iova as u32 & !0xfff | 2) }?;
    if status(&link.registers)?.cbai() {
        let reason = format!("it does not take the address {:#x} (PMRSTS.CBAI)", mapped.iova);
        return Err(broken(&link.name, WHAT, reason));
    }
    Ok(())
}

fn map(controller: Owner<'_>) -> Result<Pmr> {
    let broken = |reason| broken(&controller.link.name, WHAT, reason);
    let capabilities = PmrCapabilities::from_bits(controller.link.registers.peek(offset::PMRCAP)?);
    if !matches!(capabilities.bir(), 2..=5) {
        return Err(broken(format!("PMRCAP.BIR is {}, which is reserved", capabilities.bir())));
    }
    turn_on(controller.link, capabilities)?;
    let health = status(&controller.link.registers)?;
    if health.hsts() != 0 {
        let device = controller.link.name.clone();
        emit(
            move || tracing::warn!(%device, status = ?health, "the persistent memory region reports a fault"),
        );
    }
    let place = Place { bar: capabilities.bir(), offset: 0, len: None };
    let (reads, writes) = match capabilities.cmss() {
        true => (capabilities.rds(), capabilities.wds()),
        false => (false, false),
    };
    let mapped = map_memory(controller, WHAT, place, controller.link.options.cmb_caching, reads && writes)?;
    if capabilities.cmss() {
        set_address(controller.link, &mapped)?;
    }
    let first = mapped.bar.register(0).ok_or_else(|| broken("its register is not mapped".into()))?;
    let addresses = mapped.iova..mapped.iova + mapped.len as u64;
    let _ =
        controller.link.live.device_memory.persistent.set(Window { addresses, reads, writes, mixed: false });
    let (device, registers) = (controller.link.name.clone(), controller.link.registers.clone());
    Ok(Pmr { device, capabilities, registers, first, mapped })
}

impl fmt::Debug for Pmr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pmr")
            .field("device", &self.device)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}
