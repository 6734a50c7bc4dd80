//! A base address register: memory as far as the way in maps it, messages for the rest.

use super::{Mapping, Register, Word};
use crate::{Error, Result, deadline::charged};
use std::{fmt, sync::Arc};

/// Access to a region by system call or message, for what can't be mapped.
///
/// # Safety
/// An implementation owes that it accesses the one region that it stands for, at the offset that it is given, and touches no
/// memory of this process but `data`.
pub unsafe trait RegionIo: Send + Sync {
    /// Reads `data.len()` bytes at `offset`, within the region's bounds.
    ///
    /// # Errors
    /// The way in's.
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<()>;

    /// Writes `data` at `offset`, within the region's bounds.
    ///
    /// # Safety
    /// As [`Bar::write_u32`]: the caller drives the device, and what the device does on these bytes is right.
    ///
    /// # Errors
    /// The way in's.
    unsafe fn write(&self, offset: u64, data: &[u8]) -> Result<()>;
}

/// A part of a BAR that is mapped.
#[derive(Debug, Clone)]
pub struct Area {
    /// Where it starts in the BAR, in bytes.
    pub offset: u64,
    /// The mapping: its bytes are the BAR's from `offset` on.
    pub mapping: Arc<Mapping>,
}

/// How this process's accesses to a mapped base address register are cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Caching {
    /// Not at all: each access reaches the device, in order. What registers need.
    Uncached,
    /// Stores are gathered into bursts and may be late: for memory in a device (a prefetchable register), with
    /// [`mmio_wmb`](crate::barrier::mmio_wmb) after them. Loads are slow.
    WriteCombining,
    /// As the host's own memory, which it is: a software device's.
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
    /// One of `size` bytes, mapped in `areas`, accessed through `io` elsewhere. `name` is for messages: the device
    /// and the BAR's number.
    pub fn new(name: impl Into<Arc<str>>, size: u64, areas: Vec<Area>, io: Arc<dyn RegionIo>) -> Self {
        let (name, caching) = (name.into(), Caching::Uncached);
        Self { name, size, areas, io, caching, bus_address: None, unmapped: None }
    }

    /// The same, known to be mapped with `caching`.
    pub fn with_caching(self, caching: Caching) -> Self {
        Self { caching, ..self }
    }

    /// The same, known to be at `address` on the bus.
    ///
    /// # Safety
    /// The register answers there, to all of its bytes: without an IOMMU devices are sent to this address
    /// ([`DmaSpace::map_bar`](crate::dma::DmaSpace::map_bar)).
    pub unsafe fn with_bus_address(self, address: Option<u64>) -> Self {
        Self { bus_address: address, ..self }
    }

    /// The same, with the reason why it is not mapped though its device offers it.
    pub fn with_unmapped_reason(self, reason: Option<Arc<str>>) -> Self {
        Self { unmapped: reason, ..self }
    }

    /// Why it is not mapped though its device offers it: for a driver's error when it needs a mapped register.
    pub fn unmapped_reason(&self) -> Option<&str> {
        self.unmapped.as_deref()
    }

    /// How the mapped parts are cached.
    pub fn caching(&self) -> Caching {
        self.caching
    }

    /// Its address on the bus (the host's physical address, on x86-64), where it has one and the way in says so.
    pub fn bus_address(&self) -> Option<u64> {
        self.bus_address
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The parts that are mapped.
    pub fn areas(&self) -> &[Area] {
        &self.areas
    }

    /// The mapped word at `offset`, for access without a call; `None` where the way in does not map it (or `offset`
    /// is out of bounds or not aligned).
    pub fn register<W: Word>(&self, offset: u64) -> Option<Register<W>> {
        self.areas.iter().find_map(|area| {
            let within = usize::try_from(offset.checked_sub(area.offset)?).ok()?;
            Register::new(&area.mapping, within)
        })
    }

    /// Fills the page tables of `len` bytes at `offset` now, as far as they are mapped
    /// ([`Mapping::populate`]): for registers that are written at every turn.
    pub fn populate(&self, offset: u64, len: usize) {
        for area in &self.areas {
            let within = offset.checked_sub(area.offset).and_then(|within| usize::try_from(within).ok());
            if let Some(within) = within.filter(|&within| within < area.mapping.len()) {
                area.mapping.populate(within, len);
            }
        }
    }

    /// Refuses an access to memory that its owner has taken away.
    fn check_mapped(&self, offset: u64, operation: &str) -> Result<()> {
        if self.areas.iter().any(|area| area.mapping.is_lost()) {
            let operation =
                format!("{operation} at {offset:#x} (its server made the file behind the BAR shorter)");
            return Err(Error::Gone { device: self.name.to_string(), operation });
        }
        Ok(())
    }

    /// Reads a 32-bit register.
    ///
    /// # Errors
    /// Out of bounds, or the way in's errors. All-ones is a value here: what it means is the driver's to say.
    pub fn read_u32(&self, offset: u64) -> Result<u32> {
        if let Some(register) = self.register::<u32>(offset) {
            let value = register.read();
            // Afterwards: the access itself may find out.
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
    /// The caller drives the device (its own [`Claim`](crate::device::Claim), say), and what the device does on this value is right:
    /// it reads and writes no memory but what it was given for that, and nothing that another driver of it relies on changes.
    ///
    /// # Errors
    /// Out of bounds, or the way in's errors.
    pub unsafe fn write_u32(&self, offset: u64, value: u32) -> Result<()> {
        if let Some(register) = self.register::<u32>(offset) {
            // SAFETY: the caller's promise.
            unsafe { register.write(value) };
            return self.check_mapped(offset, "writing a register");
        }
        self.check(offset, 4, "writing a register")?;
        // SAFETY: the caller's promise; within the region, as just checked.
        charged(|| unsafe { self.io.write(offset, &value.to_le_bytes()) })
    }

    /// Reads a 64-bit register: the low half first, then the high one, where it is mapped (not every device takes
    /// 8-byte accesses); one message elsewhere.
    ///
    /// # Errors
    /// Out of bounds, or the way in's errors.
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

    /// Writes a 64-bit register, as [`read_u64`](Self::read_u64) reads one.
    ///
    /// # Safety
    /// As [`write_u32`](Self::write_u32).
    ///
    /// # Errors
    /// Out of bounds, or the way in's errors.
    pub unsafe fn write_u64(&self, offset: u64, value: u64) -> Result<()> {
        if let (Some(low), Some(high)) = self.halves(offset) {
            // SAFETY: the caller's promise.
            unsafe { low.write(value as u32) };
            // SAFETY: the caller's promise.
            unsafe { high.write((value >> 32) as u32) };
            return self.check_mapped(offset, "writing a register");
        }
        self.check(offset, 8, "writing a register")?;
        // SAFETY: the caller's promise; within the region, as just checked.
        charged(|| unsafe { self.io.write(offset, &value.to_le_bytes()) })
    }

    fn halves(&self, offset: u64) -> (Option<Register<u32>>, Option<Register<u32>>) {
        (self.register(offset), offset.checked_add(4).and_then(|high| self.register(high)))
    }

    fn check(&self, offset: u64, len: u64, operation: &str) -> Result<()> {
        match offset.checked_add(len) {
            // A device whose doorbells reach nobody is gone, though it may answer messages.
            Some(end) if end <= self.size && offset % 4 == 0 => self.check_mapped(offset, operation),
            _ => Err(Error::OutOfRange {
                device: self.name.to_string(),
                operation: operation.into(),
                offset,
                len,
                size: self.size,
            }),
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
