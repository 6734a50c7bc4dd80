//! Configuration space and its capability lists.
//!
//! The device writes the lists, so they are not trusted: an offset out of bounds ends the walk with an error, and no walk
//! is longer than the number of entries that fit into configuration space.

use crate::{Error, Failure, Result};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

/// Registers of the configuration header (PCI Express Base 6.0, 7.5.1).
pub mod offset {
    /// Vendor id, 16 bits; all ones if there is no device.
    pub const VENDOR: u16 = 0x00;
    /// Command, 16 bits: see [`command`](super::command).
    pub const COMMAND: u16 = 0x04;
    /// Status, 16 bits.
    pub const STATUS: u16 = 0x06;
    /// Offset of the first capability, 8 bits.
    pub const CAPABILITIES: u16 = 0x34;
    /// Start of the extended capabilities.
    pub const EXTENDED: u16 = 0x100;
}

/// Bits of the command register (PCI Express Base 6.0, 7.5.1.1.3).
pub mod command {
    /// Answer I/O port accesses.
    pub const IO: u16 = 1 << 0;
    /// Answer memory accesses.
    pub const MEMORY: u16 = 1 << 1;
    /// Issue DMA and message signalled interrupts.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// Don't raise INTx.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Ids of capabilities (PCI Code and ID Assignment, 2).
pub mod cap {
    /// Power management.
    pub const POWER_MANAGEMENT: u16 = 0x01;
    /// Vital product data.
    pub const VPD: u16 = 0x03;
    /// Message signalled interrupts.
    pub const MSI: u16 = 0x05;
    /// Vendor specific.
    pub const VENDOR: u16 = 0x09;
    /// PCI Express.
    pub const PCIE: u16 = 0x10;
    /// Message signalled interrupts, extended.
    pub const MSIX: u16 = 0x11;
}

/// Ids of extended capabilities (PCI Code and ID Assignment, 3).
pub mod ext_cap {
    /// Advanced error reporting.
    pub const AER: u16 = 0x0001;
    /// Device serial number.
    pub const SERIAL: u16 = 0x0003;
    /// Access control services.
    pub const ACS: u16 = 0x000d;
    /// Alternative routing id.
    pub const ARI: u16 = 0x000e;
    /// Address translation services.
    pub const ATS: u16 = 0x000f;
    /// Single root I/O virtualisation.
    pub const SRIOV: u16 = 0x0010;
    /// Latency tolerance reporting.
    pub const LTR: u16 = 0x0018;
    /// Process address space ids.
    pub const PASID: u16 = 0x001b;
}

/// The status register's bit for a capability list.
const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Configuration space, through any transport: every [`Device`](crate::device::Device) has it, and sysfs provides it as a
/// [`ConfigFile`].
///
/// Words are little-endian in it and in the host's order in these functions.
///
/// ```no_run
/// use upcie_core::pci::{ConfigSpace, Function, cap};
///
/// let config = Function::at("0000:01:00.0".parse()?)?.config()?;
/// for entry in config.capabilities() {
///     let entry = entry?;
///     println!("{}", if entry.id == cap::MSIX { "MSI-X".into() } else { format!("{:02x}h", entry.id) });
/// }
/// # Ok::<(), upcie_core::Error>(())
/// ```
pub trait ConfigSpace {
    /// Returns the device's name, for messages.
    fn device_name(&self) -> &str;

    /// Reads `data.len()` bytes.
    ///
    /// # Errors
    /// The range is outside of it, or the transport's errors.
    fn read_bytes(&self, offset: u16, data: &mut [u8]) -> Result<()>;

    /// Writes `data`.
    ///
    /// # Safety
    /// The caller owes the same as for [`Device::config_write`](crate::device::Device::config_write): it drives the
    /// function, or nobody does.
    ///
    /// # Errors
    /// The range is outside of it, or the transport's errors.
    unsafe fn write_bytes(&self, offset: u16, data: &[u8]) -> Result<()>;

    /// Reads a byte.
    ///
    /// # Errors
    /// Those of [`read_bytes`](Self::read_bytes).
    fn config_u8(&self, offset: u16) -> Result<u8> {
        let mut data = [0; 1];
        self.read_bytes(offset, &mut data).map(|()| data[0])
    }

    /// Reads 16 bits.
    ///
    /// # Errors
    /// Those of [`read_bytes`](Self::read_bytes).
    fn config_u16(&self, offset: u16) -> Result<u16> {
        let mut data = [0; 2];
        self.read_bytes(offset, &mut data).map(|()| u16::from_le_bytes(data))
    }

