//! Device addresses.

use crate::{Error, pci::Bdf};
use std::{fmt, path::PathBuf, str::FromStr};

/// The forms of an address, for messages. A crate with schemes of its own appends them.
pub const FORMS: &str = "0000:01:00.0 (a PCI function; its driver determines the transport), vfio:0000:01:00.0, \
                         iommufd:…, noiommu:…, uio:…, sysfs:…, vfio-user:/path/to/socket";

/// Names a device and the transport to it. A driver with devices of another origin wraps this type and parses its own
/// schemes first, as `upcie_nvme::Address` does.
///
/// ```
/// use upcie_core::device::Address;
/// let address: Address = "0000:01:00.0".parse()?;
/// assert!(matches!(address, Address::Pci(_)));
/// assert!("nvme0n1".parse::<Address>().is_err());
/// # Ok::<(), upcie_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Address {
    /// `0000:01:00.0`: a PCI function; its bound driver determines the transport.
    Pci(Bdf),
    /// `vfio:0000:01:00.0`: through its VFIO group.
    Vfio(Bdf),
    /// `iommufd:0000:01:00.0`: through its VFIO character device and iommufd.
    Iommufd(Bdf),
    /// `noiommu:0000:01:00.0`: through VFIO's unsafe no-IOMMU mode; the device uses physical addresses.
    Noiommu(Bdf),
    /// `uio:0000:01:00.0`: without an IOMMU, through uio_pci_generic.
    Uio(Bdf),
    /// `sysfs:0000:01:00.0`: without an IOMMU and without a driver; polling only.
    Sysfs(Bdf),
    /// `vfio-user:/path`: a vfio-user server's socket.
    VfioUser(PathBuf),
}

impl Address {
    /// Returns the PCI function that the address names; `None` for other addresses.
    pub fn bdf(&self) -> Option<Bdf> {
        match self {
            Self::Pci(bdf)
            | Self::Vfio(bdf)
            | Self::Iommufd(bdf)
            | Self::Noiommu(bdf)
            | Self::Uio(bdf)
            | Self::Sysfs(bdf) => Some(*bdf),
            Self::VfioUser(_) => None,
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(input: &str) -> Result<Self, Error> {
        let bad = |reason: String| Error::address(input, reason, FORMS);
        let bdf = |text: &str| {
            text.parse::<Bdf>().map_err(|_| bad(format!("{text:?} is not domain:bus:device.function")))
        };
        match input.split_once(':') {
            Some(("vfio-user", "")) => Err(bad("the socket's path is missing".into())),
            Some(("vfio-user", path)) => Ok(Self::VfioUser(path.into())),
            Some(("vfio", rest)) => bdf(rest).map(Self::Vfio),
            Some(("iommufd", rest)) => bdf(rest).map(Self::Iommufd),
            Some(("noiommu", rest)) => bdf(rest).map(Self::Noiommu),
            Some(("uio", rest)) => bdf(rest).map(Self::Uio),
            Some(("sysfs", rest)) => bdf(rest).map(Self::Sysfs),
            Some((scheme, _)) if scheme.contains(|c: char| !c.is_ascii_hexdigit()) => {
                Err(bad(format!("{scheme:?} is not a transport")))
            }
            Some(_) => bdf(input).map(Self::Pci),
            None => Err(bad("it names no device".into())),
        }
    }
}

/// Lets `&address` be passed to functions that take `impl Into<Address>`.
impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

impl TryFrom<&str> for Address {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<&String> for Address {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<String> for Address {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(bdf) => bdf.fmt(f),
            Self::Vfio(bdf) => write!(f, "vfio:{bdf}"),
            Self::Iommufd(bdf) => write!(f, "iommufd:{bdf}"),
            Self::Noiommu(bdf) => write!(f, "noiommu:{bdf}"),
            Self::Uio(bdf) => write!(f, "uio:{bdf}"),
            Self::Sysfs(bdf) => write!(f, "sysfs:{bdf}"),
            Self::VfioUser(path) => write!(f, "vfio-user:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_parses_and_prints_itself() {
        for text in [
            "0000:01:00.0",
            "vfio:0000:01:00.0",
            "iommufd:0000:01:00.0",
            "noiommu:0000:01:00.0",
            "uio:0000:01:00.0",
            "sysfs:0000:01:00.0",
            "vfio-user:/run/x:y.sock",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!(
            "01:00.0".parse::<Address>().unwrap().to_string(),
            "0000:01:00.0",
            "the domain may be left out"
        );
    }

    #[test]
    fn an_invalid_address_error_lists_the_forms() {
        for text in [
            "",
            "nvme0",
            "/dev/nvme0n1",
            "emu",
            "uio9:0000:01:00.0",
            "vfio-user:",
            "vfio:x",
            "0000:01:00.8",
            "::",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("vfio-user:/path") && error.contains(text), "{error}");
        }
    }
}
