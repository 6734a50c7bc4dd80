//! Base, "Virtualization Management command".

use super::super::command::Command;
use super::super::identify::IdentifyController;
use super::super::macros::named_values;
use super::super::opcode::AdminOpcode;
use super::request::{AdminCommand, OptionalAdmin};

named_values! {
    /// The action of a Virtualization Management (ACT).
    VirtualizationAction(u8) {
        PRIMARY_FLEXIBLE = 1, "primary controller flexible allocation";
        SECONDARY_OFFLINE = 7, "secondary controller offline";
        SECONDARY_ASSIGN = 8, "secondary controller assign";
        SECONDARY_ONLINE = 9, "secondary controller online";
    }
}

named_values! {
    /// A flexible resource of a controller (RT).
    VirtualResource(u8) {
        QUEUES = 0, "queue resources";
        INTERRUPTS = 1, "interrupt resources";
    }
}

/// Virtualization Management: moves queues and interrupts between a primary controller and its secondary ones, and turns these
/// on and off. The answer is the number of resources that were assigned (NRM).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VirtualizationManagement {
    /// The action.
    pub action: VirtualizationAction,
    /// The controller (CNTLID): a secondary one, or the primary one for its own allocation.
    pub controller: u16,
    /// The resource, for assignments.
    pub resource: VirtualResource,
    /// Number of controller resources (NR).
    pub number: u16,
}

impl AdminCommand for VirtualizationManagement {
    const OPCODE: AdminOpcode = AdminOpcode::VIRTUALIZATION_MANAGEMENT;
    type Answer = u16;

    fn command(&self) -> Command {
        let cdw10 = u32::from(self.action.0 & 0xf)
            | u32::from(self.resource.0 & 7) << 8
            | u32::from(self.controller) << 16;
        Command { cdw10, cdw11: self.number.into(), ..Command::admin(Self::OPCODE, 0) }
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        OptionalAdmin::VIRTUALIZATION.lacking(controller)
    }

    fn answer(&self, dword0: u32, _: Vec<u8>) -> Option<u16> {
        Some(dword0 as u16)
    }
}
