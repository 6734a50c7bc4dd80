//! The kernel's request to give a device back.

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

    pub(super) fn is_wanted_back(&self) -> bool {
        // An eventfd that can't be asked says nothing of the device.
        self.0.as_ref().is_some_and(|event| event.wait(Duration::ZERO).unwrap_or(false))
    }

    /// Returns the descriptor of the event.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
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
