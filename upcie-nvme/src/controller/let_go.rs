//! Frees the memory that the controller held, once it is known to use no memory any more.

use super::{Inner, Limit, admin::Rings};
use crate::{Error, ErrorKind, Failure, Result};
use upcie_core::gate::Pass;

impl Inner {
    /// Checks like [`check_alive`](Self::check_alive), unless another thread does, or has a moment ago.
    pub(crate) fn check_alive_once(&self, what: &dyn Fn() -> String) -> Result<()> {
        self.link.look.run(self.clock(), || self.check_alive(what))
    }

    /// Checks whether the kernel reports an error of the PCI function. The first look that finds one ends the epoch: from then on
    /// every queue and every call is refused, at no further cost, until a reset.
    pub(super) fn check_pci_error(&self, what: &dyn Fn() -> String) -> Result<()> {
        // Before the look: an epoch that begins after it is not at fault.
        let epoch = self.link.live.epoch();
        // A reset by another thread answers the error.
        if !self.pci_error.is_given() || self.resets.is_elsewhere() {
            return Ok(());
        }
        self.link.live.fail(&epoch);
        Err(Error::pci_error(self.name(), what()))
    }

    /// Checks like [`check_pci_error`](Self::check_pci_error), unless another thread does, or has a moment ago: for a call that may
    /// end before it looks at the controller.
    pub(crate) fn check_pci_error_once(&self, what: &dyn Fn() -> String) -> Result<()> {
        if self.pci_error.fd().is_none() {
            return Ok(());
        }
        self.pci_look.run(self.clock(), || self.check_pci_error(what))
    }

    /// An error if the kernel reports that the device failed, or if the controller is gone, reports a fatal status, or was
    /// stopped by somebody else. Gives back what it has let go of.
    pub(crate) fn check_alive(&self, what: &dyn Fn() -> String) -> Result<()> {
        let device = || self.link.name.to_string();
        self.check_pci_error(what)?;
        self.link.live.check_up(&self.link.name, what)?;
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
        if self.device.has_ended() {
            self.release(self.admin.enter_now(), &error);
        } else if is_stopped {
            // A reset enables the controller with the admin queue in its hands. If another thread has it, the next look
            // releases.
            let Some(rings) = self.admin.enter_now() else { return Err(error) };
            let is_stopped = || self.link.registers.status().is_ok_and(|status| !status.rdy());
            if self.resets.count() != resets || !is_stopped() {
                return Ok(());
            }
            self.release(Some(rings), &error);
        }
        Err(error)
    }

    /// Returns `false` if the controller is known to answer no command, which takes time to find out by one: it is gone, has failed,
    /// or was stopped by somebody else.
    pub(super) fn answers(&self, limit: &mut Limit<'_>) -> bool {
        let _budget = limit.budget();
        let looked = self.check_alive(&|| "deleting a queue pair".into());
        !looked.is_err_and(|error| {
            error.kind() == ErrorKind::Gone
                || matches!(error.failure(), Failure::Fatal { .. } | Failure::Disabled { .. })
        })
    }

    /// Looks whether the controller has let go of everything, and gives it back if so.
    pub(super) fn release_if_let_go(&self) {
        // The next user of the controller gets this error.
        let _ = self.check_alive(&|| "checking whether it has released memory".into());
    }

    /// The one place where memory and ids come back because of that: of queue pairs whose deletion was not confirmed, of admin
    /// commands that were not answered, and what [`Controller::keep`](super::Controller::keep) was given. Without `rings`, which
    /// another thread has, that thread looks itself when its command ends.
    fn release(&self, rings: Option<Pass<'_, Rings>>, error: &Error) {
        let mut memory = self.memory.take_retired();
        memory.extend(self.queue_ids.release());
        if let Some(mut rings) = rings {
            self.admin.release(&mut rings, &self.affected(), error);
        }
        drop(memory);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Controller, Failure, engine::Retired};
    use std::time::Duration;

    /// A thread that had seen the controller stopped released the memory of the next epoch: between its look and the release
    /// another thread had reset the controller. With the admin queue in its hands no other thread can.
    #[test]
    fn memory_is_released_with_the_admin_queue_in_hand() {
        let controller = Controller::open("emu:size=1M").unwrap();
        let inner = controller.inner();
        let buffer = controller.alloc(4096).unwrap();
        let in_use = controller.heap().in_use();
        inner.memory.retire(Retired(vec![buffer]));
        // SAFETY: no queue pair exists, and no admin command is in flight. Somebody else does this here.
        unsafe { inner.device.reset() }.unwrap();
        let look = || inner.check_alive(&|| "a look".into()).unwrap_err();
        let rings = inner.admin.rings().enter(|| Duration::from_secs(10)).unwrap();
        assert!(matches!(look().failure(), Failure::Disabled { .. }));
        assert_eq!(controller.heap().in_use(), in_use, "another thread may be about to enable it");
        drop(rings);
        assert!(matches!(look().failure(), Failure::Disabled { .. }));
        assert!(controller.heap().in_use() < in_use);
    }
}
