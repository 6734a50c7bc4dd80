//! The server side: serves any device written in software behind a vfio-user socket.

mod backend;
mod busy;
mod client;
mod client_memory;
mod device_memory;
mod irqs;
mod listener;
mod raise;
mod requests;
mod serve;
mod slice;

pub use super::wire::CONFIG_REGION;
pub use backend::{Backend, Layout, Mappable, RegionLayout};
pub use client::Client;
pub use irqs::{Delivery, Irqs};
pub use listener::{Access, Listener};
pub use serve::Server;
