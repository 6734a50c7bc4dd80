#![doc = include_str!("../README.md")]

pub mod controller;
pub mod emu;
mod engine;
mod error;
mod namespace;
mod queue_pair;
pub mod spec;
mod wait;

pub use controller::{Controller, ControllerOptions};
pub use engine::{Completion, Direction, Refusal, Refused, Turn};
pub use error::{Error, NoIo, Result};
pub use namespace::{Namespace, Stream};
pub use queue_pair::QueuePair;
pub use spec::IoFlags;
pub use upcie_core::{self, device::Address, dma::DmaBuf, irq::IrqKind};
pub use wait::{Patience, SpinPolicy, Wait};

/// Submission and completion queues: how to make a pair, and what goes through it.
pub mod queue {
    pub use crate::{
        engine::{Completion, Direction, Refusal, Refused, Turn},
        queue_pair::{QueuePair, QueuePairBuilder},
    };
}

/// How to wait for completions.
pub mod interrupt {
    pub use crate::wait::Wait;
}
