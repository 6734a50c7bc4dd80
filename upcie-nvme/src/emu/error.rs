//! What can be wrong with the options, or with what they name.

use super::options::KEYS;
use std::{io, path::PathBuf};

/// Why there is no embedded controller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such option.
    #[error("{key:?} is not an option of the embedded controller; the options are\n{KEYS}")]
    UnknownOption {
        /// What was given.
        key: String,
    },
    /// An option's value is none, or does not go with another option.
    #[error("option {option:?} of the embedded controller: {reason}")]
    Option {
        /// What was given.
        option: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file of `file=` can't be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
        /// The system's answer, if it has given one.
        #[source]
        source: Option<io::Error>,
    },
    /// There is no address space for so many blocks.
    #[error(
        "{size} bytes of memory for the namespaces can't be had: make size= or namespaces= smaller, or use file="
    )]
    Memory {
        /// Bytes of all namespaces.
        size: u64,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// There is not as much memory as the namespaces take, or no longer.
    #[error(
        "{size} bytes of memory for the namespaces: {reason}: make size= or namespaces= smaller, keep the data in a file \
         (file=), or take memory as it is written (populate=false)"
    )]
    Shortage {
        /// Bytes of all namespaces.
        size: u64,
        /// How much there is, and what says so.
        reason: String,
    },
    /// The thread that runs it can't be started.
    #[error("starting the embedded controller")]
    Start(#[source] io::Error),
    /// Doorbells or the connection to it failed.
    #[error(transparent)]
    Core(#[from] upcie_core::Error),
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        Self::Emulator(Box::new(error))
    }
}
