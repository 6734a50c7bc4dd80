//! Makes errors.

use super::{Error, Failure, NoIo, Parts, Refusal};
use crate::spec::Status;
use std::time::Duration;

impl Error {
    fn new(device: impl Into<String>, operation: impl Into<String>, failure: Failure) -> Self {
        Self(Box::new(Parts { device: device.into(), operation: operation.into(), failure }))
    }

    /// Makes a [`Failure::Status`].
    pub(crate) fn of_status(device: impl Into<String>, operation: impl Into<String>, status: Status) -> Self {
        Self::new(device, operation, Failure::Status { status })
    }

    /// Makes a [`Failure::Refused`].
    pub(crate) fn refused(device: impl Into<String>, operation: impl Into<String>, reason: Refusal) -> Self {
        Self::new(device, operation, Failure::Refused { reason })
    }

    /// Makes a [`Failure::InUse`].
    pub(crate) fn in_use(
        device: impl Into<String>,
        operation: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::new(device, operation, Failure::InUse { reason: reason.into() })
    }

    /// Makes a [`Failure::Unanswered`].
    pub(crate) fn unanswered(device: impl Into<String>, operation: impl Into<String>, count: u32) -> Self {
        Self::new(device, operation, Failure::Unanswered { count })
    }

    /// Makes a [`Failure::Timeout`].
    pub(crate) fn timeout(device: impl Into<String>, operation: impl Into<String>, after: Duration) -> Self {
        Self::new(device, operation, Failure::Timeout { after, kept: false })
    }

    /// Makes a [`Failure::Gone`].
    pub(crate) fn gone(device: impl Into<String>, operation: impl Into<String>) -> Self {
        Self::new(device, operation, Failure::Gone {})
    }

    /// Makes a [`Failure::Disabled`].
    pub(crate) fn disabled(device: impl Into<String>, operation: impl Into<String>) -> Self {
        Self::new(device, operation, Failure::Disabled {})
    }

    /// Makes a [`Failure::Fatal`].
    pub(crate) fn fatal(device: impl Into<String>, operation: impl Into<String>) -> Self {
        Self::new(device, operation, Failure::Fatal {})
    }

    /// Makes a [`Failure::PciError`].
    pub(crate) fn pci_error(device: impl Into<String>, operation: impl Into<String>) -> Self {
        Self::new(device, operation, Failure::PciError {})
    }

    /// Makes a [`Failure::Unsupported`].
    pub(crate) fn unsupported(device: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(device, "", Failure::Unsupported { reason: reason.into() })
    }

    /// Makes a [`Failure::NoIo`].
    pub(crate) fn no_io(device: impl Into<String>, reason: NoIo) -> Self {
        Self::new(device, "", Failure::NoIo { reason })
    }

    /// Makes a [`Failure::Argument`].
    pub(crate) fn argument(device: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(device, "", Failure::Argument { reason: reason.into() })
    }

    /// Makes a [`Failure::Argument`] of an operation, which the message names before the reason.
    pub(crate) fn argument_of(
        device: impl Into<String>,
        operation: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::new(device, operation, Failure::Argument { reason: reason.into() })
    }

    /// Makes a [`Failure::Protocol`].
    pub(crate) fn protocol(
        device: impl Into<String>,
        operation: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::new(device, operation, Failure::Protocol { reason: reason.into() })
    }

    /// Makes a [`Failure::ForgedCompletion`].
    pub(crate) fn forged_completion(device: impl Into<String>, qid: u16) -> Self {
        Self::new(device, "", Failure::ForgedCompletion { qid })
    }

    /// Makes a [`Failure::LeakedTurn`].
    pub(crate) fn leaked_turn(device: impl Into<String>, qid: u16) -> Self {
        Self::new(device, "", Failure::LeakedTurn { qid })
    }

    /// Makes a [`Failure::Reset`] of a queue.
    pub(crate) fn reset_queue(device: impl Into<String>, operation: impl Into<String>, qid: u16) -> Self {
        Self::new(device, operation, Failure::Reset { qid: Some(qid) })
    }

    /// Makes a [`Failure::Reset`] of a call.
    pub(crate) fn reset_call(device: impl Into<String>, operation: impl Into<String>) -> Self {
        Self::new(device, operation, Failure::Reset { qid: None })
    }

    /// Makes a [`Failure::Down`].
    pub(crate) fn down(
        device: impl Into<String>,
        operation: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::new(device, operation, Failure::Down { reason: reason.into() })
    }

    /// Makes a [`Failure::Overdue`].
    pub(crate) fn overdue(device: impl Into<String>, qid: u16, command: u16, after: Duration) -> Self {
        Self::new(device, "", Failure::Overdue { qid, command, after })
    }

    /// Makes a [`Failure::Undeleted`].
    pub(crate) fn undeleted(device: impl Into<String>, qid: u16, commands: u32) -> Self {
        Self::new(device, "", Failure::Undeleted { qid, commands })
    }

    /// Makes a [`Failure::Emulator`].
    #[cfg(feature = "emu")]
    pub(crate) fn emulator(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::new("", "", Failure::Emulator(Box::new(source)))
    }

    /// Changes the deadline that a [`Failure::Timeout`] names.
    pub(crate) fn set_deadline(&mut self, deadline: Duration) {
        if let Failure::Timeout { after, .. } = &mut self.0.failure {
            *after = deadline;
        }
    }

    /// Adds `text` to the operation that the error names: what was done before.
    pub(crate) fn with_note(mut self, text: &str) -> Self {
        self.0.operation.push_str(text);
        self
    }

    /// Notes in a [`Failure::Timeout`] that the controller keeps the caller's buffer.
    pub(crate) fn set_kept(&mut self) {
        if let Failure::Timeout { kept, .. } = &mut self.0.failure {
            *kept = true;
        }
    }
}

impl From<upcie_core::Error> for Error {
    fn from(error: upcie_core::Error) -> Self {
        Self::new("", "", Failure::Core(error))
    }
}

/// An [`Address`](crate::Address) needs no parsing: for functions that take anything that becomes one.
impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
