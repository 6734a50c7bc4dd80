//! One driver for a device.

use super::Device;
use crate::{Error, Result};
use std::{
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A device that one driver has to itself: while this exists, no second claim of the device is given.
///
/// Drivers take one before they write to the device, and drop it when the device no longer does what they told it.
/// Opening a function a second time, by whatever address, is refused by the kernel or by a lock
/// ([`FunctionLock`](crate::pci::FunctionLock)); a claim is for those that share one handle.
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
pub struct Claim {
    device: Arc<dyn Device>,
}

/// The addresses of those that are claimed: each is kept alive by its claim, so no other device has it.
static CLAIMED: Mutex<Vec<usize>> = Mutex::new(Vec::new());

impl Claim {
    /// Takes `device` for one driver.
    ///
    /// # Errors
    /// [`Error::Unusable`] when a driver has it already, and [`Error::Forked`] in a process that was forked since it was opened:
    /// it is the parent's.
    pub fn new(device: Arc<dyn Device>) -> Result<Self> {
        device.dma().check_owner("taking it for a driver")?;
        let mut claimed = claimed();
        if claimed.contains(&address(&device)) {
            return Err(Error::Unusable {
                device: device.name().into(),
                reason: "a driver in this process has it already, and a device has one: use that driver's handle (a clone of \
                         it, say), or drop it with all that was made from it first"
                    .into(),
            });
        }
        claimed.push(address(&device));
        drop(claimed);
        Ok(Self { device })
    }

    /// The device, for what needs no claim.
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
        claimed().retain(|&claimed| claimed != address(&self.device));
    }
}

fn address(device: &Arc<dyn Device>) -> usize {
    Arc::as_ptr(device).cast::<()>().addr()
}

fn claimed() -> MutexGuard<'static, Vec<usize>> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}
