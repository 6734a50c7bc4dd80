//! A heap of DMA memory.

use super::{
    DmaBuf, DmaSpace, Region,
    buddy::{Buddy, MIN_SHIFT},
    buf::{Descriptor, RegionRef, Transfer},
};
use crate::{
    Error, Result,
    memory::{Memory, PageSize},
};
use std::{
    fmt,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
};

/// The first region, and the least by which a heap grows: one huge page.
const REGION_MIN: usize = 2 << 20;
/// The largest allocation.
const REGION_MAX: usize = 1 << 30;

/// What a driver prepares of a buffer, once, so that a transfer of all of it needs no work: NVMe's PRP list.
///
/// # Safety
/// Drivers put the word into commands as it is, so it decides where the device reads and writes. It, and what is put
/// into the list, must name no memory but the buffer's own and its list's, for the driver whose heap this is.
pub unsafe trait Prepare: Send + Sync + fmt::Debug {
    /// Bytes of list memory that a buffer of `len` bytes whose first is at `iova` needs; 0 for none.
    fn list_len(&self, iova: u64, len: usize) -> usize;

    /// Fills `list` for the buffer of `len` bytes whose byte at an offset has the device address `iova(offset)`, and
    /// gives the word that goes with the first address; `None` when it takes more than that (no `list` was given
    /// though one is needed, or the device never takes so much at once).
    fn prepare(&self, iova: &dyn Fn(usize) -> u64, len: usize, list: Option<List<'_>>) -> Option<u64>;
}

/// List memory: aligned to its size rounded up to a power of two, or to the page for what is larger.
#[derive(Debug)]
pub struct List<'a> {
    /// Its entries.
    pub entries: &'a mut [u64],
    /// The device address of the first.
    pub iova: u64,
}

/// Where a buffer's memory goes when it is dropped.
pub(super) enum Home {
    /// Nowhere: the empty buffer, or a descriptor that has been taken apart.
    None,
    /// A heap's block, and its list's.
    Block { heap: Arc<Heap>, region: RegionRef, block: Block, list: Option<Block> },
    /// A part of another buffer.
    Part(Arc<DmaBuf>, Option<RegionRef>),
}

impl Home {
    pub(super) fn region(&self) -> Option<&RegionRef> {
        match self {
            Self::None => None,
            Self::Block { region, .. } => Some(region),
            Self::Part(_, region) => region.as_ref(),
        }
    }

    pub(super) fn prepare(&self) -> Option<&dyn Prepare> {
        let mut home = self;
        loop {
            match home {
                Self::None => return None,
                Self::Block { heap, .. } => return heap.prepare.as_deref(),
                Self::Part(parent, _) => home = parent.home(),
            }
        }
    }

    /// Frees a block; a part gives what it was cut from, if it was the last that held it.
    pub(super) fn give_back(mut descriptor: Box<Descriptor>) -> Option<DmaBuf> {
        match std::mem::replace(&mut descriptor.home, Self::None) {
            Self::None => None,
            Self::Block { heap, region, block, list } => {
                drop(region);
                let mut state = match heap.state.try_lock() {
                    Ok(state) => state,
                    Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                    // A forked child: whoever held the lock is in the parent, and will never give it back here.
                    Err(TryLockError::WouldBlock) if heap.space.is_inherited() => return None,
                    Err(TryLockError::WouldBlock) => heap.lock(),
                };
                for block in [Some(block), list].into_iter().flatten() {
                    state.free(block);
                }
                state.spare.push(descriptor);
                None
            }
            Self::Part(parent, _) => Arc::into_inner(parent),
        }
    }
}

/// A block of a region, by the region's index in the heap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    region: u32,
    order: u32,
    offset: usize,
}

