//! State that tells queues and namespaces whether their controller is still running, and owned by this
//! process.

use super::Windows;
use crate::{Error, Result};
use std::{
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};
use upcie_core::process::{Owner, ProcessWord};

/// Returns an id or stamp: unique in the process and never used again. 0 means none.
pub(crate) fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The controller's state that queues read once per turn.
#[derive(Debug)]
pub(crate) struct Live {
    /// The controller's id.
    pub(crate) controller: u64,
    /// The stamp of valid namespace handles; 0 once the controller was stopped, and in a forked child. A
    /// queue that reads 0 here takes no more turns.
    stamp: ProcessWord,
    owner: Owner,
    /// The data that the controller takes in its own memory.
    pub(crate) device_memory: Windows,
}

impl Live {
    /// Makes the state of a controller that is being brought up.
    pub(crate) fn new() -> Result<Self> {
        Self::of(unique(), unique())
    }

    pub(crate) fn of(controller: u64, stamp: u64) -> Result<Self> {
        let (stamp, owner) = (ProcessWord::new(stamp)?, Owner::current());
        Ok(Self { controller, stamp, owner, device_memory: Windows::default() })
    }

    /// Returns the stamp of namespace handles that are valid now.
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp.load(Ordering::Acquire)
    }

    /// Returns the stamp's address, which a queue reads per turn, for as long as it keeps `self`.
    pub(crate) fn stamp_ptr(&self) -> NonNull<AtomicU64> {
        self.stamp.as_ptr()
    }

    /// Makes all existing namespace handles stale. 0 stays 0.
    pub(crate) fn restamp(&self) {
        let new = unique();
        let _ = self.stamp.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now != 0).then_some(new));
    }

    /// Closes the queues: the controller is about to be stopped.
    pub(crate) fn stop(&self) {
        self.stamp.store(0, Ordering::Release);
    }

    /// Returns the process that drives the controller.
    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// Refuses `operation` on `device` in a forked child.
    pub(crate) fn check_owner(&self, device: &str, operation: &str) -> Result<()> {
        self.owner.check(device, operation).map_err(Error::from)
    }
}
