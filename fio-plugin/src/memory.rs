//! A job's I/O memory: one piece for fio, and a buffer over it in each address space that the job's controllers have.

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
    /// The first is the one that fio sees. Boxed: targets point to them.
    views: Vec<(Controller, Box<DmaBuf>)>,
}

impl IoMemory {
    /// `len` bytes for `controller`. With `alone`, no other controller's address space will need it.
    pub(crate) fn new(
        controller: &Controller,
        len: usize,
        pages: Option<PageSize>,
        alone: bool,
    ) -> Result<Self, Failure> {
        let heap = if alone {
            controller.heap().clone()
        } else {
            // A region of its own: others are to see this and nothing else.
            controller
                .heap_over(controller.heap().space().allocate_shared(len.next_power_of_two(), pages)?)?
        };
        let buffer = heap.alloc(len.next_multiple_of(host_page_size()))?;
        Ok(Self { views: vec![(controller.clone(), Box::new(buffer))] })
    }

    /// Where fio sees it.
    pub(crate) fn base(&self) -> *mut u8 {
        self.views[0].1.as_ptr()
    }

    /// The buffer for a controller: the memory is mapped for it, if its address space has not got it yet.
    pub(crate) fn view(&mut self, controller: &Controller) -> Result<*const DmaBuf, Failure> {
        let space = controller.heap().space();
        if let Some((_, view)) = self.views.iter().find(|(_, view)| view.transfer().space == space.id()) {
            return Ok(&raw const **view);
        }
        let first = &self.views[0].1;
        let lacks = || {
            Failure::refused(format!(
                "{}: the job's memory, which {} has too, can't be given to it: use a job for each",
                controller.name(),
                self.views[0].0.name()
            ))
        };
        let region = first.region().ok_or_else(lacks)?;
        let memory = region.memory().ok_or_else(lacks)?;
        // SAFETY: memory that was made to be shared, to whose bytes no reference is formed; nothing takes its pages away.
        let file = unsafe { memory.file() };
        let file = file.try_clone_to_owned().map_err(|source| Error::Os {
            device: controller.name().into(),
            operation: "a second descriptor of the job's memory".into(),
            source,
        })?;
        let heap = controller.heap_over(space.map(Memory::import(file)?)?)?;
        let view = heap.alloc(first.len())?;
        // The heap over a region hands out its beginning first; what if it does not any more.
        if view.offset_in_region() != first.offset_in_region() {
            return Err(lacks());
        }
        self.views.push((controller.clone(), Box::new(view)));
        Ok(self.views.last().map_or(std::ptr::null(), |(_, view)| &raw const **view))
    }

    /// For when a controller may still write to it: it is kept until that one has stopped.
    pub(crate) fn keep(self) {
        for (controller, view) in self.views {
            controller.keep(*view);
        }
    }
}
