//! The ways to make a controller let go of all memory, from the one that touches least to the one that touches most.

use super::{Registers, transitions};
use crate::{Error, Failure, Result, spec::Capabilities};
use upcie_core::device::Claim;

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
    /// states (CAP.TO), or does not become ready again in its time (CRTO, CAP.TO), its function is reset as well.
    #[default]
    Controller,
    /// Resets the PCI function: a function-level reset, or what else the kernel or the server has for this function alone. The
    /// kernel waits 60 s at most until the function answers again.
    Function,
    /// Resets the NVM subsystem (NSSR; Base, "NVM Subsystem Reset"), with all of its controllers, whoever drives them: their
    /// queues stop, and their drivers have to bring them up again. Needs CAP.NSSRS.
    Subsystem,
}

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
pub(super) fn reset_function(device: &Claim, registers: &Registers) -> Result<()> {
    device.check_held()?;
    // SAFETY: this driver has claimed the device; no command of it counts any more, nor will it wait for one.
    unsafe { device.reset() }?;
    transitions::rest(registers);
    let operation = "waiting for the controller after a reset of its function (CSTS.RDY = 0)";
    transitions::stopped(registers, registers.name(), operation)
}
