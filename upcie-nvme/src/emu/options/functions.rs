//! The options of a controller with virtual functions.

use super::{
    super::{Error, units::number},
    MAX_VECTORS, Options,
};

/// Limit of `vfs=`.
const MOST: u32 = 8;
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

impl Options {
    /// Checks the options of virtual functions.
    pub(super) fn check_functions(&self) -> Result<(), Error> {
        let FunctionOptions { count, number } = self.functions;
        let bad = |option: String, reason: String| Err(Error::Option { option, reason });
        if u32::from(count) > MOST {
            return bad(format!("vfs={count}"), "0 to 8".into());
        }
        let functions = FunctionOptions { count: 0, number };
        if number > 0 && *self != (Self { serial: self.serial.clone(), functions, ..Self::default() }) {
            let reason = "only serial= goes with it: the other options are those of the controller with vfs=";
            return bad(format!("vf={number}"), reason.into());
        }
        if count > 0 && self.most_vectors() > MAX_VECTORS {
            let more = self.functions.flexible();
            let reason = format!("vfs={count} adds {more} vectors, and MSI-X has {MAX_VECTORS}");
            return bad(format!("vectors={}", self.vectors), reason);
        }
        Ok(())
    }

    /// Checks the options of a controller that is to be made.
    pub(in crate::emu) fn check_new(&self) -> Result<(), Error> {
        self.check()?;
        match self.functions.number {
            0 => Ok(()),
            number => Err(Error::Option {
                option: format!("vf={number}"),
                reason: "a secondary controller is made with its primary one, by vfs=; as an address (`emu:vf=…`) this opens it"
                    .into(),
            }),
        }
    }

    /// Returns the I/O queues of each kind that there is room for: a primary controller can get flexible ones.
    pub(in crate::emu) fn most_queues(&self) -> u16 {
        self.queues.saturating_add(self.functions.flexible())
    }

    /// Returns the MSI-X vectors that there is room for, in the same way.
    pub(in crate::emu) fn most_vectors(&self) -> u16 {
        self.vectors.saturating_add(self.functions.flexible())
    }

    /// Returns the options of another controller of the NVM subsystem: of a secondary one, if this is a primary one.
    pub(in crate::emu) fn of_another(&self) -> Self {
        let mut another = self.clone();
        if self.functions.count > 0 {
            let most = self.functions.most_of_one();
            // The admin queue's pair counts as one, and virtual functions have no pin.
            (another.queues, another.vectors, another.msi, another.intx) = (most - 1, most, 0, false);
            another.functions = FunctionOptions::default();
        }
        another
    }
}
