//! Errors in the options, or in the files and memory that they name.

use super::keys::KEYS;
use std::{fmt, io, path::PathBuf};
use upcie_core::{Chain, ErrorKind};

/// The reason why there is no embedded controller.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No option has this name.
    #[error("{key:?} is not an option of the embedded controller; the options are\n{KEYS}")]
    #[non_exhaustive]
    UnknownOption {
        /// The text given as key.
        key: String,
    },
    /// An option's value is invalid, or does not go with another option.
    #[error("option {option:?} of the embedded controller: {reason}")]
    #[non_exhaustive]
    Option {
        /// The option as given.
        option: String,
        /// The problem.
        reason: String,
    },
    /// The file of `file=` can't be used.
    #[error("{}: {reason}", path.display())]
    #[non_exhaustive]
    File {
        /// The file.
        path: PathBuf,
        /// The problem, and what to do.
        reason: String,
        /// The system's error, if there is one.
        #[source]
        source: Option<io::Error>,
    },
    /// A fault plan does not parse.
    #[error("fault plan, line {line}: {reason}")]
    #[non_exhaustive]
    FaultPlan {
        /// The line, from 1 on.
        line: usize,
        /// The key, and the problem.
        reason: String,
    },
    /// A rule of a fault plan can't work.
    #[error("rule {rule} of the fault plan: {key}: {reason}")]
    #[non_exhaustive]
    FaultRule {
        /// The rule's number, from 1 on.
        rule: usize,
        /// The key in a file that is wrong.
        key: &'static str,
        /// The problem.
        reason: &'static str,
    },
    /// The medium can't have the cache of a fault plan.
    #[error("the fault plan's cache: {reason}")]
    #[non_exhaustive]
    FaultCache {
        /// The problem, and what to do.
        reason: &'static str,
    },
    /// The address space is too small for this many blocks.
    #[error(
        "{size} bytes of memory for the namespaces can't be allocated: make size= or namespaces= smaller, or use file="
    )]
    #[non_exhaustive]
    Memory {
        /// Bytes of all namespaces.
        size: u64,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The machine has less memory than the namespaces need.
    #[error(
        "{size} bytes of memory for the namespaces: {reason}: make size= or namespaces= smaller, keep the data in a file \
         (file=), or take memory as it is written (populate=false)"
    )]
    #[non_exhaustive]
    Shortage {
        /// Bytes of all namespaces.
        size: u64,
        /// The available memory, and its source.
        reason: String,
    },
    /// The thread that runs it can't be started.
    #[error("starting the embedded controller")]
    Start(#[source] io::Error),
    /// Doorbells or the connection to it failed.
    #[error(transparent)]
    Core(#[from] upcie_core::Error),
}

impl Error {
    /// Makes an [`Error::Option`]: `option` as it was given, and the reason why it is invalid.
    pub fn option(option: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Option { option: option.into(), reason: reason.into() }
    }

    /// Returns the error's classification, the same as for controllers.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::File { source: Some(_), .. } | Self::Start(_) => ErrorKind::System,
            Self::Memory { .. } | Self::Shortage { .. } => ErrorKind::Memory,
            Self::Core(error) => error.kind(),
            _ => ErrorKind::Argument,
        }
    }

    /// Returns the name of the device or file below the controller; `None` if the error is about the options or about memory.
    pub fn device(&self) -> Option<&str> {
        match self {
            Self::File { path, .. } => path.to_str(),
            Self::Core(error) => error.device(),
            _ => None,
        }
    }

    /// Tells whether the same call may succeed later, with nothing changed by the caller: memory is short, or something is busy.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Core(error) => error.is_retryable(),
            _ => self.kind() == ErrorKind::Memory,
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self))
    }
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        Self::emulator(error)
    }
}
