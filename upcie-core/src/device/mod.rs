//! A PCI function that this process drives, as one cold trait, and the address that names it.

mod address;
mod claim;
mod config;
mod hint;

pub use address::{Address, FORMS};
pub use claim::Claim;

use crate::{
    Error, Result,
    dma::DmaSpace,
    irq::IrqKind,
    mmio::{Bar, Caching},
};
use std::{fmt, os::fd::BorrowedFd, sync::Arc};

/// A PCI function that this process drives. Everything here is for set-up and tear-down; the I/O path uses pointers
/// that it was given once ([`Bar::register`], [`crate::dma::DmaBuf`]).
///
/// Dropping the last handle closes the device: interrupts off, bus master as it was before.
///
/// A driver takes it for itself by a [`Claim`]. Reading is safe; whatever could send the device to memory is `unsafe`: who
/// writes its registers or its configuration space is its driver, and must be the only one.
///
/// # Safety
/// Drivers send the device to memory on an implementation's word, as they do on a [`Mapper`](crate::dma::Mapper)'s. It owes:
/// - [`dma`](Self::dma) is always the same space, and the one that all requests of the device go through;
/// - the areas of a [`bar`](Self::bar) are that register of this device and no other memory, for as long as they are mapped;
/// - the device that [`open_beside`](Self::open_beside) gives is in the same space;
/// - after [`reset`](Self::reset) was `Ok`, and after the last handle was dropped, the device issues no requests of before;
/// - once [`has_ended`](Self::has_ended), it issues no requests any more;
/// - there is one implementor at a time in this process for a device: a second opening is refused, or is one of another
///   device (each connection to a server that emulates one for each is).
pub unsafe trait Device: Send + Sync + fmt::Debug {
    /// The name of the device in messages: its address.
    fn name(&self) -> &str;

    /// Where its addresses live.
    fn dma(&self) -> &Arc<DmaSpace>;

    /// Reads configuration space.
    ///
    /// # Errors
    /// The range is not in it, or the way in's errors.
    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<()>;

    /// Writes configuration space.
    ///
    /// # Safety
    /// The caller drives the device, and what the device does then is right: its base addresses, its bus master bit and its
    /// interrupt messages decide what it reads, writes and answers to.
    ///
    /// # Errors
    /// The range is not in it, or the way in's errors.
    unsafe fn config_write(&self, offset: u16, data: &[u8]) -> Result<()>;

    /// Base address register `index` (0–5), mapped as far as the way in allows.
    ///
    /// # Errors
    /// There is no such BAR, or it can't be mapped.
    fn bar(&self, index: u8) -> Result<Bar>;

    /// How base address register `index` can be mapped here, [`bar`](Self::bar)'s way first.
    ///
    /// # Errors
    /// There is no such BAR.
    fn cachings(&self, index: u8) -> Result<Vec<Caching>> {
        Ok(vec![self.bar(index)?.caching()])
    }

    /// Base address register `index`, mapped with `caching`: never with another one instead.
    ///
    /// # Errors
    /// As [`bar`](Self::bar), and [`Error::Unsupported`] when the way in can't map this one so: the error says what can.
    fn bar_as(&self, index: u8, caching: Caching) -> Result<Bar> {
        let bar = self.bar(index)?;
        if bar.caching() == caching {
            return Ok(bar);
        }
        Err(Error::Unsupported {
            device: self.name().into(),
            what: format!("mapping BAR {index} {caching}"),
            reason: format!(
                "this way in maps it {} alone; a prefetchable one can be write-combining through `uio:` and `sysfs:`",
                bar.caching()
            ),
        })
    }

    /// Opens the device at `address` into the address space of this one, so that both reach the same memory at the same
    /// device addresses: regions, heaps and buffers of the one are good for the other. Peer-to-peer starts here.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the two ways in can't share one, and those of [`open`](crate::open()).
    fn open_beside(&self, address: &Address) -> Result<Arc<dyn Device>> {
        Err(Error::Unsupported {
            device: self.name().into(),
            what: format!("sharing its address space with {address}"),
            reason: "open both through the same VFIO container (`vfio:`), I/O address space (`iommufd:`), or without an \
                     IOMMU (`uio:`, `sysfs:`, `noiommu:`)"
                .into(),
        })
    }

    /// How many interrupts of a kind there are; 0 where there are none.
    ///
    /// # Errors
    /// The way in's.
    fn irq_count(&self, kind: IrqKind) -> Result<u32>;

    /// Wires interrupts `0..fds.len()` of a kind to eventfds, all in one step (old kernels can't add any later), in
    /// place of whatever was set; none turns the kind off.
    ///
    /// # Errors
    /// More than there are, or the way in's errors.
    fn set_irqs(&self, kind: IrqKind, fds: &[BorrowedFd<'_>]) -> Result<()>;

    /// Masks or unmasks an interrupt. INTx is masked by the kernel each time it fires, and waits to be unmasked.
    ///
    /// # Errors
    /// The kind can't be masked, or the way in's errors.
    fn mask_irq(&self, kind: IrqKind, index: u32, masked: bool) -> Result<()>;

    /// Whether the device has ended for good and has let go of all memory: who emulates it has closed the connection. `false`
    /// where nobody can know, and until an access has found out.
    fn has_ended(&self) -> bool {
        false
    }

    /// Resets the function: it forgets everything, and does no DMA afterwards until it is set up again.
    ///
    /// # Safety
    /// The caller drives the device, or nobody does: a driver that does not know of it takes what comes after for answers of
    /// before.
    ///
    /// # Errors
    /// The function can't be reset, or the way in's errors.
    unsafe fn reset(&self) -> Result<()>;
}
