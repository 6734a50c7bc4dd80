//! Opens a controller by its address, on any transport.

#[cfg(feature = "emu")]
use crate::emu;
use crate::{Address, Controller, ControllerBuilder, Error, Result, controller::check_class};
use std::{sync::Arc, time::Duration};
use upcie_core::{deadline::Budget, device::Device};

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

    /// Opens and brings up the controller at `address` in the address space of `other`. Buffers of either controller,
    /// including those in their [own memory](Controller::cmb), can then be used with both: peer-to-peer.
    ///
    /// # Errors
    /// The two transports can't share an address space (the error says which can), or an error of [`open`](Self::open).
    pub fn open_beside<A>(self, other: &Controller, address: A) -> Result<Controller>
    where
        A: TryInto<Address>,
        Error: From<A::Error>,
    {
        other.inner().check_owner("opening another controller beside it")?;
        match address.try_into()? {
            Address::Device(address) => self.open_device_beside(other, &address),
            #[cfg(feature = "emu")]
            address @ Address::Emulated(_) => Err(Error::unsupported(
                other.name(),
                format!(
                    "{address} has an address space of its own, as its server gets this process's memory over its own \
                     connection: open two controllers without an IOMMU or in one VFIO container (`uio:`, `vfio:`), or \
                     copy through the host's memory"
                ),
            )),
        }
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
    #[cfg_attr(
        not(feature = "emu"),
        expect(
            clippy::infallible_destructuring_match,
            reason = "without `emu` there is one kind of address"
        )
    )]
    let address = match address.try_into()? {
        Address::Device(address) => address,
        #[cfg(feature = "emu")]
        Address::Emulated(options) => return emu::spawn(&options),
    };
    check_class(&address)?;
    let _budget = Budget::new(timeout);
    Ok(upcie_core::open_within(&address, timeout)?)
}
