//! Devices through the kernel's VFIO: an IOMMU group in a type1 container.
//!
//! [`VfioDevice::open`] takes a function that is bound to vfio-pci. It needs no root: whoever may open
//! `/dev/vfio/<group>` may use the device, within the limit on locked memory.
//!
//! What keeps what open: regions of DMA memory hold the [`DmaSpace`](crate::dma::DmaSpace), which holds the container
//! and the group; the [`VfioDevice`] holds the space and the device; a mapped BAR holds the device's file. So memory
//! stays mapped for as long as it exists, even after the device has been closed, and the group can't be opened again
//! before all of them are gone.

mod abi;
mod container;
mod device;
mod group;
mod info;
mod region;

pub use device::VfioDevice;
pub use info::IommuInfo;

use std::path::Path;

/// Where VFIO's device nodes are.
const DEV: &str = "/dev/vfio";

fn dev() -> &'static Path {
    Path::new(DEV)
}
