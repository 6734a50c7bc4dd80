//! Brings up the controller behind a device.

use super::{Controller, ControllerBuilder, bringup, check_class};
use crate::Result;
use std::sync::Arc;
use upcie_core::device::{Address, Device};

impl Controller {
    /// Returns a builder with the default options.
    pub fn builder() -> ControllerBuilder {
        ControllerBuilder::default()
    }
}

impl ControllerBuilder {
    /// Brings up the controller behind a device that the caller has opened, and
    /// [claims](upcie_core::device::Claim) the device until the last handle is dropped.
    ///
    /// # Errors
    /// Another driver in this process has the device; it is not an NVMe controller that this driver can use; or it does not
    /// become ready.
    pub fn from_device(self, device: Arc<dyn Device>) -> Result<Controller> {
        let inner = Arc::new(bringup::bring_up(device, self)?);
        inner.subsystem.join(inner.clone());
        Ok(Controller { inner })
    }

    /// Opens and brings up the device at `address` in the address space of `other`.
    pub(crate) fn open_device_beside(self, other: &Controller, address: &Address) -> Result<Controller> {
        check_class(address)?;
        other.inner.check_owner("opening another controller beside it")?;
        self.from_device(other.inner.device.open_beside(address)?)
    }
}
