//! Frees the memory that the controller held, once it is known to use no memory any more.

use super::Inner;
use crate::{Error, Result};

impl Inner {
    /// Checks like [`check_alive`](Self::check_alive), unless another thread does, or has a moment ago.
    pub(crate) fn check_alive_once(&self, what: &dyn Fn() -> String) -> Result<()> {
        self.link.look.run(self.clock(), || self.check_alive(what))
    }

    /// An error if the kernel reports that the device failed, or if the controller is gone, reports a fatal status, or was
    /// stopped by somebody else. Gives back what it has let go of.
    pub(crate) fn check_alive(&self, what: &dyn Fn() -> String) -> Result<()> {
        let device = || self.link.name.to_string();
        if self.pci_error.is_given() {
            return Err(Error::pci_error(device(), what()));
        }
        self.link.live.check_up(&self.link.name, &what())?;
        let resets = self.resets.count();
        let (error, is_stopped) = match self.link.registers.status() {
            Ok(status) if status.cfs() => (Error::fatal(device(), what()), !status.rdy()),
            Ok(status) if !status.rdy() => (Error::disabled(device(), what()), true),
            Ok(_) => {
                self.notice_events();
                return Ok(());
            }
            Err(error) => (error, false),
        };
        // A reset by this driver stops the controller for a moment, and gives back what it has let go of.
        if self.resets.count() != resets || self.resets.is_elsewhere() {
            return Ok(());
        }
        // It uses no memory any more once it was stopped or reset (CSTS.RDY is 0; Base, "Controller Level Reset"), or whoever
        // emulated it has closed the connection. Registers that read as all ones prove nothing, nor does a server that
        // does not answer: both may be back.
        if is_stopped || self.device.has_ended() {
            self.release(&error);
        }
        Err(error)
    }

    /// Looks whether the controller has let go of everything, and gives it back if so.
    pub(super) fn release_if_let_go(&self) {
        // The next user of the controller gets this error.
        let _ = self.check_alive(&|| "checking whether it has released memory".into());
    }

    /// The one place where memory and ids come back because of that: of queue pairs whose deletion was not confirmed, of admin
    /// commands that were not answered, and what [`Controller::keep`](super::Controller::keep) was given.
    fn release(&self, error: &Error) {
        let mut memory = self.memory.take_retired();
        memory.extend(self.queue_ids.release());
        self.admin.release(&self.subsystem, error);
        drop(memory);
    }
}
