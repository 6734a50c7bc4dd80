//! The interface by which memory is mapped for a device.

use crate::{Error, Result, memory::Memory, mmio::Mapping};
use std::fmt;

/// Maps memory for a transport's device: an IOMMU's container, a vfio-user connection.
///
/// It owns the file descriptors that keep its mappings alive.
///
/// ```
/// use upcie_core::{
///     Result,
///     dma::{DmaSpace, Mapper},
///     memory::{Memory, PageSize},
/// };
///
/// /// No device at all.
/// #[derive(Debug)]
/// struct Nobody;
///
/// // SAFETY: there is no device that could reach memory.
/// unsafe impl Mapper for Nobody {
///     fn map(&self, _iova: u64, _memory: &Memory) -> Result<()> {
///         Ok(())
///     }
///
///     fn unmap(&self, _iova: u64, _len: u64) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// let space = DmaSpace::new("nobody", [0x1000..=0xffff_ffff], 4096, Box::new(Nobody));
/// let region = space.map(Memory::new(64 << 10, PageSize::Small)?)?;
/// assert!(region.iova(0) >= 0x1000);
/// # Ok::<(), upcie_core::Error>(())
/// ```
///
/// # Safety
/// The device reaches at `iova` exactly the memory that was mapped there. Once `unmap` has returned `Ok`, the device
/// reaches none of it: the memory is freed then.
pub unsafe trait Mapper: Send + Sync + fmt::Debug {
    /// Lets the device read and write all of `memory` at `iova`.
    ///
    /// # Errors
    /// The transport's errors. Nothing is mapped then.
    fn map(&self, iova: u64, memory: &Memory) -> Result<()>;

    /// Returns whether the device gets the files behind the memory, as a vfio-user server does: it can then take huge pages of
    /// them back (fallocate(2)). `false` by default.
    fn hands_out_files(&self) -> bool {
        false
    }

    /// Lets the devices of this space read and write memory of a device: all of a mapped base address register.
    ///
    /// # Errors
    /// [`Failure::Unsupported`](crate::Failure::Unsupported) if the transport can't do that, or refuses this register. Nothing is mapped then.
    fn map_device(&self, iova: u64, bar: &Mapping) -> Result<()> {
        let _ = bar;
        Err(Error::unsupported(
            format!("device address {iova:#x}"),
            "mapping memory of a device for other devices",
            "the transport has no IOMMU that could: use `vfio:`",
        ))
    }

    /// Takes `len` bytes at `iova` away from the device: exactly the range of one `map`. When this returns `Ok`, the
    /// device no longer reaches the memory.
    ///
    /// # Errors
    /// The transport's errors. The memory must then be treated as still reachable, and goes to [`keep`](Self::keep).
    fn unmap(&self, iova: u64, len: u64) -> Result<()>;

    /// Keeps memory that `unmap` could not take away while the device may reach it: for ever, if the transport can't
    /// tell.
    fn keep(&self, memory: Memory) {
        std::mem::forget(memory);
    }
}
