//! The state of a controller's resets: whether one is under way, and what it must find again.

use super::lock;
use crate::spec::{Csi, IdentifyNamespace};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
};
use upcie_core::gate::Gate;

/// The resets of a controller.
#[derive(Debug, Default)]
pub(super) struct Resets {
    pub(super) gate: Gate<()>,
    /// Counts the beginning and the end of each reset: odd while one is under way.
    count: AtomicU64,
    /// The thread that resets the controller.
    thread: Mutex<Option<ThreadId>>,
}

impl Resets {
    /// Returns a number that changes when a reset begins and when it ends.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Returns `true` while another thread resets the controller.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.count() % 2 == 1 && *lock(&self.thread) != Some(thread::current().id())
    }

    /// Begins a reset by the calling thread.
    pub(super) fn begin(&self) -> Resetting<'_> {
        *lock(&self.thread) = Some(thread::current().id());
        self.count.fetch_add(1, Ordering::AcqRel);
        Resetting(self)
    }
}

/// A reset under way, until this is dropped.
pub(super) struct Resetting<'r>(&'r Resets);

impl Drop for Resetting<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        *lock(&self.0.thread) = None;
    }
}

/// The size, format, identity and command set of a namespace, with the stamp of the handles that rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(super) stamp: u64,
    pub(super) blocks: u64,
    format: Option<u32>,
    /// FLBAS and DPS: the place of metadata, and its protection information.
    settings: (u8, u8),
    /// NGUID and EUI64, which no other namespace has; zeros where the controller gives none.
    pub(super) identity: ([u8; 16], [u8; 8]),
    pub(super) command_set: Csi,
}

impl Shape {
    /// Makes the shape of a namespace with blocks.
    pub(crate) fn of(identify: &IdentifyNamespace, command_set: Csi, stamp: u64) -> Self {
        let format =
            identify.lba_format().map(|format| u32::from(format.lbads()) << 16 | u32::from(format.ms()));
        let settings = (identify.flbas, identify.dps);
        let identity = (identify.nguid, identify.eui64);
        Self { stamp, blocks: identify.nsze, format, settings, identity, command_set }
    }

    /// Makes the shape of a key value namespace: its commands name bytes, not blocks.
    pub(crate) fn of_keys(stamp: u64) -> Self {
        let (settings, identity) = ((0, 0), ([0; 16], [0; 8]));
        Self { stamp, blocks: 0, format: None, settings, identity, command_set: Csi::KEY_VALUE }
    }
}

/// The namespaces that have handles, by id.
pub(super) type Shapes = Mutex<BTreeMap<u32, Shape>>;
