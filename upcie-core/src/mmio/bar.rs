//! A base address register: volatile accesses to its mapped parts, [`RegionIo`] calls for the rest.

use super::{Mapping, Register, Word};
use crate::{Error, Result, deadline::charged};
use std::{fmt, sync::Arc};

/// Accesses a region by system call or message, for parts that can't be mapped.
///
/// # Safety
/// An implementation accesses only the region that it was made for, at the given offset, and no memory of this process
/// except `data`.
pub unsafe trait RegionIo: Send + Sync {
    /// Reads `data.len()` bytes at `offset`, within the region's bounds.
    ///
    /// # Errors
    /// The transport's errors.
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<()>;

    /// Writes `data` at `offset`, within the region's bounds.
    ///
    /// # Safety
    /// The caller owes the same as for [`Bar::write_u32`]: it drives the device, and the device's reaction to these bytes
    /// is sound.
    ///
    /// # Errors
    /// The transport's errors.
    unsafe fn write(&self, offset: u64, data: &[u8]) -> Result<()>;
}

/// A mapped part of a base address register (BAR).
#[derive(Debug, Clone)]
pub struct Area {
    /// The area's first byte in the BAR, in bytes.
    pub offset: u64,
    /// The mapping, which begins with the BAR's byte at `offset`.
    pub mapping: Arc<Mapping>,
}

/// The caching of this process's accesses to a mapped base address register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Caching {
    /// Not cached: each access reaches the device, in order. Registers need this.
    Uncached,
    /// Stores are gathered into bursts and may be delayed: for memory in a device (a prefetchable BAR). Issue
    /// [`mmio_wmb`](crate::barrier::mmio_wmb) after them. Loads are slow.
    WriteCombining,
    /// Cached as the host's own memory: a software device's BAR is such memory.
    WriteBack,
}

impl fmt::Display for Caching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uncached => "uncached",
            Self::WriteCombining => "write-combining",
            Self::WriteBack => "write-back",
        })
    }
}

/// A base address register.
///
/// # Examples
/// ```no_run
/// let device = upcie_core::open(&"0000:01:00.0".parse()?)?;
/// let bar = device.bar(0)?;
/// println!("{} bytes; the first register reads {:#x}", bar.size(), bar.read_u32(0)?);
/// # Ok::<(), upcie_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Bar {
    name: Arc<str>,
    size: u64,
    areas: Vec<Area>,
    io: Arc<dyn RegionIo>,
    caching: Caching,
    bus_address: Option<u64>,
    unmapped: Option<Arc<str>>,
}

impl Bar {
    /// Makes a BAR of `size` bytes, mapped in `areas` and accessed through `io` elsewhere. Messages name it `name`: the
    /// device and the BAR's number.
    pub fn new(name: impl Into<Arc<str>>, size: u64, areas: Vec<Area>, io: Arc<dyn RegionIo>) -> Self {
        let (name, caching) = (name.into(), Caching::Uncached);
        Self { name, size, areas, io, caching, bus_address: None, unmapped: None }
    }

    /// Sets the caching with which the areas are mapped.
    pub fn with_caching(self, caching: Caching) -> Self {
        Self { caching, ..self }
    }

    /// Sets the BAR's address on the bus.
    ///
    /// # Safety
    /// The device answers at this address, to all of the BAR's bytes: without an IOMMU devices are sent to it
    /// ([`DmaSpace::map_bar`](crate::dma::DmaSpace::map_bar)).
    pub unsafe fn with_bus_address(self, address: Option<u64>) -> Self {
        Self { bus_address: address, ..self }
    }

    /// Sets the reason why the BAR is not mapped although its device offers that.
    pub fn with_unmapped_reason(self, reason: Option<Arc<str>>) -> Self {
        Self { unmapped: reason, ..self }
    }

    /// Returns why the BAR is not mapped although its device offers that: for a driver's error when it needs a mapped
    /// register.
    pub fn unmapped_reason(&self) -> Option<&str> {
        self.unmapped.as_deref()
    }

    /// Returns the caching of the mapped parts.
    pub fn caching(&self) -> Caching {
        self.caching
    }

