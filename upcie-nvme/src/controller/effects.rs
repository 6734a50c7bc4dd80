//! The controller's own word on its commands: which it has, and what they change (Base, "Commands Supported and Effects").
//!
//! The log page is read once, before the first command that a controller need not have, and forgotten by a reset and by what
//! may change it. Only such commands are judged by it: a page that denies a mandatory one is wrong, and not believed.

use super::lock;
use crate::spec::{AdminOpcode, CommandEffects, CommandsSupportedLog, Csi, KeyValueOpcode, NvmOpcode};
use std::sync::{Arc, Mutex};

/// A page; `None` if the controller does not have it.
pub(super) type Page = Option<Arc<CommandsSupportedLog>>;

/// The admin commands that each controller with I/O queues has (Base, "Admin Command Support Requirements").
pub(super) const ADMIN: [AdminOpcode; 10] = [
    AdminOpcode::DELETE_SQ,
    AdminOpcode::CREATE_SQ,
    AdminOpcode::GET_LOG_PAGE,
    AdminOpcode::DELETE_CQ,
    AdminOpcode::CREATE_CQ,
    AdminOpcode::IDENTIFY,
    AdminOpcode::ABORT,
    AdminOpcode::SET_FEATURES,
    AdminOpcode::GET_FEATURES,
    AdminOpcode::ASYNC_EVENT_REQUEST,
];

/// Returns the I/O commands that each controller with a command set has (NVM, ZNS and KV, "I/O Command Support Requirements"); none
/// for a command set that is not known here, whose page is not used.
pub(super) fn mandatory(set: Csi) -> &'static [u8] {
    const NVM: [u8; 3] = [NvmOpcode::FLUSH.0, NvmOpcode::WRITE.0, NvmOpcode::READ.0];
    const ZONED: [u8; 6] = [
        NvmOpcode::FLUSH.0,
        NvmOpcode::WRITE.0,
        NvmOpcode::READ.0,
        NvmOpcode::ZONE_MANAGEMENT_SEND.0,
        NvmOpcode::ZONE_MANAGEMENT_RECEIVE.0,
        NvmOpcode::ZONE_APPEND.0,
    ];
    const KEYS: [u8; 5] = [
        KeyValueOpcode::STORE.0,
        KeyValueOpcode::RETRIEVE.0,
        KeyValueOpcode::LIST.0,
        KeyValueOpcode::DELETE.0,
        KeyValueOpcode::EXIST.0,
    ];
    match set {
        Csi::NVM => &NVM,
        Csi::ZONED => &ZONED,
        Csi::KEY_VALUE => &KEYS,
        _ => &[],
    }
}

/// Returns what a page says of an admin command; `None` if the command is mandatory, or the page is not believed.
pub(super) fn of_admin(page: &CommandsSupportedLog, opcode: AdminOpcode) -> Option<CommandEffects> {
    let said = |opcode: AdminOpcode| page.admin_commands[usize::from(opcode.0)];
    let believed = ADMIN.into_iter().all(|opcode| said(opcode).supported());
    (believed && !ADMIN.contains(&opcode)).then(|| said(opcode))
}

/// Returns what a page says of an I/O command, like [`of_admin`].
pub(super) fn of_io(page: &CommandsSupportedLog, set: Csi, opcode: u8) -> Option<CommandEffects> {
    let (said, always) = (|opcode: u8| page.io_commands[usize::from(opcode)], mandatory(set));
    let believed = !always.is_empty() && always.iter().all(|&opcode| said(opcode).supported());
    (believed && !always.contains(&opcode)).then(|| said(opcode))
}

/// Returns the reason why nothing else may be in progress beside a command, if the controller says so. It says the same of all actions
/// of a Firmware Commit; which of them need quiet is known better by the action.
pub(super) fn alone(opcode: AdminOpcode, effects: CommandEffects) -> Option<&'static str> {
    if opcode == AdminOpcode::FIRMWARE_COMMIT {
        return None;
    }
    if effects.namespace_capability_change() || effects.namespace_inventory_change() {
        return Some(
            "it may change namespaces, as the controller says (NCC, NIC: Commands Supported and Effects)",
        );
    }
    // A relaxation (CSER) lifts the restriction.
    let restricted = effects.submission_and_execution() != 0 && effects.submission_relaxation() == 0;
    restricted
        .then_some("the controller wants no other command beside it (CSE: Commands Supported and Effects)")
}

/// The pages that were read.
#[derive(Debug, Default)]
pub(super) struct Effects(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    known: Vec<(Csi, Page)>,
    /// The times that the pages were forgotten.
    era: u64,
}

