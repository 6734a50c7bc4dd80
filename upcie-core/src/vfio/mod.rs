//! Devices through the kernel's VFIO: a character device in an I/O address space of iommufd, or an IOMMU group in a
//! type1 container; and, where no IOMMU translates, a group in the unsafe no-IOMMU mode.
//!
//! [`VfioDevice::open`] takes a function that is bound to vfio-pci. It needs no root: whoever may open
//! `/dev/vfio/devices/vfio<N>` and `/dev/iommu`, or `/dev/vfio/<group>`, may use the device, within the limit on locked memory.
//!
//! What keeps what open: regions of DMA memory hold the [`DmaSpace`](crate::dma::DmaSpace), which holds the container
//! and a group, or the iommufd; the [`VfioDevice`] holds the space and the device; a mapped BAR holds the device's file. So memory
//! stays mapped for as long as it exists, even after the device has been closed, and the group can't be opened again
//! before all of them are gone.
//!
//! # Calls that can block
//! No deadline is given to calls into the kernel here. They take microseconds, but for these: getting a device's file powers
//! the function up, and may reset it; so do a reset (a function level reset takes 100 ms, and one that stays unready is waited for
//! up to 60 s) and the closing of the file; mapping memory pins its pages, for a time that grows with its length, and waits
//! while another thread maps; unmapping waits for the IOMMU to forget, and turning interrupts off for handlers that run. A
//! thread in one of them sleeps where no signal ends it, until the kernel's own limit does. Another thread could be made to wait
//! in its place, and be left behind, but the call would go on: its memory could not be freed, nor the device be given to
//! anybody, so nothing would be won but an error.

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

pub(crate) use attachment::AttachmentKind;
pub use device::VfioDevice;
pub use info::IommuInfo;
pub use ioas::Ioas;
pub(crate) use open::possible;
