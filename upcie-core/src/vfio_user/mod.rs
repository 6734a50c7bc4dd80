//! The vfio-user protocol over a Unix socket: the client, which is a [`Device`](crate::device::Device), and the
//! server, behind which any device can be written in software.
//!
//! # What is trusted
//! Nothing of what the other side says. Both sides map files of each other's:
//! - Only files of tmpfs and hugetlbfs are mapped, memfds among them: for other file systems something else than the kernel may
//!   answer, or not. A process that sends others does not even get them into this process, where to close them could wait.
//! - Whoever makes such a file shorter while it is mapped lets the other end with SIGBUS at its next access. This crate seals its
//!   own files against that, and the peer's where they can be sealed. Of those that can't (a file with a name, as SPDK's BARs
//!   are), neither side maps unless the program has called [`survive_shrinking`](crate::memory::survive_shrinking), which ends the
//!   session then and not the process, or trusts its clients so far ([`server::Server::trust_memory`]).

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
pub use client::Client;
