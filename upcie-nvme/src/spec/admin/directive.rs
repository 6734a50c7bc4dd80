//! Base, "Directive Send command", "Directive Receive command" and "Directives".

use std::borrow::Cow;

use super::super::command::Command;
use super::super::identify::IdentifyController;
use super::super::macros::named_values;
use super::super::opcode::AdminOpcode;
use super::request::{AdminCommand, OptionalAdmin};

named_values! {
    /// The type of a directive (DTYPE).
    DirectiveType(u8) {
        IDENTIFY = 0, "identify";
        STREAMS = 1, "streams";
        DATA_PLACEMENT = 2, "data placement";
    }
}

/// Directive Send. The driver sends the operations whose data it knows: enable a directive (type 0, operation 1), release a
/// stream or all of them (type 1, operations 1 and 2); send others with [`Controller::admin_raw`](crate::Controller::admin_raw).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirectiveSend {
    /// The namespace.
    pub nsid: u32,
    /// The type of the directive.
    pub kind: DirectiveType,
    /// The operation (DOPER).
    pub operation: u8,
    /// The subject of the directive (DSPEC): a stream.
    pub specific: u16,
    /// Command dword 12.
    pub dword12: u32,
    /// The data, a multiple of 4.
    pub data: Vec<u8>,
}

/// Directive Send of Enable Directive: turns a directive on or off for this host on a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EnableDirective {
    /// The namespace.
    pub nsid: u32,
    /// The type of the directive (TDTYPE).
    pub kind: DirectiveType,
    /// On, or off (ENDIR).
    pub enable: bool,
}

impl From<EnableDirective> for DirectiveSend {
    fn from(enable: EnableDirective) -> Self {
        let dword12 = u32::from(enable.kind.0) << 8 | u32::from(enable.enable);
        Self { nsid: enable.nsid, operation: 1, dword12, ..Self::default() }
    }
}

/// Returns the dwords of a length, 0's based; 0 for none, which such operations ignore.
fn dwords(bytes: usize) -> u32 {
    (bytes as u32 / 4).saturating_sub(1)
}

fn dword11(operation: u8, kind: DirectiveType, specific: u16) -> u32 {
    u32::from(operation) | u32::from(kind.0) << 8 | u32::from(specific) << 16
}

impl AdminCommand for DirectiveSend {
    const OPCODE: AdminOpcode = AdminOpcode::DIRECTIVE_SEND;
    type Answer = u32;

    fn command(&self) -> Command {
        Command {
            cdw10: dwords(self.data.len()),
            cdw11: dword11(self.operation, self.kind, self.specific),
            cdw12: self.dword12,
            ..Command::admin(Self::OPCODE, self.nsid)
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        if self.data.len() % 4 != 0 {
            return Some("the data has whole dwords".into());
        }
        OptionalAdmin::DIRECTIVES.lacking(controller)
    }

    fn answer(&self, dword0: u32, _: Vec<u8>) -> Option<u32> {
        Some(dword0)
    }
}

/// Directive Receive: returns dword 0 of the completion, and the data. The driver sends the operations whose data it knows: the
/// parameters of all directives (type 0, operation 1) and of streams (type 1: 1 parameters, 2 status, 3 allocates resources).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DirectiveReceive {
    /// The namespace.
    pub nsid: u32,
    /// The type of the directive.
    pub kind: DirectiveType,
    /// The operation (DOPER).
    pub operation: u8,
    /// The subject of the directive (DSPEC).
    pub specific: u16,
    /// Command dword 12: for the allocation of streams, how many.
    pub dword12: u32,
    /// Bytes to return, a multiple of 4.
    pub len: usize,
}

impl AdminCommand for DirectiveReceive {
    const OPCODE: AdminOpcode = AdminOpcode::DIRECTIVE_RECEIVE;
    type Answer = (u32, Vec<u8>);

    fn command(&self) -> Command {
        Command {
            cdw10: dwords(self.len),
            cdw11: dword11(self.operation, self.kind, self.specific),
            cdw12: self.dword12,
            ..Command::admin(Self::OPCODE, self.nsid)
        }
    }

    fn returns(&self) -> usize {
        self.len
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        if self.len % 4 != 0 {
            return Some("the data has whole dwords".into());
        }
        OptionalAdmin::DIRECTIVES.lacking(controller)
    }

    fn answer(&self, dword0: u32, data: Vec<u8>) -> Option<(u32, Vec<u8>)> {
        Some((dword0, data))
    }
}
