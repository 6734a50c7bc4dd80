//! Protection information of a command by nvme-cli's options: four bits (`--prinfo`) that are 8 for the action, 4, 2 and 1 for
//! checks, and the tags.

use crate::structures;
use anyhow::bail;
use clap::Args;
use upcie_nvme::protection::{BlockFormat, Checks, Protect, ProtectionType};

/// The bit of the action: the controller makes protection information of what is written, and strips it of what is read.
pub const ACTION: u8 = 8;

/// Arguments about the protection of a command's blocks.
#[derive(Debug, Args)]
pub struct ProtectionArgs {
    /// Protection information, the sum of 8: the controller makes and strips it; 4, 2, 1: it checks guard, application tag,
    /// reference tag
    #[arg(long, short = 'p', value_name = "BITS", value_parser = parse_prinfo)]
    prinfo: Option<u8>,
    /// Application tag that the blocks get, or are checked for [default: 0]
    #[arg(long, short = 'a', value_name = "TAG", value_parser = structures::parse::<u16>)]
    app_tag: Option<u16>,
    /// Bits of the application tag that are checked [default: 0xffff]
    #[arg(long, value_name = "MASK", value_parser = structures::parse::<u16>)]
    app_tag_mask: Option<u16>,
    /// Reference tag of the first block [default: its number; 0 with protection type 3]
    #[arg(long, short = 'r', value_name = "TAG", value_parser = structures::parse::<u64>)]
    ref_tag: Option<u64>,
}

impl ProtectionArgs {
    /// Returns the first option that is given.
    fn first(&self) -> Option<&'static str> {
        [
            ("--prinfo", self.prinfo.is_some()),
            ("--app-tag", self.app_tag.is_some()),
            ("--app-tag-mask", self.app_tag_mask.is_some()),
            ("--ref-tag", self.ref_tag.is_some()),
        ]
        .into_iter()
        .find_map(|(option, is_given)| is_given.then_some(option))
    }

    /// Returns the four bits.
    pub fn bits(&self) -> u8 {
        self.prinfo.unwrap_or(0)
    }

    /// Returns the reference tag of the first block, if it is the user's.
    pub fn reference(&self) -> Option<u64> {
        self.ref_tag
    }

    /// Returns the protection of commands on blocks of this format, without the reference tag; `None` if none is asked for.
    ///
    /// # Errors
    /// The blocks have no protection information, or a type that does not take the check.
    pub fn of(&self, format: &BlockFormat) -> anyhow::Result<Option<Protect>> {
        let Some(option) = self.first() else { return Ok(None) };
        let Some(protection) = format.protection() else {
            bail!(
                "{option} is for protection information, which blocks of {format} do not have: leave it out, or use `upcie \
                 format` with --protection"
            );
        };
        let bits = self.bits();
        if protection.kind() == ProtectionType::Type3 && bits & 1 != 0 {
            bail!(
                "--prinfo {bits}: with protection type 3 the reference tag is the application's, and controllers refuse to \
                 check it: give {}",
                bits & !1
            );
        }
        let tagged = protect(bits).application_tag(self.app_tag.unwrap_or(0));
        Ok(Some(tagged.application_mask(self.app_tag_mask.unwrap_or(u16::MAX))))
    }
}

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
