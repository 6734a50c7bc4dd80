//! Devices through the kernel's VFIO: a character device in an I/O address space of iommufd, or an IOMMU group in a type1
//! container. Without an IOMMU: a group in the unsafe no-IOMMU mode.
//!
//! [`VfioDevice::open`] opens a function that is bound to vfio-pci. It does not need root: any user who can open
//! `/dev/vfio/devices/vfio<N>` and `/dev/iommu`, or `/dev/vfio/<group>`, can use the device, within the limit on locked
//! memory.
//!
//! Ownership: regions of DMA memory hold the [`DmaSpace`](crate::dma::DmaSpace), which holds the container and a group,
//! or the iommufd; the [`VfioDevice`] holds the space and the device; a mapped BAR holds the device's file. So memory
//! stays mapped while it exists, even after the device has been closed, and the group can't be opened again before all of
//! them are gone.
//!
//! # Calls that can block
//! Calls into the kernel have no deadline here. They take microseconds, with these exceptions:
//! - Opening a device's file powers the function up, and may reset it.
//! - A reset, and closing the file, which includes one: a function level reset takes 100 ms, and the kernel waits up to
//!   60 s for a function that stays unready.
//! - Mapping memory pins its pages, in time proportional to its length, and waits while another thread maps.
//! - Unmapping waits for the IOMMU's invalidation; turning interrupts off waits for running handlers.
//!
//! A thread in one of these calls sleeps uninterruptibly until the kernel's own limit. Another thread could wait in its
//! place and be abandoned, but the call would continue: its memory could not be freed, nor the device opened by anyone
//! else. The caller would gain only an earlier error.

mod abi;
mod advice;
mod attachment;
mod cdev;
mod container;
mod device;
mod group;
mod info;
mod ioas;
mod iommufd_abi;
mod nodes;
mod noiommu;
mod open;
mod region;

pub use device::VfioDevice;
pub use info::IommuInfo;
pub use ioas::Ioas;
pub(crate) use open::{AttachmentKind, possible};
