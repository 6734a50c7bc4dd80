//! One heap for any number of controllers: memory files that this process maps once, and each address space once more.

use crate::{
    abi::HeapOpts,
    blocks::{Blocks, UNIT},
    controller::Ctrlr,
    errors::{Failure, Result},
    files::{Source, View, share, source, unshare},
    flight::{Flight, Range},
    translation::{BIG_BYTES, Translation},
};
use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use upcie_nvme::upcie_core::{
    dma::{DmaSpace, Region},
    memory::{Memory, PageSize, host_page_size},
};

/// The least that the heap grows by, and the most that it grows by without need.
const GROWTH: (usize, usize) = (2 << 20, 1 << 30);

/// An address space of one or several controllers, and the device addresses of the heap's memory in it.
#[derive(Debug)]
pub(crate) struct Space {
    dma: Arc<DmaSpace>,
    pub(crate) translation: Translation,
}

/// A heap, by its handle.
#[derive(Debug)]
pub(crate) struct Heap {
    pages: Option<PageSize>,
    /// Held while a controller is opened, so that two that are opened at once find each other's space.
    pub(crate) opening: Mutex<()>,
    state: Mutex<State>,
    flights: Mutex<Vec<Weak<Flight>>>,
}

#[derive(Debug, Default)]
struct State {
    areas: BTreeMap<usize, Area>,
    blocks: Blocks,
    /// The bytes that `blocks` has.
    own: usize,
    spaces: Vec<Arc<Space>>,
    controllers: Vec<Weak<Ctrlr>>,
    closed: bool,
}

/// A new memory file, its bytes, and the regions that it has by now.
type Made = (OwnedFd, usize, Vec<(u64, Region)>);

/// The source of an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The heap's own memory, which it allocates from.
    Own,
    /// The program's.
    Mapped,
}

/// The mapping by which the program sees an area.
#[derive(Debug)]
enum Sight {
    /// The heap's.
    Ours(#[expect(dead_code, reason = "unmapped when it is dropped")] View),
    /// The program's own.
    Theirs,
    /// The heap's, in place of anonymous memory of the program's, which returns in the end.
    Replaced,
}

/// A part of a memory file that the program knows by its address there.
#[derive(Debug)]
struct Area {
    at: usize,
    len: usize,
    /// The area's first byte in the file.
    offset: usize,
    origin: Origin,
    /// The whole file, in each address space by its id. Before the file: unmapped first.
    regions: Vec<(u64, Region)>,
    view: Sight,
    file: OwnedFd,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_memory(bytes: usize) -> Failure {
    Failure::new(libc::ENOMEM, format!("{bytes} bytes are more than a heap can have"))
}

impl Heap {
    pub(crate) fn new(opts: HeapOpts) -> Result<Self> {
        let pages = match opts.page_size {
            0 => None,
            4096 => Some(PageSize::Small),
            0x20_0000 => Some(PageSize::Huge2M),
            0x4000_0000 => Some(PageSize::Huge1G),
            other => {
                return Err(Failure::argument(format!(
                    "pages of {other} bytes: a heap has pages of 4096 bytes, 2 MiB or 1 GiB"
                )));
            }
        };
        let heap =
            Self { pages, opening: Mutex::default(), state: Mutex::default(), flights: Mutex::default() };
        if opts.bytes > 0 {
            let bytes = usize::try_from(opts.bytes).map_err(|_| no_memory(usize::MAX))?;
            heap.grow(&mut lock(&heap.state), bytes)?;
        }
        Ok(heap)
    }

    /// Refuses everything from now on, unless a controller is open.
    pub(crate) fn close(&self) -> Result<()> {
        let mut state = lock(&self.state);
        let open = state.controllers.iter().filter(|controller| controller.strong_count() > 0).count();
        if open > 0 {
            return Err(Failure::new(
                libc::EBUSY,
                format!("{open} controllers of the heap are open: close them first"),
            ));
        }
        state.closed = true;
        for (_, area) in std::mem::take(&mut state.areas) {
            area.end();
        }
        state.blocks = Blocks::default();
        Ok(())
    }

