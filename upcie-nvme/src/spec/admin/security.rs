//! Base, "Security Send command" and "Security Receive command".

use std::borrow::Cow;

use super::super::command::Command;
use super::super::identify::IdentifyController;
use super::super::opcode::AdminOpcode;
use super::request::{AdminCommand, OptionalAdmin};

fn dword10(protocol: u8, specific: u16, nvme_specific: u8) -> u32 {
    u32::from(nvme_specific) | u32::from(specific) << 8 | u32::from(protocol) << 24
}

/// Security Send: data of a security protocol, which may lock or erase the device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SecuritySend {
    /// The namespace; 0 for the controller.
    pub nsid: u32,
    /// The protocol (SECP), as SPC-5 numbers them: 1 TCG, EAh NVMe.
    pub protocol: u8,
    /// The protocol's own field (SPSP).
    pub specific: u16,
    /// NVMe's own field (NSSF), for protocol EAh: a target of replay protected memory.
    pub nvme_specific: u8,
    /// The data.
    pub data: Vec<u8>,
}

impl AdminCommand for SecuritySend {
    const OPCODE: AdminOpcode = AdminOpcode::SECURITY_SEND;
    type Answer = ();

    fn command(&self) -> Command {
        Command {
            cdw10: dword10(self.protocol, self.specific, self.nvme_specific),
            cdw11: self.data.len() as u32,
            ..Command::admin(Self::OPCODE, self.nsid)
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        OptionalAdmin::SECURITY.lacking(controller)
    }

    fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
        Some(())
    }
}

/// Security Receive: returns data of a security protocol. Protocol 0 lists the protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SecurityReceive {
    /// The namespace; 0 for the controller.
    pub nsid: u32,
    /// The protocol (SECP).
    pub protocol: u8,
    /// The protocol's own field (SPSP).
    pub specific: u16,
    /// NVMe's own field (NSSF).
    pub nvme_specific: u8,
    /// Bytes to return (AL).
    pub len: u32,
}

impl AdminCommand for SecurityReceive {
    const OPCODE: AdminOpcode = AdminOpcode::SECURITY_RECEIVE;
    type Answer = Vec<u8>;

    fn command(&self) -> Command {
        Command {
            cdw10: dword10(self.protocol, self.specific, self.nvme_specific),
            cdw11: self.len,
            ..Command::admin(Self::OPCODE, self.nsid)
        }
    }

    fn returns(&self) -> usize {
        self.len as usize
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        OptionalAdmin::SECURITY.lacking(controller)
    }

    fn answer(&self, _: u32, data: Vec<u8>) -> Option<Vec<u8>> {
        Some(data)
    }
}
