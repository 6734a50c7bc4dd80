//! Heeds the controller's own word on its commands: the driver refuses those that the controller lacks, and looks again
//! after those that change what it can do.

use super::{
    Inner, Limit,
    effects::{ADMIN, Page, mandatory, of_admin, of_io},
};
use crate::{
    Error, Result,
    spec::{
        ALL_NAMESPACES, AdminOpcode, Cns, Command, CommandEffects, CommandsSupportedLog, Csi,
        IdentifyController, LogPageId,
    },
};
use std::sync::Arc;
use zerocopy::FromBytes;

/// LPA: the controller has the log page.
const HAS_PAGE: u8 = 1 << 1;
/// Bytes of the log page.
const LEN: usize = 4096;

/// Explains a command that the controller does not have by its log page.
fn missing(opcode: u8, raw: &str) -> String {
    format!(
        "the controller does not have it: opcode {opcode:02x}h is not in its log page Commands Supported and Effects (05h). If \
         that page is wrong, the unsafe `{raw}` sends it all the same"
    )
}

/// Returns what the driver relies on of a controller, besides what a command may change at any time.
fn relied_on(of: &IdentifyController) -> impl PartialEq + use<> {
    let names = (of.sn, of.mn, of.subnqn);
    let limits = (of.mdts, of.sqes, of.cqes, of.maxcmd, of.sgls);
    (names, limits, (of.oacs, of.oncs, of.fuses, of.lpa))
}

impl Inner {
    /// Returns `true` if the controller has the log page Commands Supported and Effects.
    pub(super) fn has_effects_page(&self) -> bool {
        self.identify().lpa & HAS_PAGE != 0
    }

    /// Returns the page of a command set.
    ///
    /// # Errors
    /// The controller does not answer.
    fn effects_page(&self, set: Csi, limit: &mut Limit<'_>) -> Result<Page> {
        if !self.has_effects_page() {
            return Ok(None);
        }
        let what = "Get Log Page (commands supported and effects)";
        self.check_owner(what)?;
        let era = match self.effects.known(set) {
            Ok(page) => return Ok(page),
            Err(era) => era,
        };
        let mut command = Command::get_log_page(LogPageId::COMMANDS_SUPPORTED, ALL_NAMESPACES, LEN as u32, 0);
        command.cdw14 = u32::from(set.0) << 24;
        let buffer = self.whole_pages(LEN, limit)?;
        let page = match self.admin_data(&command, buffer, what, limit) {
            Ok((_, data)) => {
                let mut bytes = vec![0; LEN];
                data.read_at(0, &mut bytes);
                CommandsSupportedLog::read_from_bytes(&bytes).ok().map(Arc::new)
            }
            Err(error) if error.status().is_some() => None,
            Err(error) => return Err(error),
        };
        self.effects.note(set, page.clone(), era);
        Ok(page)
    }

    /// Returns what the controller says of an admin command, if it need not have it and says something that can be believed.
    ///
    /// # Errors
    /// The controller does not have it, or does not answer.
    pub(super) fn admin_effects(
        &self,
        opcode: AdminOpcode,
        limit: &mut Limit<'_>,
    ) -> Result<Option<CommandEffects>> {
        if ADMIN.contains(&opcode) {
            return Ok(None);
        }
        let page = self.effects_page(Csi::NVM, limit)?;
        let said = page.and_then(|page| of_admin(&page, opcode));
        match said {
            Some(effects) if !effects.supported() => {
                let reason = missing(opcode.0, "admin_raw");
                Err(Error::argument_of(self.name(), opcode.to_string(), reason))
            }
            said => Ok(said),
        }
    }

    /// Refuses an I/O command, named `what`, that the controller does not have for a command set by its own word.
    ///
    /// # Errors
    /// The controller does not have it, or does not answer.
    pub(crate) fn check_io_command(
        &self,
        set: Csi,
        opcode: u8,
        what: &str,
        limit: &mut Limit<'_>,
    ) -> Result<()> {
        if mandatory(set).contains(&opcode) {
            return Ok(());
        }
        match self.effects_page(set, limit)?.and_then(|page| of_io(&page, set, opcode)) {
            Some(effects) if !effects.supported() => {
                let reason = missing(opcode, "submit_raw");
                Err(Error::argument_of(self.name(), what, reason))
            }
            _ => Ok(()),
        }
    }

    /// Does what the effects of an admin command that has succeeded ask for: forgets the pages that it may have changed, and stops
    /// the controller if it can't do any more what it could at bring-up.
    ///
    /// # Errors
    /// The controller does not answer, or the call has no time left to ask.
    pub(super) fn heed(
        &self,
        opcode: AdminOpcode,
        effects: Option<CommandEffects>,
        limit: &mut Limit<'_>,
    ) -> Result<()> {
        let changes = effects.is_some_and(|effects| effects.controller_capability_change());
        if changes || opcode == AdminOpcode::FIRMWARE_COMMIT {
            self.effects.forget();
        }
        if !changes {
            return Ok(());
        }
        let command = Command::identify(Cns::CONTROLLER, 0, 0);
        let page = self.identify_page(&command, "Identify (controller)", limit)?;
        let now = IdentifyController::read_from_bytes(&page[..]).expect("one page");
        if relied_on(&now) == relied_on(self.identify()) {
            return Ok(());
        }
        self.give_up(&format!("{opcode} has changed what it can do: open it again"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn only_what_the_driver_relies_on_counts_as_a_change() {
        let same = |change: fn(&mut IdentifyController)| {
            let before = IdentifyController::new_zeroed();
            let mut now = before;
            change(&mut now);
            relied_on(&before) == relied_on(&now)
        };
        assert!(same(|now| now.fr = *b"NEWER   ") && same(|now| now.unvmcap = [1; 16]));
        assert!(!same(|now| now.mdts = 1) && !same(|now| now.oacs = 1) && !same(|now| now.sgls = 1));
    }
}
