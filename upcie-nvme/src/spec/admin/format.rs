//! Base, "Format NVM command".

use super::super::command::{ALL_NAMESPACES, Command};
use super::super::identify::IdentifyController;
use super::super::macros::named_values;
use super::super::opcode::AdminOpcode;
use super::namespace::nsid_refusal;
use super::request::{AdminCommand, OptionalAdmin};

named_values! {
    /// The data that a Format NVM erases, beyond making the data unreadable by its blocks' new format.
    SecureErase(u8) {
        NONE = 0, "none";
        USER_DATA = 1, "user data erase";
        CRYPTOGRAPHIC = 2, "cryptographic erase";
    }
}

/// Format NVM: gives a namespace another block format, and loses its data.
///
/// Queue pairs must be closed first, and namespace handles are stale afterwards: see
/// [`Controller::admin`](crate::Controller::admin). It may take minutes: use
/// [`Controller::execute_within`](crate::Controller::execute_within).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FormatNvm {
    /// The namespace; [`ALL_NAMESPACES`] for all of them.
    pub nsid: u32,
    /// Index of the block format, 0 to 63 (LBAF).
    pub format: u8,
    /// Metadata stands at the end of each block (MSET).
    pub extended_metadata: bool,
    /// Protection information: 0 none, 1 to 3 a type (PI).
    pub protection: u8,
    /// Protection information stands in the first bytes of the metadata (PIL).
    pub protection_first: bool,
    /// The data to erase (SES).
    pub erase: SecureErase,
}

/// Bits of the format attributes (FNA).
const FORMAT_ALL: u8 = 1 << 0;
const ERASE_ALL: u8 = 1 << 1;
const CRYPTO_ERASE: u8 = 1 << 2;
const NO_BROADCAST: u8 = 1 << 3;

impl FormatNvm {
    /// Returns `true` if the controller formats or erases every namespace, whatever the command names (FNA).
    #[must_use]
    pub const fn takes_all(&self, controller: &IdentifyController) -> bool {
        let erases = self.erase.0 != 0 && controller.fna & ERASE_ALL != 0;
        self.nsid == ALL_NAMESPACES || controller.fna & FORMAT_ALL != 0 || erases
    }
}

impl AdminCommand for FormatNvm {
    const OPCODE: AdminOpcode = AdminOpcode::FORMAT_NVM;
    type Answer = ();

    fn command(&self) -> Command {
        let cdw10 = u32::from(self.format & 0xf)
            | u32::from(self.extended_metadata) << 4
            | u32::from(self.protection & 7) << 5
            | u32::from(self.protection_first) << 8
            | u32::from(self.erase.0 & 7) << 9
            | u32::from(self.format >> 4 & 3) << 12;
        Command { cdw10, ..Command::admin(Self::OPCODE, self.nsid) }
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        if self.format > 63 || self.protection > 3 {
            return Some("formats have an index up to 63, and protection information a type up to 3".into());
        }
        if self.erase == SecureErase::CRYPTOGRAPHIC && controller.fna & CRYPTO_ERASE == 0 {
            return Some("the controller has no cryptographic erase (FNA bit 2 is 0)".into());
        }
        if self.nsid == ALL_NAMESPACES && controller.fna & NO_BROADCAST != 0 {
            return Some("the controller formats one namespace at a time (FNA bit 3)".into());
        }
        nsid_refusal(self.nsid, controller).or_else(|| OptionalAdmin::FORMAT.lacking(controller))
    }

    fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
        Some(())
    }
}
