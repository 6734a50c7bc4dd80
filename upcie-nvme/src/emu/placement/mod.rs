//! Flexible data placement: reclaim units that count the writes to them. With `fdp=true` all commands take the path of
//! uncommon ones, which counts; without it nothing is asked.

mod commands;
mod directives;
mod features;
mod pages;
mod state;
#[cfg(test)]
mod tests;

pub(super) use state::Placement;

use crate::spec::LogPageId;

/// The endurance group that all namespaces are in.
pub(super) const GROUP: u16 = 1;

/// The log pages that take the endurance group as log-specific identifier.
pub(super) const PAGES: [LogPageId; 5] = [
    LogPageId::ENDURANCE_GROUP,
    LogPageId::FDP_CONFIGURATIONS,
    LogPageId::RECLAIM_UNIT_HANDLE_USAGE,
    LogPageId::FDP_STATISTICS,
    LogPageId::FDP_EVENTS,
];

/// Returns `true` for one of these pages.
pub(super) fn is_page(id: LogPageId) -> bool {
    PAGES.contains(&id)
}
