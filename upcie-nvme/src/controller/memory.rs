//! The host's memory that a controller uses.

use super::lock;
use crate::engine::Retired;
use std::sync::{Arc, Mutex};
use upcie_core::dma::Heap;

/// The heaps, and memory that is kept because the controller may still use it.
#[derive(Debug)]
pub(crate) struct HostMemory {
    retired: Mutex<Vec<Retired>>,
    /// For data.
    pub(super) heap: Arc<Heap>,
    /// For rings and lists: no buffer of a user's leads to its memory.
    pub(super) private: Arc<Heap>,
}

impl HostMemory {
    pub(super) fn new(heap: Arc<Heap>, private: Arc<Heap>) -> Self {
        Self { retired: Mutex::default(), heap, private }
    }

    /// Keeps memory until [`take_retired`](Self::take_retired).
    pub(super) fn retire(&self, retired: Retired) {
        lock(&self.retired).push(retired);
    }

    /// Takes all memory that is kept: the controller has let go of it.
    pub(super) fn take_retired(&self) -> Vec<Retired> {
        std::mem::take(&mut *lock(&self.retired))
    }
}
