//! The trait of a PCI function that this process drives, and the address that names it.

mod address;
mod claim;
mod config;
mod token;

pub use address::{Address, FORMS};
pub use claim::Claim;
pub use token::VfToken;

use crate::{
    Error, Result,
    dma::DmaSpace,
    irq::IrqKind,
    mmio::{Bar, Caching},
};
use std::{fmt, os::fd::BorrowedFd, sync::Arc};

/// A PCI function that this process drives. The trait is for set-up and tear-down; the I/O path uses pointers obtained
/// once ([`Bar::register`], [`crate::dma::DmaBuf`]).
///
/// Dropping the last handle closes the device: interrupts are turned off, and bus mastering is restored.
///
/// # Examples
/// ```no_run
/// use upcie_core::{irq::IrqKind, pci::ConfigSpace};
///
/// let device = upcie_core::open(&"0000:01:00.0".parse()?)?;
/// println!("{}: {} MSI-X vectors", device.name(), device.irq_count(IrqKind::Msix)?);
/// println!("vendor and device id: {:#x}", device.config_u32(0)?);
/// # Ok::<(), upcie_core::Error>(())
/// ```
///
/// A driver takes the device for itself by a [`Claim`]. Reads are safe. Every operation that could make the device access
/// memory is `unsafe`: only the device's one driver may write its registers or configuration space.
///
/// # Safety
/// Drivers rely on an implementation when they give the device addresses, as they rely on a
/// [`Mapper`](crate::dma::Mapper). An implementation guarantees:
/// - [`dma`](Self::dma) always returns the same space, and all requests of the device go through it;
/// - the areas of a [`bar`](Self::bar) are that register of this device and no other memory, while they are mapped;
/// - the device returned by [`open_beside`](Self::open_beside) is in the same space;
/// - after [`reset`](Self::reset) has returned `Ok`, and after the last handle was dropped, the device issues no requests
///   for earlier commands;
/// - once [`has_ended`](Self::has_ended) returns `true`, the device issues no requests any more;
/// - this process has one implementor at a time for a device: a second opening is refused, or yields another device (as
///   each connection to a server that emulates one device per connection does).
pub unsafe trait Device: Send + Sync + fmt::Debug {
    /// Returns the name of the device in messages: its address.
    fn name(&self) -> &str;

    /// Returns the address space of the device.
    fn dma(&self) -> &Arc<DmaSpace>;

    /// Reads configuration space.
    ///
    /// # Errors
    /// The range is outside of it, or the transport's errors.
    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<()>;

    /// Writes configuration space.
    ///
    /// # Safety
    /// The caller drives the device, and the device's reaction is sound: its base addresses, its bus master bit and its
    /// interrupt messages decide which memory it accesses and which addresses it answers to.
    ///
    /// # Errors
    /// The range is outside of it, or the transport's errors.
    unsafe fn config_write(&self, offset: u16, data: &[u8]) -> Result<()>;

    /// Returns base address register (BAR) `index` (0–5), mapped as far as the transport allows.
    ///
    /// # Errors
    /// The function has no such BAR, or it can't be mapped.
    fn bar(&self, index: u8) -> Result<Bar>;

    /// Lists the cachings with which BAR `index` can be mapped here, first the one of [`bar`](Self::bar).
    ///
    /// # Errors
    /// The function has no such BAR.
    fn cachings(&self, index: u8) -> Result<Vec<Caching>> {
        Ok(vec![self.bar(index)?.caching()])
    }

    /// Returns BAR `index`, mapped with `caching` and no other.
    ///
    /// # Errors
    /// Those of [`bar`](Self::bar), and [`Failure::Unsupported`](crate::Failure::Unsupported) when the transport can't map this BAR so: the error names
    /// a transport that can.
    fn bar_as(&self, index: u8, caching: Caching) -> Result<Bar> {
        let bar = self.bar(index)?;
        if bar.caching() == caching {
            return Ok(bar);
        }
        Err(Error::unsupported(
            self.name(),
            format!("mapping BAR {index} {caching}"),
            format!(
                "this transport maps it {} only; a prefetchable one can be write-combining through `uio:` and `sysfs:`",
                bar.caching()
            ),
        ))
    }

    /// Opens the device at `address` into the address space of this one, so that both reach the same memory at the same
    /// device addresses: each can use the other's regions, heaps and buffers. Peer-to-peer starts here.
    ///
    /// # Errors
    /// [`Failure::Unsupported`](crate::Failure::Unsupported) when the two transports can't share one, and those of [`open`](crate::open()).
    fn open_beside(&self, address: &Address) -> Result<Arc<dyn Device>> {
        Err(Error::unsupported(
            self.name(),
            format!("sharing its address space with {address}"),
            "open both through the same VFIO container (`vfio:`), I/O address space (`iommufd:`), or without an \
                     IOMMU (`uio:`, `sysfs:`, `noiommu:`)",
        ))
    }

    /// Returns the number of interrupts of a kind; 0 if the function has none.
    ///
    /// # Errors
    /// The transport's errors.
    fn irq_count(&self, kind: IrqKind) -> Result<u32>;

    /// Connects interrupts `0..fds.len()` of a kind to eventfds, in place of all former ones; an empty slice turns the
    /// kind off. They are set in one step, because old kernels can't add any later.
    ///
    /// # Errors
    /// `fds` is longer than [`irq_count`](Self::irq_count), or the transport's errors.
    fn set_irqs(&self, kind: IrqKind, fds: &[BorrowedFd<'_>]) -> Result<()>;

    /// Masks or unmasks an interrupt. The kernel masks INTx each time it fires, until it is unmasked.
    ///
    /// # Errors
    /// The kind can't be masked, or the transport's errors.
    fn mask_irq(&self, kind: IrqKind, index: u32, masked: bool) -> Result<()>;

    /// Returns whether the device has ended for good and released all memory, because its emulating server has closed the
    /// connection. Returns `false` if that can't be known, and until an access has noticed it.
    fn has_ended(&self) -> bool {
        false
    }

    /// Checks that the function is still this process's to drive. A transport from which the kernel can take it away
    /// without asking (`uio:`, `sysfs:`) returns an error after a removal, or after another driver was bound; a driver must
    /// not touch the device's registers then. The check costs some system calls.
    ///
    /// # Errors
    /// It was taken away.
    fn check_held(&self) -> Result<()> {
        Ok(())
    }

    /// Resets the function: it loses all state, and issues no DMA until it is set up again.
    ///
    /// # Safety
    /// The caller drives the device, or nobody does: a driver that does not know of the reset would mistake later
    /// responses for answers to earlier commands.
    ///
    /// # Errors
    /// The function can't be reset, or the transport's errors.
    unsafe fn reset(&self) -> Result<()>;
}
