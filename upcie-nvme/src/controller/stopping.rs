//! The ways to make a controller let go of all memory, from the one that touches least to the one that touches most.

use super::{Inner, Registers, transitions};
use crate::{
    Error, Failure, Result,
    spec::{Capabilities, offset},
};
use std::time::Duration;
use upcie_core::{
    device::Claim,
    pci::{ConfigSpace, command},
};

/// The reach of a reset.
///
/// ```
/// use upcie_nvme::{Controller, ResetKind};
/// let controller = Controller::open("emu:size=1M")?;
/// controller.reset_by(ResetKind::Function)?;
/// controller.namespace(1)?.flush()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ResetKind {
    /// Resets the controller by CC.EN (Base, "Controller Level Reset"). If the controller does not stop in the time that it
    /// states (CAP.TO), its function is reset as well.
    #[default]
    Controller,
    /// Resets the PCI function: a function-level reset, or what else the kernel or the server has for this function alone. The
    /// kernel waits 60 s at most until the function answers again.
    Function,
    /// Resets the NVM subsystem (NSSR; Base, "NVM Subsystem Reset"), with all of its controllers, whoever drives them: their
    /// queues stop, and their drivers have to bring them up again. Needs CAP.NSSRS.
    Subsystem,
}

/// NSSR's value that starts the reset: "NVMe".
const NSSR_VALUE: u32 = 0x4e56_4d65;

impl Inner {
    /// Stops the controller, which then uses no memory. The epoch of its queues is over.
    pub(super) fn halt(&self, kind: ResetKind) -> Result<()> {
        let registers = &self.link.registers;
        match kind {
            ResetKind::Controller => disable(&self.device, registers),
            ResetKind::Function => reset_function(&self.device, registers),
            ResetKind::Subsystem => self.reset_subsystem(),
        }?;
        if self.turn_on_again()? {
            self.vectors.wire_again(&*self.device)?;
        }
        Ok(())
    }

    fn reset_subsystem(&self) -> Result<()> {
        let registers = &self.link.registers;
        check_subsystem_reset(registers.name(), registers.capabilities())?;
        tracing::warn!(device = registers.name(), "resetting its NVM subsystem, with all of its controllers");
        // SAFETY: no controller of the subsystem uses memory after the reset until its driver enables it again.
        unsafe { registers.write_u32(offset::NSSR, NSSR_VALUE) }?;
        let operation = "waiting for the controller after a reset of its NVM subsystem";
        transitions::wait(registers.clock(), registers.patience(), registers.name(), operation, || {
            self.turn_on_again()?;
            // The function may have left the bus.
            let status = registers.peek(offset::CSTS)?;
            Ok(status != u32::MAX && status & 1 == 0)
        })
    }

    /// Lets the function answer and issue DMA, if a loss of power or the reset of the subsystem has turned that off. Returns
    /// `true` if it had.
    fn turn_on_again(&self) -> Result<bool> {
        let needed = command::MEMORY | command::BUS_MASTER;
        let now = self.device.command()?;
        if now == u16::MAX || now & needed == needed {
            return Ok(false);
        }
        // SAFETY: the driver has claimed the device, whose controller is disabled: it issues no DMA yet.
        unsafe { self.device.set_config_u16(COMMAND, now | needed) }?;
        Ok(true)
    }
}

/// Offset of the Command register in configuration space.
const COMMAND: u16 = 4;

/// Checks that the controller can reset its subsystem.
pub(super) fn check_subsystem_reset(name: &str, cap: Capabilities) -> Result<()> {
    if cap.nssrs() {
        return Ok(());
    }
    Err(Error::unsupported(
        name,
        "it has no NVM subsystem reset (CAP.NSSRS is 0): reset the controller, or its function",
    ))
}

/// Disables a controller; resets its function if it does not stop.
pub(super) fn disable(device: &Claim, registers: &Registers) -> Result<()> {
    or_reset(device, registers, transitions::disable(registers, registers.name()))
}

/// Resets the function of a controller that did not stop in its time.
pub(super) fn or_reset(device: &Claim, registers: &Registers, stopped: Result<()>) -> Result<()> {
    match stopped {
        Err(error) if matches!(error.failure(), Failure::Timeout { .. }) && !device.has_ended() => {
            tracing::warn!(device = registers.name(), %error, "resetting its function");
            let reset = reset_function(device, registers);
            reset.map_err(|second| {
                tracing::error!(device = registers.name(), error = %second, "its function could not be reset either");
                error
            })
        }
        other => other,
    }
}

/// Resets the function, and checks that the controller has stopped.
fn reset_function(device: &Claim, registers: &Registers) -> Result<()> {
    device.check_held()?;
    // SAFETY: this driver has claimed the device; no command of it counts any more, nor will it wait for one.
    unsafe { device.reset() }?;
    let operation = "waiting for the controller after a reset of its function (CSTS.RDY = 0)";
    let delay = registers.quirks().ready_delay;
    if delay > Duration::ZERO {
        registers.clock().sleep(delay);
    }
    transitions::wait(registers.clock(), registers.patience(), registers.name(), operation, || {
        Ok(!registers.status()?.rdy())
    })
}
