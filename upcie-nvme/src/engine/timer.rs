//! The time of one command in flight.

use std::time::Duration;

/// Set in the word of a slot in flight whose time is measured, beside its PRP list.
pub(super) const MARK: u64 = 1 << 63;

/// The time of one command in flight.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timer {
    /// The time of the first look; `None` until then.
    pub(super) since: Option<Duration>,
    pub(super) limit: Duration,
    pub(super) stage: Stage,
}

/// What has been done about a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing: it is in time.
    #[default]
    InTime,
    /// It has missed its deadline, and was reported or is being aborted.
    Overdue,
}
