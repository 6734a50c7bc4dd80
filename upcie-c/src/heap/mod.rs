//! One heap for any number of controllers: memory files that this process maps once, and each address space once more.

mod area;
mod grow;
mod mappings;
mod spaces;

pub(crate) use spaces::Space;

use crate::{
    abi::HeapOpts,
    blocks::{Blocks, UNIT},
    controller::Ctrlr,
    errors::{Failure, Result},
    flight::Flight,
    held::Range,
    translation::BIG_BYTES,
};
use area::{Area, Origin};
use std::{
    collections::BTreeMap,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use upcie_nvme::upcie_core::memory::PageSize;

/// A heap, by its handle.
#[derive(Debug)]
pub(crate) struct Heap {
    pages: Option<PageSize>,
    /// The bytes that the first controller's open adds.
    reserved: usize,
    /// Held while a controller is opened, so that two that are opened at once find each other's space.
    pub(crate) opening: Mutex<()>,
    state: Mutex<State>,
    flights: Mutex<Vec<Weak<Flight>>>,
    /// Memory that admin commands are copied from and to.
    lent: Mutex<Vec<Range>>,
}

/// Memory that a call copies from and to: it is not given up before this is dropped.
#[derive(Debug)]
pub(crate) struct Lent<'h> {
    heap: &'h Heap,
    ranges: [Range; 2],
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut lent = lock(&self.heap.lent);
        for range in self.ranges {
            if let Some(at) = lent.iter().position(|other| *other == range) {
                lent.swap_remove(at);
            }
        }
    }
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn no_memory(bytes: usize) -> Failure {
    Failure::new(libc::ENOMEM, format!("{bytes} bytes are more than a heap can have"))
}

impl Heap {
    pub(crate) fn new(opts: HeapOpts) -> Result<Self> {
        if opts.reserved != 0 {
            return Err(Failure::argument("upcie_heap_opts has a reserved field that must be 0"));
        }
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
        let reserved = usize::try_from(opts.bytes).map_err(|_| no_memory(usize::MAX))?;
        grow::check_available(reserved)?;
        Ok(Self {
            pages,
            reserved,
            opening: Mutex::default(),
            state: Mutex::default(),
            flights: Mutex::default(),
            lent: Mutex::default(),
        })
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
        if let Err(failure) = self.free(old) {
            // A command that was submitted meanwhile uses the old memory, which stays the caller's. Nobody knows the new.
            lock(&self.state).blocks.free(new.addr());
            return Err(failure);
        }
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

    fn flights(&self) -> Vec<Arc<Flight>> {
        lock(&self.flights).iter().filter_map(Weak::upgrade).collect()
    }

    /// Keeps memory from being given up. What was given up before is not the heap's any more when this returns.
    pub(crate) fn lend(&self, ranges: [Range; 2]) -> Lent<'_> {
        let _state = lock(&self.state);
        lock(&self.lent).extend(ranges);
        Lent { heap: self, ranges }
    }

    /// Refuses to give up memory that a command in flight uses.
    fn check_unused(&self, range: Range) -> Result<()> {
        let is_lent = lock(&self.lent).iter().any(|lent| lent.len > 0 && lent.overlaps(range));
        if is_lent || self.flights().iter().any(|flight| flight.uses(range)) {
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

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    // Checked by a call of its own: a number that is no descriptor is the caller's error.
    fd.try_clone_to_owned().map_err(|error| {
        Failure::new(
            error.raw_os_error().unwrap_or(libc::EBADF),
            format!("duplicating a descriptor: {error}"),
        )
    })
}
