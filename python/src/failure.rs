//! Failures of calls, and the Python exceptions that they become.

use pyo3::{PyErr, Python, types::PyAnyMethods};
use std::time::Duration;
use upcie_nvme::{ErrorKind, Refusal, spec::Status};

/// The failure of a call, made without the interpreter.
#[derive(Debug)]
pub enum Failure {
    Nvme(upcie_nvme::Error),
    /// A command of a batch failed.
    Status {
        device: String,
        operation: String,
        status: Status,
    },
    /// A command of a batch was not sent.
    Refused {
        device: String,
        operation: String,
        reason: Refusal,
    },
    Argument(String),
    Closed(String),
    Busy(String),
    /// Nothing was completed for so long.
    Timeout {
        device: String,
        operation: String,
        after: Duration,
    },
    /// A signal's handler raised.
    Raised(PyErr),
}

impl From<upcie_nvme::Error> for Failure {
    fn from(error: upcie_nvme::Error) -> Self {
        Self::Nvme(error)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

/// The parts of an exception: kind, message, device, operation, status and whether to try again.
type Parts = (&'static str, String, Option<String>, Option<String>, Option<u16>, bool);

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        let parts = match failure {
            Failure::Raised(error) => return error,
            other => other.into_parts(),
        };
        let made = Python::attach(|py| {
            let error = py.import("upcie._errors")?.getattr("make")?.call1(parts)?;
            Ok::<_, PyErr>(PyErr::from_value(error))
        });
        made.unwrap_or_else(|error| error)
    }
}

impl Failure {
    fn into_parts(self) -> Parts {
        match self {
            Self::Nvme(error) => (
                kind(error.kind()),
                upcie_nvme::upcie_core::Chain(&error).to_string(),
                error.device().map(str::to_owned),
                error.operation().map(str::to_owned),
                error.status().map(Status::into_bits),
                error.is_retryable(),
            ),
            Self::Status { device, operation, status } => {
                let text = format!("{device}: {operation} failed: {status}");
                let bits = Some(status.into_bits());
                ("status", text, Some(device), Some(operation), bits, !status.do_not_retry())
            }
            Self::Refused { device, operation, reason } => {
                let text = format!("{device}: {operation} was not sent: {reason}");
                ("refused", text, Some(device), Some(operation), None, false)
            }
            Self::Timeout { device, operation, after } => {
                let text = format!("{device}: {operation}: no completion within {after:?}");
                ("timeout", text, Some(device), Some(operation), None, false)
            }
            Self::Argument(text) => ("argument", text, None, None, None, false),
            Self::Closed(text) => ("closed", text, None, None, None, false),
            Self::Busy(text) => ("busy", text, None, None, None, true),
            Self::Raised(error) => ("system", error.to_string(), None, None, None, false),
        }
    }
}

fn kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Argument => "argument",
        ErrorKind::NotFound => "not found",
        ErrorKind::Busy => "busy",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Gone => "gone",
        ErrorKind::Failed => "failed",
        ErrorKind::Protocol => "protocol",
        ErrorKind::Status => "status",
        ErrorKind::Refused => "refused",
        ErrorKind::Memory => "memory",
        _ => "system",
    }
}