    /// Allocates zeroed memory.
    pub(crate) fn alloc(&self, size: usize) -> Result<*mut u8> {
        if size == 0 {
            return Err(Failure::argument("an allocation of 0 bytes"));
        }
        let align = size.checked_next_power_of_two().unwrap_or(BIG_BYTES).clamp(UNIT, BIG_BYTES);
        let at = {
            let mut state = lock(&self.state);
            match state.blocks.allocate(size, align) {
                Some(at) => at,
                None => {
                    self.grow(&mut state, size)?;
                    state.blocks.allocate(size, align).ok_or_else(|| no_memory(size))?
                }
            }
        };
        let at: *mut u8 = std::ptr::with_exposed_provenance_mut(at);
        // SAFETY: an allocation of so many bytes in one of the heap's views, which is the caller's alone now.
        unsafe { at.write_bytes(0, size) };
        Ok(at)
    }

    /// Allocates other memory for the bytes at `old`, and copies them.
    pub(crate) fn realloc(&self, old: *mut u8, size: usize) -> Result<*mut u8> {
        if old.is_null() {
            return self.alloc(size);
        }
        let before = lock(&self.state).blocks.size(old.addr());
        let before = before.ok_or_else(|| self.not_allocated(old))?;
        self.check_unused(Range { at: old.addr(), len: before })?;
        let new = self.alloc(size)?;
        // SAFETY: two allocations of the heap, of which each has at least so many bytes; they don't overlap.
        unsafe { std::ptr::copy_nonoverlapping(old, new, before.min(size)) };
        self.free(old)?;
        Ok(new)
    }

    pub(crate) fn free(&self, at: *mut u8) -> Result<()> {
        if at.is_null() {
            return Ok(());
        }
        let mut state = lock(&self.state);
        let Some(size) = state.blocks.size(at.addr()) else {
            drop(state);
            return Err(self.not_allocated(at));
        };
        self.check_unused(Range { at: at.addr(), len: size })?;
        state.blocks.free(at.addr());
        Ok(())
    }

    fn not_allocated(&self, at: *mut u8) -> Failure {
        let state = lock(&self.state);
        let at = at.addr();
        let text = match (state.blocks.around(at), state.around(at).map(|area| area.origin)) {
            (Some(start), _) => format!("{at:#x} is within the allocation that begins at {start:#x}"),
            (None, Some(Origin::Own)) => format!("{at:#x} is not allocated; it may have been freed before"),
            (None, Some(Origin::Mapped)) => format!("{at:#x} was mapped, not allocated: use upcie_unmap"),
            (None, None) => format!("{at:#x} is no memory of this heap"),
        };
        Failure::argument(text)
    }

    /// Refuses to give up memory that a command in flight uses.
    fn check_unused(&self, range: Range) -> Result<()> {
        let flights: Vec<_> = lock(&self.flights).iter().filter_map(Weak::upgrade).collect();
        if flights.iter().any(|flight| flight.uses(range)) {
            return Err(Failure::new(
                libc::EBUSY,
                format!(
                    "a command in flight uses the memory at {:#x}: wait for it, or delete its queue",
                    range.at
                ),
            ));
        }
        Ok(())
    }

    /// Includes the commands of a queue in the checks of memory that is given up, as long as the caller keeps them.
    pub(crate) fn watch(&self, flight: &Arc<Flight>) {
        let mut flights = lock(&self.flights);
        flights.retain(|flight| flight.strong_count() > 0);
        flights.push(Arc::downgrade(flight));
    }

