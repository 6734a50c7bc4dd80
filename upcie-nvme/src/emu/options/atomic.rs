//! The options of atomic writes.

use super::super::{Error, units::number};
use crate::spec::{IdentifyController, IdentifyNamespace};

/// The most blocks of a unit: as many as a field of 16 bits, 0's based, can tell.
const MOST: u32 = 1 << 16;
/// The most bytes of a unit: longer writes are carried out in pieces.
const BYTES: u64 = 1 << 20;

/// The atomic units that the controller reports, in blocks; 0, the default, for what it does not report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub struct AtomicOptions {
    /// `awun=`: blocks that a write has as a whole (AWUN); up to 1 MiB. Default: one.
    pub awun: u32,
    /// `awupf=`: blocks that are written as a whole when power fails (AWUPF). Default: one.
    pub awupf: u32,
    /// `nawun=`: the same as `awun=`, as each namespace reports it (NAWUN).
    pub nawun: u32,
    /// `nawupf=`: the same as `awupf=`, as each namespace reports it (NAWUPF).
    pub nawupf: u32,
    /// `nabsn=`: blocks from one boundary to the next that no atomic write crosses (NABSN).
    pub nabsn: u32,
    /// `nabspf=`: the same, when power fails (NABSPF).
    pub nabspf: u32,
    /// `nabo=`: the block of the first boundary (NABO).
    pub nabo: u32,
}

/// Returns a number of blocks as Identify tells it.
fn told(blocks: u32) -> u16 {
    blocks.saturating_sub(1) as u16
}

impl AtomicOptions {
    /// Sets one option from its text; returns `false` for a key that is none of atomic writes.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        let field = match key {
            "awun" => &mut self.awun,
            "awupf" => &mut self.awupf,
            "nawun" => &mut self.nawun,
            "nawupf" => &mut self.nawupf,
            "nabsn" => &mut self.nabsn,
            "nabspf" => &mut self.nabspf,
            "nabo" => &mut self.nabo,
            _ => return Ok(false),
        };
        *field = number(value, 0, MOST).ok_or_else(|| Error::Option {
            option: format!("{key}={value}"),
            reason: "0 to 65536 blocks".into(),
        })?;
        Ok(true)
    }

    /// Checks that the options are compatible with one another and with blocks of `block` bytes at most.
    pub(super) fn check(&self, block: u64) -> Result<(), Error> {
        let bad = |option: String, reason: &str| Err(Error::Option { option, reason: reason.into() });
        let units =
            [("awun", self.awun), ("awupf", self.awupf), ("nawun", self.nawun), ("nawupf", self.nawupf)];
        for (key, blocks) in units {
            if u64::from(blocks) * block > BYTES {
                return bad(format!("{key}={blocks}"), "no more than 1 MiB is written as a whole");
            }
        }
        match self.nabo {
            0 => Ok(()),
            nabo if nabo < self.nabsn.max(self.nabspf) => Ok(()),
            nabo => bad(format!("nabo={nabo}"), "less than nabsn= or nabspf= is needed"),
        }
    }

    /// Returns the options that are not at their default, as text.
    pub(super) fn text(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("awun", self.awun),
            ("awupf", self.awupf),
            ("nawun", self.nawun),
            ("nawupf", self.nawupf),
            ("nabsn", self.nabsn),
            ("nabspf", self.nabspf),
            ("nabo", self.nabo),
        ];
        all.into_iter().filter(|(_, value)| *value > 0).map(|(key, value)| (key, value.to_string())).collect()
    }

    /// Sets the fields of Identify Controller.
    pub(in crate::emu) fn tell_controller(&self, id: &mut IdentifyController) {
        (id.awun, id.awupf) = (told(self.awun), told(self.awupf));
    }

    /// Sets the fields of Identify Namespace.
    pub(in crate::emu) fn tell_namespace(&self, id: &mut IdentifyNamespace) {
        // The namespace has units of its own.
        id.nsfeat |= u8::from(self.nawun > 0 || self.nawupf > 0) << 1;
        (id.nawun, id.nawupf) = (told(self.nawun), told(self.nawupf));
        (id.nabsn, id.nabspf, id.nabo) = (told(self.nabsn), told(self.nabspf), self.nabo as u16);
    }
}
