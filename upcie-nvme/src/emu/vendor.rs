//! Vendor-specific admin commands: a host, or a test, causes what a medium in memory never does by itself.
//!
//! | opcode | effect |
//! |---|---|
//! | C0h | raises the asynchronous event of dword 10, in the form of an Asynchronous Event Request's completion |
//! | C1h | dword 11 = 1: holds back the completions of admin commands with the opcode of dword 10; 0: posts them |
//!
//! While as many completions are held back as the admin queue has entries, no further admin command is fetched: a host that goes
//! so far has to reset the controller.
//!
//! With the notice of a changed telemetry log the controller collects its own telemetry data (log page 08h) before, unless the
//! host has not yet read what there is.
//!
//! With the notice of changed access, dword 11 is the new state of the path to the namespaces (`ana=`), or 0 to leave it.
//!
//! A notice is raised only if feature 0Bh asks for it. With the notice of changed namespace attributes, dword 11 is the
//! namespace; with that of a changed zone it is the namespace whose first zone the Changed Zone List names, which has to have
//! zones.

use super::events::Admin;
use crate::spec::{
    AccessState, AsyncEvent, AsyncEventConfiguration, Command, EventKind, NoticeEvent, Status,
};

/// The opcodes.
const RAISE: u8 = 0xc0;
const HOLD: u8 = 0xc1;

/// Returns `true` for a command that raises the notice of a changed telemetry log.
pub(super) fn reports_telemetry(command: &Command) -> bool {
    let subject = AsyncEvent::from_bits(command.cdw10).subject();
    command.opcode == RAISE && matches!(subject, EventKind::Notice(NoticeEvent::TELEMETRY))
}

/// Returns the state of access that a command names which raises the notice of its change, if it names one.
pub(super) fn access_state(command: &Command) -> Option<AccessState> {
    let subject = AsyncEvent::from_bits(command.cdw10).subject();
    let is_change = matches!(subject, EventKind::Notice(NoticeEvent::ASYMMETRIC_NAMESPACE_ACCESS));
    let state = AccessState(u8::try_from(command.cdw11).unwrap_or(0));
    (command.opcode == RAISE && is_change && command.cdw11 != 0).then_some(state)
}

/// Carries out a vendor-specific command; returns dword 0 of its completion. `has_zones` tells of a namespace.
pub(super) fn run(
    admin: &mut Admin,
    wanted: AsyncEventConfiguration,
    command: &Command,
    has_zones: impl Fn(u32) -> bool,
) -> Result<u32, Status> {
    match command.opcode {
        RAISE => {
            let event = AsyncEvent::from_bits(command.cdw10);
            match event.subject() {
                // Nobody could read the list of a namespace without zones.
                EventKind::Notice(NoticeEvent::ZONE_DESCRIPTOR) if !has_zones(command.cdw11) => {
                    return Err(Status::INVALID_FIELD.with_do_not_retry());
                }
                EventKind::Notice(NoticeEvent::ZONE_DESCRIPTOR) => {
                    admin.change_zone(wanted, command.cdw11, 0);
                }
                EventKind::Notice(notice) => {
                    let is_wanted = admin.notice(wanted, notice, event.log_page());
                    if is_wanted && notice == NoticeEvent::NAMESPACE_ATTRIBUTES && command.cdw11 != 0 {
                        admin.change(command.cdw11);
                    }
                }
                _ => admin.raise(event.kind(), event.information(), event.log_page()),
            }
            Ok(0)
        }
        HOLD => {
            admin.hold(command.cdw10 as u8, command.cdw11 & 1 == 1);
            Ok(0)
        }
        _ => Err(Status::INVALID_OPCODE.with_do_not_retry()),
    }
}
