//! Memory shared with a device.
//!
//! A [`DmaSpace`] is where a device's addresses live. A [`Region`] is memory mapped into it. A [`Heap`] cuts regions
//! into [`DmaBuf`]s. Each keeps the next alive: buffer → heap → region → space → the way in.
//!
//! # Trust
//! The device writes only to the buffers of commands that it has not completed. DMA memory holds rings, lists and data
//! only, never Rust state, and what a device puts into rings is checked. But the heap stays mapped, IOMMU or not: a device
//! that writes to a buffer whose command it has completed, or that no command named, changes bytes to which the program may
//! have a reference by then. That is undefined behaviour: a `str` that was checked is no longer UTF-8. Neither this library
//! nor an IOMMU can prevent it. A vfio-user server has the descriptors of all DMA memory for as long as the connection
//! lasts, so it always can.
//!
//! Where the device is not trusted so far, no references are formed: the buffers of a heap made by [`Heap::by_copy`] deref to
//! nothing and are copied from and to, as memory that other processes have is. What comes late is then wrong data.

mod addresses;
mod allocate;
mod backing;
mod buddy;
mod buf;
mod descriptor;
mod heap;
mod mapper;
mod physical;
mod prepare;
mod region;
mod space;
#[cfg(test)]
mod tests;

pub use addresses::Addresses;
pub use descriptor::{DmaBuf, Transfer};
pub use heap::Heap;
pub use mapper::Mapper;
pub use physical::Untranslated;
pub use prepare::{List, Prepare};
pub use region::Region;
pub use space::DmaSpace;
