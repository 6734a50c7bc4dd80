//! Areas: parts of memory files that the program knows by their addresses, and controllers by theirs.

use super::{Space, duplicate};
use crate::{
    blocks::UNIT,
    errors::{Failure, Result},
    files::{View, unshare},
};
use std::os::fd::{AsFd, OwnedFd};
use upcie_nvme::upcie_core::{dma::Region, memory::Memory};

/// The source of an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The heap's own memory, which it allocates from.
    Own,
    /// The program's.
    Mapped,
}

/// The mapping by which the program sees an area.
#[derive(Debug)]
pub(super) enum ProgramMapping {
    /// The heap's.
    Ours(#[expect(dead_code, reason = "unmapped when it is dropped")] View),
    /// The program's own.
    Theirs,
    /// The heap's, in place of anonymous memory of the program's, which returns in the end.
    Replaced,
}

/// A part of a memory file that the program knows by its address there.
#[derive(Debug)]
pub(super) struct Area {
    pub(super) at: usize,
    pub(super) len: usize,
    /// The area's first byte in the file.
    pub(super) offset: usize,
    pub(super) origin: Origin,
    /// The whole file, in each address space by its id. Before the file: unmapped first.
    pub(super) regions: Vec<(u64, Region)>,
    pub(super) view: ProgramMapping,
    pub(super) file: OwnedFd,
}

impl Area {
    /// Maps it for an address space.
    pub(super) fn enter(&mut self, space: &Space) -> Result<()> {
        let id = space.dma.id();
        if !self.regions.iter().any(|(other, _)| *other == id) {
            let memory = Memory::import(duplicate(self.file.as_fd())?)?;
            if self.offset.checked_add(self.len).is_none_or(|end| end > memory.len()) {
                return Err(Failure::argument(format!("the file behind {:#x} is too short", self.at)));
            }
            self.regions.push((id, space.dma.map(memory)?));
        }
        let Some((_, region)) = self.regions.iter().find(|(other, _)| *other == id) else { return Ok(()) };
        // Contiguous as a whole, or in each page of the memory.
        let step = if region.addresses().is_contiguous(0, region.len()) {
            usize::MAX
        } else {
            region.memory().map_or(UNIT, |memory| memory.page_size().bytes())
        };
        let offset = self.offset;
        let step = if offset % step == 0 { step } else { UNIT };
        space.translation.map(self.at, self.len, step, |at| region.iova(offset + at));
        Ok(())
    }

    /// Unmaps it from all address spaces, and gives anonymous memory back to the program.
    pub(super) fn end(mut self) {
        self.regions.clear();
        if let ProgramMapping::Replaced = self.view {
            // If it fails the memory stays the program's, and shared.
            // SAFETY: the range of `Heap::map`; the caller lets no thread write to it during the call.
            let _ = unsafe { unshare(std::ptr::with_exposed_provenance_mut(self.at), self.len) };
        }
    }

    /// Unmaps it from an address space that ends, with its table.
    pub(super) fn leave(&mut self, id: u64) {
        self.regions.retain(|(other, _)| *other != id);
    }
}
