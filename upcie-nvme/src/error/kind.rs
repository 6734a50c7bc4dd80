//! The properties of an error that a program decides by: its kind, and whether to try again.

use super::{Error, Failure};
use crate::{error::Refusal, spec::Status};
use std::{error::Error as _, io};
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
        match self.failure() {
            Failure::Core(error) => error.kind(),
            Failure::Status { .. } => ErrorKind::Status,
            Failure::Refused { .. } => ErrorKind::Refused,
            Failure::InUse { .. } | Failure::Unanswered { .. } => ErrorKind::Busy,
            Failure::Timeout { .. } | Failure::Overdue { .. } => ErrorKind::Timeout,
            Failure::Gone { .. } => ErrorKind::Gone,
            Failure::Disabled { .. }
            | Failure::Fatal { .. }
            | Failure::PciError { .. }
            | Failure::LeakedTurn { .. }
            | Failure::Reset { .. }
            | Failure::Down { .. }
            | Failure::Undeleted { .. } => ErrorKind::Failed,
            Failure::Unsupported { .. } | Failure::NoIo { .. } => ErrorKind::Unsupported,
            Failure::Argument { .. } | Failure::Emulator(_) => ErrorKind::Argument,
            Failure::Protocol { .. } | Failure::ForgedCompletion { .. } => ErrorKind::Protocol,
        }
    }

    /// Tells whether the path to the namespace failed the command: another controller of the NVM subsystem may carry it out.
    /// [`Namespace::access_state`](crate::Namespace::access_state) tells what the controller says of its own path.
    pub fn is_path_related(&self) -> bool {
        self.status().is_some_and(Status::is_path_related)
    }

    /// Tells whether the same call may succeed later, with nothing changed by the caller: the controller reported an error
    /// without "do not retry" (DNR), other than that it has lost the namespace for good (ANA Persistent Loss), the queue was full,
    /// something is busy, or the controller was reset during a call.
    ///
    /// A write that is repeated writes again: the caller decides whether that is harmless. A timeout is not retryable, since
    /// the command may still be executed.
    pub fn is_retryable(&self) -> bool {
        match self.failure() {
            Failure::Core(error) => error.is_retryable(),
            Failure::Status { status, .. } => {
                !status.do_not_retry() && *status != Status::ANA_PERSISTENT_LOSS
            }
            Failure::Refused { reason, .. } => matches!(reason, Refusal::Full | Refusal::ListsInUse),
            Failure::Reset { qid } => qid.is_none(),
            _ => self.kind() == ErrorKind::Busy,
        }
    }
}

impl Error {
    /// Returns the errno(3) that names the failure best, for programs that know errors by number: that of the system where a
    /// system call failed, `EIO` where no other fits.
    ///
    /// ```
    /// use upcie_nvme::Controller;
    ///
    /// let error = Controller::open("vfio-user:/nowhere/at/all").unwrap_err();
    /// assert_eq!(error.errno(), libc::ENODEV);
    /// ```
    pub fn errno(&self) -> i32 {
        match (self.kind(), self.failure()) {
            (_, Failure::Reset { .. }) => libc::ECONNRESET,
            (ErrorKind::Timeout, _) => libc::ETIMEDOUT,
            (ErrorKind::Gone | ErrorKind::NotFound, _) => libc::ENODEV,
            (ErrorKind::Unsupported, _) => libc::EOPNOTSUPP,
            (ErrorKind::Memory, _) => libc::ENOMEM,
            (ErrorKind::Argument, _) => libc::EINVAL,
            (ErrorKind::Busy, _) => libc::EBUSY,
            (ErrorKind::Protocol, _) => libc::EPROTO,
            (_, Failure::Core(_)) => {
                let system = self.source().and_then(|source| source.downcast_ref::<io::Error>());
                system.and_then(io::Error::raw_os_error).unwrap_or(libc::EIO)
            }
            _ => libc::EIO,
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
    use crate::Controller;

    #[test]
    fn a_retry_follows_the_controllers_dnr() {
        let failed = |status| Error::of_status("emu", "Read", status);
        assert!(failed(Status::INTERNAL_ERROR).is_retryable());
        assert!(!failed(Status::INTERNAL_ERROR.with_do_not_retry()).is_retryable());
        // The path will not come back, whatever DNR says; one that is in transition will.
        assert!(!failed(Status::ANA_PERSISTENT_LOSS).is_retryable());
        assert!(failed(Status::ANA_TRANSITION).is_retryable());
        assert!(failed(Status::ANA_TRANSITION).is_path_related());
        assert!(!failed(Status::INTERNAL_ERROR).is_path_related());
        let full = |reason| Error::refused("emu", "Read", reason);
        assert!(full(Refusal::Full).is_retryable() && !full(Refusal::Length).is_retryable());
    }

    #[test]
    fn an_error_has_one_errno() {
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        let errors = [
            (Error::from(upcie_core::Error::os("0000:01:00.0", "opening", denied)), libc::EACCES),
            (upcie_core::Error::gone("vfio-user:/socket", "reading").into(), libc::ENODEV),
            (Error::in_use("emu", "Format NVM", "a queue pair exists"), libc::EBUSY),
            (Error::reset_call("emu", "Read"), libc::ECONNRESET),
            (Error::protocol("emu", "Identify", "the list is not ascending"), libc::EPROTO),
            (Error::of_status("emu", "Read", Status::WRITE_FAULT), libc::EIO),
        ];
        for (error, errno) in errors {
            assert_eq!(error.errno(), errno, "{error}");
        }
    }

    /// Results of the hot path carry an error: it must not make them large.
    #[test]
    fn an_error_is_one_pointer() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<crate::Result<()>>(), size_of::<usize>());
        assert_eq!(size_of::<upcie_core::Error>(), size_of::<usize>());
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
        let beyond = namespace.read_at(1 << 20, &mut [0; 8]).unwrap_err();
        assert_eq!(beyond.operation(), Some("Read (02h) of 8 bytes at byte 1048576 of namespace 1"));
        assert!(beyond.to_string().ends_with("of namespace 1: the namespace has 1048576 bytes"), "{beyond}");
        let missing = Controller::open("vfio-user:/nowhere/at/all").unwrap_err();
        assert!(missing.device().is_some_and(|device| device.contains("/nowhere/at/all")), "{missing:?}");
    }
}
