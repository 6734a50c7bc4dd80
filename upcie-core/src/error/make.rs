//! Makes errors: for this crate, and for implementations of its traits elsewhere.

use super::{Error, Failure, Parts};
use std::{io, time::Duration};

impl Error {
    fn new(device: impl Into<String>, operation: impl Into<String>, failure: Failure) -> Self {
        Self(Box::new(Parts { device: device.into(), operation: operation.into(), failure }))
    }

    /// Takes a [`Failure::Os`] apart: the operation, and the system's error.
    #[cfg(any(feature = "uio", feature = "bind"))]
    pub(crate) fn into_os(self) -> Result<(String, io::Error), Self> {
        match *self.0 {
            Parts { operation, failure: Failure::Os { source }, .. } => Ok((operation, source)),
            parts => Err(Self(Box::new(parts))),
        }
    }

    /// Appends `text` to the reason, or to the operation of a failure without a reason.
    #[must_use]
    pub(crate) fn explained(mut self, text: &str) -> Self {
        match &mut self.0.failure {
            Failure::Unusable { reason } => reason.push_str(text),
            _ => self.0.operation.push_str(text),
        }
        self
    }

    /// Makes a [`Failure::Address`]: `input` is not one of the `forms`.
    pub fn address(input: impl Into<String>, reason: impl Into<String>, forms: &'static str) -> Self {
        Self::new("", "", Failure::Address { input: input.into(), reason: reason.into(), forms })
    }

    /// Makes a [`Failure::Os`]: `operation` failed on `device` with the system's error `source`.
    pub fn os(device: impl Into<String>, operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::new(device, operation, Failure::Os { source: source.into() })
    }

    /// Makes a [`Failure::Unusable`]; `reason` says what to do.
    pub fn unusable(device: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(device, "", Failure::Unusable { reason: reason.into() })
    }

    /// Makes a [`Failure::NotFound`]; `reason` says where it was searched.
    pub fn not_found(device: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(device, "", Failure::NotFound { reason: reason.into() })
    }

    /// Makes a [`Failure::Protocol`]; `reason` is the violation.
    pub fn protocol(
        device: impl Into<String>,
        operation: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::new(device, operation, Failure::Protocol { reason: reason.into() })
    }

    /// Makes a [`Failure::Peer`]; `source` is the error number in the reply.
    pub fn peer(
        device: impl Into<String>,
        operation: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::new(device, operation, Failure::Peer { source: source.into() })
    }

    /// Makes a [`Failure::Timeout`].
    pub fn timeout(device: impl Into<String>, operation: impl Into<String>, after: Duration) -> Self {
        Self::new(device, operation, Failure::Timeout { after })
    }

    /// Makes a [`Failure::Gone`].
    pub fn gone(device: impl Into<String>, operation: impl Into<String>) -> Self {
        Self::new(device, operation, Failure::Gone {})
    }

    /// Makes a [`Failure::Forked`].
    pub fn forked(device: impl Into<String>, operation: impl Into<String>) -> Self {
        Self::new(device, operation, Failure::Forked {})
    }

    /// Makes a [`Failure::OutOfRange`]: `len` bytes at `offset` of `size` bytes.
    pub fn out_of_range(
        device: impl Into<String>,
        operation: impl Into<String>,
        offset: u64,
        len: u64,
        size: u64,
    ) -> Self {
        Self::new(device, operation, Failure::OutOfRange { offset, len, size })
    }

    /// Makes a [`Failure::Unsupported`]; `reason` names the alternative.
    pub fn unsupported(
        device: impl Into<String>,
        operation: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::new(device, operation, Failure::Unsupported { reason: reason.into() })
    }

    /// Makes a [`Failure::Memory`] for the memory that `operation` names.
    pub fn memory(
        operation: impl Into<String>,
        reason: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::new("", operation, Failure::Memory { reason: reason.into(), source: source.into() })
    }

    /// Makes a [`Failure::Allocation`]: `len` bytes aligned to `align` bytes.
    pub fn allocation(device: impl Into<String>, len: usize, align: usize, reason: &'static str) -> Self {
        Self::new(device, "", Failure::Allocation { len, align, reason })
    }
}
