//! The properties of an error that a program decides by: its kind, its device, and whether to try again.

use super::Error;
use crate::error::Refusal;
use std::io;
use upcie_core::ErrorKind;

impl Error {
    /// Returns the error's classification, the same for all transports.
    ///
    /// ```
    /// use upcie_nvme::{Controller, ErrorKind};
    ///
    /// let controller = Controller::open("emu:size=1M")?;
    /// let namespace = controller.namespace(1)?;
    /// let error = namespace.read(namespace.blocks(), &mut controller.alloc(512)?).unwrap_err();
    /// assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Refused, false));
    /// # Ok::<(), upcie_nvme::Error>(())
    /// ```
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Core(error) => error.kind(),
            Self::Status { .. } => ErrorKind::Status,
            Self::Refused { .. } => ErrorKind::Refused,
            Self::InUse { .. } | Self::Unanswered { .. } => ErrorKind::Busy,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Gone { .. } => ErrorKind::Gone,
            Self::Disabled { .. }
            | Self::Fatal { .. }
            | Self::LeakedTurn { .. }
            | Self::Stopped { .. }
            | Self::Undeleted { .. } => ErrorKind::Failed,
            Self::Unsupported { .. } | Self::NoIo { .. } => ErrorKind::Unsupported,
            Self::Argument { .. } | Self::Emulator(_) => ErrorKind::Argument,
            Self::Protocol { .. } | Self::ForgedCompletion { .. } => ErrorKind::Protocol,
        }
    }

    /// Returns the controller's name, which is its address in most cases; `None` if the error is not about one.
    pub fn device(&self) -> Option<&str> {
        match self {
            Self::Core(error) => error.device(),
            Self::Status { device, .. }
            | Self::Refused { device, .. }
            | Self::InUse { device, .. }
            | Self::Unanswered { device, .. }
            | Self::Timeout { device, .. }
            | Self::Gone { device, .. }
            | Self::Disabled { device, .. }
            | Self::Fatal { device, .. }
            | Self::Unsupported { device, .. }
            | Self::NoIo { device, .. }
            | Self::Argument { device, .. }
            | Self::Protocol { device, .. }
            | Self::ForgedCompletion { device, .. }
            | Self::LeakedTurn { device, .. }
            | Self::Stopped { device, .. }
            | Self::Undeleted { device, .. } => Some(device),
            Self::Emulator(_) => None,
        }
    }

    /// Returns the operation that failed, with the command and its target where there is one; `None` if the message has no
    /// such part.
    pub fn operation(&self) -> Option<&str> {
        match self {
            Self::Status { operation, .. }
            | Self::Refused { operation, .. }
            | Self::InUse { operation, .. }
            | Self::Unanswered { operation, .. }
            | Self::Timeout { operation, .. }
            | Self::Gone { operation, .. }
            | Self::Disabled { operation, .. }
            | Self::Fatal { operation, .. }
            | Self::Protocol { operation, .. } => Some(operation),
            _ => None,
        }
    }

    /// Tells whether the same call may succeed later, with nothing changed by the caller: the controller reported an error
    /// without "do not retry" (DNR), the queue was full, or something is busy.
    ///
    /// A write that is repeated writes again: the caller decides whether that is harmless. A timeout is not retryable, since
    /// the command may still be executed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Core(error) => error.is_retryable(),
            Self::Status { status, .. } => !status.do_not_retry(),
            Self::Refused { reason, .. } => matches!(reason, Refusal::Full | Refusal::ListsInUse),
            _ => self.kind() == ErrorKind::Busy,
        }
    }
}

/// For `std::io`'s traits: the error is the inner one, its kind the nearest.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            ErrorKind::Gone => io::ErrorKind::NotConnected,
            ErrorKind::Argument | ErrorKind::Refused => io::ErrorKind::InvalidInput,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::NotFound => io::ErrorKind::NotFound,
            ErrorKind::Busy => io::ErrorKind::ResourceBusy,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Controller, spec::Status};

    #[test]
    fn a_retry_follows_the_controllers_dnr() {
        let failed = |status| Error::Status { device: "emu".into(), operation: "Read".into(), status };
        assert!(failed(Status::INTERNAL_ERROR).is_retryable());
        assert!(!failed(Status::INTERNAL_ERROR.with_do_not_retry()).is_retryable());
        let full = |reason| Error::Refused { device: "emu".into(), operation: "Read".into(), reason };
        assert!(full(Refusal::Full).is_retryable() && !full(Refusal::Length).is_retryable());
    }

    #[test]
    fn an_error_names_its_device_and_operation() {
        let controller = Controller::open("emu:size=1M").unwrap();
        let error = controller.namespace(9).unwrap_err();
        assert_eq!(error.device(), Some(controller.name()));
        let namespace = controller.namespace(1).unwrap();
        let error = namespace.read(u64::MAX, &mut controller.alloc(512).unwrap()).unwrap_err();
        assert_eq!((error.kind(), error.device()), (ErrorKind::Refused, Some(controller.name())));
        assert!(error.operation().is_some_and(|operation| operation.contains("of 512 bytes at block")));
        let missing = Controller::open("vfio-user:/nowhere/at/all").unwrap_err();
        assert!(missing.device().is_some_and(|device| device.contains("/nowhere/at/all")), "{missing:?}");
    }
}
