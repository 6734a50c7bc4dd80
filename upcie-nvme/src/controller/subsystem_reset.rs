//! The reset of the NVM subsystem that a controller belongs to.

use super::Controller;
use crate::{
    Error, Result,
    spec::{NSSR_SIGNATURE, offset},
};

impl Controller {
    /// Resets the NVM subsystem (register NSSR; Base, "NVM Subsystem Reset"), and brings this controller up again as
    /// [`reset`](Self::reset) does. All controllers of the subsystem are reset, those of other hosts and drivers,
    /// too: their drivers find them stopped.
    ///
    /// # Errors
    /// [`Failure::Unsupported`](crate::Failure::Unsupported) if the controller lacks it (CAP.NSSRS); those of
    /// [`reset`](Self::reset): above all, a function whose PCI Express link goes down with its subsystem does not
    /// come back.
    pub fn reset_subsystem(&self) -> Result<()> {
        let inner = self.inner();
        inner.check_owner("resetting the NVM subsystem")?;
        if !self.capabilities().nssrs() {
            let reason = "it has no NVM subsystem reset (CAP.NSSRS is 0): reset the controller";
            return Err(Error::unsupported(self.name(), reason));
        }
        // SAFETY: the register stops the controllers of the subsystem, which use no memory then.
        unsafe { inner.registers().write_u32(offset::NSSR, NSSR_SIGNATURE) }?;
        self.reset()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Controller, queue::Returned, spec::offset};

    #[test]
    fn a_subsystem_reset_gives_commands_back_and_is_told_in_csts() {
        let controller = Controller::open("emu:size=1M").unwrap();
        let namespace = controller.namespace(1).unwrap();
        let mut queue = controller.queue_pair().create::<u64>().unwrap();
        let nssro = || controller.register(offset::CSTS).unwrap() & 1 << 4 != 0;
        assert!(controller.capabilities().nssrs() && !nssro());
        let mut turn = queue.turn().unwrap();
        turn.flush(&namespace, 7).unwrap();
        controller.reset_subsystem().unwrap();
        // It rings no doorbell any more.
        drop(turn);
        assert!(queue.turn().is_err() && nssro());
        let returned = queue.recover().unwrap();
        assert!(matches!(returned[..], [Returned::Unknown { tag: 7, .. }]), "{returned:?}");
        namespace.flush().unwrap();
    }
}
