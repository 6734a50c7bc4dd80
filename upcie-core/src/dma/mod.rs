//! Memory that a device accesses.
//!
//! A [`DmaSpace`] is a device's address space. A [`Region`] is memory mapped into it. A [`Heap`] divides regions into
//! [`DmaBuf`]s. Each keeps the next alive: buffer → heap → region → space → transport.
//!
//! # Trust
//! The device is trusted to write only to buffers of commands in flight. DMA memory holds rings, lists and data only,
//! never Rust state, and the driver checks the entries that a device writes to rings. But the heap stays mapped, with or
//! without an IOMMU. If a device writes to a buffer whose command it has completed, or that no command named, it changes
//! bytes to which the program may hold a reference. That is undefined behaviour: a `str` that was checked is no longer
//! UTF-8. Neither this library nor an IOMMU can prevent it. A vfio-user server has the descriptors of all DMA memory
//! while the connection lasts, so it can always do it.
//!
//! If you do not trust the device so far, use a heap made by [`Heap::by_copy`]: no references are formed, and its buffers
//! are copied from and to, as shared memory is. A late write is then wrong data and nothing worse. A device that has the files
//! of the memory could also take huge pages of it back, so that an access ends the process: [`DmaSpace::distrust`].

mod addresses;
mod allocate;
mod backing;
mod buddy;
mod buf;
mod descriptor;
mod heap;
mod heap_kinds;
mod mapper;
mod physical;
mod region;
mod space;
mod spans;
#[cfg(test)]
mod tests;

pub use addresses::Addresses;
pub use descriptor::{DmaBuf, List, Prepare, Prepared};
pub use heap::Heap;
pub use mapper::Mapper;
pub use physical::Untranslated;
pub use region::Region;
pub use space::DmaSpace;
pub use spans::Spans;
