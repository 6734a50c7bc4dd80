//! The crate's one error type. A message says which device, what was tried and what to do; the cause, if there is
//! one, is the error's `source` and is not printed twice.

use std::{fmt, io, time::Duration};

/// What went wrong below the driver: finding a device, opening it, mapping its memory, talking to it.
///
/// `{:?}` prints the message and its causes, as a program's `main` does that returns the error.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not a device address.
    #[error("{input:?} is not a device address: {reason}. The forms are {forms}")]
    Address {
        /// What was given.
        input: String,
        /// What is wrong with it.
        reason: String,
        /// The forms that are known where it was parsed.
        forms: &'static str,
    },
    /// A system call failed.
    #[error("{device}: {operation}")]
    Os {
        /// The device or file.
        device: String,
        /// What was tried, and the way out where one is known.
        operation: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The device exists but can't be used as it stands; `reason` ends with what to do.
    #[error("{device} can't be used: {reason}")]
    Unusable {
        /// The device.
        device: String,
        /// Why, and what to do about it.
        reason: String,
    },
    /// There is no such device.
    #[error("{device}: no such device: {reason}")]
    NotFound {
        /// The device.
        device: String,
        /// Where it was looked for, and what to do.
        reason: String,
    },
    /// A device or a peer said something that its protocol does not allow.
    #[error("{device}: {operation}: the other side broke the protocol: {reason}")]
    Protocol {
        /// The device.
        device: String,
        /// What was going on.
        operation: String,
        /// What was wrong.
        reason: String,
    },
    /// A vfio-user peer answered with an error number.
    #[error("{device}: {operation}: the server answered with an error")]
    Peer {
        /// The device.
        device: String,
        /// The request.
        operation: String,
        /// The error number of the reply.
        #[source]
        source: io::Error,
    },
    /// Nothing came within the deadline.
    #[error("{device}: {operation}: no answer within {after:?}")]
    Timeout {
        /// The device.
        device: String,
        /// What was waited for.
        operation: String,
        /// The deadline.
        after: Duration,
    },
    /// The device is gone: removed, or its server has closed the connection.
    #[error("{device}: {operation}: the device is gone")]
    Gone {
        /// The device.
        device: String,
        /// What was tried.
        operation: String,
    },
    /// The device is another process's: this one was forked from it.
    #[error(
        "{device}: {operation}: it belongs to the process that this one was forked from: open it again in this one, or \
         use it in that one alone"
    )]
    Forked {
        /// The device.
        device: String,
        /// What was tried.
        operation: String,
    },
    /// An offset or length is outside of the region that it is meant for.
    #[error(
        "{device}: {operation}: {len} bytes at {offset:#x} are outside of its {size:#x} bytes, or not aligned"
    )]
    OutOfRange {
        /// The device.
        device: String,
        /// What was tried.
        operation: String,
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// Size of the region in bytes.
        size: u64,
    },
    /// The way in does not offer this.
    #[error("{device}: {what} is not supported here: {reason}")]
    Unsupported {
        /// The device.
        device: String,
        /// What was asked for.
        what: String,
        /// Why not, and what to do instead.
        reason: String,
    },
    /// No memory of the kind asked for.
    #[error("{what}: {reason}")]
    Memory {
        /// What was asked for.
        what: String,
        /// Why it failed, and the way out.
        reason: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A request for DMA memory can't be met by its nature.
    #[error("{device}: {len} bytes of DMA memory aligned to {align}: {reason}")]
    Allocation {
        /// The device.
        device: String,
        /// Length in bytes.
        len: usize,
        /// Alignment in bytes.
        align: usize,
        /// Why not.
        reason: &'static str,
    },
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
    /// `operation` failed on `device` with `source`.
    pub(crate) fn os(
        device: impl Into<String>,
        operation: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Os { device: device.into(), operation: operation.into(), source: source.into() }
    }
}

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;
