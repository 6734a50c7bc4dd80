//! Errors in the options, or in the files and memory that they name.

use super::keys::KEYS;
use std::{fmt, io, path::PathBuf};
use upcie_core::Chain;

/// The reason why there is no embedded controller.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No option has this name.
    #[error("{key:?} is not an option of the embedded controller; the options are\n{KEYS}")]
    UnknownOption {
        /// The text given as key.
        key: String,
    },
    /// An option's value is invalid, or does not go with another option.
    #[error("option {option:?} of the embedded controller: {reason}")]
    Option {
        /// The option as given.
        option: String,
        /// The problem.
        reason: String,
    },
    /// The file of `file=` can't be used.
    #[error("{}: {reason}", path.display())]
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
    FaultPlan {
        /// The line, from 1 on.
        line: usize,
        /// The key, and the problem.
        reason: String,
    },
    /// A rule of a fault plan can't work.
    #[error("rule {rule} of the fault plan: {reason}")]
    FaultRule {
        /// The rule's number, from 1 on.
        rule: usize,
        /// The problem.
        reason: &'static str,
    },
    /// The medium can't have the cache of a fault plan.
    #[error("the fault plan's cache: {reason}")]
    FaultCache {
        /// The problem, and what to do.
        reason: &'static str,
    },
    /// The address space is too small for this many blocks.
    #[error(
        "{size} bytes of memory for the namespaces can't be allocated: make size= or namespaces= smaller, or use file="
    )]
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
