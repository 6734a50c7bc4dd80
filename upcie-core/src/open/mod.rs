//! Opens the device at an address: the one module that knows all transports.

mod probe;

pub use probe::{Transport, probe};

#[cfg(feature = "uio")]
use crate::uio::UioDevice;
#[cfg(feature = "vfio-user-client")]
use crate::vfio_user::VfioUserDevice;
use crate::{
    Result,
    device::{Address, Device},
    pci::{Bdf, Function},
    vfio::VfioDevice,
};
use std::{sync::Arc, time::Duration};

/// Opens the device at `address`. A vfio-user server has 5 s for each of its answers.
///
/// # Errors
/// Each cause has an error of its own, which says what to do.
pub fn open(address: &Address) -> Result<Arc<dyn Device>> {
    open_by(address, None)
}

/// Opens the device at `address` like [`open`]; a vfio-user server has `timeout` for each of its answers. The other transports
/// have no such deadline.
///
/// # Errors
/// Those of [`open`].
pub fn open_within(address: &Address, timeout: Duration) -> Result<Arc<dyn Device>> {
    open_by(address, Some(timeout))
}

fn open_by(address: &Address, timeout: Option<Duration>) -> Result<Arc<dyn Device>> {
    #[cfg(not(feature = "vfio-user-client"))]
    let _ = timeout;
    tracing::debug!(address = %address.without_token(), "opening");
    if let Some(bdf) = address.bdf() {
        // A function whose unbinding waits for its user looks free, but the kernel does not give it out.
        Function::at(bdf)?.check_not_being_unbound()?;
    }
    match address {
        #[cfg(feature = "vfio-user-client")]
        Address::VfioUser(path) => Ok(Arc::new(match timeout {
            Some(timeout) => VfioUserDevice::connect_within(path, timeout)?,
            None => VfioUserDevice::connect(path)?,
        })),
        Address::Pci(bdf) => open_pci(*bdf),
        Address::Vfio(_) | Address::Iommufd(_) | Address::Noiommu(_) | Address::Token(..) => {
            Ok(VfioDevice::open(address)?)
        }
        #[cfg(feature = "uio")]
        Address::Uio(bdf) => Ok(Arc::new(UioDevice::open(*bdf)?)),
        #[cfg(feature = "uio")]
        Address::Sysfs(bdf) => Ok(Arc::new(UioDevice::open_unbound(*bdf)?)),
        #[cfg(not(feature = "vfio-user-client"))]
        Address::VfioUser(_) => Err(left_out(address, "vfio-user-client")),
        #[cfg(not(feature = "uio"))]
        Address::Uio(_) | Address::Sysfs(_) => Err(left_out(address, "uio")),
    }
}

/// Opens a PCI function through the transport of its driver.
fn open_pci(bdf: Bdf) -> Result<Arc<dyn Device>> {
    let driver = Function::at(bdf)?.driver;
    tracing::debug!(device = %bdf, driver = driver.as_deref().unwrap_or("none"), "choosing the transport by the driver");
    match driver.as_deref() {
        // Binding this driver is the user's choice to do without an IOMMU.
        #[cfg(feature = "uio")]
        Some("uio_pci_generic") => Ok(Arc::new(UioDevice::open(bdf)?)),
        // For every other driver, VFIO's error says what to do about it.
        _ => Ok(VfioDevice::open(&Address::Pci(bdf))?),
    }
}

/// Makes the error for an address whose cargo feature was not built.
#[cfg(not(all(feature = "uio", feature = "vfio-user-client")))]
fn left_out(address: &Address, feature: &str) -> crate::Error {
    crate::Error::unsupported(
        address.to_string(),
        "this kind of address",
        format!("the program was built without the feature `{feature}` of upcie-core"),
    )
}
