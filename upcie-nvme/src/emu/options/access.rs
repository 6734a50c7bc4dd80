//! The text of a state of Asymmetric Namespace Access.

use crate::spec::AccessState;

/// The states, by their names.
const STATES: [(&str, AccessState); 5] = [
    ("optimized", AccessState::OPTIMIZED),
    ("non-optimized", AccessState::NON_OPTIMIZED),
    ("inaccessible", AccessState::INACCESSIBLE),
    ("persistent-loss", AccessState::PERSISTENT_LOSS),
    ("change", AccessState::CHANGE),
];

/// Reads a state; `None` if there is none of this name.
pub(super) fn parse(text: &str) -> Option<AccessState> {
    STATES.iter().find(|(name, _)| *name == text).map(|(_, state)| *state)
}

/// Returns the text that [`parse`] reads.
pub(super) fn text(state: AccessState) -> &'static str {
    STATES.iter().find(|(_, other)| *other == state).map_or("", |(name, _)| name)
}
