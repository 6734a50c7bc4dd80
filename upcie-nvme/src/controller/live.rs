//! What tells queues and namespaces that the controller they were made for is still there.

use super::device_memory::Windows;
use std::sync::atomic::{AtomicU64, Ordering};

/// Ids and stamps, unique in the process and never used again. 0 is none.
pub(super) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What queues look at once per turn.
#[derive(Debug)]
pub(crate) struct Live {
    /// The controller's id.
    pub(crate) controller: u64,
    /// The stamp of namespace handles that are good; 0 once the controller was stopped, and the queues that look at this
    /// are of no more use.
    pub(crate) namespaces: AtomicU64,
    /// What it takes in its own memory.
    pub(crate) device_memory: Windows,
}
