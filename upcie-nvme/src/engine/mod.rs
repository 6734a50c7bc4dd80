//! Submission and completion queues, their commands and their lists: the hot path.
//!
//! # Shape
//! [`QueuePair::turn`](crate::QueuePair::turn) opens a [`Turn`], the one guard for reaping and submitting. It
//! copies the cursors into itself and works on them in registers; when dropped it writes them back, and each
//! doorbell once. Payloads are owned: a buffer moves into its command's slot and comes back with the
//! completion, so nobody can read or free bytes that the device uses. A leaked turn leaves its queue closed,
//! never inconsistent.
//!
//! # Checks on the device
//! A completion entry is copied out once and checked by one compare: the slot that its command id names must
//! be in flight under exactly that id. The id also counts the uses of the slot, in the bits that are left.
//! Any other id closes the queue with a protocol error.
//!
//! # Resets
//! A queue belongs to one [`Epoch`] of its controller, whose stamp it reads when a turn opens and when a turn writes its
//! doorbells. A reset sets the stamp to 0: no turn opens, and one that is open writes no doorbell. A thread that was
//! suspended between that look and the write reaches the doorbell of a queue that does not exist: its id stays taken until
//! the same thread recovers or closes the queue.

mod append;
mod cancel;
mod closing;
mod commands;
mod common;
mod completion;
mod copy;
mod extent;
mod fill;
mod fused;
mod io;
mod key_value;
mod lane;
mod limits;
mod live;
mod metadata;
mod optional;
mod overdue;
mod part;
mod pieces;
mod placement;
mod plan;
mod position;
mod prp;
mod reservations;
mod returned;
mod ring;
mod slot;
mod slow;
mod timer;
mod turn;
mod turn_end;
mod vectored;
mod whole;
mod window;
mod zones;

use crate::error::Refusal;
pub use cancel::Cancel;
pub(crate) use closing::Retired;
pub use completion::{Completion, Refused};
pub(crate) use copy::CopySources;
pub use extent::Extent;
pub(crate) use extent::{KeyLimits, ZoneLimits, parts};
pub use fused::RefusedPair;
#[cfg(any(feature = "async", test))]
pub(crate) use io::Dwords;
pub use io::{Direction, Io, Zeroes};
#[cfg(feature = "async")]
pub(crate) use key_value::KeyAction;
pub use key_value::KeyCommand;
pub use lane::{Completions, Lane, Slots, Submissions, Vacant};
pub(crate) use limits::{CommandLimits, CopyLimits};
pub(crate) use live::{Epoch, Live, unique};
pub use metadata::WithMetadata;
pub(crate) use overdue::Overdue;
pub(crate) use pieces::Pieces;
pub use prp::SglUse;
pub(crate) use prp::{BufferLists, ListPool, MAX_TRANSFER, Shape};
#[cfg(feature = "async")]
pub(crate) use reservations::ReservationAction;
pub use reservations::ReservationCommand;
pub use returned::Returned;
pub(crate) use ring::{Parts, Queue};
pub use turn::Turn;
pub use vectored::HeldSegment;
pub(crate) use window::{Window, Windows};
pub use zones::ZoneSelect;

#[cfg(test)]
mod tests;
