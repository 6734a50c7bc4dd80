//! Base, "Lockdown command".

use super::super::command::Command;
use super::super::identify::IdentifyController;
use super::super::macros::named_values;
use super::super::opcode::AdminOpcode;
use super::request::{AdminCommand, OptionalAdmin};

named_values! {
    /// The subject that a Lockdown prohibits or allows (SCP).
    LockdownSubject(u8) {
        ADMIN_COMMAND = 0, "admin command";
        FEATURE = 2, "Set Features of a feature";
        MANAGEMENT_COMMAND = 3, "NVMe-MI command";
        PCIE_COMMAND = 4, "PCIe command of a management endpoint";
    }
}

named_values! {
    /// The interface that a Lockdown applies to (IFC).
    LockdownInterface(u8) {
        ADMIN_QUEUE = 0, "admin queue";
        ADMIN_QUEUE_AND_OUT_OF_BAND = 1, "admin queue and out of band";
        OUT_OF_BAND = 2, "out of band";
    }
}

/// Lockdown: prohibits an admin command or a feature until power is cut, or allows it again. Queue pairs must be closed first:
/// a prohibited command may be one that deletes queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lockdown {
    /// The kind of what is prohibited.
    pub subject: LockdownSubject,
    /// The opcode, or the feature identifier (OFI).
    pub code: u8,
    /// Prohibits, or allows (PRHBT).
    pub prohibit: bool,
    /// The interface that it applies to.
    pub interface: LockdownInterface,
    /// UUID index, 7 bits; 0 for none.
    pub uuid_index: u8,
}

impl AdminCommand for Lockdown {
    const OPCODE: AdminOpcode = AdminOpcode::LOCKDOWN;
    type Answer = ();

    fn command(&self) -> Command {
        let cdw10 = u32::from(self.subject.0 & 0xf)
            | u32::from(self.prohibit) << 4
            | u32::from(self.interface.0 & 3) << 5
            | u32::from(self.code) << 8;
        Command { cdw10, cdw14: u32::from(self.uuid_index & 0x7f), ..Command::admin(Self::OPCODE, 0) }
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        OptionalAdmin::LOCKDOWN.lacking(controller)
    }

    fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
        Some(())
    }
}
