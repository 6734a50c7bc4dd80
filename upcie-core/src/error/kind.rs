//! The properties of an error that a program decides by: its kind, and whether to try again.

use super::{Error, Failure};
use std::io;

/// The kind of an error, the same for all transports and for the driver: programs decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller passed a value that the call or the device does not accept.
    Argument,
    /// The device does not exist.
    NotFound,
    /// Another program uses the device, or this process must close a handle first.
    Busy,
    /// The device, the kernel or this build lacks the feature.
    Unsupported,
    /// The answer did not arrive within its deadline; the request may or may not have been executed.
    Timeout,
    /// The device was removed, or its server closed the connection: drop all handles, and open it again.
    Gone,
    /// The device failed, another program reset it, or its queue is closed: open it, or create the queue, again.
    Failed,
    /// The device or the peer broke its protocol.
    Protocol,
    /// The device executed a command, and reported an error.
    Status,
    /// The queue refused a command; nothing was submitted.
    Refused,
    /// Too little memory of the requested kind is available.
    Memory,
    /// A system call failed; the error's source is an [`io::Error`].
    System,
}

impl Error {
    /// Returns the error's classification.
    pub fn kind(&self) -> ErrorKind {
        match self.failure() {
            Failure::Address { .. } | Failure::OutOfRange { .. } | Failure::Forked { .. } => {
                ErrorKind::Argument
            }
            Failure::Os { source } if source.kind() == io::ErrorKind::ResourceBusy => ErrorKind::Busy,
            Failure::Os { .. } | Failure::Peer { .. } => ErrorKind::System,
            Failure::Unusable { .. } | Failure::Unsupported { .. } => ErrorKind::Unsupported,
            Failure::NotFound { .. } => ErrorKind::NotFound,
            Failure::Protocol { .. } => ErrorKind::Protocol,
            Failure::Timeout { .. } => ErrorKind::Timeout,
            Failure::Gone { .. } => ErrorKind::Gone,
            Failure::Memory { .. } | Failure::Allocation { .. } => ErrorKind::Memory,
        }
    }

    /// Returns whether the same call may succeed later without a change by the caller: the device is busy, or memory is
    /// short.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), ErrorKind::Busy | ErrorKind::Memory)
            && !matches!(self.failure(), Failure::Allocation { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_tell_their_kind_and_device() {
        let busy = Error::os("0000:01:00.0", "opening", io::Error::from_raw_os_error(libc::EBUSY));
        assert_eq!(
            (busy.kind(), busy.device(), busy.is_retryable()),
            (ErrorKind::Busy, Some("0000:01:00.0"), true)
        );
        let denied = Error::os("0000:01:00.0", "opening", io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!((denied.kind(), denied.is_retryable()), (ErrorKind::System, false));
        let address = "nowhere".parse::<crate::device::Address>().unwrap_err();
        assert_eq!(
            (address.kind(), address.device(), address.is_retryable()),
            (ErrorKind::Argument, None, false)
        );
    }
}
