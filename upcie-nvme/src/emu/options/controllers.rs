//! The controllers of an NVM subsystem with virtual functions, as their options say.

use super::{
    super::Error,
    MAX_VECTORS, Options,
    functions::{FunctionOptions, MOST},
};

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
