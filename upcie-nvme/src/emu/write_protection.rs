//! Feature 84h, Namespace Write Protection Config. (Base, "Namespace Write Protection")
//!
//! The state is the namespace's, so all controllers of an NVM subsystem have it. With `ro=true` each namespace is write protected,
//! and stays so.

use super::{features::scope, io::Io, media::Media, namespace::refusal, reservations::Access, state::Core};
use crate::spec::{
    ALL_NAMESPACES, AdminOpcode, Command, FeatureId, FeatureSelect, FeaturesDword10,
    NamespaceWriteProtection, NvmOpcode, Status,
};

/// The states (WPS).
const NONE: u8 = 0;
const PROTECTED: u8 = 1;
const UNTIL_POWER_CYCLE: u8 = 2;
const FOR_EVER: u8 = 3;

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();
const NOT_CHANGEABLE: Status = Status::FEATURE_NOT_CHANGEABLE.with_do_not_retry();

impl<M: Media> Io<M> {
    /// Returns `true` if any namespace is write protected.
    pub(super) fn any_protected(&self) -> bool {
        self.namespaces.iter().any(|namespace| namespace.write_protection != NONE)
    }

    /// Returns an error if a namespace, or with FFFFFFFFh any, is write protected.
    pub(super) fn check_protection(&self, nsid: u32) -> Result<(), Status> {
        let is_protected = match nsid {
            ALL_NAMESPACES => self.any_protected(),
            _ => {
                let named = self.namespaces.get(nsid.wrapping_sub(1) as usize);
                named.is_some_and(|namespace| namespace.write_protection != NONE)
            }
        };
        if is_protected { Err(Status::WRITE_PROTECTED.with_do_not_retry()) } else { Ok(()) }
    }

    /// Returns an error for an I/O command that would change a write protected namespace. A Dataset Management may change none: it
    /// is checked where it does.
    pub(super) fn check_change(&self, opcode: NvmOpcode, nsid: u32) -> Result<(), Status> {
        match opcode {
            NvmOpcode::FLUSH | NvmOpcode::DATASET_MANAGEMENT | NvmOpcode::IO_MANAGEMENT_SEND => Ok(()),
            _ if Access::of(opcode) == Some(Access::Write) => self.check_protection(nsid),
            _ => Ok(()),
        }
    }

    /// Ends the protection that a loss of power ends.
    pub(super) fn end_protection(&mut self) {
        for namespace in &mut self.namespaces {
            if namespace.write_protection == UNTIL_POWER_CYCLE {
                namespace.write_protection = NONE;
            }
        }
        self.note_reservations();
    }
}

impl<M: Media> Core<M> {
    /// Carries out Get Features or Set Features of this feature: returns dword 0 of the completion, and `None` for another
    /// feature.
    pub fn protection_feature(&mut self, command: &Command) -> Option<Result<u32, Status>> {
        let dword = FeaturesDword10::from_bits(command.cdw10);
        if dword.fid() != FeatureId::NAMESPACE_WRITE_PROTECTION {
            return None;
        }
        Some(match (AdminOpcode(command.opcode), dword.sel()) {
            (AdminOpcode::SET_FEATURES, _) => self.protect(command).map(|()| 0),
            (_, FeatureSelect::CURRENT) => self.protection(command.nsid).map(u32::from),
            (_, FeatureSelect::DEFAULT | FeatureSelect::SAVED) => Ok(NONE.into()),
            // Changeable, of a namespace.
            (_, FeatureSelect::SUPPORTED) => Ok(1 << 2 | 1 << 1),
            _ => Err(INVALID_FIELD),
        })
    }

    /// Returns the state of a namespace.
    fn protection(&self, nsid: u32) -> Result<u8, Status> {
        if matches!(nsid, 0 | ALL_NAMESPACES) {
            return Err(INVALID_FIELD);
        }
        match self.io.namespaces.get(nsid as usize - 1) {
            Some(namespace) if !namespace.is_active() => Err(namespace.refusal()),
            Some(namespace) if self.io.protected => Ok(namespace.write_protection.max(PROTECTED)),
            Some(namespace) => Ok(namespace.write_protection),
            None => Err(refusal(None)),
        }
    }

    fn protect(&mut self, command: &Command) -> Result<(), Status> {
        scope(command, false)?;
        let state = NamespaceWriteProtection::from_bits(command.cdw11).state();
        let before = self.protection(command.nsid)?;
        match before {
            _ if state > FOR_EVER => return Err(INVALID_FIELD),
            _ if self.io.protected => return Err(NOT_CHANGEABLE),
            UNTIL_POWER_CYCLE | FOR_EVER => return Err(NOT_CHANGEABLE),
            _ => {}
        }
        if before == NONE && state != NONE {
            // Nothing that is not on the medium yet could be written later.
            self.io.flush_media()?;
        }
        if let Some(namespace) = self.io.namespaces.get_mut(command.nsid as usize - 1) {
            namespace.write_protection = state;
        }
        self.io.reservations.note_change();
        self.io.note_reservations();
        Ok(())
    }
}
