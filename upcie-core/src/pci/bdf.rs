//! The address of a PCI function.

use crate::Error;
use std::{fmt, str::FromStr};

/// Domain, bus, device and function: `0000:01:00.0`.
///
/// ```
/// let bdf: upcie_core::pci::Bdf = "01:00.0".parse()?;
/// assert_eq!(bdf.to_string(), "0000:01:00.0");
/// # Ok::<(), upcie_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// The PCI domain (segment). Linux numbers domains behind a VMD from 10000h on.
    pub domain: u32,
    /// The bus.
    pub bus: u8,
    /// The device, below 32.
    pub device: u8,
    /// The function, below 8.
    pub function: u8,
}

impl FromStr for Bdf {
    type Err = Error;

    /// Parses hexadecimal `domain:bus:device.function`; the domain is optional.
    fn from_str(input: &str) -> Result<Self, Error> {
        let parse = || {
            let hex = |text: &str, digits: std::ops::RangeInclusive<usize>| {
                let plain = digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
                plain.then(|| u32::from_str_radix(text, 16).ok()).flatten()
            };
            let (rest, function) = input.rsplit_once('.')?;
            let (rest, device) = rest.rsplit_once(':')?;
            let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
            Some(Self {
                domain: hex(domain, 4..=8)?,
                bus: hex(bus, 2..=2)? as u8,
                device: hex(device, 2..=2).filter(|&d| d < 32)? as u8,
                function: hex(function, 1..=1).filter(|&f| f < 8)? as u8,
            })
        };
        parse().ok_or_else(|| {
            Error::address(input, "not domain:bus:device.function", "0000:01:00.0 and 01:00.0")
        })
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}
