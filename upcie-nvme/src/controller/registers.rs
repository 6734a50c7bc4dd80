//! The controller's registers, with the check for all-ones.

use super::quirks::Quirks;
use crate::{
    Error, Result,
    spec::{
        AdminQueueAttributes, Capabilities, Configuration, ControllerStatus, ReadyTimeouts, Version,
        doorbell_offset, offset,
    },
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use upcie_core::{
    clock::{Clock, SharedClock},
    device::Claim,
    events::emit,
    mmio::{Bar, Register},
    process::Owner,
};

/// The shortest time that a controller gets to become ready or to stop: CAP.TO is 0 on some.
const PATIENCE_MIN: Duration = Duration::from_secs(5);
/// The longest such time: CRTO can state nine hours.
const PATIENCE_MAX: Duration = Duration::from_secs(300);
const WRITING: &str = "writing a register";

/// BAR 0 of a device that the driver has claimed: nobody else in the process writes to it. A forked child is refused each access.
#[derive(Debug, Clone)]
pub(crate) struct Registers {
    name: Arc<str>,
    owner: Owner,
    bar: Bar,
    /// CAP, which clones share: a reset may change it.
    cap: Arc<AtomicU64>,
    quirks: Quirks,
    /// The clock of all waits for the controller.
    clock: SharedClock,
}

impl Registers {
    pub(crate) fn open(device: &Claim, name: Arc<str>, clock: SharedClock) -> Result<Self> {
        let bar = device.bar(0)?;
        let cap = read_capabilities(&bar, &name)?;
        let (owner, quirks) = (Owner::current(), Quirks::of(&**device, cap));
        Ok(Self { name, owner, bar, cap: Arc::new(cap.into_bits().into()), quirks, clock })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Refuses `operation` in a forked child.
    pub(crate) fn check_owner(&self, operation: &str) -> Result<()> {
        Ok(self.owner.check(&self.name, operation)?)
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    pub(super) fn quirks(&self) -> Quirks {
        self.quirks
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        Capabilities::from_bits(self.cap.load(Ordering::Relaxed))
    }

    /// Reads CAP again, and changes nothing: [`set_capabilities`](Self::set_capabilities) takes the value over.
    pub(super) fn read_capabilities(&self) -> Result<Capabilities> {
        self.check_owner("reading CAP")?;
        read_capabilities(&self.bar, &self.name)
    }

    /// Takes over what CAP says since a reset.
    pub(super) fn set_capabilities(&self, cap: Capabilities) {
        self.cap.store(cap.into_bits(), Ordering::Relaxed);
    }

    fn read(&self, at: usize, operation: &str) -> Result<u32> {
        self.check_owner(operation)?;
        match self.bar.read_u32(at as u64)? {
            u32::MAX => Err(Error::gone(self.name.to_string(), operation)),
            value => Ok(value),
        }
    }

    pub(crate) fn version(&self) -> Result<Version> {
        self.read(offset::VS, "reading VS").map(Version::from_bits)
    }

    pub(crate) fn configuration(&self) -> Result<Configuration> {
        self.read(offset::CC, "reading CC").map(Configuration::from_bits)
    }

    pub(crate) fn configure(&self, cc: Configuration) -> Result<()> {
        self.check_owner(WRITING)?;
        self.log_write(offset::CC, cc.into_bits().into());
        // SAFETY: CC starts and stops the controller, which uses no memory when it starts but the rings that
        // `set_admin_queue` vouched for; when it stops it uses none.
        Ok(unsafe { self.bar.write_u32(offset::CC as u64, cc.into_bits()) }?)
    }

    pub(crate) fn status(&self) -> Result<ControllerStatus> {
        self.read(offset::CSTS, "reading CSTS").map(ControllerStatus::from_bits)
    }

    /// Tells the controller where its admin rings are.
    ///
    /// # Safety
    /// At the device addresses `sq` and `cq` are zeroed rings of as many entries as `attributes` says. They stay until the
    /// controller has stopped.
    pub(crate) unsafe fn set_admin_queue(
        &self,
        attributes: AdminQueueAttributes,
        sq: u64,
        cq: u64,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.write_u32(offset::AQA, attributes.into_bits()) }?;
        // SAFETY: the caller's promise.
        unsafe { self.write_u64(offset::ASQ, sq) }?;
        // SAFETY: the caller's promise.
        unsafe { self.write_u64(offset::ACQ, cq) }
    }

    /// Masks an interrupt of the pin or of MSI, or lets it through.
    pub(crate) fn mask_interrupt(&self, vector: u16, masked: bool) -> Result<()> {
        let at = if masked { offset::INTMS } else { offset::INTMC };
        // SAFETY: both registers decide when the controller raises interrupts, and nothing else.
        unsafe { self.write_u32(at, 1 << (vector & 31)) }
    }

    /// Writes any register.
    ///
    /// # Safety
    /// The write must not make the controller read, write or answer to memory that the driver does not own: the
    /// contract of [`Bar::write_u32`].
    pub(crate) unsafe fn write_u32(&self, at: usize, value: u32) -> Result<()> {
        self.check_owner(WRITING)?;
        self.log_write(at, value.into());
        // SAFETY: the device is claimed, and the rest is the caller's promise.
        Ok(unsafe { self.bar.write_u32(at as u64, value) }?)
    }

    /// Writes any register of 64 bits.
    ///
    /// # Safety
    /// The obligations are those of [`write_u32`](Self::write_u32).
    pub(crate) unsafe fn write_u64(&self, at: usize, value: u64) -> Result<()> {
        self.check_owner(WRITING)?;
        self.log_write(at, value);
        // SAFETY: the device is claimed, and the rest is the caller's promise.
        Ok(unsafe { self.bar.write_u64(at as u64, value) }?)
    }

    /// Logs a write, except masking and unmasking interrupts, which belongs to each wait.
    fn log_write(&self, at: usize, value: u64) {
        let register = match at {
            offset::INTMS | offset::INTMC => return,
            offset::CC => "CC",
            offset::AQA => "AQA",
            offset::ASQ => "ASQ",
            offset::ACQ => "ACQ",
            offset::BPRSEL => "BPRSEL",
            offset::BPMBL => "BPMBL",
            offset::CMBMSC => "CMBMSC",
            offset::PMRCTL => "PMRCTL",
            offset::PMRMSCL => "PMRMSCL",
            offset::PMRMSCU => "PMRMSCU",
            _ => "another",
        };
        let device = self.name.clone();
        emit(move || {
            tracing::trace!(
                %device,
                register,
                at = format_args!("{at:#x}"),
                value = format_args!("{value:#x}"),
                "register write"
            );
        });
    }

    /// Logs the controller's state before the driver changes it.
    pub(crate) fn log_state(&self) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            let [vs, cc, csts] =
                [offset::VS, offset::CC, offset::CSTS].map(|at| self.peek(at).unwrap_or(u32::MAX));
            let (name, cap) = (&self.name, self.capabilities().into_bits());
            tracing::debug!(
                device = %name,
                CAP = format_args!("{cap:#x}"),
                VS = format_args!("{vs:#x}"),
                CC = format_args!("{cc:#x}"),
                CSTS = format_args!("{csts:#x}"),
                "registers as found"
            );
        }
    }

    /// Returns the time to wait for the controller to stop: CAP.TO.
    pub(crate) fn patience(&self) -> Duration {
        self.capabilities().timeout().max(PATIENCE_MIN)
    }

    /// Returns the time to wait for the controller to become ready: CRTO if CAP.CRMS says that it is valid,
    /// or CAP.TO.
    pub(crate) fn ready_patience(&self) -> Result<Duration> {
        // CAP.CRMS bit 0: CRTO.CRWMT holds.
        if self.capabilities().crms() & 1 == 0 {
            return Ok(self.patience());
        }
        let crto = ReadyTimeouts::from_bits(self.read(offset::CRTO, "reading CRTO")?);
        Ok(crto.with_media().min(PATIENCE_MAX).max(self.patience()))
    }

    /// Reads any register.
    pub(crate) fn peek(&self, at: usize) -> Result<u32> {
        self.check_owner("reading a register")?;
        Ok(self.bar.read_u32(at as u64)?)
    }

    /// Maps the doorbell of a queue.
    pub(crate) fn doorbell(&self, qid: u16, completion: bool) -> Result<Register<u32>> {
        let at = doorbell_offset(qid, completion, self.capabilities().dstrd());
        self.bar.populate(at as u64, size_of::<u32>());
        self.bar.register(at as u64).ok_or_else(|| Error::unsupported(self.name.to_string(), format!(
                "the doorbell of queue {qid} at {at:#x} of BAR 0 ({:#x} bytes) can't be mapped, and this driver rings no \
                 doorbells by message{}{}",
                self.bar.size(),
                if self.bar.unmapped_reason().is_some() { ": " } else { "" },
                self.bar.unmapped_reason().unwrap_or_default()
            )))
    }
}

/// Reads CAP of a controller that is there, and online.
fn read_capabilities(bar: &Bar, name: &str) -> Result<Capabilities> {
    let cap = Capabilities::from_bits(bar.read_u64(offset::CAP as u64)?);
    if cap.is_gone() {
        return Err(Error::gone(name, "reading CAP"));
    }
    if cap.into_bits() == 0 {
        return Err(Error::unsupported(
            name,
            "its registers read as zeros (CAP is 0), as those of an SR-IOV virtual function do that is not \
                     online: bring it online on its physical function (Virtualization Management), and open it again",
        ));
    }
    Ok(cap)
}
