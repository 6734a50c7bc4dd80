//! The options of a controller with virtual functions.

use super::super::{Error, units::number};

/// Limit of `vfs=`.
pub(super) const MOST: u32 = 8;
/// Flexible resources of each kind by secondary controller.
const SHARE: u16 = 8;

/// The options of a primary controller, whose secondary ones belong to virtual functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub struct FunctionOptions {
    /// `vfs=`: the number of secondary controllers, up to 8. Default 0: it is no primary controller.
    pub count: u16,
    /// `vf=`: the number of a virtual function, counted from 1: its secondary controller is meant, of the primary controller with
    /// this `serial=` that is open in this process. Default 0: none.
    pub number: u16,
}

impl FunctionOptions {
    /// Returns `true` if one of the options is given.
    pub(in crate::emu) fn any(self) -> bool {
        self != Self::default()
    }

    /// Returns the flexible resources of each kind.
    pub(in crate::emu) fn flexible(self) -> u16 {
        self.count.saturating_mul(SHARE)
    }

    /// Returns the most flexible resources of each kind that one secondary controller can have: twice an equal share, if there
    /// are as many.
    pub(in crate::emu) fn most_of_one(self) -> u16 {
        self.flexible().min(2 * SHARE)
    }

    /// Sets one option from its text; returns `false` for a key that is none of virtual functions.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        let bad = |reason: &str| Error::Option { option: format!("{key}={value}"), reason: reason.into() };
        match key {
            "vfs" => self.count = number(value, 0, MOST).ok_or_else(|| bad("0 to 8"))? as u16,
            "vf" => self.number = number(value, 1, MOST).ok_or_else(|| bad("1 to 8"))? as u16,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Returns the options that are not at their default, as text.
    pub(super) fn text(self) -> Vec<(&'static str, String)> {
        let all = [("vfs", self.count), ("vf", self.number)];
        all.into_iter().filter(|(_, value)| *value > 0).map(|(key, value)| (key, value.to_string())).collect()
    }
}
