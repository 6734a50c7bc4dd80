//! Memory of the program's: mapped by it, or imported by a descriptor.

use super::{
    Heap,
    area::{Area, Origin, ProgramMapping},
    duplicate, lock, no_memory,
};
use crate::{
    errors::{Failure, Result},
    files::{Source, View, share, source},
    held::Range,
    translation::BIG_BYTES,
};
use std::os::fd::{AsFd, OwnedFd};
use upcie_nvme::upcie_core::memory::{Memory, PageSize, host_page_size};

impl Heap {
    /// Lets controllers use memory that the program has mapped from a file.
    pub(crate) fn map(&self, at: *mut u8, len: usize) -> Result<()> {
        let page = host_page_size();
        let (first, end) = (at.addr(), at.addr().checked_add(len));
        if first == 0
            || len == 0
            || first % page != 0
            || len % page != 0
            || end.is_none_or(|end| end >> 47 != 0)
        {
            return Err(Failure::argument(format!(
                "{len} bytes at {first:#x}: memory to be mapped is whole pages of {page} bytes, and at least one"
            )));
        }
        let mut state = lock(&self.state);
        state.check_free(first, len)?;
        let (file, offset, was_private) = match source(at.addr(), len)? {
            Source::File(file, offset) => {
                (file, usize::try_from(offset).map_err(|_| no_memory(usize::MAX))?, false)
            }
            Source::Private => {
                let memory = Memory::new(len, PageSize::Small)?.shared();
                // SAFETY: the memory is shared, so that no reference to its bytes is formed; nobody frees pages of it.
                let file = duplicate(unsafe { memory.file() })?;
                // SAFETY: whole pages of anonymous memory; the caller lets no thread write to them during the call.
                unsafe { share(file.as_fd(), at, len) }?;
                (file, 0, true)
            }
        };
        state.insert(Area {
            at: at.expose_provenance(),
            len,
            offset,
            origin: Origin::Mapped,
            regions: Vec::new(),
            view: if was_private { ProgramMapping::Replaced } else { ProgramMapping::Theirs },
            file,
        })
    }

    /// Maps a memory file for the program and for controllers.
    pub(crate) fn import(&self, file: OwnedFd) -> Result<(*mut u8, usize)> {
        // Checks and seals the file.
        let memory = Memory::import(duplicate(file.as_fd())?)?;
        let (len, page) = (memory.len(), memory.page_size().bytes());
        drop(memory);
        let view = View::new(file.as_fd(), len, page.max(BIG_BYTES))?;
        let base = view.base();
        let at = base.expose_provenance();
        let area = Area {
            at,
            len,
            offset: 0,
            origin: Origin::Mapped,
            regions: Vec::new(),
            view: ProgramMapping::Ours(view),
            file,
        };
        lock(&self.state).insert(area)?;
        Ok((base, len))
    }

    /// Ends a mapping that begins at `at`.
    pub(crate) fn unmap(&self, at: *mut u8) -> Result<()> {
        let at = at.addr();
        let mut state = lock(&self.state);
        let Some(len) =
            state.areas.get(&at).filter(|area| area.origin == Origin::Mapped).map(|area| area.len)
        else {
            return Err(Failure::argument(format!(
                "no memory was mapped at {at:#x}, or it was unmapped before"
            )));
        };
        self.check_unused(Range { at, len })?;
        let area = state.areas.remove(&at);
        for space in &state.spaces {
            space.translation.unmap(at, len);
        }
        drop(state);
        self.flights().iter().for_each(|flight| flight.forget());
        if let Some(area) = area {
            area.end();
        }
        Ok(())
    }
}