impl Effects {
    /// Returns the page of a command set, if it was read; otherwise the era, to [note](Self::note) the page with once it is read.
    pub(super) fn known(&self, set: Csi) -> Result<Page, u64> {
        let pages = lock(&self.0);
        let found = pages.known.iter().find(|(of, _)| *of == set);
        found.map(|(_, page)| page.clone()).ok_or(pages.era)
    }

    /// Notes the page of a command set. Does nothing if the era in which it was asked for is over: the page may be of before what
    /// has ended it.
    pub(super) fn note(&self, set: Csi, page: Page, era: u64) {
        let mut pages = lock(&self.0);
        if pages.era == era {
            pages.known.retain(|(of, _)| *of != set);
            pages.known.push((set, page));
        }
    }

    /// Locks the pages, for a test.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Drop + '_ {
        lock(&self.0)
    }

    /// Forgets the pages: something has happened that may change them.
    pub(super) fn forget(&self) {
        let mut pages = lock(&self.0);
        pages.known.clear();
        pages.era += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    const HAS: CommandEffects = CommandEffects::new().with_supported(true);

    /// A page with the mandatory commands of a command set.
    fn page(set: Csi) -> CommandsSupportedLog {
        let mut page = CommandsSupportedLog::new_zeroed();
        ADMIN.iter().for_each(|opcode| page.admin_commands[usize::from(opcode.0)] = HAS);
        mandatory(set).iter().for_each(|opcode| page.io_commands[usize::from(*opcode)] = HAS);
        page
    }

    #[test]
    fn a_page_that_denies_a_mandatory_command_is_not_believed() {
        let format = AdminOpcode::FORMAT_NVM;
        assert_eq!(of_admin(&CommandsSupportedLog::new_zeroed(), format), None);
        for opcode in ADMIN {
            let mut page = page(Csi::NVM);
            assert_eq!(of_admin(&page, format), Some(CommandEffects::new()), "it denies an optional one");
            assert_eq!(of_admin(&page, opcode), None, "a mandatory command is never judged");
            page.admin_commands[usize::from(opcode.0)] = CommandEffects::new();
            assert_eq!(of_admin(&page, format), None, "{opcode} is denied");
        }
        for set in [Csi::NVM, Csi::ZONED, Csi::KEY_VALUE] {
            for &opcode in mandatory(set) {
                let mut page = page(set);
                assert_eq!(of_io(&page, set, 0x19), Some(CommandEffects::new()));
                assert_eq!(of_io(&page, set, opcode), None);
                page.io_commands[usize::from(opcode)] = CommandEffects::new();
                assert_eq!(of_io(&page, set, 0x19), None, "{set}: {opcode:02x}h is denied");
            }
        }
        assert_eq!(of_io(&page(Csi::NVM), Csi(9), 0x19), None, "nothing is known of that command set");
    }

    /// A thread that had read a page before another reset the controller noted it after the reset.
    #[test]
    fn a_page_of_before_a_reset_is_not_noted() {
        let effects = Effects::default();
        let era = effects.known(Csi::NVM).unwrap_err();
        effects.forget();
        effects.note(Csi::NVM, None, era);
        let era = effects.known(Csi::NVM).unwrap_err();
        effects.note(Csi::NVM, None, era);
        assert!(effects.known(Csi::NVM).unwrap().is_none());
    }

    #[test]
    fn changes_of_namespaces_and_restrictions_need_quiet() {
        let cse = HAS.with_submission_and_execution(2);
        assert_eq!(alone(AdminOpcode::FIRMWARE_COMMIT, cse), None, "its action decides");
        let alone = |effects| alone(AdminOpcode::SECURITY_SEND, effects);
        assert_eq!(alone(HAS), None);
        assert_eq!(alone(HAS.with_logical_block_content_change(true)), None);
        assert_eq!(alone(HAS.with_controller_capability_change(true)), None);
        for effects in [HAS.with_namespace_capability_change(true), HAS.with_namespace_inventory_change(true)]
        {
            assert!(alone(effects).unwrap().contains("NCC, NIC"));
            assert!(alone(effects.with_submission_relaxation(1)).is_some());
        }
        for cse in [1, 2] {
            let effects = HAS.with_submission_and_execution(cse);
            assert!(alone(effects).unwrap().contains("CSE"));
            assert_eq!(alone(effects.with_submission_relaxation(1)), None, "a relaxation lifts it");
        }
    }
}
