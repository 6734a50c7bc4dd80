//! The client side: a device in another process, or in a thread of this one.

mod connection;
mod device;
mod mapper;
mod regions;

pub use device::Client;
