//! The vfio-user protocol over a Unix socket: the client, which is a [`Device`](crate::transport::Device), and the
//! server, behind which any device can be written in software.

mod capabilities;
mod client;
mod connection;
mod copy;
mod dma;
mod guest;
mod irqs;
mod listener;
mod mapper;
mod regions;
mod requests;
pub mod server;
mod session;
mod socket;
mod wire;

#[cfg(test)]
mod tests;

pub use client::Client;
