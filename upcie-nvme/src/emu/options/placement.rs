//! The options of flexible data placement.

use super::super::{
    Error,
    units::{self, Bytes, number},
};

/// The unit of reclaim units in bytes: a multiple of every block size.
const UNIT: u64 = 4096;
/// The most reclaim unit handles: as many as a namespace can have placement handles.
const HANDLES: u32 = 128;
/// The most reclaim groups.
const GROUPS: u32 = 256;

/// The options of flexible data placement, which all namespaces have or none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct PlacementOptions {
    /// `fdp=true`: the namespaces are in an endurance group that has flexible data placement, and it is on. Default `false`.
    pub on: bool,
    /// `fdp-handles=`: reclaim unit handles, 1 to 128, each of which is a placement handle of each namespace that the controller
    /// begins with. Default 8.
    pub handles: u16,
    /// `fdp-groups=`: reclaim groups, 1 to 256. Default 1.
    pub groups: u16,
    /// `fdp-unit=`: bytes of a reclaim unit, a multiple of 4096. Default 64 MiB.
    pub unit: u64,
}

impl Default for PlacementOptions {
    fn default() -> Self {
        Self { on: false, handles: 8, groups: 1, unit: 64 << 20 }
    }
}

impl PlacementOptions {
    /// Sets one option from its text; returns `false` for a key that is none of flexible data placement.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        let bad = |reason: &str| Error::Option { option: format!("{key}={value}"), reason: reason.into() };
        match key {
            "fdp" => self.on = value.parse().map_err(|_| bad("true or false"))?,
            "fdp-handles" => {
                self.handles = number(value, 1, HANDLES).ok_or_else(|| bad("1 to 128"))? as u16;
            }
            "fdp-groups" => self.groups = number(value, 1, GROUPS).ok_or_else(|| bad("1 to 256"))? as u16,
            "fdp-unit" => {
                let bytes = units::parse_bytes(value).map_err(|reason| bad(&reason))?;
                if bytes == 0 || bytes % UNIT != 0 {
                    return Err(bad("a multiple of 4096 bytes"));
                }
                self.unit = bytes;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Checks that the options are compatible with one another and with zones.
    pub(super) fn check(&self, has_zones: bool) -> Result<(), Error> {
        let bad = |option: String, reason: &str| Err(Error::Option { option, reason: reason.into() });
        if !self.on {
            return match self.text().first() {
                Some((key, value)) => bad(format!("{key}={value}"), "it needs fdp=true"),
                None => Ok(()),
            };
        }
        if has_zones {
            return bad("fdp=true".into(), "it can't go with zoned=true: a zone decides where its data is");
        }
        Ok(())
    }

    /// Returns the options that are not at their default, as text.
    pub(super) fn text(&self) -> Vec<(&'static str, String)> {
        let default = Self::default();
        let all = [
            (self.on, "fdp", self.on.to_string()),
            (self.handles != default.handles, "fdp-handles", self.handles.to_string()),
            (self.groups != default.groups, "fdp-groups", self.groups.to_string()),
            (self.unit != default.unit, "fdp-unit", Bytes(self.unit).to_string()),
        ];
        all.into_iter().filter(|(given, ..)| *given).map(|(_, key, value)| (key, value)).collect()
    }
}
