//! The crate's error type, and the reasons why a controller takes no I/O.

mod kind;
mod refusal;

use crate::spec::Status;
pub use refusal::Refusal;
use std::{fmt, time::Duration};
use upcie_core::Chain;

/// An error of a controller or a namespace.
///
/// `{:?}` prints the message and its causes, so that a `main` that returns the error shows both.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error below the driver: of the transport, or of its memory.
    #[error(transparent)]
    Core(#[from] upcie_core::Error),
    /// The controller completed a command with an error.
    #[error("{device}: {operation} failed")]
    Status {
        /// The controller.
        device: String,
        /// The command.
        operation: String,
        /// The status in the completion.
        #[source]
        status: Status,
    },
    /// A command was not sent.
    #[error("{device}: {operation} was not sent")]
    Refused {
        /// The controller.
        device: String,
        /// The command.
        operation: String,
        /// The reason.
        #[source]
        reason: Refusal,
    },
    /// A command was not sent, because it would break a queue pair or handle that exists.
    #[error("{device}: {operation} was not sent: {reason}")]
    InUse {
        /// The controller.
        device: String,
        /// The command.
        operation: String,
        /// The obstacle, and what to close.
        reason: String,
    },
    /// The admin queue is full of commands that were not answered in time.
    #[error(
        "{device}: {operation} was not sent: the admin queue is full of {count} commands that the controller did not answer \
         in time; if it does not answer them yet, open it again to reset it"
    )]
    Unanswered {
        /// The controller.
        device: String,
        /// The command.
        operation: String,
        /// The number of commands that wait for an answer.
        count: u32,
    },
    /// The controller did not answer in time.
    #[error("{device}: {operation}: no answer within {after:?}{}", if *.kept { "; the buffer stays with the controller, which may still use it" } else { "" })]
    Timeout {
        /// The controller.
        device: String,
        /// The operation that was waited for.
        operation: String,
        /// The deadline.
        after: Duration,
        /// `true` if the controller keeps the caller's buffer (which is empty now).
        kept: bool,
    },
    /// Registers read as all ones: the controller was removed, its link is down, or it sleeps.
    #[error(
        "{device}: {operation}: the controller is gone (its registers read as all ones): it was removed, its link is down, \
         or it is powered down (D3)"
    )]
    Gone {
        /// The controller.
        device: String,
        /// The operation that was tried.
        operation: String,
    },
    /// CSTS.RDY is 0.
    #[error(
        "{device}: {operation}: the controller is not enabled any more (CSTS.RDY is 0): something else has reset or stopped \
         it; open it again"
    )]
    Disabled {
        /// The controller.
        device: String,
        /// The operation that was tried.
        operation: String,
    },
    /// CSTS.CFS is set.
    #[error(
        "{device}: {operation}: the controller reports a fatal status (CSTS.CFS): open it again to reset it"
    )]
    Fatal {
        /// The controller.
        device: String,
        /// The operation that was tried.
        operation: String,
    },
    /// The controller lacks something that this driver or the caller needs.
    #[error("{device}: {reason}")]
    Unsupported {
        /// The controller.
        device: String,
        /// The missing feature, and the way out.
        reason: String,
    },
    /// The controller is open, and takes no I/O.
    #[error("{device}: the controller takes no I/O: {reason}")]
    NoIo {
        /// The controller.
        device: String,
        /// The reason.
        reason: NoIo,
    },
    /// An argument is outside of what the controller or the call takes.
    #[error("{device}: {reason}")]
    Argument {
        /// The controller.
        device: String,
        /// The problem, and the possible values.
        reason: String,
    },
    /// The controller's answer violates the specification.
    #[error("{device}: {operation}: the controller broke the protocol: {reason}")]
    Protocol {
        /// The controller.
        device: String,
        /// The operation in progress.
        operation: String,
        /// The violation.
        reason: String,
    },
    /// The device completed a command that was not in flight; its queue is closed.
    #[error(
        "{device}: queue {qid}: the controller completed a command that was not in flight; the queue is closed"
    )]
    ForgedCompletion {
        /// The controller.
        device: String,
        /// The queue's id.
        qid: u16,
    },
    /// A turn of the queue was leaked (`mem::forget`); the queue is closed.
    #[error("{device}: queue {qid}: a turn was leaked, so the queue is closed: make another")]
    LeakedTurn {
        /// The controller.
        device: String,
        /// The queue's id.
        qid: u16,
    },
    /// The controller was stopped or reset since the queue was made.
    #[error("{device}: queue {qid}: the controller was reset since the queue was made: make another")]
    Stopped {
        /// The controller.
        device: String,
        /// The queue's id.
        qid: u16,
    },
    /// The controller did not confirm that a queue was deleted, so it may still use the memory of commands in
    /// flight.
    #[error(
        "{device}: queue {qid}: the controller did not confirm its deletion: what its commands used stays with the \
         controller until that stops (Controller::keep)"
    )]
    Undeleted {
        /// The controller.
        device: String,
        /// The queue's id.
        qid: u16,
    },
    /// The embedded controller's options can't be used.
    #[error("emu can't be used")]
    Emulator(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// An [`Address`](crate::Address) needs no parsing: for functions that take anything that becomes one.
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self))
    }
}

/// The reason why a controller takes no I/O, though it is up and admin commands work. Queue pairs and the
/// blocking calls are refused with it, and [`Controller::check_io`](crate::Controller::check_io) returns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoIo {
    /// CAP.CSS has bit 7 and neither bit 0 nor bit 6.
    #[error("it has no I/O command set: CAP.CSS is {css:#04x}, so it takes admin commands only")]
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
    EntrySizes {
        /// Log2 of the least bytes of a submission queue entry.
        sqes: u8,
        /// Log2 of the least bytes of a completion queue entry.
        cqes: u8,
    },
    /// The controller refused Set Features (Number of Queues), as degraded controllers do. The SMART log and
    /// the error log may tell more.
    #[error("it grants no I/O queues: Set Features (Number of Queues) failed: {status}")]
    NoQueues {
        /// The status of the command.
        status: Status,
    },
}

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;
