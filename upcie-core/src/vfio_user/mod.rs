//! The vfio-user protocol over a Unix socket: the client, which is a [`Device`](crate::device::Device), and the server,
//! which serves any device written in software.
//!
//! # Trust
//! Neither side trusts what the other sends. Both map files of the other side, under these rules:
//! - Only files on tmpfs and hugetlbfs are mapped, which includes memfds: other file systems may depend on a program that
//!   does not answer. Descriptors of a peer process for other files are not even received, because closing them could
//!   block.
//! - If the owner shrinks a file while it is mapped, the other side's next access ends its process with SIGBUS. This
//!   crate seals its own files against that, and the peer's if they can be sealed. No seal keeps a holder of a file of huge
//!   pages from taking pages back (fallocate(2), FALLOC_FL_PUNCH_HOLE), which has the same effect while no huge page is free.
//!   A peer's file that can't be sealed (a named file, as for SPDK's BARs) or has huge pages is mapped only if the program
//!   has called [`survive_shrinking`](crate::memory::survive_shrinking), so that only the session ends, or trusts its clients
//!   ([`server::Server::trust_memory`]).
//! - A server has the files of its client's DMA memory. A client that does not trust its server must have that memory in
//!   small pages: [`DmaSpace::distrust`](crate::dma::DmaSpace::distrust).

mod capabilities;
#[cfg(feature = "vfio-user-client")]
mod client;
mod copy;
#[cfg(feature = "vfio-user-server")]
pub mod server;
mod socket;
mod wire;

#[cfg(test)]
#[cfg(all(feature = "vfio-user-client", feature = "vfio-user-server"))]
mod tests;

#[cfg(feature = "vfio-user-client")]
pub use client::VfioUserDevice;
