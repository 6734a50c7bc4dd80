//! Base, "NVMe-MI Send command" and "NVMe-MI Receive command"; their messages are those of the NVMe-MI specification.

use std::borrow::Cow;

use super::super::command::Command;
use super::super::identify::IdentifyController;
use super::super::opcode::AdminOpcode;
use super::request::{AdminCommand, OptionalAdmin};

/// NVMe-MI Send: a management message. The driver does not send it in safe code, since it may reset or change anything: pass
/// [`command`](AdminCommand::command) to [`Controller::admin_raw`](crate::Controller::admin_raw).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ManagementSend {
    /// Command dwords 10 to 15.
    pub dwords: [u32; 6],
    /// The data.
    pub data: Vec<u8>,
}

/// NVMe-MI Receive: the answer to a management message. The length of its data is not known to the driver: pass
/// [`command`](AdminCommand::command) to [`Controller::admin_raw`](crate::Controller::admin_raw).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ManagementReceive {
    /// Command dwords 10 to 15.
    pub dwords: [u32; 6],
    /// Bytes to return.
    pub len: usize,
}

fn command(opcode: AdminOpcode, dwords: [u32; 6]) -> Command {
    let [cdw10, cdw11, cdw12, cdw13, cdw14, cdw15] = dwords;
    Command { cdw10, cdw11, cdw12, cdw13, cdw14, cdw15, ..Command::admin(opcode, 0) }
}

impl AdminCommand for ManagementSend {
    const OPCODE: AdminOpcode = AdminOpcode::NVME_MI_SEND;
    type Answer = u32;

    fn command(&self) -> Command {
        command(Self::OPCODE, self.dwords)
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        OptionalAdmin::MANAGEMENT.lacking(controller)
    }

    fn answer(&self, dword0: u32, _: Vec<u8>) -> Option<u32> {
        Some(dword0)
    }
}

impl AdminCommand for ManagementReceive {
    const OPCODE: AdminOpcode = AdminOpcode::NVME_MI_RECEIVE;
    type Answer = (u32, Vec<u8>);

    fn command(&self) -> Command {
        command(Self::OPCODE, self.dwords)
    }

    fn returns(&self) -> usize {
        self.len
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        OptionalAdmin::MANAGEMENT.lacking(controller)
    }

    fn answer(&self, dword0: u32, data: Vec<u8>) -> Option<(u32, Vec<u8>)> {
        Some((dword0, data))
    }
}
