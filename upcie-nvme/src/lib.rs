#![doc = include_str!("../README.md")]

mod address;
#[cfg(feature = "async")]
pub mod async_queue;
pub mod controller;
#[cfg(feature = "emu")]
pub mod emu;
mod engine;
mod error;
mod namespace;
mod open;
pub mod protection;
mod queue_pair;
pub mod spec;
mod wait;

pub use address::{Address, forms};
#[cfg(feature = "async")]
pub use async_queue::AsyncQueue;
pub use controller::{
    BootPartitions, Controller, ControllerBuilder, Event, Events, FeatureQuery, FeatureUpdate, IdentifyQuery,
    LogQuery, ResetKind,
};
pub use engine::{
    Cancel, Completion, Direction, Extent, Io, KeyCommand, Refused, RefusedPair, ReservationCommand,
    Returned, Turn, WithMetadata, Zeroes, ZoneSelect,
};
pub use error::{Error, Failure, NoIo, Refusal, Result};
pub use namespace::{AtomicUnit, AtomicUnits, KeyValue, Namespace, Placement, Reservations, Stream, Zones};
pub use open::open_device;
pub use queue_pair::{QueueGroup, QueuePair};
pub use spec::{HostId, IoFlags, Registrant, ReservationReport};
pub use upcie_core::{self, ErrorKind, dma::DmaBuf, irq::IrqKind};
pub use wait::Wait;

/// Submission and completion queues: the queue pair, its turns and its commands.
pub mod queue {
    pub use crate::{
        engine::{
            Completion, Completions, Direction, HeldSegment, Lane, Refused, RefusedPair, Returned, SglUse,
            Slots, Submissions, Turn, Vacant,
        },
        error::{Refusal, SegmentFault},
        queue_pair::{GroupError, GroupMember, OnTimeout, QueueGroup, QueuePair, QueuePairBuilder},
    };
}

#[doc = include_str!("../COOKBOOK.md")]
pub mod cookbook {}