    /// Returns the BAR's address on the bus (on x86-64 the host's physical address), if it has one and the transport
    /// tells it.
    pub fn bus_address(&self) -> Option<u64> {
        self.bus_address
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the mapped parts.
    pub fn areas(&self) -> &[Area] {
        &self.areas
    }

    /// Returns the mapped word at `offset`, for access without a call; `None` if the transport does not map it, or
    /// `offset` is out of bounds or not aligned.
    pub fn register<W: Word>(&self, offset: u64) -> Option<Register<W>> {
        self.areas.iter().find_map(|area| {
            let within = usize::try_from(offset.checked_sub(area.offset)?).ok()?;
            Register::new(&area.mapping, within)
        })
    }

    /// Fills the page tables of `len` bytes at `offset` now, as far as they are mapped ([`Mapping::populate`]): for
    /// registers on the I/O path.
    pub fn populate(&self, offset: u64, len: usize) {
        for area in &self.areas {
            let within = offset.checked_sub(area.offset).and_then(|within| usize::try_from(within).ok());
            if let Some(within) = within.filter(|&within| within < area.mapping.len()) {
                area.mapping.populate(within, len);
            }
        }
    }

    /// Returns an error if the owner of the mapped memory has shrunk its file.
    fn check_mapped(&self, offset: u64, operation: &str) -> Result<()> {
        if self.areas.iter().any(|area| area.mapping.is_lost()) {
            let operation = format!("{operation} at {offset:#x} (its server shrank the file behind the BAR)");
            return Err(Error::gone(self.name.to_string(), operation));
        }
        Ok(())
    }

    /// Reads a 32-bit register.
    ///
    /// # Errors
    /// [`Failure::OutOfRange`](crate::Failure::OutOfRange), or the transport's errors. All ones is an ordinary value here: the driver decides what it
    /// means.
    pub fn read_u32(&self, offset: u64) -> Result<u32> {
        if let Some(register) = self.register::<u32>(offset) {
            let value = register.read();
            // Checked after the access, which may itself find the mapping lost.
            return self.check_mapped(offset, "reading a register").map(|()| value);
        }
        let mut data = [0; 4];
        self.check(offset, 4, "reading a register")?;
        charged(|| self.io.read(offset, &mut data))?;
        Ok(u32::from_le_bytes(data))
    }

    /// Writes a 32-bit register.
    ///
    /// # Safety
    /// The caller drives the device (it holds its [`Claim`](crate::device::Claim), for example), and the device's
    /// reaction to this value is sound: the device accesses only memory that was given to it for that, and changes
    /// nothing that another driver of it relies on.
    ///
    /// # Errors
    /// [`Failure::OutOfRange`](crate::Failure::OutOfRange), or the transport's errors.
    pub unsafe fn write_u32(&self, offset: u64, value: u32) -> Result<()> {
        if let Some(register) = self.register::<u32>(offset) {
            // SAFETY: the caller promises that the device's reaction to this value is sound.
            unsafe { register.write(value) };
            return self.check_mapped(offset, "writing a register");
        }
        self.check(offset, 4, "writing a register")?;
        // SAFETY: `check` found the range within the region, and the caller promises that the device's reaction is sound.
        charged(|| unsafe { self.io.write(offset, &value.to_le_bytes()) })
    }

    /// Reads a 64-bit register. A mapped one is read in two 32-bit halves, the low one first, because not every device
    /// takes 8-byte accesses; one that is not mapped is read by one message.
    ///
    /// # Errors
    /// [`Failure::OutOfRange`](crate::Failure::OutOfRange), or the transport's errors.
    pub fn read_u64(&self, offset: u64) -> Result<u64> {
        if let (Some(low), Some(high)) = self.halves(offset) {
            let value = u64::from(low.read()) | u64::from(high.read()) << 32;
            return self.check_mapped(offset, "reading a register").map(|()| value);
        }
        let mut data = [0; 8];
        self.check(offset, 8, "reading a register")?;
        charged(|| self.io.read(offset, &mut data))?;
        Ok(u64::from_le_bytes(data))
    }

    /// Writes a 64-bit register, in the order in which [`read_u64`](Self::read_u64) reads one.
    ///
    /// # Safety
    /// The caller owes the same as for [`write_u32`](Self::write_u32).
    ///
    /// # Errors
    /// [`Failure::OutOfRange`](crate::Failure::OutOfRange), or the transport's errors.
    pub unsafe fn write_u64(&self, offset: u64, value: u64) -> Result<()> {
        if let (Some(low), Some(high)) = self.halves(offset) {
            // SAFETY: the caller promises that the device's reaction to this value is sound.
            unsafe { low.write(value as u32) };
            // SAFETY: the caller promises that the device's reaction to this value is sound.
            unsafe { high.write((value >> 32) as u32) };
            return self.check_mapped(offset, "writing a register");
        }
        self.check(offset, 8, "writing a register")?;
        // SAFETY: `check` found the range within the region, and the caller promises that the device's reaction is sound.
        charged(|| unsafe { self.io.write(offset, &value.to_le_bytes()) })
    }

    fn halves(&self, offset: u64) -> (Option<Register<u32>>, Option<Register<u32>>) {
        (self.register(offset), offset.checked_add(4).and_then(|high| self.register(high)))
    }

    fn check(&self, offset: u64, len: u64, operation: &str) -> Result<()> {
        match offset.checked_add(len) {
            // A device whose mapped doorbells lead nowhere is gone, even if it still answers messages.
            Some(end) if end <= self.size && offset % 4 == 0 => self.check_mapped(offset, operation),
            _ => Err(Error::out_of_range(self.name.to_string(), operation, offset, len, self.size)),
        }
    }
}

impl fmt::Debug for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bar")
            .field("name", &self.name)
            .field("size", &self.size)
            .field("caching", &self.caching)
            .field("areas", &self.areas)
            .finish_non_exhaustive()
    }
}
