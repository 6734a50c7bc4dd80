//! Controllers and their address spaces, each of which has all of the heap's memory.

use super::{Heap, lock};
use crate::{
    controller::Ctrlr,
    errors::{Failure, Result},
    translation::Translation,
};
use std::sync::{Arc, Weak};
use upcie_nvme::upcie_core::dma::DmaSpace;

/// An address space of one or several controllers, and the device addresses of the heap's memory in it.
#[derive(Debug)]
pub(crate) struct Space {
    pub(super) dma: Arc<DmaSpace>,
    pub(crate) translation: Translation,
}

impl Heap {
    /// Returns open controllers of the heap, one for each address space.
    pub(crate) fn neighbours(&self) -> Vec<Arc<Ctrlr>> {
        // The last use of a controller ends outside of the lock, which its drop takes.
        let all: Vec<_> = lock(&self.state).controllers.iter().filter_map(Weak::upgrade).collect();
        let mut found: Vec<Arc<Ctrlr>> = Vec::new();
        for controller in all {
            if found.iter().all(|other| !Arc::ptr_eq(&other.space, &controller.space)) {
                found.push(controller);
            }
        }
        found
    }

    /// Maps all memory for an address space, unless it has it.
    pub(crate) fn join(&self, dma: &Arc<DmaSpace>) -> Result<Arc<Space>> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Failure::new(libc::EBADF, "the heap is closed"));
        }
        if let Some(space) = state.spaces.iter().find(|space| space.dma.id() == dma.id()) {
            return Ok(space.clone());
        }
        let space = Arc::new(Space { dma: dma.clone(), translation: Translation::new() });
        let mut failed = None;
        for area in state.areas.values_mut() {
            if let Err(failure) = area.enter(&space) {
                failed = Some(failure);
                break;
            }
        }
        if let Some(failure) = failed {
            state.areas.values_mut().for_each(|area| area.leave(dma.id()));
            return Err(failure);
        }
        state.spaces.push(space.clone());
        Ok(space)
    }

    /// Notes an open controller.
    pub(crate) fn opened(&self, controller: &Arc<Ctrlr>) {
        let mut state = lock(&self.state);
        state.controllers.retain(|controller| controller.strong_count() > 0);
        state.controllers.push(Arc::downgrade(controller));
    }

    /// Unmaps all memory from the space of a controller that is closed, if no other controller has it.
    pub(crate) fn left(&self, space: &Arc<Space>) {
        let mut state = lock(&self.state);
        state.controllers.retain(|controller| controller.strong_count() > 0);
        let others: Vec<_> = state.controllers.iter().filter_map(Weak::upgrade).collect();
        if !others.iter().any(|other| Arc::ptr_eq(&other.space, space)) {
            state.spaces.retain(|other| !Arc::ptr_eq(other, space));
            state.areas.values_mut().for_each(|area| area.leave(space.dma.id()));
        }
        drop(state);
        // The last use of a controller ends outside of the lock, which its drop takes.
        drop(others);
    }
}
