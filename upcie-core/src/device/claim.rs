//! Exclusive use of a device by one driver.

use super::Device;
use crate::{
    Error, Result,
    process::{Owner, PerProcess},
};
use std::{ops::Deref, sync::Arc};

/// A device that belongs to one driver: while this exists, a second claim of the device is refused.
///
/// A driver takes a claim before it writes to the device, and drops it when the device has stopped executing its
/// commands. The kernel or a lock ([`FunctionLock`](crate::pci::FunctionLock)) refuses to open a function a second time,
/// by any address; a claim tells the users of one handle apart.
///
/// ```no_run
/// # fn main() -> Result<(), upcie_core::Error> {
/// use upcie_core::{device::Claim, open};
/// let device = open(&"0000:01:00.0".parse()?)?;
/// let claim = Claim::new(device.clone())?;
/// assert!(Claim::new(device).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the claim ends when it is dropped"]
pub struct Claim {
    device: Arc<dyn Device>,
    owner: Owner,
}

/// Addresses of the claimed devices. Each claim keeps its device alive, so no other device has the same address. A forked child
/// can claim only devices that it has opened itself.
static CLAIMED: PerProcess<Vec<usize>> = PerProcess::new();

impl Claim {
    /// Takes `device` for one driver.
    ///
    /// # Errors
    /// [`Failure::Unusable`](crate::Failure::Unusable) when a driver has the device already, and [`Failure::Forked`](crate::Failure::Forked) in a process that was forked since
    /// the device was opened: the device belongs to the parent.
    pub fn new(device: Arc<dyn Device>) -> Result<Self> {
        device.dma().check_owner("taking it for a driver")?;
        let mut claimed = CLAIMED.lock();
        if claimed.contains(&address(&device)) {
            return Err(Error::unusable(
                device.name(),
                "a driver in this process has it already, and a device has only one driver: use that driver's handle (or a \
                         clone of it), or first drop it with everything made from it",
            ));
        }
        claimed.push(address(&device));
        drop(claimed);
        Ok(Self { device, owner: Owner::current() })
    }

    /// Returns the device, for uses that need no claim.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }
}

impl Deref for Claim {
    type Target = dyn Device;

    fn deref(&self) -> &Self::Target {
        &*self.device
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.owner.is_current() {
            CLAIMED.lock().retain(|&claimed| claimed != address(&self.device));
        }
    }
}

fn address(device: &Arc<dyn Device>) -> usize {
    Arc::as_ptr(device).cast::<()>().addr()
}
