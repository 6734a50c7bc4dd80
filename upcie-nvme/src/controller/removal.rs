//! The kernel's request to give a device back.

use super::Controller;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use upcie_core::{
    Result,
    device::Device,
    irq::{EventFd, IrqKind},
};

/// The event of the kernel wanting the device back, where the transport has it.
#[derive(Debug, Default)]
pub(super) struct Removal(Option<EventFd>);

impl Removal {
    /// Asks to be told when the device is wanted back.
    pub(super) fn wire(device: &dyn Device) -> Result<Self> {
        if device.irq_count(IrqKind::Request)? == 0 {
            return Ok(Self(None));
        }
        let event = EventFd::new()?;
        device.set_irqs(IrqKind::Request, &[event.as_fd()])?;
        Ok(Self(Some(event)))
    }

    fn is_wanted_back(&self) -> bool {
        // An eventfd that can't be asked says nothing of the device.
        self.0.as_ref().is_some_and(|event| event.wait(Duration::ZERO).unwrap_or(false))
    }

    /// Stops being told. The device may be its opener's to use again.
    pub(super) fn unwire(&self, device: &dyn Device) {
        if self.0.is_some() {
            if let Err(error) = device.set_irqs(IrqKind::Request, &[]) {
                tracing::debug!(device = device.name(), %error, "turning removal requests off");
            }
        }
    }
}

impl Controller {
    /// Returns whether the device is wanted back: the kernel removes it or unbinds its driver, or its vfio-user server
    /// ends. Over VFIO and vfio-user the device goes on working, and the kernel or the server waits, until every handle of
    /// this controller is dropped. Over `uio:` and `sysfs:` the kernel does not ask: the device is taken already, which is
    /// noticed within some 100 ms, and the drop leaves its registers alone.
    ///
    /// Asks the kernel each time: not for each I/O. See VFIO_PCI_REQ_IRQ_INDEX in the kernel's `linux/vfio.h`.
    pub fn is_wanted_back(&self) -> bool {
        self.inner.removal.is_wanted_back()
    }

    /// A descriptor that becomes readable, and stays so, once the device is wanted back
    /// ([`is_wanted_back`](Self::is_wanted_back)); `None` where the transport never asks: `emu`, and vfio-user servers
    /// without that interrupt. Wait for it by poll(2) beside other events.
    pub fn wanted_back_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.removal.0.as_ref().map(AsFd::as_fd)
    }

    /// Says who wants the device back and why, for a message once it [is](Self::is_wanted_back).
    pub fn wanted_back_reason(&self) -> String {
        let name = self.name();
        match name.split_once(':').map(|(scheme, _)| scheme) {
            Some("vfio-user") => format!("its server wants {name} back (it is being stopped)"),
            Some("uio" | "sysfs") => {
                format!("the kernel has taken {name} (a removal, or another driver)")
            }
            _ => format!("the kernel wants {name} back (a removal, or an unbinding)"),
        }
    }
}
