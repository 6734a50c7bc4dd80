//! The heap's own memory: files of huge or small pages, as many as the system can give.

use super::{
    Heap, Space, State,
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
        match self.add(state, wanted) {
            Err(_) if wanted > least => self.add(state, least),
            added => added,
        }
    }

    /// Adds own memory of `len` bytes, unless the system has too little memory: it would end programs to get some. Where a
    /// controller has no IOMMU, it is a file that outlives the process.
    fn add(&self, state: &mut State, len: usize) -> Result<()> {
        check_available(len)?;
        let untranslated = state.spaces.iter().find(|space| space.dma.is_physical());
        if let Some(made) = untranslated.map(|space| named(space, len, self.pages)) {
            return self.adopt(state, made?);
        }
        let pages = self.pages.unwrap_or_else(|| preferred(state, len));
        match plain(len, pages).and_then(|made| self.adopt(state, made)) {
            // Another process has taken the huge pages since they were counted, or a vfio-user server refuses them.
            Err(_) if self.pages.is_none() && pages != PageSize::Small => {
                self.adopt(state, plain(len, PageSize::Small)?)
            }
            added => added,
        }
    }

    /// Maps a new memory file for the program and for all controllers, and lets it be allocated from.
    fn adopt(&self, state: &mut State, (file, len, regions): NewFile) -> Result<()> {
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
}

/// Makes a memory file that outlives the process, for a controller without an IOMMU.
fn named(space: &Space, len: usize, pages: Option<PageSize>) -> Result<NewFile> {
    let region = space.dma.allocate_shared(len, pages)?;
    let memory = region.memory().ok_or_else(|| Failure::new(libc::EIO, "no host memory"))?;
    // SAFETY: the memory is shared, so that no reference to its bytes is formed; nobody frees pages of it.
    let file = duplicate(unsafe { memory.file() })?;
    let len = memory.len();
    Ok((file, len, vec![(space.dma.id(), region)]))
}

/// Makes a memory file.
fn plain(len: usize, pages: PageSize) -> Result<NewFile> {
    let memory = Memory::new(len, pages)?.shared();
    // SAFETY: the memory is shared, so that no reference to its bytes is formed; nobody frees pages of it.
    Ok((duplicate(unsafe { memory.file() })?, memory.len(), Vec::new()))
}

/// Returns the pages for `len` bytes whose program leaves the choice.
fn preferred(state: &State, len: usize) -> PageSize {
    let huge = PageSize::Huge2M;
    let free = huge.available().map_or(0, |(free, _)| free) as usize;
    let is_enough = free.saturating_mul(huge.bytes()) >= len;
    let is_wanted = !state.spaces.iter().any(|space| space.dma.avoids_huge_pages());
    if is_enough && is_wanted { huge } else { PageSize::Small }
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
