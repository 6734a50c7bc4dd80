//! The command Cancel, where the controller has it.

use super::Controller;
use crate::{
    Cancel, Error, Result,
    spec::{Csi, NvmOpcode},
};

impl Controller {
    /// Returns the command Cancel, for [`Turn::cancel`](crate::Turn::cancel): one that ends all commands in flight on the
    /// queue that it is submitted to.
    ///
    /// # Errors
    /// [`Failure::Argument`](crate::Failure::Argument) if the controller does not have the command by its log page Commands
    /// Supported and Effects, which each controller with this command has; the controller does not answer within the timeout.
    pub fn cancel(&self) -> Result<Cancel<'static>> {
        if !self.inner.has_effects_page() {
            let reason = "Cancel: the controller does not have it, nor the log page Commands Supported and Effects (05h)";
            return Err(Error::argument(self.name(), reason));
        }
        let mut limit = self.inner.limit();
        self.inner.check_io_command(Csi::NVM, NvmOpcode::CANCEL.0, "Cancel", &mut limit)?;
        Ok(Cancel::new(self.inner.live().controller))
    }
}
