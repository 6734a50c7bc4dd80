//! The crate's error type. A message says which controller, which operation, and what to do; its cause is its `source`.

mod kind;
mod make;
mod no_io;
mod refusal;
#[cfg(test)]
mod tests;

use crate::spec::Status;
pub use no_io::NoIo;
pub use refusal::{Refusal, SegmentFault};
use std::{fmt, time::Duration};
use upcie_core::Chain;

/// An error of a controller or a namespace.
///
/// Each error has the name of its [device](Self::device), the attempted [operation](Self::operation), its
/// [kind](Self::kind), by which programs decide, and the [failure](Self::failure) with its details. `{:?}` prints the message
/// and its causes, so that a `main` that returns the error shows both.
///
/// ```
/// use upcie_nvme::{Controller, Failure, Refusal};
///
/// let controller = Controller::open("emu:size=1M")?;
/// let namespace = controller.namespace(1)?;
/// let error = namespace.read(namespace.blocks(), &mut controller.alloc(512)?).unwrap_err();
/// assert_eq!(error.device(), Some(controller.name()));
/// assert_eq!(error.operation(), Some("Read (02h) of 512 bytes at block 2048 of namespace 1"));
/// assert!(matches!(error.failure(), Failure::Refused { reason: Refusal::OutOfRange, .. }));
/// # Ok::<(), upcie_nvme::Error>(())
/// ```
// One pointer wide: results stay small.
pub struct Error(Box<Parts>);

/// The parts of an error. An empty text stands for none.
struct Parts {
    device: String,
    operation: String,
    failure: Failure,
}

