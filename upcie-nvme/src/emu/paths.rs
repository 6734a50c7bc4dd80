//! Asymmetric Namespace Access (`ana=`): the state in which a controller has the namespaces, which are all of one group. (Base,
//! "Asymmetric Namespace Access Reporting")
//!
//! Each controller of an NVM subsystem has a state of its own.

use super::{Options, namespace::Namespace};
use crate::spec::{AccessGroup, AccessHeader, AccessState, NvmOpcode, Status};
use zerocopy::{FromZeros, IntoBytes};

/// The group of all namespaces.
pub(super) const GROUP: u32 = 1;
/// ANACAP: all five states, and a namespace stays in its group while it is attached.
pub(super) const CAPABILITIES: u8 = 0x5f;
/// ANATT: the seconds that a transition takes at most.
pub(super) const TRANSITION: u8 = 10;

/// A controller's path to the namespaces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    /// `None` for a controller that reports no such states.
    state: Option<AccessState>,
    /// Changes of the state.
    changes: u64,
}

impl Path {
    /// Makes the path of a new controller.
    pub fn new(options: &Options) -> Self {
        Self { state: options.ana, changes: 0 }
    }

    /// Returns the status of commands to the namespaces, if the state refuses them.
    pub fn refusal(self) -> Option<Status> {
        match self.state? {
            AccessState::INACCESSIBLE => Some(Status::ANA_INACCESSIBLE),
            AccessState::PERSISTENT_LOSS => Some(Status::ANA_PERSISTENT_LOSS),
            AccessState::CHANGE => Some(Status::ANA_TRANSITION),
            _ => None,
        }
    }

    /// Returns an error for an I/O command that the state refuses. A Cancel is about queues.
    pub fn check(self, opcode: NvmOpcode) -> Result<(), Status> {
        match self.refusal() {
            Some(status) if opcode != NvmOpcode::CANCEL => Err(status),
            _ => Ok(()),
        }
    }

    /// Changes the state.
    ///
    /// # Errors
    /// Invalid Field for no state, or a controller that reports none.
    pub fn change(&mut self, state: AccessState) -> Result<(), Status> {
        if self.state.is_none() || state.name().is_none() {
            return Err(Status::INVALID_FIELD.with_do_not_retry());
        }
        self.changes += u64::from(self.state != Some(state));
        self.state = Some(state);
        Ok(())
    }

    /// Returns the Asymmetric Namespace Access log page, without namespaces if the host wants `groups_only`; `None` for a
    /// controller that reports no states.
    pub fn page(self, namespaces: &[Namespace], groups_only: bool) -> Option<Vec<u8>> {
        let state = self.state?;
        let listed = (1_u32..).zip(namespaces).filter(|(_, namespace)| !groups_only && namespace.is_active());
        let nsids: Vec<u32> = listed.map(|(nsid, _)| nsid).collect();
        let (mut header, mut group) = (AccessHeader::new_zeroed(), AccessGroup::new_zeroed());
        (header.change_count, header.groups) = (self.changes, 1);
        (group.group_id, group.namespace_count) = (GROUP, nsids.len() as u32);
        (group.change_count, group.state_bits) = (self.changes, state.0);
        Some([header.as_bytes(), group.as_bytes(), nsids.as_slice().as_bytes()].concat())
    }
}
