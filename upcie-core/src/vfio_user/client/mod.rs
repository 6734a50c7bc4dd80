//! The client side: a device in another process, or in a thread of this one.

pub(super) mod connection;
mod device;
mod mapper;
mod regions;

pub use device::Client;
