//! Memory shared with a device.
//!
//! A [`DmaSpace`] is where a device's addresses live. A [`Region`] is memory mapped into it. A [`Heap`] cuts regions
//! into [`DmaBuf`]s. Each keeps the next alive: buffer → heap → region → space → the way in.
//!
//! # Trust
//! The device writes only to the buffers of commands that it has not completed. One that breaks this can corrupt data,
//! IOMMU or not, since the heap stays mapped; it can't corrupt the program: DMA memory holds rings, lists and data
//! only, never Rust state.

mod addresses;
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
pub use buf::DmaBuf;
pub use descriptor::Transfer;
pub use heap::Heap;
pub use mapper::Mapper;
pub use physical::Untranslated;
pub use prepare::{List, Prepare};
pub use region::Region;
pub use space::DmaSpace;
