#![doc = include_str!("../README.md")]
// Each transport has helpers of its own in the modules below it.
#![cfg_attr(
    not(all(feature = "bind", feature = "uio", feature = "vfio-user-client", feature = "vfio-user-server")),
    allow(dead_code, unused_imports)
)]

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("upcie-core needs Linux on x86-64 or aarch64");

pub mod barrier;
pub mod clock;
pub mod deadline;
pub mod device;
pub mod dma;
mod error;
pub mod events;
pub mod gate;
pub mod hugetlb;
mod inspect;
mod iova;
pub mod irq;
pub mod memory;
pub mod mmio;
mod numa;
mod open;
mod page;
pub mod pci;
pub mod process;
pub mod room;
pub mod share;
mod socket;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
#[cfg(feature = "uio")]
pub mod uio;
pub mod vfio;
#[cfg(any(feature = "vfio-user-client", feature = "vfio-user-server"))]
pub mod vfio_user;

pub use error::{Chain, Error, ErrorKind, Failure, Result};
pub use open::{Transport, open, open_within, probe};