#[derive(Default)]
struct State {
    regions: Vec<(RegionRef, Buddy)>,
    /// Descriptors to use again: a heap in a steady state asks the system's allocator for nothing.
    #[expect(clippy::vec_box, reason = "what is kept is the allocation, which a `DmaBuf` points to")]
    spare: Vec<Box<Descriptor>>,
    in_use: usize,
}

impl State {
    fn place(&mut self, order: u32) -> Option<Block> {
        // The newest region is the largest.
        let found = self.regions.iter_mut().enumerate().rev().find_map(|(region, (_, buddy))| {
            buddy.allocate(order).map(|offset| Block { region: region as u32, order, offset })
        });
        self.in_use += found.map_or(0, |_| 1 << (order + MIN_SHIFT));
        found
    }

    fn free(&mut self, block: Block) {
        self.in_use -= 1 << (block.order + MIN_SHIFT);
        self.regions[block.region as usize].1.free(block.offset, block.order);
    }
}

/// Hands out [`DmaBuf`]s from regions that it maps as it grows; several threads may use it.
///
/// A block is the length (or the alignment, if that is more) rounded up to a power of two, 512 bytes at least, 1 GiB at
/// most, and is aligned to its own size. Memory that was freed is merged and used again; the heap keeps its regions
/// until it and all its buffers are gone.
pub struct Heap {
    space: Arc<DmaSpace>,
    pages: Option<PageSize>,
    prepare: Option<Box<dyn Prepare>>,
    state: Mutex<State>,
}

impl Heap {
    /// An empty heap over `space`, made of `pages`; `None` takes 2 MiB pages while some are free and small ones
    /// otherwise. `prepare` is what the driver wants to know of each buffer; without it no buffer is
    /// [ready](super::Transfer::ready).
    pub fn new(
        space: &Arc<DmaSpace>,
        pages: Option<PageSize>,
        prepare: Option<Box<dyn Prepare>>,
    ) -> Arc<Self> {
        Arc::new(Self { space: space.clone(), pages, prepare, state: Mutex::default() })
    }

    /// The address space that the buffers are in.
    pub fn space(&self) -> &Arc<DmaSpace> {
        &self.space
    }

    /// A buffer of `len` bytes with whatever was in them.
    ///
    /// # Errors
    /// [`Error::Allocation`] for no bytes or more than 1 GiB, and those of mapping more memory.
    pub fn alloc(self: &Arc<Self>, len: usize) -> Result<DmaBuf> {
        self.alloc_aligned(len, 1)
    }

