//! DMA memory that several processes have: one owns the device, others fill and look at its data without a copy.
//!
//! The owner makes a region with [`DmaSpace::allocate_shared`](crate::dma::DmaSpace::allocate_shared), or of memory that
//! it was given ([`Memory::import`](crate::memory::Memory::import)), and sends it over a Unix stream socket by
//! [`Region::export`](crate::dma::Region::export). The other process takes it by [`SharedRegion::import`]: it maps the
//! region's file, and gets the table of the region's device addresses. What the two say to each other then, over the same
//! socket or another (which bytes to write where), is theirs.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::{os::unix::net::UnixStream, time::Duration};
//! use upcie_core::share::SharedRegion;
//!
//! // The owner of the device.
//! let device = upcie_core::open(&"0000:01:00.0".parse()?)?;
//! let region = device.dma().allocate_shared(2 << 20, None)?;
//! let (owner, user) = UnixStream::pair()?;
//! region.export(&owner, Duration::from_secs(5))?;
//!
//! // The other process, at the other end.
//! let mut shared = SharedRegion::import(&user, Duration::from_secs(5))?;
//! shared.write_at(4096, b"data")?;
//! println!("the device finds it at {:#x}", shared.iova(4096)?);
//! shared.check()?; // An error once the owner is gone.
//! # Ok(())
//! # }
//! ```
//!
//! # What is trusted
//! - Of what the owner says, nothing is: a message is checked whole, and the file is what the kernel says that it is. That
//!   its addresses are those of the memory can't be checked; they are for telling others, the owner above all.
//! - Both can change all bytes at any time. So no reference to them is ever formed, neither here nor by buffers in a
//!   shared region; keep only data in it. Lists and rings, which send the device somewhere, stay the owner's.
//! - A process that has the region has its file ([`Memory::shared_file`](crate::memory::Memory::shared_file)). It can't shrink it (hugetlbfs files with a name apart, which the
//!   modes without an IOMMU use: those can't be sealed), but it can punch holes into it: those of small pages read as
//!   zeroes, and one of huge pages lets the next access end with SIGBUS if the pool is empty. Where the addresses are
//!   physical ([`SharedRegion::is_physical`]) the pages of a hole are free at once, while the device still reads and writes
//!   them: another program's memory, or the kernel's. Share these with whom you trust not to.
//!
//! # How it ends
//! - The owner's end of the connection is closed, by the owner (that is how it takes a region back politely) or because
//!   it died: [`SharedRegion::check`] says [`Error::Gone`](crate::Error::Gone). The memory stays until it is
//!   unmapped here, so accesses go on without a fault; they just reach no device any more.
//! - The other process goes, or misbehaves: nothing changes for the owner, nor for the device.
//! - The owner drops the region: the device reaches it no more, whatever others still write to it. To do so only when
//!   nobody needs it is a matter of the protocol between the two.

mod export;
mod import;
mod message;
#[cfg(test)]
mod tests;

pub use import::SharedRegion;
