//! The persistent memory region (Base Specification, "Persistent Memory Region").

use super::{Mapped, Place, broken};
use crate::{
    Error, Patience, Result,
    controller::{Inner, Registers, transitions::wait},
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
/// None becomes ready faster than this is patient, whatever it says; and none is waited for longer.
const PATIENCE_MIN: Duration = Duration::from_secs(5);
const PATIENCE_MAX: Duration = Duration::from_secs(300);

/// Memory in the controller that keeps its contents without power.
///
/// Buffers from it are as those from a [`MemoryBuffer`](super::MemoryBuffer), where the controller gives it an address
/// ([`takes_data`](Self::takes_data)); elsewhere they are good for this process, and for peers, only. What is in them is
/// what was there, and stays: [`offset_of`](Self::offset_of) says where in the region that is, and a buffer of
/// [all of it](Self::size), cut in parts, begins at its beginning.
pub struct PersistentMemory {
    device: Arc<str>,
    capabilities: PmrCapabilities,
    registers: Registers,
    /// Its first word, whose read is a write barrier where PMRCAP says so.
    first: Register<u32>,
    mapped: Mapped,
}

impl PersistentMemory {
    /// A buffer of `len` bytes with whatever is in them. At most 1 GiB.
    ///
    /// # Errors
    /// It has no room left, and does not grow.
    pub fn alloc(&self, len: usize) -> Result<DmaBuf> {
        Ok(self.mapped.heap.alloc(len)?)
    }

    /// The heap behind [`alloc`](Self::alloc).
    pub fn heap(&self) -> &Arc<Heap> {
        &self.mapped.heap
    }

    /// Where in the region a buffer begins, in bytes; `None` for one from elsewhere.
    pub fn offset_of(&self, buffer: &DmaBuf) -> Option<u64> {
        let transfer = buffer.transfer();
        let offset = transfer.iova.checked_sub(self.mapped.iova)?;
        (transfer.space == self.mapped.heap.space().id() && offset < self.mapped.len as u64).then_some(offset)
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        self.mapped.len
    }

    /// How this process's accesses to it are cached.
    pub fn caching(&self) -> Caching {
        self.mapped.bar.caching()
    }

    /// What it is for: PMRCAP.
    pub fn properties(&self) -> PmrCapabilities {
        self.capabilities
    }

    /// Whether the controller knows the region by its device address (PMRCAP.CMSS), so that data of its commands may be in
    /// it: of Read if PMRCAP.RDS, of Write if PMRCAP.WDS.
    pub fn takes_data(&self) -> bool {
        self.capabilities.cmss() && (self.capabilities.rds() || self.capabilities.wds())
    }

    /// Its health, PMRSTS.
    ///
    /// # Errors
    /// The controller is gone.
    pub fn status(&self) -> Result<PmrStatus> {
        status(&self.registers)
    }

    /// Makes what this process has written to it last (PMRCAP.PMRWBM): every store before this survives a loss of power.
    /// What commands wrote has, when they complete.
    ///
    /// # Errors
    /// The controller says that writes have failed, or that the region is not ready (it was stopped); it is gone.
    pub fn flush(&self) -> Result<()> {
        barrier::mmio_wmb();
        if self.capabilities.pmrwbm() & 0b10 == 0 {
            // Behind all writes, on their way.
            self.first.read();
        }
        let status = self.status()?;
        if status.err() == 0 && !status.nrdy() {
            return Ok(());
        }
        Err(broken(&self.device, WHAT, format!("writes to it may not have been kept: {status:?}")))
    }

    /// An error where other devices of the address space don't reach it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with what the system has against it, and the way in that works.
    pub fn check_peers(&self) -> Result<()> {
        self.mapped.check_peers(&self.device, WHAT)
    }
}

fn status(registers: &Registers) -> Result<PmrStatus> {
    match registers.peek(offset::PMRSTS)? {
        u32::MAX => {
            Err(Error::Gone { device: registers.name().to_string(), operation: "reading PMRSTS".into() })
        }
        value => Ok(PmrStatus::from_bits(value)),
    }
}

impl Inner {
    /// The persistent memory region, enabled on the first call; `None` where the controller has none.
    pub(crate) fn persistent_memory(&self) -> Result<Option<Arc<PersistentMemory>>> {
        self.check_owner("using its persistent memory")?;
        let mut patience = Patience::new();
        let (limit, what) = (self.options.timeout, "using its persistent memory");
        let mut slot = self.enter(&self.persistent_memory, &mut patience, limit, || what.into(), "calls")?;
        match &*slot {
            Some(known) => Ok(known.clone()),
            None if !self.registers.capabilities().pmrs() => Ok(slot.insert(None).clone()),
            None => {
                let enabled = self.enable_persistent();
                if enabled.is_err() {
                    // SAFETY: with CMSE clear it answers to no address.
                    if let Err(error) = unsafe { self.registers.write_u32(offset::PMRMSCL, 0) } {
                        let device = self.name.clone();
                        emit(
                            move || tracing::warn!(%device, %error, "turning the persistent memory region off"),
                        );
                    }
                }
                Ok(slot.insert(Some(Arc::new(enabled?))).clone())
            }
        }
    }

    fn enable_persistent(&self) -> Result<PersistentMemory> {
        let broken = |reason| broken(&self.name, WHAT, reason);
        let capabilities = PmrCapabilities::from_bits(self.registers.peek(offset::PMRCAP)?);
        if !matches!(capabilities.bir(), 2..=5) {
            return Err(broken(format!("PMRCAP.BIR is {}, which is reserved", capabilities.bir())));
        }
        let patience = capabilities.timeout().ok_or_else(|| broken("PMRCAP.PMRTU is reserved".into()))?;
        // PMRCTL.EN
        // SAFETY: it becomes ready in its own register; CMSE is clear, so it answers to no device address.
        unsafe { self.registers.write_u32(offset::PMRCTL, 1) }?;
        let patience = patience.min(PATIENCE_MAX).max(PATIENCE_MIN);
        wait(patience, &self.name, "waiting for the persistent memory region (PMRSTS.NRDY = 0)", || {
            Ok(!status(&self.registers)?.nrdy())
        })?;
        let health = status(&self.registers)?;
        if health.hsts() != 0 {
            let device = self.name.clone();
            emit(
                move || tracing::warn!(%device, status = ?health, "the persistent memory region is not well"),
            );
        }
        let place = Place { bar: capabilities.bir(), offset: 0, len: None };
        let (reads, writes) = match capabilities.cmss() {
            true => (capabilities.rds(), capabilities.wds()),
            false => (false, false),
        };
        let mapped = self.map_memory(WHAT, place, self.options.memory_buffer_caching, reads && writes)?;
        if capabilities.cmss() {
            // SAFETY: CMSE is still clear.
            unsafe { self.registers.write_u32(offset::PMRMSCU, (mapped.iova >> 32) as u32) }?;
            // Bit 1: CMSE.
            // SAFETY: the addresses were allocated for this memory in the device's space, and are nobody else's.
            unsafe { self.registers.write_u32(offset::PMRMSCL, mapped.iova as u32 & !0xfff | 2) }?;
            if status(&self.registers)?.cbai() {
                let reason = format!("it does not take the address {:#x} (PMRSTS.CBAI)", mapped.iova);
                return Err(broken(reason));
            }
        }
        let first = mapped.bar.register(0).ok_or_else(|| broken("its register is not mapped".into()))?;
        let addresses = mapped.iova..mapped.iova + mapped.len as u64;
        let _ = self.live.device_memory.persistent.set(Window { addresses, reads, writes, mixed: false });
        let (device, registers) = (self.name.clone(), self.registers.clone());
        Ok(PersistentMemory { device, capabilities, registers, first, mapped })
    }
}

impl fmt::Debug for PersistentMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersistentMemory")
            .field("device", &self.device)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}
