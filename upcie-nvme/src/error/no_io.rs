//! The reasons why a controller takes no I/O.

use crate::spec::Status;
use std::fmt;

/// The reason why a controller takes no I/O, though it is up and admin commands work. Queue pairs and the
/// blocking calls are refused with it, and [`Controller::check_io`](crate::Controller::check_io) returns it.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoIo {
    /// CAP.CSS has bit 7 and neither bit 0 nor bit 6.
    #[error("it has no I/O command set: CAP.CSS is {css:#04x}, so it takes admin commands only")]
    #[non_exhaustive]
    AdminOnly {
        /// CAP.CSS.
        css: u8,
    },
    /// CAP.MQES is 0, which the specification does not allow.
    #[error("its I/O queues have one entry (CAP.MQES is 0), and one that can hold a command needs two")]
    QueueEntries,
    /// Identify: the least of SQES or CQES is above this driver's.
    #[error(
        "it requires queue entries of 2^{sqes} and 2^{cqes} bytes (SQES, CQES), and this driver's have 2^6 and 2^4"
    )]
    #[non_exhaustive]
    EntrySizes {
        /// Log2 of the least bytes of a submission queue entry.
        sqes: u8,
        /// Log2 of the least bytes of a completion queue entry.
        cqes: u8,
    },
    /// The controller refused Set Features (Number of Queues), as degraded controllers do. The SMART log and
    /// the error log may tell more.
    #[error("it grants no I/O queues: Set Features (Number of Queues) failed: {status}")]
    #[non_exhaustive]
    NoQueues {
        /// The status of the command.
        status: Status,
    },
}

impl fmt::Debug for NoIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
