//! Base, "Capacity Management command".

use super::super::command::Command;
use super::super::identify::IdentifyController;
use super::super::macros::named_values;
use super::super::opcode::AdminOpcode;
use super::request::AdminCommand;

named_values! {
    /// The operation of a Capacity Management (OPER).
    CapacityOperation(u8) {
        SELECT_CONFIGURATION = 0, "select a capacity configuration";
        CREATE_ENDURANCE_GROUP = 1, "create an endurance group";
        DELETE_ENDURANCE_GROUP = 2, "delete an endurance group";
        CREATE_NVM_SET = 3, "create an NVM set";
        DELETE_NVM_SET = 4, "delete an NVM set";
    }
}

/// Bits of the controller attributes (CTRATT): fixed and variable capacity management.
const FIXED: u32 = 1 << 10;
const VARIABLE: u32 = 1 << 11;

/// Capacity Management: selects a configuration, or creates and deletes endurance groups and NVM sets, with their namespaces.
/// The answer is the identifier of what was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapacityManagement {
    /// The operation.
    pub operation: CapacityOperation,
    /// The configuration, the endurance group or the NVM set (ELID).
    pub element: u16,
    /// Bytes of what is created (CAPL, CAPU).
    pub capacity: u64,
}

impl AdminCommand for CapacityManagement {
    const OPCODE: AdminOpcode = AdminOpcode::CAPACITY_MANAGEMENT;
    type Answer = u16;

    fn command(&self) -> Command {
        Command {
            cdw10: u32::from(self.operation.0 & 0xf) | u32::from(self.element) << 16,
            cdw11: self.capacity as u32,
            cdw12: (self.capacity >> 32) as u32,
            ..Command::admin(Self::OPCODE, 0)
        }
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        let (needed, kind) = match self.operation {
            CapacityOperation::SELECT_CONFIGURATION => (FIXED, "fixed"),
            _ => (VARIABLE, "variable"),
        };
        let lacks = controller.ctratt & needed == 0;
        let bit = needed.trailing_zeros();
        lacks.then(|| format!("the controller has no {kind} capacity management (CTRATT bit {bit} is 0)"))
    }

    fn answer(&self, dword0: u32, _: Vec<u8>) -> Option<u16> {
        Some(dword0 as u16)
    }
}
