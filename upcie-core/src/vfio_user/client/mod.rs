//! The client side: a device in another process, or in another thread of this process.

mod connect;
pub(super) mod connection;
mod device;
mod exchange;
mod mapper;
mod regions;

pub use device::VfioUserDevice;
