//! Addresses of controllers: those of upcie-core's transports, and `emu`.

mod hint;

#[cfg(feature = "emu")]
use crate::emu;
use crate::{Error, Result};
use hint::hint;
use std::{fmt, str::FromStr};
use upcie_core::{device, pci::Bdf};

/// The form of this crate's own scheme, for messages.
const EMULATED: &str =
    if cfg!(feature = "emu") { ", emu, and emu:key=value,… (the embedded controller)" } else { "" };

/// Returns the forms of an address, for messages.
pub fn forms() -> &'static str {
    const LEN: usize = device::FORMS.len() + EMULATED.len();
    /// Joined by the compiler.
    const JOINED: [u8; LEN] = {
        let (mut joined, [first, second]) = ([0; LEN], [device::FORMS.as_bytes(), EMULATED.as_bytes()]);
        let mut at = 0;
        while at < LEN {
            joined[at] = if at < first.len() { first[at] } else { second[at - first.len()] };
            at += 1;
        }
        joined
    };
    const FORMS: &str = match std::str::from_utf8(&JOINED) {
        Ok(forms) => forms,
        Err(_) => panic!("two texts are a text"),
    };
    FORMS
}

/// Names a controller: a device on a transport of upcie-core, or an embedded controller.
///
/// The text of an embedded controller's options is parsed with the address, so that a wrong option is an error
/// before anything is opened.
///
/// ```
/// use upcie_nvme::{Address, upcie_core::device};
///
/// let address: Address = "0000:01:00.0".parse()?;
/// assert!(matches!(address, Address::Device(device::Address::Pci(_))));
/// let address: Address = "emu:lba=4096,size=64M".parse()?;
/// assert_eq!(address.to_string(), "emu:size=64M,lba=4096");
/// assert!("emu:colour=red".parse::<Address>().is_err());
/// # Ok::<(), upcie_nvme::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "emu", expect(clippy::large_enum_variant, reason = "a program has few addresses"))]
pub enum Address {
    /// A device on a transport of upcie-core.
    Device(device::Address),
    /// `emu` or `emu:options`: a controller in this process.
    #[cfg(feature = "emu")]
    Emulated(emu::Options),
}

impl Address {
    /// Returns the PCI function that the address names; `None` for other addresses.
    pub fn bdf(&self) -> Option<Bdf> {
        match self {
            Self::Device(address) => address.bdf(),
            #[cfg(feature = "emu")]
            Self::Emulated(_) => None,
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(input: &str) -> Result<Self> {
        // Checked first, because a transport id of another program contains colons.
        if let Some(reason) = hint(input) {
            return Err(upcie_core::Error::address(input, reason, forms()).into());
        }
        match input.split_once(':') {
            _ if input == "emu" => emulated(""),
            Some(("emu", options)) => emulated(options),
            _ => Ok(Self::Device(input.parse().map_err(with_forms)?)),
        }
    }
}

#[cfg(feature = "emu")]
fn emulated(options: &str) -> Result<Address> {
    Ok(Address::Emulated(options.parse::<emu::Options>()?))
}

#[cfg(not(feature = "emu"))]
fn emulated(_options: &str) -> Result<Address> {
    Err(Error::unsupported(
        "emu",
        "the program was built without the feature `emu` of upcie-nvme, so it has no embedded controller",
    ))
}

/// Completes the forms in an error of upcie-core by this crate's own.
fn with_forms(error: upcie_core::Error) -> upcie_core::Error {
    match error.failure() {
        upcie_core::Failure::Address { input, reason, .. } => {
            upcie_core::Error::address(input, reason, forms())
        }
        _ => error,
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(address) => address.fmt(f),
            #[cfg(feature = "emu")]
            Self::Emulated(options) => f.write_str(&emu::name(options)),
        }
    }
}

/// Lets `&address` be passed to functions that take `impl TryInto<Address>`.
impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

impl From<device::Address> for Address {
    fn from(address: device::Address) -> Self {
        Self::Device(address)
    }
}

impl From<&device::Address> for Address {
    fn from(address: &device::Address) -> Self {
        Self::Device(address.clone())
    }
}

impl TryFrom<&str> for Address {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self> {
        text.parse()
    }
}

impl TryFrom<String> for Address {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "emu")]
    #[test]
    fn every_form_parses_and_prints_itself() {
        for text in ["0000:01:00.0", "vfio:0000:01:00.0", "vfio-user:/run/emu", "emu", "emu:size=1G,lba=4096"]
        {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("emu:".parse::<Address>().unwrap().to_string(), "emu");
    }

    #[test]
    fn an_invalid_address_lists_this_crates_forms_too() {
        for text in ["", "emulator", "emu=size", "nvme0", "/dev/nvme0n1", "uio9:0000:01:00.0", "vfio:x"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            for part in ["vfio-user:/path", EMULATED, text] {
                assert!(error.contains(part), "{part:?} is not in {error}");
            }
        }
    }

    #[cfg(feature = "emu")]
    #[test]
    fn a_wrong_option_is_found_before_anything_is_opened() {
        let error = "emu:colour=red".parse::<Address>().unwrap_err();
        let text = upcie_core::Chain(&error).to_string();
        assert!(text.contains("\"colour\"") && text.contains("namespaces="), "{text}");
    }
}
