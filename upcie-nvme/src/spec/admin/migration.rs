//! Base 2.1, "Migration Send command" and "Migration Receive command": suspends another controller of the NVM subsystem, and
//! moves its state.

use std::borrow::Cow;

use super::super::command::Command;
use super::super::identify::IdentifyController;
use super::super::macros::named_values;
use super::super::opcode::AdminOpcode;
use super::request::{AdminCommand, OptionalAdmin};

named_values! {
    /// The kind of a suspension (STYPE).
    SuspendType(u8) {
        NOTIFICATION = 0, "the controller is going to be suspended";
        SUSPEND = 1, "suspend the controller";
    }
}

named_values! {
    /// The place of a Migration Send in those that move one state (SEQIND).
    StateSequence(u8) {
        MIDDLE = 0, "neither the first nor the last command";
        FIRST = 1, "the first command";
        LAST = 2, "the last command";
        ONLY = 3, "the only command";
    }
}

/// Migration Send: suspends another controller. The driver does not send it in safe code, since that controller may be the
/// driver's, too: pass [`command`](AdminCommand::command) to [`Controller::admin_raw`](crate::Controller::admin_raw).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SuspendController {
    /// The controller (CNTLID).
    pub controller: u16,
    /// The kind.
    pub kind: SuspendType,
    /// The user data migration queue of the controller is deleted (DUDMQ).
    pub delete_queue: bool,
}

/// Migration Send: lets a suspended controller go on. It is sent as [`SuspendController`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResumeController {
    /// The controller (CNTLID).
    pub controller: u16,
}

/// Migration Send: sets a part of the state of a suspended controller. The last part creates the I/O queues of the state. It
/// is sent as [`SuspendController`] is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetControllerState {
    /// The controller (CNTLID).
    pub controller: u16,
    /// The place of this command in those that set the state.
    pub sequence: StateSequence,
    /// The version of the NVMe Controller State, by its index in
    /// [`ControllerStateFormats`](crate::spec::ControllerStateFormats), from 1 on; 0 for none (CSVI).
    pub version_index: u8,
    /// The format of the vendor's state, by its index there, from 1 on; 0 for none (CSUUIDI).
    pub vendor_index: u8,
    /// First byte of the part in the state, a multiple of 4.
    pub offset: u64,
    /// UUID index, 7 bits; 0 for none.
    pub uuid_index: u8,
    /// The part, whole dwords; empty only in the last command.
    pub data: Vec<u8>,
}

/// Migration Receive: returns a part of the state of a controller: the bytes of a
/// [`ControllerState`](super::ControllerState).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GetControllerState {
    /// The controller (CNTLID).
    pub controller: u16,
    /// The version of the NVMe Controller State, as in [`SetControllerState`].
    pub version_index: u8,
    /// The format of the vendor's state, as in [`SetControllerState`].
    pub vendor_index: u8,
    /// The vendor's own parameter of its state (CSUIDXP).
    pub vendor_parameter: u8,
    /// First byte of the part in the state, a multiple of 4.
    pub offset: u64,
    /// UUID index, 7 bits; 0 for none.
    pub uuid_index: u8,
    /// Bytes to return, whole dwords. Those after the end of the state are not defined.
    pub len: usize,
}

/// The answer to [`GetControllerState`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerStatePart {
    /// The controller was suspended all the time (CSUP): only then its state is consistent.
    pub suspended: bool,
    /// The part.
    pub data: Vec<u8>,
}

/// Returns the command, the offset in its dwords 12 and 13, the UUID index in dword 14.
fn command(opcode: AdminOpcode, offset: u64, uuid_index: u8) -> Command {
    Command {
        cdw12: offset as u32,
        cdw13: (offset >> 32) as u32,
        cdw14: u32::from(uuid_index & 0x7f),
        ..Command::admin(opcode, 0)
    }
}

fn refusal(offset: u64, len: usize, controller: &IdentifyController) -> Option<String> {
    if offset % 4 != 0 || len % 4 != 0 {
        return Some("a part of the state begins and ends at whole dwords".into());
    }
    OptionalAdmin::LIVE_MIGRATION.lacking(controller)
}

impl AdminCommand for SuspendController {
    const OPCODE: AdminOpcode = AdminOpcode::MIGRATION_SEND;
    type Answer = ();

    fn command(&self) -> Command {
        let cdw11 =
            u32::from(self.controller) | u32::from(self.kind.0) << 16 | u32::from(self.delete_queue) << 31;
        Command { cdw11, ..Command::admin(Self::OPCODE, 0) }
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        OptionalAdmin::LIVE_MIGRATION.lacking(controller)
    }

    fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
        Some(())
    }
}

impl AdminCommand for ResumeController {
    const OPCODE: AdminOpcode = AdminOpcode::MIGRATION_SEND;
    type Answer = ();

    fn command(&self) -> Command {
        Command { cdw10: 1, cdw11: self.controller.into(), ..Command::admin(Self::OPCODE, 0) }
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        OptionalAdmin::LIVE_MIGRATION.lacking(controller)
    }

    fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
        Some(())
    }
}

impl AdminCommand for SetControllerState {
    const OPCODE: AdminOpcode = AdminOpcode::MIGRATION_SEND;
    type Answer = ();

    fn command(&self) -> Command {
        Command {
            cdw10: 2 | u32::from(self.sequence.0 & 3) << 16,
            cdw11: u32::from(self.controller)
                | u32::from(self.version_index) << 16
                | u32::from(self.vendor_index) << 24,
            // Not 0's based, unlike that of Migration Receive.
            cdw15: (self.data.len() / 4) as u32,
            ..command(Self::OPCODE, self.offset, self.uuid_index)
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        if self.data.is_empty() && self.sequence != StateSequence::LAST {
            return Some("only the last part of a state may be empty".into());
        }
        refusal(self.offset, self.data.len(), controller)
    }

    fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
        Some(())
    }
}

impl AdminCommand for GetControllerState {
    const OPCODE: AdminOpcode = AdminOpcode::MIGRATION_RECEIVE;
    type Answer = ControllerStatePart;

    fn command(&self) -> Command {
        Command {
            cdw10: u32::from(self.version_index) << 16,
            cdw11: u32::from(self.controller)
                | u32::from(self.vendor_index) << 16
                | u32::from(self.vendor_parameter) << 24,
            cdw15: (self.len / 4).saturating_sub(1) as u32,
            ..command(Self::OPCODE, self.offset, self.uuid_index)
        }
    }

    fn returns(&self) -> usize {
        self.len
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        if self.len == 0 {
            return Some("a dword at least is returned".into());
        }
        refusal(self.offset, self.len, controller)
    }

    fn answer(&self, dword0: u32, data: Vec<u8>) -> Option<ControllerStatePart> {
        Some(ControllerStatePart { suspended: dword0 & 1 == 1, data })
    }
}
