//! The vfio-user protocol over a Unix socket: the client, which is a [`Device`](crate::device::Device), and the server,
//! which serves any device written in software.
//!
//! # Trust
//! Neither side trusts what the other sends. Both map files of the other side, under these rules:
//! - Only files on tmpfs and hugetlbfs are mapped, which includes memfds: other file systems may depend on a program that
//!   does not answer. Descriptors of a peer process for other files are not even received, because closing them could
//!   block.
//! - If the owner shrinks a file while it is mapped, the other side's next access ends its process with SIGBUS. This
//!   crate seals its own files against that, and the peer's if they can be sealed. A file that can't be sealed (a named
//!   file, as for SPDK's BARs) is mapped only if the program has called
//!   [`survive_shrinking`](crate::memory::survive_shrinking), so that only the session ends, or trusts its clients
//!   ([`server::Server::trust_memory`]).

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
