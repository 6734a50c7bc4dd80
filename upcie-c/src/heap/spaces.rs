//! Controllers and their address spaces, each of which has all of the heap's memory.

use super::{Heap, State, area::Origin, lock};
use crate::{
    blocks::Blocks,
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

    /// Maps all memory for an address space, unless it has it. The first one comes with the memory that the heap was made
    /// with.
    pub(crate) fn join(&self, dma: &Arc<DmaSpace>) -> Result<Arc<Space>> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Failure::new(libc::EBADF, "the heap is closed"));
        }
        if let Some(space) = state.spaces.iter().find(|space| space.dma.id() == dma.id()) {
            return Ok(space.clone());
        }
        if dma.is_physical() {
            state.make_way(dma)?;
        }
        let space = Arc::new(Space { dma: dma.clone(), translation: Translation::new() });
        let entered = state.areas.values_mut().try_for_each(|area| area.enter(&space));
        state.spaces.push(space.clone());
        if let Err(failure) = entered.and_then(|()| self.reserve(&mut state)) {
            state.leave(&space);
            return Err(failure);
        }
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
            state.leave(space);
        }
        drop(state);
        // The last use of a controller ends outside of the lock, which its drop takes.
        drop(others);
    }
}

impl State {
    /// Unmaps all memory from a space.
    fn leave(&mut self, space: &Arc<Space>) {
        self.spaces.retain(|other| !Arc::ptr_eq(other, space));
        self.areas.values_mut().for_each(|area| area.leave(space.dma.id()));
    }

    /// Lets all own memory be that of a space without an IOMMU, whose files outlive the process: a device does not stop when
    /// its process is killed. Refuses the space if there is other memory that is in use.
    fn make_way(&mut self, dma: &DmaSpace) -> Result<()> {
        let refuse = |reason: String| {
            Failure::new(libc::ENOTSUP, format!("{}: no IOMMU translates for it, and {reason}", dma.device()))
        };
        if let Some(other) = self.spaces.iter().find(|space| space.dma.is_physical()) {
            let device = other.dma.device();
            return Err(refuse(format!(
                "the heap has the memory of {device}: open both in the same way, or this one with another heap"
            )));
        }
        let is_own = |origin: Origin| origin == Origin::Own;
        if !self.areas.values().any(|area| is_own(area.origin)) {
            return Ok(());
        }
        // Another controller's queues may know memory that is free.
        if !self.spaces.is_empty() || !self.blocks.is_unused() {
            return Err(refuse(
                "the heap has memory that does not outlive this process: open it before other controllers and before \
                 memory is allocated"
                    .into(),
            ));
        }
        self.areas.retain(|_, area| !is_own(area.origin));
        self.blocks = Blocks::default();
        self.own = 0;
        Ok(())
    }
}
