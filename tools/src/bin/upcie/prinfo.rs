//! Protection information by four bits (`--prinfo`), as nvme-cli has it: 8 for the action, 4, 2 and 1 for checks.

use crate::structures;
use upcie_nvme::protection::{Checks, Protect};

/// The bit of the action: the controller makes protection information of what is written, and strips it of what is read.
pub const ACTION: u8 = 8;

/// Parses the four bits.
pub fn parse_prinfo(text: &str) -> Result<u8, String> {
    match structures::parse::<u8>(text)? {
        bits @ 0..16 => Ok(bits),
        _ => Err("a number from 0 to 15: 8 for the action, 4, 2 and 1 for checks".into()),
    }
}

/// Returns the protection of commands, without tags.
pub fn protect(bits: u8) -> Protect {
    let checks = [(4, Checks::GUARD), (2, Checks::APPLICATION_TAG), (1, Checks::REFERENCE_TAG)];
    let checks = checks.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, check)| check).collect();
    let protect = Protect::new().check(checks);
    if bits & ACTION != 0 { protect.action() } else { protect }
}
