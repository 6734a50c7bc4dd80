//! `-o json`: structures as nvme-cli prints them, for scripts that were written for it.
//!
//! The tables name bytes of a structure, apart from the library's own description of it: a guest's test compares the
//! result with nvme-cli's on one controller.

mod controller;
mod erasures;
mod lists;
mod logs;
mod namespace;
mod placement;
mod table;

use serde_json::{Value as Json, json};
use upcie_nvme::spec::{Cns, Csi, FeatureId, FeatureSelect, LogPageId};

/// The structure that is printed.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// A log page.
    Log(LogPageId, Csi),
    /// Data of Identify.
    Identify(Cns),
    /// A feature: dword 0 of its completion, for one of its values.
    Feature(FeatureId, FeatureSelect, u32),
}

/// Returns nvme-cli's JSON of a structure; `None` if no table is here for it, or the bytes end before the structure does.
pub fn of_nvme_cli(source: Source, device: &str, bytes: &[u8]) -> Option<Json> {
    match source {
        Source::Identify(Cns::CONTROLLER) => controller::json(bytes),
        Source::Identify(Cns::NAMESPACE | Cns::ALLOCATED_NAMESPACE) => namespace::json(bytes),
        Source::Identify(
            Cns::ACTIVE_NAMESPACES
            | Cns::COMMAND_SET_ACTIVE_NAMESPACES
            | Cns::ALLOCATED_NAMESPACES
            | Cns::COMMAND_SET_ALLOCATED_NAMESPACES,
        ) => lists::namespaces(bytes),
        Source::Identify(Cns::NAMESPACE_DESCRIPTORS) => lists::descriptors(bytes),
        Source::Identify(Cns::NAMESPACE_CONTROLLERS | Cns::CONTROLLERS) => lists::controllers(bytes),
        Source::Identify(_) => None,
        Source::Log(LogPageId::SUPPORTED_LOG_PAGES, _) => lists::log_pages(bytes),
        Source::Log(LogPageId::ERROR_INFORMATION, _) => logs::errors(bytes),
        Source::Log(LogPageId::SMART, _) => logs::health(bytes),
        Source::Log(LogPageId::FIRMWARE_SLOT, _) => logs::firmware(device, bytes),
        Source::Log(LogPageId::COMMANDS_SUPPORTED, csi) => logs::effects(csi, bytes),
        Source::Log(LogPageId::DEVICE_SELF_TEST, _) => erasures::self_tests(bytes),
        Source::Log(LogPageId::FEATURES_SUPPORTED, _) => lists::features(bytes),
        Source::Log(LogPageId::FDP_CONFIGURATIONS, _) => placement::configurations(bytes),
        Source::Log(LogPageId::RECLAIM_UNIT_HANDLE_USAGE, _) => placement::usage(bytes),
        Source::Log(LogPageId::FDP_STATISTICS, _) => placement::statistics(bytes),
        Source::Log(LogPageId::FDP_EVENTS, _) => placement::events(bytes),
        Source::Log(LogPageId::SANITIZE_STATUS, _) => erasures::sanitize(device, bytes),
        Source::Log(..) => None,
        Source::Feature(id, select, dword0) => Some(feature(id, select, dword0)),
    }
}

fn feature(id: FeatureId, select: FeatureSelect, dword0: u32) -> Json {
    // C's `%#0*x` prints no prefix for 0.
    let value = if dword0 == 0 { "00000000".to_owned() } else { format!("{dword0:#010x}") };
    let number = if id.0 == 0 { "00".to_owned() } else { format!("{:#04x}", id.0) };
    let selected = match select {
        FeatureSelect::DEFAULT => "Default",
        FeatureSelect::SAVED => "Saved",
        FeatureSelect::SUPPORTED => "Supported capabilities",
        _ => "Current",
    };
    let name = id.name().unwrap_or("Unknown");
    json!({ format!("feature: {number}"): [{ "name": name, selected: value }] })
}