    /// Adds own memory for an allocation of `size` bytes.
    fn grow(&self, state: &mut State, size: usize) -> Result<()> {
        let least = size.max(GROWTH.0).checked_next_multiple_of(BIG_BYTES).ok_or_else(|| no_memory(size))?;
        let wanted = least.max((state.own / 2).next_power_of_two().min(GROWTH.1));
        let made = self.make(state, wanted);
        let (file, len, regions) =
            if wanted > least { made.or_else(|_| self.make(state, least))? } else { made? };
        let align = if self.pages == Some(PageSize::Huge1G) { 1 << 30 } else { BIG_BYTES };
        let view = View::new(file.as_fd(), len, align)?;
        let at = view.base().expose_provenance();
        let area = Area { at, len, offset: 0, origin: Origin::Own, regions, view: Sight::Ours(view), file };
        state.insert(area)?;
        state.blocks.add(at, len);
        state.own += len;
        Ok(())
    }

    /// Makes a memory file, unless the system has too little memory: it would end programs to get some. Where a
    /// controller has no IOMMU, it is one that outlives the process.
    fn make(&self, state: &State, len: usize) -> Result<Made> {
        let free = available();
        if len > free {
            return Err(Failure::new(
                libc::ENOMEM,
                format!("{len} bytes of memory: the system has {free} left"),
            ));
        }
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
            view: if was_private { Sight::Replaced } else { Sight::Theirs },
            file,
        })
    }

    /// Maps a memory file for the program and for controllers.
    pub(crate) fn import(&self, file: OwnedFd) -> Result<(*mut u8, usize)> {
        // Checks and seals the file.
        let len = Memory::import(duplicate(file.as_fd())?)?.len();
        let view = View::new(file.as_fd(), len, BIG_BYTES)?;
        let base = view.base();
        let at = base.expose_provenance();
        let area = Area {
            at,
            len,
            offset: 0,
            origin: Origin::Mapped,
            regions: Vec::new(),
            view: Sight::Ours(view),
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
        if let Some(area) = area {
            area.end();
        }
        Ok(())
    }

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

impl State {
    fn around(&self, at: usize) -> Option<&Area> {
        let (_, area) = self.areas.range(..=at).next_back()?;
        (at - area.at < area.len).then_some(area)
    }

    /// Refuses memory that is the heap's already.
    fn check_free(&self, at: usize, len: usize) -> Result<()> {
        let before = self.around(at).is_some();
        let within = self.areas.range(at..at + len).next().is_some();
        if before || within {
            return Err(Failure::new(
                libc::EEXIST,
                format!("memory in the {len} bytes at {at:#x} is the heap's already"),
            ));
        }
        Ok(())
    }

    /// Adds an area, mapped for all address spaces.
    fn insert(&mut self, mut area: Area) -> Result<()> {
        for index in 0..self.spaces.len() {
            if let Err(failure) = area.enter(&self.spaces[index]) {
                for space in &self.spaces[..index] {
                    space.translation.unmap(area.at, area.len);
                }
                area.end();
                return Err(failure);
            }
        }
        self.areas.insert(area.at, area);
        Ok(())
    }
}

impl Area {
    /// Maps it for an address space.
    fn enter(&mut self, space: &Space) -> Result<()> {
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
    fn end(mut self) {
        self.regions.clear();
        if let Sight::Replaced = self.view {
            // If it fails the memory stays the program's, and shared.
            // SAFETY: the range of `Heap::map`; the caller lets no thread write to it during the call.
            let _ = unsafe { unshare(std::ptr::with_exposed_provenance_mut(self.at), self.len) };
        }
    }

    /// Unmaps it from an address space that ends, with its table.
    fn leave(&mut self, id: u64) {
        self.regions.retain(|(other, _)| *other != id);
    }
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

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    // Checked by a call of its own: a number that is no descriptor is the caller's error.
    fd.try_clone_to_owned().map_err(|error| {
        Failure::new(
            error.raw_os_error().unwrap_or(libc::EBADF),
            format!("duplicating a descriptor: {error}"),
        )
    })
}
