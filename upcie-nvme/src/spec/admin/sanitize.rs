//! Base, "Sanitize command".

use super::super::command::Command;
use super::super::identify::IdentifyController;
use super::super::macros::named_values;
use super::super::opcode::AdminOpcode;
use super::request::AdminCommand;

named_values! {
    /// The action of a Sanitize.
    SanitizeAction(u8) {
        EXIT_FAILURE = 1, "exit failure mode";
        BLOCK_ERASE = 2, "block erase";
        OVERWRITE = 3, "overwrite";
        CRYPTO_ERASE = 4, "crypto erase";
        EXIT_MEDIA_VERIFICATION = 5, "exit media verification";
    }
}

/// Sanitize: begins to erase all data of the NVM subsystem for good. The command completes at once; the
/// [`SanitizeStatusLog`](crate::spec::SanitizeStatusLog) tells how far the erasure is. It goes on after a reset and a loss of
/// power, and nothing stops it.
///
/// Queue pairs must be closed first, and namespace handles are stale afterwards: see
/// [`Controller::admin`](crate::Controller::admin). Until the erasure has ended, I/O fails with
/// [`Status::SANITIZE_IN_PROGRESS`](crate::spec::Status::SANITIZE_IN_PROGRESS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sanitize {
    /// The action (SANACT).
    pub action: SanitizeAction,
    /// After a failure, a Format or an exit of the failure mode lets the device be used again (AUSE).
    pub unrestricted: bool,
    /// Passes of an overwrite, 1 to 16 (OWPASS); 0 is 16.
    pub passes: u8,
    /// The pattern is inverted between passes (OIPBP).
    pub invert: bool,
    /// The blocks are not deallocated afterwards (NDAS).
    pub no_deallocate: bool,
    /// Media verification is entered after the erasure (EMVS, 2.1).
    pub verify_media: bool,
    /// The pattern of an overwrite (OVRPAT).
    pub pattern: u32,
}

impl Sanitize {
    /// Makes a Sanitize with an action; an overwrite has one pass of zeros.
    #[must_use]
    pub const fn new(action: SanitizeAction) -> Self {
        Self {
            action,
            unrestricted: false,
            passes: 1,
            invert: false,
            no_deallocate: false,
            verify_media: false,
            pattern: 0,
        }
    }
}

impl AdminCommand for Sanitize {
    const OPCODE: AdminOpcode = AdminOpcode::SANITIZE;
    type Answer = ();

    fn command(&self) -> Command {
        let passes = if self.action == SanitizeAction::OVERWRITE { self.passes & 0xf } else { 0 };
        let cdw10 = u32::from(self.action.0 & 7)
            | u32::from(self.unrestricted) << 3
            | u32::from(passes) << 4
            | u32::from(self.invert) << 8
            | u32::from(self.no_deallocate) << 9
            | u32::from(self.verify_media) << 10;
        Command { cdw10, cdw11: self.pattern, ..Command::admin(Self::OPCODE, 0) }
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        let bit = match self.action {
            SanitizeAction::CRYPTO_ERASE => 0,
            SanitizeAction::BLOCK_ERASE => 1,
            SanitizeAction::OVERWRITE => 2,
            _ if controller.sanicap & 7 == 0 => {
                return Some("the controller can't sanitize (SANICAP)".into());
            }
            _ => return None,
        };
        let action = self.action.name().unwrap_or("this action");
        let lacks = controller.sanicap & 1 << bit == 0;
        lacks.then(|| format!("the controller can't sanitize by {action} (SANICAP bit {bit} is 0)"))
    }

    fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
        Some(())
    }
}
