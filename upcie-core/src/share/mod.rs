//! DMA memory shared by several processes: one owns the device, others read and write its data without a copy.
//!
//! The owner makes a region with [`DmaSpace::allocate_shared`](crate::dma::DmaSpace::allocate_shared), or from imported
//! memory ([`Memory::import`](crate::memory::Memory::import)), and sends it over a Unix stream socket with
//! [`Region::export`](crate::dma::Region::export). The other process receives it with [`SharedRegion::import`]: it maps
//! the region's file, and gets the table of the region's device addresses. The two processes agree on everything else
//! (which bytes to write where) by a protocol of their own, over the same socket or another.
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
//! # Trust
//! - The owner's message is not trusted: it is checked as a whole, and the kernel vouches for the file. Whether the
//!   addresses are those of the memory can't be checked; they serve to name bytes to others, above all to the owner.
//! - Both processes can change all bytes at any time. So no reference to them is ever formed, neither here nor by buffers
//!   in a shared region; keep only data in it. Lists and rings tell the device which memory to access, and stay the
//!   owner's.
//! - A process that has the region has its file ([`Memory::shared_file`](crate::memory::Memory::shared_file)). It can't
//!   shrink the file, except for named hugetlbfs files, which can't be sealed and are used without an IOMMU. But it can
//!   punch holes into it: small pages then read as zeros, and for a huge page the next access ends with SIGBUS if the
//!   pool is empty. With physical addresses ([`SharedRegion::is_physical`]) the pages of a hole are free at once, while
//!   the device still accesses them: then they may belong to another program, or to the kernel. Share such regions only
//!   with processes that you trust not to do that.
//!
//! # End of sharing
//! - The owner's end of the connection is closed, by the owner (which thereby asks for the region back) or because it
//!   died: [`SharedRegion::check`] returns [`Failure::Gone`](crate::Failure::Gone). The memory stays until it is unmapped
//!   here, so accesses do not fault; they only reach no device any more.
//! - The other process ends or misbehaves: nothing changes for the owner or the device.
//! - The owner drops the region: the device does not reach it any more, whatever others still write to it. The protocol
//!   of the two processes has to ensure that nobody needs it then.

mod export;
mod import;
mod message;
#[cfg(test)]
mod tests;

pub use import::SharedRegion;
