//! Deadlines on a device: how long a thread has waited, and how it waits.
//!
//! A process that was stopped should not miss its deadlines by that: a [`Stopwatch`] counts each interval between two
//! readings as at most 250 ms. The waits of one call are counted in full: each [`Backoff`] tells its thread how long it was.
//!
//! A register access of a vfio-user device may be a message that takes seconds, while that of a physical device takes a
//! microsecond. So a caller with its own deadline (`open`, a blocking call, a drop) gives its thread a [`Budget`], which
//! limits the messages within it, and a [`Stopwatch`] counts the time of such accesses in full. Both cost nothing if
//! registers are mapped.

mod backoff;
mod budget;
mod message;
mod stopwatch;

pub use backoff::{Backoff, nap};
pub use budget::{Budget, hurry, spent};
pub(crate) use budget::{charge, charged};
pub(crate) use message::MessageWatch;
pub use stopwatch::Stopwatch;

#[cfg(test)]
mod tests;
