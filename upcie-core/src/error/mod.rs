//! The crate's one error type. A message says which device, which operation, and what to do. Its cause, if there is one,
//! is the error's `source`, which the message does not repeat.

mod chain;
mod kind;
mod make;

pub use chain::Chain;
pub use kind::ErrorKind;

use std::{fmt, io, time::Duration};

/// A failure below the driver: to find a device, open it, map its memory, or communicate with it.
///
/// Each error has the name of its [device](Self::device), the attempted [operation](Self::operation), its
/// [kind](Self::kind), by which programs decide, and the [failure](Self::failure) with its details. `{:?}` prints the message
/// and its causes, as a program does whose `main` returns the error.
///
/// ```
/// use upcie_core::{ErrorKind, Failure};
///
/// let error = upcie_core::open(&"vfio-user:/nowhere/at/all".parse()?).unwrap_err();
/// assert_eq!((error.kind(), error.device()), (ErrorKind::NotFound, Some("vfio-user:/nowhere/at/all")));
/// assert!(matches!(error.failure(), Failure::NotFound { .. }));
/// # Ok::<(), upcie_core::Error>(())
/// ```
// One pointer wide: results stay small.
pub struct Error(Box<Parts>);

/// Parts of an error. An empty text stands for none.
struct Parts {
    device: String,
    operation: String,
    failure: Failure,
}

/// The way in which an operation failed, with its details. The device and the operation are the [`Error`]'s.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The text is not a device address.
    #[non_exhaustive]
    Address {
        /// The text.
        input: String,
        /// The fault in the text.
        reason: String,
        /// The valid forms, as known to the parser.
        forms: &'static str,
    },
    /// A system call failed.
    #[non_exhaustive]
    Os {
        /// The system's error.
        source: io::Error,
    },
    /// The device exists but is not usable in its present state.
    #[non_exhaustive]
    Unusable {
        /// The reason, and what to do about it.
        reason: String,
    },
    /// The device does not exist.
    #[non_exhaustive]
    NotFound {
        /// The place of the search, and what to do.
        reason: String,
    },
    /// A device or a peer violated its protocol.
    #[non_exhaustive]
    Protocol {
        /// The violation.
        reason: String,
    },
    /// A vfio-user peer answered with an error number.
    #[non_exhaustive]
    Peer {
        /// The error number in the reply.
        source: io::Error,
    },
    /// No answer arrived within the deadline.
    #[non_exhaustive]
    Timeout {
        /// The deadline.
        after: Duration,
    },
    /// The device is gone: it was removed, or its server has closed the connection.
    #[non_exhaustive]
    Gone {},
    /// The device belongs to the process from which this one was forked.
    #[non_exhaustive]
    Forked {},
    /// An offset or length is outside of its region.
    #[non_exhaustive]
    OutOfRange {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// Size of the region in bytes.
        size: u64,
    },
    /// The transport does not support the operation.
    #[non_exhaustive]
    Unsupported {
        /// The reason, and the alternative.
        reason: String,
    },
    /// No memory of the requested kind is available; the operation names the kind.
    #[non_exhaustive]
    Memory {
        /// The reason, and the way out.
        reason: String,
        /// The system's error.
        source: io::Error,
    },
    /// A request for DMA memory that can't be met.
    #[non_exhaustive]
    Allocation {
        /// Length in bytes.
        len: usize,
        /// Alignment in bytes.
        align: usize,
        /// The reason.
        reason: &'static str,
    },
}

impl Error {
    /// Returns the name of the device or file; `None` if the error does not concern one.
    pub fn device(&self) -> Option<&str> {
        Some(&*self.0.device).filter(|device| !device.is_empty())
    }

    /// Returns the attempted operation; `None` if the failure says it all.
    pub fn operation(&self) -> Option<&str> {
        Some(&*self.0.operation).filter(|operation| !operation.is_empty())
    }

    /// Returns the failure and its details.
    pub fn failure(&self) -> &Failure {
        &self.0.failure
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { device, operation, failure } = &*self.0;
        match failure {
            Failure::Address { input, reason, forms } => {
                write!(f, "{input:?} is not a device address: {reason}. The forms are {forms}")
            }
            Failure::Os { .. } => write!(f, "{device}: {operation}"),
            Failure::Unusable { reason } => write!(f, "{device} can't be used: {reason}"),
            Failure::NotFound { reason } => write!(f, "{device}: no such device: {reason}"),
            Failure::Protocol { reason } => {
                write!(f, "{device}: {operation}: the other side broke the protocol: {reason}")
            }
            Failure::Peer { .. } => write!(f, "{device}: {operation}: the server answered with an error"),
            Failure::Timeout { after } => write!(f, "{device}: {operation}: no answer within {after:?}"),
            Failure::Gone {} => write!(f, "{device}: {operation}: the device is gone"),
            Failure::Forked {} => write!(
                f,
                "{device}: {operation}: it belongs to the process that this one was forked from: open it again in this \
                 one, or use it in that one alone"
            ),
            Failure::OutOfRange { offset, len, size } => write!(
                f,
                "{device}: {operation}: {len} bytes at {offset:#x} are outside of its {size:#x} bytes, or not aligned"
            ),
            Failure::Unsupported { reason } => {
                write!(f, "{device}: {operation} is not supported here: {reason}")
            }
            Failure::Memory { reason, .. } => write!(f, "{operation}: {reason}"),
            Failure::Allocation { len, align, reason } => {
                write!(f, "{device}: {len} bytes of DMA memory aligned to {align}: {reason}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.failure {
            Failure::Os { source } | Failure::Peer { source } | Failure::Memory { source, .. } => {
                Some(source)
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self))
    }
}

/// Result with this crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;