    /// Reads 32 bits.
    ///
    /// # Errors
    /// Those of [`read_bytes`](Self::read_bytes).
    fn config_u32(&self, offset: u16) -> Result<u32> {
        let mut data = [0; 4];
        self.read_bytes(offset, &mut data).map(|()| u32::from_le_bytes(data))
    }

    /// Writes 16 bits.
    ///
    /// # Safety
    /// The caller owes the same as for [`write_bytes`](Self::write_bytes).
    ///
    /// # Errors
    /// Those of [`write_bytes`](Self::write_bytes).
    unsafe fn set_config_u16(&self, offset: u16, value: u16) -> Result<()> {
        // SAFETY: the caller owes what `write_bytes` requires.
        unsafe { self.write_bytes(offset, &value.to_le_bytes()) }
    }

    /// Writes 32 bits.
    ///
    /// # Safety
    /// The caller owes the same as for [`write_bytes`](Self::write_bytes).
    ///
    /// # Errors
    /// Those of [`write_bytes`](Self::write_bytes).
    unsafe fn set_config_u32(&self, offset: u16, value: u32) -> Result<()> {
        // SAFETY: the caller owes what `write_bytes` requires.
        unsafe { self.write_bytes(offset, &value.to_le_bytes()) }
    }

    /// Reads the command register (its bits: [`command`](mod@command)).
    ///
    /// # Errors
    /// [`Failure::Gone`] when the vendor id beside it reads all ones, and those of [`read_bytes`](Self::read_bytes).
    fn command(&self) -> Result<u16> {
        if self.config_u16(offset::VENDOR)? == u16::MAX {
            return Err(gone(self, "reading its command register"));
        }
        self.config_u16(offset::COMMAND)
    }

    /// Iterates over the capabilities in the first 256 bytes, in the order of their list.
    fn capabilities(&self) -> CapabilityIter<'_, Self> {
        CapabilityIter { config: self, next: None, seen: 0 }
    }

    /// Iterates over the capabilities from 100h on, in the order of their list; none if configuration space ends before.
    fn extended_capabilities(&self) -> ExtendedCapabilityIter<'_, Self> {
        ExtendedCapabilityIter { config: self, next: offset::EXTENDED, max_entries: (4096 - 256) / 4 }
    }

    /// Returns the offset of the first capability with this id (see [`cap`]).
    ///
    /// # Errors
    /// Those of the walk up to it.
    fn find_capability(&self, id: u16) -> Result<Option<u16>> {
        find(self.capabilities(), id)
    }

    /// Returns the offset of the first extended capability with this id (see [`ext_cap`]).
    ///
    /// # Errors
    /// Those of the walk up to it.
    fn find_extended_capability(&self, id: u16) -> Result<Option<u16>> {
        find(self.extended_capabilities(), id)
    }
}

fn find(mut list: impl Iterator<Item = Result<Capability>>, id: u16) -> Result<Option<u16>> {
    list.find_map(|entry| match entry {
        Ok(entry) => (entry.id == id).then_some(Ok(entry.offset)),
        Err(e) => Some(Err(e)),
    })
    .transpose()
}

fn gone(config: &(impl ConfigSpace + ?Sized), operation: &str) -> Error {
    Error::gone(config.device_name(), operation)
}

/// An entry of a capability list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// The capability's id: see [`cap`] or [`ext_cap`].
    pub id: u16,
    /// Offset of its first byte.
    pub offset: u16,
    /// The version of an extended capability; 0 for the others, which have none.
    pub version: u8,
}

/// Walks the capabilities of the first 256 bytes, and ends after an error.
#[derive(Debug)]
pub struct CapabilityIter<'a, C: ?Sized> {
    config: &'a C,
    /// Offset of the next one, 0 at the end; `None` before the first.
    next: Option<u8>,
    /// A bit for each dword at which a capability was found.
    seen: u64,
}

