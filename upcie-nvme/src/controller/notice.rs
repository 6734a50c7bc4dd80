//! Notices about a device by interrupts that are not the controller's own: the kernel, or a vfio-user server, wants it back, or
//! reports that it has failed.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use upcie_core::{
    Result,
    device::Device,
    irq::{EventFd, IrqKind},
};

/// A notice, where the transport has its kind.
#[derive(Debug)]
pub(super) struct Notice {
    kind: IrqKind,
    event: Option<EventFd>,
}

impl Notice {
    /// Asks for notices of a kind. The controller works without them, so a failure is logged, with its `consequence`.
    pub(super) fn wire(device: &dyn Device, kind: IrqKind, consequence: &str) -> Self {
        let event = Self::try_wire(device, kind).unwrap_or_else(|error| {
            tracing::warn!(device = device.name(), %error, "{consequence}");
            None
        });
        Self { kind, event }
    }

    fn try_wire(device: &dyn Device, kind: IrqKind) -> Result<Option<EventFd>> {
        if device.irq_count(kind)? == 0 {
            return Ok(None);
        }
        let event = EventFd::new()?;
        device.set_irqs(kind, &[event.as_fd()])?;
        Ok(Some(event))
    }

    /// Returns `true` once the notice has come, until it is [forgotten](Self::forget).
    pub(super) fn is_given(&self) -> bool {
        // An eventfd that can't be asked says nothing of the device.
        self.event.as_ref().is_some_and(|event| event.wait(Duration::ZERO).unwrap_or(false))
    }

    /// Forgets the notice: what it has told is over.
    pub(super) fn forget(&self) {
        if let Some(event) = &self.event {
            // An eventfd that can't be read goes on telling.
            let _ = event.take();
        }
    }

    /// Returns the descriptor of the event.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.event.as_ref().map(AsFd::as_fd)
    }

    /// Stops being told. The device may be its opener's to use again.
    pub(super) fn disconnect(&self, device: &dyn Device) {
        if self.event.is_some() {
            if let Err(error) = device.set_irqs(self.kind, &[]) {
                tracing::debug!(device = device.name(), %error, "turning {} notices off", self.kind);
            }
        }
    }
}
