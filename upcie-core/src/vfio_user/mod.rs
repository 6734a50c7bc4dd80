//! The vfio-user protocol over a Unix socket: the client, which is a [`Device`](crate::transport::Device), and the
//! server, behind which any device can be written in software.
//!
//! # What is trusted
//! Nothing of what the other side says. But both sides map files of each other's, and whoever makes such a file shorter
//! while it is mapped lets the other end with SIGBUS at its next access. This crate seals its own against that.

mod capabilities;
mod client;
mod connection;
mod copy;
mod dma;
mod guest;
mod irqs;
mod listener;
mod mapper;
mod raise;
mod regions;
mod requests;
pub mod server;
mod session;
mod socket;
mod wire;

#[cfg(test)]
mod tests;

pub use client::Client;
