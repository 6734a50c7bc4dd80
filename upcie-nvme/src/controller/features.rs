//! The features that the program has set, to be set again after a reset.

use super::lock;
use crate::spec::{AdminOpcode, Command, FeatureId};
use std::sync::Mutex;

/// Set Features commands that the controller has carried out, in their order, each with its data.
#[derive(Debug, Default)]
pub(super) struct Features(Mutex<Vec<(Command, Vec<u8>)>>);

/// Features that a controller reset leaves alone, or that must not be set twice: the timestamp, which goes on; states that
/// last until power is cut; notes in nonvolatile memory, labels and addresses of management agents among them. Metadata of
/// hosts is changed element by element, so no single command has its value.
const KEPT: [u8; 13] = [0x0e, 0x19, 0x1d, 0x1e, 0x1f, 0x78, 0x79, 0x7d, 0x7e, 0x7f, 0x80, 0x84, 0x85];

/// Returns the value that one Set Features sets: the feature, the namespace, and the part of it that dword 11 selects.
fn target(command: &Command) -> (u8, u32, u32) {
    let feature = command.cdw10 as u8;
    let part = match FeatureId(feature) {
        FeatureId::TEMPERATURE_THRESHOLD => command.cdw11 >> 16 & 0x3f,
        FeatureId::INTERRUPT_VECTOR_CONFIGURATION => command.cdw11 & 0xffff,
        // An NVM set, or an endurance group.
        FeatureId(0x12..=0x14 | 0x18) => command.cdw11 & 0xffff,
        _ => 0,
    };
    (feature, command.nsid, part)
}

impl Features {
    /// Notes a command that the controller has carried out, if it sets a feature that a reset clears. Returns whether it does.
    pub(super) fn note(&self, command: &Command, data: &[u8]) -> bool {
        if AdminOpcode(command.opcode) != AdminOpcode::SET_FEATURES || KEPT.contains(&(command.cdw10 as u8)) {
            return false;
        }
        // Without SV: what was saved is saved.
        let command = Command { cdw10: command.cdw10 & !(1 << 31), ..*command };
        let mut all = lock(&self.0);
        all.retain(|(other, _)| target(other) != target(&command));
        all.push((command, data.to_vec()));
        true
    }

    /// Returns `true` if the program has set a feature.
    pub(super) fn has(&self, feature: FeatureId) -> bool {
        lock(&self.0).iter().any(|(command, _)| command.cdw10 as u8 == feature.0)
    }

    /// Returns the commands, to be sent again.
    pub(super) fn all(&self) -> Vec<(Command, Vec<u8>)> {
        lock(&self.0).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_set_again_once() {
        let features = Features::default();
        let note = |feature, cdw11| features.note(&Command::set_features(FeatureId(feature), cdw11), &[]);
        // Two thresholds, the first one twice; the timestamp; a saved value.
        for (feature, cdw11) in [(4, 300), (4, 1 << 20 | 10), (4, 301), (0x0e, 0), (0x8000_0005_u32 as u8, 7)]
        {
            note(feature, cdw11);
        }
        let all: Vec<_> = features.all().iter().map(|(command, _)| (command.cdw10, command.cdw11)).collect();
        assert_eq!(all, [(4, 1 << 20 | 10), (4, 301), (5, 7)]);
    }
}
