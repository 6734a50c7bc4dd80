//! Opens a controller by its address, on any transport.

#[cfg(feature = "emu")]
use crate::emu;
use crate::{Controller, ControllerBuilder, Error, Result, controller::check_class};
use std::{sync::Arc, time::Duration};
use upcie_core::{
    deadline::Budget,
    device::{Address, Device},
};

#[cfg(feature = "vfio-user")]
use upcie_core::vfio_user::Client;

impl Controller {
    /// Opens and brings up the controller at `address`, with the default options. The address is an [`Address`] or its text.
    ///
    /// # Errors
    /// The text is no address; there is no such device; it can't be reached (the error says what to do); or
    /// it does not become ready.
    pub fn open<A>(address: A) -> Result<Self>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        Self::builder().open(address)
    }
}

impl ControllerBuilder {
    /// Opens and brings up the controller at `address`, which is an [`Address`] or its text.
    ///
    /// # Errors
    /// Those of [`Controller::open`].
    pub fn open<A>(self, address: A) -> Result<Controller>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        let device = open_device(address, self.timeout)?;
        self.from_device(device)
    }
}

/// Opens the device at `address`, embedded controllers included, without bringing it up: to read the
/// registers of a controller that does not become ready. A vfio-user server has `timeout` for each answer,
/// and for all messages of the open together.
///
/// ```
/// use std::time::Duration;
/// let device = upcie_nvme::open_device("emu:size=1M", Duration::from_secs(5))?;
/// println!("CAP {:#x}", device.bar(0)?.read_u64(0)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// There is no such device, or it can't be reached; the error says what to do.
pub fn open_device<A>(address: A, timeout: Duration) -> Result<Arc<dyn Device>>
where
    A: TryInto<Address>,
    Error: From<A::Error>,
{
    let address = address.try_into()?;
    check_class(&address)?;
    let _budget = Budget::new(timeout);
    Ok(match &address {
        #[cfg(feature = "emu")]
        Address::Emulated(text) => emu::spawn(&text.parse::<emu::Options>()?)?,
        #[cfg(not(feature = "emu"))]
        Address::Emulated(_) => {
            return Err(Error::Unsupported {
                device: address.to_string(),
                reason: "the program was built without the feature `emu` of upcie-nvme".into(),
            });
        }
        #[cfg(feature = "vfio-user")]
        Address::VfioUser(path) => Arc::new(Client::connect_within(path, timeout)?),
        other => upcie_core::open(other)?,
    })
}
