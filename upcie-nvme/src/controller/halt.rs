//! The stop that a reset begins with.

use super::{
    Inner, Limit,
    stopping::{ResetKind, check_subsystem_reset, disable, reset_function},
    transitions,
};
use crate::{
    Result,
    spec::{NSSR_SIGNATURE, offset},
};
use upcie_core::pci::{self, ConfigSpace, command};

impl Inner {
    /// Stops the controller, which then uses no memory. The epoch of its queues is over. The times that the controller states
    /// for this do not count.
    pub(super) fn halt(&self, kind: ResetKind, limit: &mut Limit<'_>) -> Result<()> {
        let registers = &self.link.registers;
        limit.outside(|| match kind {
            ResetKind::Controller => disable(&self.device, registers),
            ResetKind::Function => reset_function(&self.device, registers),
            ResetKind::Subsystem => self.reset_subsystem(),
        })?;
        // The stop answers the errors of the function so far; what comes from here on is another one.
        self.pci_error.forget();
        if self.turn_on_again()? {
            self.vectors.wire_again(&*self.device, limit)?;
        }
        Ok(())
    }

    fn reset_subsystem(&self) -> Result<()> {
        let registers = &self.link.registers;
        check_subsystem_reset(registers.name(), registers.capabilities())?;
        tracing::warn!(device = registers.name(), "resetting its NVM subsystem, with all of its controllers");
        // SAFETY: no controller of the subsystem uses memory after the reset until its driver enables it again.
        unsafe { registers.write_u32(offset::NSSR, NSSR_SIGNATURE) }?;
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
        unsafe { self.device.set_config_u16(pci::offset::COMMAND, now | needed) }?;
        Ok(true)
    }
}
