//! Device addresses.

use super::VfToken;
use crate::{Error, pci::Bdf};
use std::{fmt, path::PathBuf, str::FromStr};

/// The forms of an address, for messages. A crate with schemes of its own appends them.
pub const FORMS: &str = "0000:01:00.0 (a PCI function; its driver determines the transport), vfio:0000:01:00.0, \
                         iommufd:…, noiommu:…, each of these with ,token=UUID for SR-IOV; uio:…, sysfs:…, \
                         vfio-user:/path/to/socket";

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
    /// `vfio:0000:01:00.1,token=UUID`: one of VFIO's addresses, with the token that the users of a physical function and of its
    /// virtual functions share; see [`with_token`](Self::with_token).
    Token(Box<Self>, VfToken),
}

/// Separates an address of VFIO from its token.
const TOKEN: &str = ",token=";

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
            Self::Token(address, _) => address.bdf(),
        }
    }

    /// Adds a VF token, which VFIO demands of the user of a virtual function whose physical function is bound to vfio-pci. The
    /// user of the physical function sets it by opening that with the same token, first.
    ///
    /// # Errors
    /// [`Failure::Address`](crate::Failure::Address): the address is not VFIO's.
    pub fn with_token(self, token: VfToken) -> Result<Self, Error> {
        match self {
            Self::Pci(_) | Self::Vfio(_) | Self::Iommufd(_) | Self::Noiommu(_) => {
                Ok(Self::Token(Box::new(self), token))
            }
            Self::Token(address, _) => address.with_token(token),
            Self::Uio(_) | Self::Sysfs(_) | Self::VfioUser(_) => {
                Err(Error::address(self.to_string(), "only VFIO has tokens", FORMS))
            }
        }
    }

    /// Returns the VF token, if the address has one.
    #[must_use]
    pub fn token(&self) -> Option<VfToken> {
        if let Self::Token(_, token) = self { Some(*token) } else { None }
    }

    /// Returns the address without its VF token, which is a secret: a name for messages.
    #[must_use]
    pub fn without_token(&self) -> &Self {
        if let Self::Token(address, _) = self { address.without_token() } else { self }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(input: &str) -> Result<Self, Error> {
        // A socket's path may contain anything.
        if let Some((address, token)) = input.split_once(TOKEN).filter(|_| !input.starts_with("vfio-user:")) {
            return address.parse::<Self>()?.with_token(token.parse()?);
        }
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
            Self::Token(address, token) => write!(f, "{address}{TOKEN}{token}"),
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
            "vfio-user:/run/x,token=1",
            "0000:01:00.1,token=bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3",
            "vfio:0000:01:00.1,token=bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3",
            "iommufd:0000:01:00.1,token=bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3",
            "noiommu:0000:01:00.1,token=bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3",
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
    fn a_token_is_part_of_an_address_of_vfio() {
        let token = "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3";
        let address: Address = format!("vfio:0000:01:00.1,token={token}").parse().unwrap();
        assert_eq!(address.token(), Some(token.parse().unwrap()));
        assert_eq!(address.bdf(), Some("0000:01:00.1".parse().unwrap()));
        assert_eq!(address.without_token().to_string(), "vfio:0000:01:00.1");
        assert_eq!(address.without_token().token(), None);
        for (text, part) in [
            (format!("uio:0000:01:00.1,token={token}"), "only VFIO has tokens"),
            (format!("sysfs:0000:01:00.1,token={token}"), "only VFIO has tokens"),
            ("vfio:0000:01:00.1,token=1".into(), "8-4-4-4-12"),
            (format!("vfio:0000:01:00.1,token={token},token={token}"), "8-4-4-4-12"),
            (format!("vfio:0000:01:00.9,token={token}"), "0000:01:00.9"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
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
