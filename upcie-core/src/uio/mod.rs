//! Devices without an IOMMU: base address registers through sysfs, with the kernel's uio_pci_generic for an interrupt, or
//! without any driver.
//!
//! The device accesses any physical address that it is given, so a wrong one (a bug in the driver, or in the device)
//! overwrites memory of the kernel or of any other process. It needs root. Use VFIO if there is an IOMMU.
//!
//! The kernel does not keep a second user out: [`FunctionLock`](crate::pci::FunctionLock) does, among programs that use
//! it. A device does not stop when its process is killed, so its memory outlives the process ([`crate::hugetlb`]).
//!
//! The kernel does not ask before it removes the function or gives it to another driver. A thread notices that within some
//! 100 ms and raises [`IrqKind::Request`](crate::irq::IrqKind::Request); from then on [`check_held`] returns an error. If
//! the kernel guards device memory (CONFIG_IO_STRICT_DEVMEM), an access to a register after another driver was bound ends
//! the process (SIGBUS). With uio_pci_generic no driver binds by itself.
//!
//! [`check_held`]: crate::device::Device::check_held

mod check;
mod device;
mod replaced;
mod resource;
mod sysfs;
mod thread;

pub use device::UioDevice;

use crate::{Result, pci::Function};

/// Checks whether a user with the necessary rights could open `function`, with uio_pci_generic or without a driver.
pub(crate) fn possible(function: &Function, with_uio: bool) -> Result<()> {
    check::untranslated(function)?;
    check::bound(function, with_uio.then_some(check::DRIVER))
}
