//! A job's I/O memory: one piece for fio, and a buffer over it in each address space of the job's controllers.

use crate::errors::Failure;
use upcie_nvme::{
    Controller, DmaBuf,
    upcie_core::{
        Error,
        memory::{Memory, PageSize, host_page_size},
    },
};

/// The memory of a job.
#[derive(Debug)]
pub(crate) struct IoMemory {
    /// The first is the one that fio uses. Boxed, because targets point to them.
    views: Vec<(Controller, Box<DmaBuf>)>,
}

impl IoMemory {
    /// Allocates `len` bytes for `controller`. With `alone`, no other controller's address space will need the memory.
    pub(crate) fn new(
        controller: &Controller,
        len: usize,
        pages: Option<PageSize>,
        alone: bool,
    ) -> Result<Self, Failure> {
        let heap = if alone {
            controller.heap().clone()
        } else {
            // A region of its own, so that the others get this memory only.
            controller
                .heap_over(controller.heap().space().allocate_shared(len.next_power_of_two(), pages)?)?
        };
        let buffer = heap.alloc_unzeroed(len.next_multiple_of(host_page_size()))?;
        Ok(Self { views: vec![(controller.clone(), Box::new(buffer))] })
    }

    /// Returns the address in this process.
    pub(crate) fn base(&self) -> *mut u8 {
        self.views[0].1.as_ptr()
    }

    /// Returns the buffer for a controller, and maps the memory into its address space if necessary.
    pub(crate) fn view(&mut self, controller: &Controller) -> Result<*const DmaBuf, Failure> {
        let space = controller.heap().space();
        if let Some((_, view)) = self.views.iter().find(|(_, view)| view.prepared().space == space.id()) {
            return Ok(&raw const **view);
        }
        let first = &self.views[0].1;
        let lacks = || {
            Failure::refused(format!(
                "{}: the job's memory, which {} uses too, can't be mapped for it: use one job for each",
                controller.name(),
                self.views[0].0.name()
            ))
        };
        let region = first.region().ok_or_else(lacks)?;
        let memory = region.memory().ok_or_else(lacks)?;
        // SAFETY: the memory was made to be shared, so no reference to its bytes is formed; nothing frees its pages.
        let file = unsafe { memory.file() };
        let file = file.try_clone_to_owned().map_err(|source| {
            Error::os(controller.name(), "duplicating the descriptor of the job's memory", source)
        })?;
        let heap = controller.heap_over(space.map(Memory::import(file)?)?)?;
        let view = heap.alloc_unzeroed(first.len())?;
        // A heap over a region allocates from its beginning, but that is not guaranteed.
        if view.offset_in_region() != first.offset_in_region() {
            return Err(lacks());
        }
        self.views.push((controller.clone(), Box::new(view)));
        Ok(self.views.last().map_or(std::ptr::null(), |(_, view)| &raw const **view))
    }

    /// Keeps the memory until its controllers have stopped, because one may still write to it.
    pub(crate) fn keep(self) {
        for (controller, view) in self.views {
            controller.keep(*view);
        }
    }
}
