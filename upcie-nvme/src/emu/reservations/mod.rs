//! Reservations: hosts, their registrations, and the reservation of each namespace. (Base, "Reservations")
//!
//! Hosts are told apart by their identifier, not by their controller. So the state belongs to the NVM subsystem, and outlasts
//! a reset. Plain commands do not test for reservations: only while one restricts the controller's host do its commands
//! take the path of uncommon ones (`Io::careful`).

mod commands;
mod features;
mod notices;
mod seats;
mod state;
#[cfg(test)]
mod tests;

pub(super) use state::Reservations;

use crate::spec::NvmOpcode;

/// A host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    /// The one that uses this controller and has told no identifier: another one after a reset.
    Unnamed(u16),
    /// The one with this identifier.
    Named(u128),
}

/// The access of a command to a namespace, as reservations permit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl Access {
    /// Returns the access of an I/O command; `None` for commands that have rules of their own.
    pub fn of(opcode: NvmOpcode) -> Option<Self> {
        match opcode {
            NvmOpcode::READ
            | NvmOpcode::COMPARE
            | NvmOpcode::VERIFY
            | NvmOpcode::IO_MANAGEMENT_RECEIVE
            | NvmOpcode::ZONE_MANAGEMENT_RECEIVE => Some(Self::Read),
            // Copy also reads: who may write may read.
            NvmOpcode::WRITE
            | NvmOpcode::FLUSH
            | NvmOpcode::WRITE_UNCORRECTABLE
            | NvmOpcode::WRITE_ZEROES
            | NvmOpcode::DATASET_MANAGEMENT
            | NvmOpcode::COPY
            | NvmOpcode::IO_MANAGEMENT_SEND
            | NvmOpcode::ZONE_MANAGEMENT_SEND
            | NvmOpcode::ZONE_APPEND => Some(Self::Write),
            _ => None,
        }
    }
}

/// Returns `true` for a reservation command.
pub(super) fn is_reservation(opcode: NvmOpcode) -> bool {
    matches!(
        opcode,
        NvmOpcode::RESERVATION_REGISTER
            | NvmOpcode::RESERVATION_REPORT
            | NvmOpcode::RESERVATION_ACQUIRE
            | NvmOpcode::RESERVATION_RELEASE
    )
}
