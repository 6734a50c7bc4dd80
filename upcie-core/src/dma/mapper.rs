//! How memory becomes visible to a device.

use crate::{Error, Result, memory::Memory, mmio::Mapping};
use std::fmt;

/// How a way in makes memory visible to its device: an IOMMU's container, a vfio-user connection.
///
/// It holds whatever must stay open for a mapping to last.
///
/// # Safety
/// An implementation owes that the device reaches at `iova` the memory that it was given and no other, and that it reaches
/// none of it any more once `unmap` has returned `Ok`: the memory is freed then.
pub unsafe trait Mapper: Send + Sync + fmt::Debug {
    /// Lets the device read and write all of `memory` at `iova`.
    ///
    /// # Errors
    /// The way in's. Nothing is mapped then.
    fn map(&self, iova: u64, memory: &Memory) -> Result<()>;

    /// Lets the devices of this space read and write memory of a device: a mapped base address register, all of it.
    ///
    /// # Errors
    /// The way in can't ([`Error::Unsupported`]), or does not for this register. Nothing is mapped then.
    fn map_device(&self, iova: u64, bar: &Mapping) -> Result<()> {
        let _ = bar;
        Err(Error::Unsupported {
            device: format!("device address {iova:#x}"),
            what: "mapping memory of a device for other devices".into(),
            reason: "the way in has no IOMMU that could: use `vfio:`".into(),
        })
    }

    /// Takes `len` bytes at `iova` away from the device: exactly what one `map` made visible. When this returns `Ok`,
    /// the device no longer reaches the memory.
    ///
    /// # Errors
    /// The way in's. The memory must then be taken as still visible, and goes to [`keep`](Self::keep).
    fn unmap(&self, iova: u64, len: u64) -> Result<()>;

    /// Takes memory that `unmap` could not take away, and keeps it for as long as the device may reach it: for ever, where
    /// the way in does not know better.
    fn keep(&self, memory: Memory) {
        std::mem::forget(memory);
    }
}
