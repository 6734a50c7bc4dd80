//! What all admin commands have in common.

use std::borrow::Cow;

use super::super::command::Command;
use super::super::identify::IdentifyController;
use super::super::opcode::AdminOpcode;

bitflags::bitflags! {
    /// Optional admin commands (OACS).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct OptionalAdmin: u16 {
        /// Security Send and Security Receive.
        const SECURITY = 1 << 0;
        /// Format NVM.
        const FORMAT = 1 << 1;
        /// Firmware Commit and Firmware Image Download.
        const FIRMWARE = 1 << 2;
        /// Namespace Management and Namespace Attachment.
        const NAMESPACES = 1 << 3;
        /// Device Self-test.
        const SELF_TEST = 1 << 4;
        /// Directive Send and Directive Receive.
        const DIRECTIVES = 1 << 5;
        /// NVMe-MI Send and NVMe-MI Receive.
        const MANAGEMENT = 1 << 6;
        /// Virtualization Management.
        const VIRTUALIZATION = 1 << 7;
        /// Doorbell Buffer Config.
        const DOORBELL_BUFFER = 1 << 8;
        /// Get LBA Status.
        const LBA_STATUS = 1 << 9;
        /// Lockdown.
        const LOCKDOWN = 1 << 10;
        /// Migration Send and Migration Receive.
        const LIVE_MIGRATION = 1 << 11;
        const _ = !0;
    }
}

impl OptionalAdmin {
    /// Returns the reason why a controller has not all of these commands, if it lacks one.
    pub(super) fn lacking(self, controller: &IdentifyController) -> Option<String> {
        let (has, bit) = (controller.optional_admin().contains(self), self.bits().trailing_zeros());
        (!has).then(|| format!("the controller does not have the command (OACS bit {bit} is 0)"))
    }
}

impl IdentifyController {
    /// Returns the optional admin commands that the controller has.
    #[must_use]
    pub const fn optional_admin(&self) -> OptionalAdmin {
        OptionalAdmin::from_bits_retain(self.oacs)
    }
}

/// An admin command as a structure: for [`Controller::execute`](crate::Controller::execute).
///
/// The opcode's low bits say in which direction data goes; [`data`](Self::data) and [`returns`](Self::returns) follow them.
pub trait AdminCommand {
    /// The opcode.
    const OPCODE: AdminOpcode;
    /// The controller's answer.
    type Answer;

    /// Returns the command, without data pointers.
    fn command(&self) -> Command;

    /// Returns the data that the controller reads; empty if the command sends none.
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&[])
    }

    /// Returns the number of bytes that the controller returns.
    fn returns(&self) -> usize {
        0
    }

    /// Returns the reason why the controller can't carry the command out, by its Identify data; `None` if it may.
    fn refusal(&self, controller: &IdentifyController) -> Option<String>;

    /// Makes the answer of dword 0 of the completion and the returned data; `None` if they are inconsistent.
    fn answer(&self, dword0: u32, data: Vec<u8>) -> Option<Self::Answer>;
}
