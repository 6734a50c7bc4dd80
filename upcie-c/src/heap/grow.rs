//! The heap's own memory: files of huge or small pages, as many as the system can give.

use super::{
    Heap, State,
    area::{Area, Origin, ProgramMapping},
    duplicate, no_memory,
};
use crate::{
    errors::{Failure, Result},
    files::View,
    translation::BIG_BYTES,
};
use std::os::fd::{AsFd, OwnedFd};
use upcie_nvme::upcie_core::{
    dma::Region,
    memory::{Memory, PageSize},
};

/// The least that the heap grows by, and the most that it grows by without need.
const GROWTH: (usize, usize) = (2 << 20, 1 << 30);

/// A new memory file, its bytes, and the regions that it has by now.
type NewFile = (OwnedFd, usize, Vec<(u64, Region)>);

impl Heap {
    /// Adds the memory that the heap was made with, unless it has so much. Not before the first controller: where that one
    /// has no IOMMU, the memory comes from its address space.
    pub(super) fn reserve(&self, state: &mut State) -> Result<()> {
        match self.reserved.saturating_sub(state.own) {
            0 => Ok(()),
            missing => self.grow(state, missing),
        }
    }

    /// Adds own memory for an allocation of `size` bytes.
    pub(super) fn grow(&self, state: &mut State, size: usize) -> Result<()> {
        let least = size.max(GROWTH.0).checked_next_multiple_of(BIG_BYTES).ok_or_else(|| no_memory(size))?;
        let wanted = least.max((state.own / 2).next_power_of_two().min(GROWTH.1));
        let made = self.make(state, wanted);
        let (file, len, regions) =
            if wanted > least { made.or_else(|_| self.make(state, least))? } else { made? };
        let align = if self.pages == Some(PageSize::Huge1G) { 1 << 30 } else { BIG_BYTES };
        let view = View::new(file.as_fd(), len, align)?;
        let at = view.base().expose_provenance();
        let area =
            Area { at, len, offset: 0, origin: Origin::Own, regions, view: ProgramMapping::Ours(view), file };
        state.insert(area)?;
        state.blocks.add(at, len);
        state.own += len;
        Ok(())
    }

    /// Makes a memory file, unless the system has too little memory: it would end programs to get some. Where a
    /// controller has no IOMMU, it is one that outlives the process.
    fn make(&self, state: &State, len: usize) -> Result<NewFile> {
        check_available(len)?;
        if let Some(space) = state.spaces.iter().find(|space| space.dma.is_physical()) {
            let region = space.dma.allocate_shared(len, self.pages)?;
            let memory = region.memory().ok_or_else(|| Failure::new(libc::EIO, "no host memory"))?;
            // SAFETY: the memory is shared, so that no reference to its bytes is formed; nobody frees pages of it.
            let file = duplicate(unsafe { memory.file() })?;
            let len = memory.len();
            return Ok((file, len, vec![(space.dma.id(), region)]));
        }
        let memory = match self.pages {
            Some(pages) => Memory::new(len, pages)?,
            None => {
                let huge = PageSize::Huge2M;
                let free = huge.available().map_or(0, |(free, _)| free) as usize;
                let is_enough = free.saturating_mul(huge.bytes()) >= len;
                let first = if is_enough { Memory::new(len, huge).ok() } else { None };
                first.map_or_else(|| Memory::new(len, PageSize::Small), Ok)?
            }
        };
        let memory = memory.shared();
        let len = memory.len();
        // SAFETY: the memory is shared, so that no reference to its bytes is formed; nobody frees pages of it.
        Ok((duplicate(unsafe { memory.file() })?, len, Vec::new()))
    }
}

/// Refuses memory that the system does not have.
pub(super) fn check_available(len: usize) -> Result<()> {
    let free = available();
    if len > free {
        return Err(Failure::new(libc::ENOMEM, format!("{len} bytes of memory: the system has {free} left")));
    }
    Ok(())
}

/// Returns the memory that the system can give, in bytes: small and huge pages.
fn available() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse::<usize>().ok()
    };
    let huge = [PageSize::Huge2M, PageSize::Huge1G].into_iter();
    let huge = huge.filter_map(|page| Some((page.available()?.0 as usize).saturating_mul(page.bytes())));
    huge.fold(field("MemAvailable:").map_or(usize::MAX, |kib| kib << 10), usize::saturating_add)
}
