//! `-o json`: structures as nvme-cli prints them, for scripts that were written for it.
//!
//! The tables name bytes of a structure, apart from the library's own description of it: a guest's test compares the
//! result with nvme-cli's on one controller.

mod controller;
mod logs;
mod namespace;
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
pub fn json(source: Source, device: &str, bytes: &[u8]) -> Option<Json> {
    match source {
        Source::Identify(Cns::CONTROLLER) => controller::json(bytes),
        Source::Identify(Cns::NAMESPACE | Cns::ALLOCATED_NAMESPACE) => namespace::json(bytes),
        Source::Identify(_) => None,
        Source::Log(LogPageId::ERROR_INFORMATION, _) => logs::errors(bytes),
        Source::Log(LogPageId::SMART, _) => logs::health(bytes),
        Source::Log(LogPageId::FIRMWARE_SLOT, _) => logs::firmware(device, bytes),
        Source::Log(LogPageId::COMMANDS_SUPPORTED, csi) => logs::effects(csi, bytes),
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
