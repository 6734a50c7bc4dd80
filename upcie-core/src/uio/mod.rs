//! Devices that no IOMMU translates for: base address registers through sysfs, with the kernel's uio_pci_generic for an
//! interrupt or with no driver at all.
//!
//! The device reads and writes any physical address that it is told, so a wrong one (a bug in the driver, or in the
//! device) overwrites the memory of the kernel or of any other process. It needs root. Use VFIO where there is an IOMMU.
//!
//! The kernel keeps nobody out here: [`FunctionLock`](crate::pci::FunctionLock) does, for those who ask for it.
//! Nothing stops a device whose process was killed, so its memory outlives the process ([`crate::hugetlb`]). A kernel
//! driver that is bound to the function while it is in use here takes it away, and where the kernel
//! guards device memory (CONFIG_IO_STRICT_DEVMEM) the next access to a register ends the process (SIGBUS): with
//! uio_pci_generic that can't happen by itself.

mod check;
mod device;
mod interrupt;
mod resource;

pub use device::UioDevice;

use crate::{Result, pci::Function};

/// Whether `function` could be opened, with uio_pci_generic or without a driver, by whoever has the right to.
pub(crate) fn possible(function: &Function, with_uio: bool) -> Result<()> {
    check::untranslated(function)?;
    check::bound(function, with_uio.then_some(check::DRIVER))
}
