//! The crate's one error type. A message says which device, which operation, and what to do. Its cause, if there is one,
//! is the error's `source`, which the message does not repeat.

use std::{fmt, io, time::Duration};

/// A failure below the driver: to find a device, open it, map its memory, or communicate with it.
///
/// `{:?}` prints the message and its causes, as a program does whose `main` returns the error.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not a device address.
    #[error("{input:?} is not a device address: {reason}. The forms are {forms}")]
    Address {
        /// The text.
        input: String,
        /// The fault in the text.
        reason: String,
        /// The valid forms, as known to the parser.
        forms: &'static str,
    },
    /// A system call failed.
    #[error("{device}: {operation}")]
    Os {
        /// The device or file.
        device: String,
        /// The attempted operation, and the way out if it is known.
        operation: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The device exists but is not usable in its present state; `reason` says what to do.
    #[error("{device} can't be used: {reason}")]
    Unusable {
        /// The device.
        device: String,
        /// The reason, and what to do about it.
        reason: String,
    },
    /// The device does not exist.
    #[error("{device}: no such device: {reason}")]
    NotFound {
        /// The device.
        device: String,
        /// The place of the search, and what to do.
        reason: String,
    },
    /// A device or a peer violated its protocol.
    #[error("{device}: {operation}: the other side broke the protocol: {reason}")]
    Protocol {
        /// The device.
        device: String,
        /// The operation during which it happened.
        operation: String,
        /// The violation.
        reason: String,
    },
    /// A vfio-user peer answered with an error number.
    #[error("{device}: {operation}: the server answered with an error")]
    Peer {
        /// The device.
        device: String,
        /// The request.
        operation: String,
        /// The error number in the reply.
        #[source]
        source: io::Error,
    },
    /// No answer arrived within the deadline.
    #[error("{device}: {operation}: no answer within {after:?}")]
    Timeout {
        /// The device.
        device: String,
        /// The operation that was waited for.
        operation: String,
        /// The deadline.
        after: Duration,
    },
    /// The device is gone: it was removed, or its server has closed the connection.
    #[error("{device}: {operation}: the device is gone")]
    Gone {
        /// The device.
        device: String,
        /// The attempted operation.
        operation: String,
    },
    /// The device belongs to the process from which this one was forked.
    #[error(
        "{device}: {operation}: it belongs to the process that this one was forked from: open it again in this one, or \
         use it in that one alone"
    )]
    Forked {
        /// The device.
        device: String,
        /// The attempted operation.
        operation: String,
    },
    /// An offset or length is outside of its region.
    #[error(
        "{device}: {operation}: {len} bytes at {offset:#x} are outside of its {size:#x} bytes, or not aligned"
    )]
    OutOfRange {
        /// The device.
        device: String,
        /// The attempted operation.
        operation: String,
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// Size of the region in bytes.
        size: u64,
    },
    /// The transport does not support this.
    #[error("{device}: {what} is not supported here: {reason}")]
    Unsupported {
        /// The device.
        device: String,
        /// The requested operation.
        what: String,
        /// The reason, and the alternative.
        reason: String,
    },
    /// No memory of the requested kind is available.
    #[error("{what}: {reason}")]
    Memory {
        /// The requested memory.
        what: String,
        /// The reason, and the way out.
        reason: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A request for DMA memory that can't be met.
    #[error("{device}: {len} bytes of DMA memory aligned to {align}: {reason}")]
    Allocation {
        /// The device.
        device: String,
        /// Length in bytes.
        len: usize,
        /// Alignment in bytes.
        align: usize,
        /// The reason.
        reason: &'static str,
    },
}

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
        match self {
            Self::Address { .. } | Self::OutOfRange { .. } | Self::Forked { .. } => ErrorKind::Argument,
            Self::Os { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => ErrorKind::Busy,
            Self::Os { .. } | Self::Peer { .. } => ErrorKind::System,
            Self::Unusable { .. } | Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Protocol { .. } => ErrorKind::Protocol,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Gone { .. } => ErrorKind::Gone,
            Self::Memory { .. } | Self::Allocation { .. } => ErrorKind::Memory,
        }
    }

    /// Returns the name of the device or file; `None` if the error does not concern one.
    pub fn device(&self) -> Option<&str> {
        match self {
            Self::Os { device, .. }
            | Self::Unusable { device, .. }
            | Self::NotFound { device, .. }
            | Self::Protocol { device, .. }
            | Self::Peer { device, .. }
            | Self::Timeout { device, .. }
            | Self::Gone { device, .. }
            | Self::Forked { device, .. }
            | Self::OutOfRange { device, .. }
            | Self::Unsupported { device, .. }
            | Self::Allocation { device, .. } => Some(device),
            Self::Address { .. } | Self::Memory { .. } => None,
        }
    }

    /// Returns whether the same call may succeed later without a change by the caller: the device is busy, or memory is
    /// short.
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind(), ErrorKind::Busy | ErrorKind::Memory) && !matches!(self, Self::Allocation { .. })
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self))
    }
}

/// Prints an error and its causes on one line: `emu: Read at block 9 failed: LBA Out of Range (00/80h): …`.
///
/// ```
/// use upcie_core::{Chain, device::Address};
///
/// let error = "0000:01:00.9".parse::<Address>().unwrap_err();
/// eprintln!("{}", Chain(&error));
/// ```
#[derive(Debug)]
pub struct Chain<'a>(
    /// The error.
    pub &'a (dyn std::error::Error + 'a),
);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl Error {
    /// Makes an [`Error::Os`]: `operation` failed on `device` with `source`.
    pub(crate) fn os(
        device: impl Into<String>,
        operation: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Os { device: device.into(), operation: operation.into(), source: source.into() }
    }
}

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

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
