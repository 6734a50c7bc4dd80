#![doc = include_str!("../README.md")]

mod adaptive;
pub mod controller;
pub mod emu;
mod error;
pub mod interrupt;
mod namespace;
mod patience;
mod prp;
pub mod queue;
#[cfg(test)]
mod random;
pub mod spec;

pub use adaptive::SpinPolicy;
pub use controller::{Controller, ControllerOptions, NoIo};
pub use error::{Error, Result};
pub use interrupt::Wait;
pub use namespace::Namespace;
pub use patience::Patience;
pub use queue::{Completion, Direction, QueuePair, Refusal, Refused, Turn};
pub use spec::IoFlags;
pub use upcie_core::{self, device::Address, dma::DmaBuf, irq::IrqKind};
