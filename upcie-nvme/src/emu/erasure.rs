//! Erasures: what is being erased, for which command, and how much of it is done.
//!
//! Each step erases a piece ([erasing](super::erasing)), so that no other command waits for the size of a medium.

use super::{faults::Effects, formats::Layout, namespace::Away};
use crate::spec::Command;

/// The purpose of an erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Format NVM: each namespace has this layout once it is erased.
    Format(Layout),
    /// Namespace Management: each namespace is gone once it is erased.
    Delete,
    /// Sanitize: all of the medium is erased.
    Sanitize,
    /// A fault plan has given a namespace another layout.
    Reformat {
        /// A host has read the namespace's Identify data since.
        identified: bool,
    },
}

/// An admin command that completes when an erasure ends, and what a fault plan does to its completion.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply {
    pub command: Command,
    pub effects: Effects,
}

/// An erasure: of one namespace after another, or of all of the medium.
#[derive(Debug)]
pub(super) struct Erasure {
    pub purpose: Purpose,
    /// `None` if no command waits for the end, or the controller was reset since.
    pub reply: Option<Reply>,
    /// The namespaces by index, each with its state before; empty for a Sanitize.
    pub named: Vec<(usize, Away)>,
    /// The number of namespaces that are erased; 1 once a Sanitize has erased the medium.
    pub ended: usize,
    /// The bytes that are erased of the namespace behind those, or of the medium.
    pub done: u64,
}

impl Erasure {
    /// Makes an erasure that begins with the first byte, and with whose end `command` completes.
    pub fn new(purpose: Purpose, named: Vec<(usize, Away)>, command: Option<&Command>) -> Self {
        let reply = command.map(|command| Reply { command: *command, effects: Effects::default() });
        Self { purpose, reply, named, ended: 0, done: 0 }
    }

    /// Returns `true` for a Format NVM.
    pub fn is_format(&self) -> bool {
        matches!(self.purpose, Purpose::Format(_))
    }

    /// Returns the place of a namespace among those that are named.
    pub fn place_of(&self, index: usize) -> Option<usize> {
        self.named.iter().position(|&(named, _)| named == index)
    }
}