/// The way in which an operation failed, with its details. The controller and the operation are the [`Error`]'s.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// A failure below the driver: of the transport, or of its memory.
    Core(upcie_core::Error),
    /// The controller completed a command with an error.
    #[non_exhaustive]
    Status {
        /// The status in the completion.
        status: Status,
    },
    /// A command was not sent.
    #[non_exhaustive]
    Refused {
        /// The reason.
        reason: Refusal,
    },
    /// A command was not sent, because it would break a queue pair or handle that exists.
    #[non_exhaustive]
    InUse {
        /// The obstacle, and what to close.
        reason: String,
    },
    /// The admin queue is full of commands that were not answered in time.
    #[non_exhaustive]
    Unanswered {
        /// The number of commands that wait for an answer.
        count: u32,
    },
    /// The controller did not answer in time.
    #[non_exhaustive]
    Timeout {
        /// The deadline.
        after: Duration,
        /// `true` if the controller keeps the caller's buffer (which is empty now).
        kept: bool,
    },
    /// Registers read as all ones: the controller was removed, its link is down, or it sleeps.
    #[non_exhaustive]
    Gone {},
    /// CSTS.RDY is 0.
    #[non_exhaustive]
    Disabled {},
    /// CSTS.CFS is set.
    #[non_exhaustive]
    Fatal {},
    /// The kernel reports an uncorrectable error of the PCI Express function (VFIO's ERR interrupt, from AER). Once the driver has
    /// noticed it, every queue, blocking call and admin command is refused until a [reset](crate::Controller::reset).
    #[non_exhaustive]
    PciError {},
    /// The controller lacks something that this driver or the caller needs.
    #[non_exhaustive]
    Unsupported {
        /// The missing feature, and the way out.
        reason: String,
    },
    /// The controller is open, and takes no I/O.
    #[non_exhaustive]
    NoIo {
        /// The reason.
        reason: NoIo,
    },
    /// An argument is outside of what the controller or the call takes.
    #[non_exhaustive]
    Argument {
        /// The problem, and the possible values.
        reason: String,
    },
    /// The controller's answer violates the specification.
    #[non_exhaustive]
    Protocol {
        /// The violation.
        reason: String,
    },
    /// The device completed a command that was not in flight; its queue is closed.
    #[non_exhaustive]
    ForgedCompletion {
        /// The queue's id.
        qid: u16,
    },
    /// A turn of the queue was leaked (`mem::forget`); the queue is closed.
    #[non_exhaustive]
    LeakedTurn {
        /// The queue's id.
        qid: u16,
    },
    /// The controller was [reset](crate::Controller::reset) since the queue was made or recovered, or while the call was in
    /// progress.
    #[non_exhaustive]
    Reset {
        /// The queue's id: [`recover`](crate::QueuePair::recover) brings it back. `None` for a call, which works again; it
        /// is not known whether its commands were executed.
        qid: Option<u16>,
    },
    /// The controller did not come back from a reset, or was given up. Open it again. One that did not come back may do so by a reset
    /// of its function or its subsystem, too ([`Controller::reset_by`](crate::Controller::reset_by)).
    #[non_exhaustive]
    Down {
        /// The reason.
        reason: String,
    },
    /// The controller has not completed a command within its deadline. The command is still in flight
    /// ([`QueuePair::overdue`](crate::QueuePair::overdue) has its tag), and its queue goes on.
    #[non_exhaustive]
    Overdue {
        /// The queue's id.
        qid: u16,
        /// The command's id on the controller.
        command: u16,
        /// The time since the command was first seen in flight.
        after: Duration,
    },
    /// The controller did not confirm that a queue was deleted, so it may still use the memory of commands in
    /// flight. [`QueuePair::take_kept`](crate::QueuePair::take_kept) has their tags.
    #[non_exhaustive]
    Undeleted {
        /// The queue's id.
        qid: u16,
        /// The commands in flight, whose memory the controller keeps.
        commands: u32,
    },
    /// The embedded controller can't be used with these options.
    Emulator(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Returns the controller's name, which is its address in most cases; `None` if the error is not about one.
    pub fn device(&self) -> Option<&str> {
        match &self.0.failure {
            Failure::Core(error) => error.device(),
            _ => Some(&*self.0.device).filter(|device| !device.is_empty()),
        }
    }

    /// Returns the operation that failed, with the command and its target where there is one; `None` if the message has no
    /// such part.
    pub fn operation(&self) -> Option<&str> {
        match &self.0.failure {
            Failure::Core(error) => error.operation(),
            _ => Some(&*self.0.operation).filter(|operation| !operation.is_empty()),
        }
    }

    /// Returns the failure and its details.
    pub fn failure(&self) -> &Failure {
        &self.0.failure
    }

    /// Returns the status with which the controller completed the command; `None` if it did not.
    pub fn status(&self) -> Option<Status> {
        match self.0.failure {
            Failure::Status { status } => Some(status),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { device, operation, failure } = &*self.0;
        match failure {
            Failure::Core(error) => error.fmt(f),
            Failure::Status { .. } => write!(f, "{device}: {operation} failed"),
            Failure::Refused { .. } => write!(f, "{device}: {operation} was not sent"),
            Failure::InUse { reason } => write!(f, "{device}: {operation} was not sent: {reason}"),
            Failure::Unanswered { count } => write!(
                f,
                "{device}: {operation} was not sent: the admin queue is full of {count} commands that the controller has \
                 not answered; if that lasts, open it again, which resets it"
            ),
            Failure::Timeout { after, kept } => {
                write!(f, "{device}: {operation}: no answer within {after:?}")?;
                if *kept {
                    f.write_str("; the buffer stays with the controller, which may still use it")?;
                }
                Ok(())
            }
            Failure::Gone {} => write!(
                f,
                "{device}: {operation}: the controller is gone (its registers read as all ones): it was removed, its link \
                 is down, or it is powered down (D3)"
            ),
            Failure::Disabled {} => write!(
                f,
                "{device}: {operation}: the controller is not enabled any more (CSTS.RDY is 0): something else has reset \
                 or stopped it; open it again"
            ),
            Failure::Fatal {} => write!(
                f,
                "{device}: {operation}: the controller reports a fatal status (CSTS.CFS): open it again to reset it"
            ),
            Failure::PciError {} => write!(
                f,
                "{device}: {operation}: the kernel reports an error of {device} that the hardware could not correct (AER): \
                 reset it, or drop every handle of it and open it again, which resets the function; the kernel's log names \
                 the error"
            ),
            Failure::Argument { reason } if !operation.is_empty() => {
                write!(f, "{device}: {operation}: {reason}")
            }
            Failure::Unsupported { reason } | Failure::Argument { reason } => write!(f, "{device}: {reason}"),
            Failure::NoIo { reason } => write!(f, "{device}: the controller takes no I/O: {reason}"),
            Failure::Protocol { reason } => {
                write!(f, "{device}: {operation}: the controller broke the protocol: {reason}")
            }
            Failure::ForgedCompletion { qid } => write!(
                f,
                "{device}: queue {qid}: the controller completed a command that was not in flight; the queue is closed"
            ),
            Failure::LeakedTurn { qid } => {
                write!(f, "{device}: queue {qid}: a turn was leaked, so the queue is closed: make another")
            }
            Failure::Reset { qid: Some(_) } => write!(
                f,
                "{device}: {operation}: the controller was reset; QueuePair::recover brings the queue back"
            ),
            Failure::Reset { qid: None } => write!(
                f,
                "{device}: {operation}: the controller was reset meanwhile, so it is not known whether this was executed; the \
                 same call works again"
            ),
            Failure::Down { reason } => {
                write!(f, "{device}: {operation}: the controller is down: {reason}; open it again")
            }
            Failure::Overdue { qid, command, after } => write!(
                f,
                "{device}: queue {qid}: command {command:#x} is not completed after {after:?}, and stays in flight \
                 (QueuePair::overdue has its tag)"
            ),
            Failure::Undeleted { qid, commands } => write!(
                f,
                "{device}: queue {qid}: the controller did not confirm its deletion: the memory of its {commands} commands in \
                 flight stays with the controller until it stops (Controller::keep)"
            ),
            Failure::Emulator(_) => f.write_str("emu can't be used"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.failure {
            Failure::Core(error) => error.source(),
            Failure::Status { status } => Some(status),
            Failure::Refused { reason } => Some(reason),
            Failure::Emulator(error) => Some(&**error),
            _ => None,
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self))
    }
}

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;
