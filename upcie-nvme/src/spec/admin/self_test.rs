//! Base, "Device Self-test command".

use super::super::command::Command;
use super::super::identify::IdentifyController;
use super::super::macros::named_values;
use super::super::opcode::AdminOpcode;
use super::namespace::nsid_refusal;
use super::request::{AdminCommand, OptionalAdmin};

named_values! {
    /// The action of a Device Self-test (STC).
    SelfTestCode(u8) {
        SHORT = 1, "short test";
        EXTENDED = 2, "extended test";
        HOST_REFRESH = 3, "host-initiated refresh";
        VENDOR = 0xe, "vendor specific test";
        ABORT = 0xf, "abort";
    }
}

/// Device Self-test: begins a test, or aborts the one that runs. The command completes at once; the
/// [`SelfTestLog`](crate::spec::SelfTestLog) tells how far the test is, and how it ended. Data stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SelfTest {
    /// The namespace to test: 0 for the controller alone, [`ALL_NAMESPACES`](crate::spec::ALL_NAMESPACES) for all.
    pub nsid: u32,
    /// The action.
    pub code: SelfTestCode,
}

impl AdminCommand for SelfTest {
    const OPCODE: AdminOpcode = AdminOpcode::DEVICE_SELF_TEST;
    type Answer = ();

    fn command(&self) -> Command {
        Command { cdw10: u32::from(self.code.0 & 0xf), ..Command::admin(Self::OPCODE, self.nsid) }
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        let nsid = if self.nsid == 0 { None } else { nsid_refusal(self.nsid, controller) };
        nsid.or_else(|| OptionalAdmin::SELF_TEST.lacking(controller))
    }

    fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
        Some(())
    }
}