    /// A buffer of `len` bytes, all zero.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn alloc_zeroed(self: &Arc<Self>, len: usize) -> Result<DmaBuf> {
        let mut buf = self.alloc(len)?;
        buf.zero();
        Ok(buf)
    }

    /// A buffer of `len` bytes whose device address is a multiple of `align`, a power of two.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc), and for an `align` that is not a power of two.
    pub fn alloc_aligned(self: &Arc<Self>, len: usize, align: usize) -> Result<DmaBuf> {
        let refuse = |reason| Error::Allocation { device: self.space.device().into(), len, align, reason };
        if len == 0 || !align.is_power_of_two() {
            return Err(refuse(
                "a length of at least one byte and an alignment that is a power of two are needed",
            ));
        }
        let order = Buddy::order(len, align)
            .filter(|&order| order + MIN_SHIFT <= REGION_MAX.ilog2())
            .ok_or_else(|| refuse("more than the 1 GiB that one buffer can have"))?;
        let mut state = self.lock();
        if self.space.is_closed() {
            return Err(refuse(
                "the device did not stop, so what it may still write to is not handed out again",
            ));
        }
        let block = self.place(&mut state, order)?;
        let region = state.regions[block.region as usize].0.clone();
        let iova = |offset: usize| region.iova(block.offset + offset);
        let (list, companion) = match self.prepare.as_deref() {
            None => (None, None),
            Some(prepare) => match prepare.list_len(iova(0), len) {
                0 => (None, prepare.prepare(&iova, len, None)),
                bytes => match self.list(&mut state, bytes) {
                    Ok((list, memory)) => (Some(list), prepare.prepare(&iova, len, Some(memory))),
                    Err(error) => {
                        state.free(block);
                        return Err(error);
                    }
                },
            },
        };
        let whole = companion.and(u32::try_from(len).ok()).unwrap_or(0);
        // SAFETY: a block lies within its region.
        let ptr = unsafe { region.as_ptr().add(block.offset) };
        let transfer = Transfer {
            iova: iova(0),
            companion: companion.unwrap_or(0),
            space: self.space.id(),
            ready: whole,
        };
        let spare = state.spare.pop();
        drop(state);
        let descriptor = Descriptor {
            transfer,
            whole,
            ptr: NonNull::new(ptr).expect("a mapping is not at address 0"),
            len,
            next: None,
            home: Home::Block { heap: self.clone(), region, block, list },
        };
        Ok(DmaBuf::from_descriptor(match spare {
            Some(mut spare) => {
                *spare = descriptor;
                spare
            }
            None => Box::new(descriptor),
        }))
    }

    /// Its lock, for a test.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Drop + '_ {
        self.lock()
    }

    /// Bytes of memory that the heap has mapped.
    pub fn footprint(&self) -> usize {
        self.lock().regions.iter().map(|(region, _)| region.len()).sum()
    }

    /// Bytes in blocks that are handed out, lists included.
    pub fn in_use(&self) -> usize {
        self.lock().in_use
    }

    /// List memory of `bytes`, its entries zero.
    fn list<'a>(&self, state: &mut State, bytes: usize) -> Result<(Block, List<'a>)> {
        let order = Buddy::order(bytes, 1).expect("a list is smaller than its buffer");
        let block = self.place(state, order)?;
        let region = &state.regions[block.region as usize].0;
        // SAFETY: a block lies within its region.
        let base = unsafe { region.as_ptr().add(block.offset) }.cast::<u64>();
        // SAFETY: a fresh block of at least `bytes`, 512-aligned, that nobody else has, its bytes initialised (the
        // region's were zero at first).
        let entries = unsafe { std::slice::from_raw_parts_mut(base, bytes.div_ceil(8)) };
        entries.fill(0);
        Ok((block, List { entries, iova: region.iova(block.offset) }))
    }

    /// A block, from a new region if need be. Regions grow with the heap, so that they stay few.
    fn place(&self, state: &mut State, order: u32) -> Result<Block> {
        if let Some(block) = state.place(order) {
            return Ok(block);
        }
        let total: usize = state.regions.iter().map(|(region, _)| region.len()).sum();
        let least = REGION_MIN.max(1 << (order + MIN_SHIFT));
        let wanted = least.max((total / 2).next_power_of_two()).min(REGION_MAX);
        // What the heap would like may be more than there is: then what it needs.
        let region =
            self.map(wanted).or_else(|error| if wanted > least { self.map(least) } else { Err(error) })?;
        let buddy = Buddy::new(region.len());
        state.regions.push((Arc::new(region), buddy));
        Ok(state.place(order).expect("the new region has room"))
    }

    fn map(&self, len: usize) -> Result<Region> {
        let page = self.pages.unwrap_or_else(|| {
            let huge = PageSize::Huge2M;
            let free = huge.available().map_or(0, |(free, _)| free) as usize;
            if free.saturating_mul(huge.bytes()) >= len { huge } else { PageSize::Small }
        });
        let len = len.max(page.bytes());
        match (Memory::new(len, page), self.pages) {
            // Somebody else was faster.
            (Err(_), None) if page != PageSize::Small => self.space.map(Memory::new(len, PageSize::Small)?),
            (memory, _) => self.space.map(memory?),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap")
            .field("space", &self.space)
            .field("footprint", &self.footprint())
            .field("in_use", &self.in_use())
            .finish()
    }
}