impl<C: ConfigSpace + ?Sized> CapabilityIter<'_, C> {
    fn step(&mut self) -> Result<Option<Capability>> {
        const WALK: &str = "walking its capabilities";
        let next = match self.next {
            Some(next) => next,
            None => match self.config.config_u16(offset::STATUS)? {
                u16::MAX => return Err(gone(self.config, WALK)),
                status if status & STATUS_CAPABILITIES == 0 => 0,
                _ => self.config.config_u8(offset::CAPABILITIES)? & !3,
            },
        };
        if next == 0 {
            self.next = Some(0);
            return Ok(None);
        }
        let broken =
            |reason: &str| Error::protocol(self.config.device_name(), WALK, format!("{reason} {next:#04x}"));
        if next < 0x40 {
            return Err(broken("one is inside of the header, at"));
        }
        let bit = 1 << (next >> 2);
        if self.seen & bit != 0 {
            return Err(broken("the list comes back to"));
        }
        self.seen |= bit;
        let [id, link] = self.config.config_u16(next.into())?.to_le_bytes();
        if (id, link) == (u8::MAX, u8::MAX) {
            return Err(gone(self.config, WALK));
        }
        self.next = Some(link & !3);
        Ok(Some(Capability { id: id.into(), offset: next.into(), version: 0 }))
    }
}

impl<C: ConfigSpace + ?Sized> Iterator for CapabilityIter<'_, C> {
    type Item = Result<Capability>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if matches!(step, Some(Err(_))) {
            self.next = Some(0);
        }
        step
    }
}

/// Walks the capabilities from 100h on, and ends after an error.
#[derive(Debug)]
pub struct ExtendedCapabilityIter<'a, C: ?Sized> {
    config: &'a C,
    /// Offset of the next one, 0 at the end.
    next: u16,
    /// Limit on the number of entries: a list that exceeds it has a loop.
    max_entries: u16,
}

impl<C: ConfigSpace + ?Sized> ExtendedCapabilityIter<'_, C> {
    fn step(&mut self) -> Result<Option<Capability>> {
        if self.next == 0 {
            return Ok(None);
        }
        let at = self.next;
        let broken = |reason: &str| {
            Error::protocol(
                self.config.device_name(),
                "walking its extended capabilities",
                format!("{reason} {at:#05x}"),
            )
        };
        if at < offset::EXTENDED {
            return Err(broken("one is below 0x100, at"));
        }
        self.max_entries =
            self.max_entries.checked_sub(1).ok_or_else(|| broken("the list has a loop through"))?;
        let header = match self.config.config_u32(at) {
            Err(error) if matches!(error.failure(), Failure::OutOfRange { .. }) && at == offset::EXTENDED => {
                0
            }
            other => other?,
        };
        // All ones: configuration space ends at 256 bytes.
        if header == 0 || header == u32::MAX {
            self.next = 0;
            return Ok(None);
        }
        self.next = (header >> 20) as u16 & !3;
        Ok(Some(Capability { id: header as u16, offset: at, version: (header >> 16) as u8 & 0xf }))
    }
}

impl<C: ConfigSpace + ?Sized> Iterator for ExtendedCapabilityIter<'_, C> {
    type Item = Result<Capability>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if matches!(step, Some(Err(_))) {
            self.next = 0;
        }
        step
    }
}

/// Configuration space through sysfs's `config` file.
#[derive(Debug)]
pub struct ConfigFile {
    device: String,
    file: File,
}

impl ConfigFile {
    /// Opens `path` for reading and writing if that is allowed, otherwise for reading.
    pub(super) fn open(device: String, path: &Path) -> Result<Self> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => File::open(path),
            other => other,
        };
        match file {
            Ok(file) => Ok(Self { device, file }),
            Err(e) => Err(Error::os(device, format!("opening {}", path.display()), e)),
        }
    }
}

impl ConfigSpace for ConfigFile {
    fn device_name(&self) -> &str {
        &self.device
    }

    fn read_bytes(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(data, offset.into()).map_err(|e| {
            let operation = format!(
                "reading configuration space at {offset:#x} (only root reads more than its first 64 bytes)"
            );
            match e.kind() {
                // The file's size is that of configuration space, for every user.
                io::ErrorKind::UnexpectedEof => match self.file.metadata() {
                    Ok(meta) if u64::from(offset) + data.len() as u64 > meta.len() => Error::out_of_range(
                        self.device.clone(),
                        "reading configuration space",
                        offset.into(),
                        data.len() as u64,
                        meta.len(),
                    ),
                    _ => Error::os(&self.device, operation, io::Error::from_raw_os_error(libc::EACCES)),
                },
                _ => Error::os(&self.device, operation, e),
            }
        })
    }

    unsafe fn write_bytes(&self, offset: u16, data: &[u8]) -> Result<()> {
        self.file.write_all_at(data, offset.into()).map_err(|e| {
            Error::os(&self.device, format!("writing configuration space at {offset:#x} (root may)"), e)
        })
    }
}

#[cfg(test)]
mod tests;
