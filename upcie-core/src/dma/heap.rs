//! A heap of DMA memory.

use super::{
    DmaBuf, DmaSpace, List, Prepare, Prepared, Region,
    buddy::{Buddy, MIN_SHIFT},
    descriptor::{Block, BlockSource, Descriptor, Home},
};
use crate::{
    Error, Result,
    deadline::{self, MessageWatch},
    gate::{Gate, Pass},
    memory::{PageSize, host_page_size},
};
use std::{
    fmt,
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Size of the first region, and the smallest growth of a heap: one huge page.
const REGION_MIN: usize = 2 << 20;
/// The same for a private heap: room for two queue pairs of 1024 entries with their lists.
const PRIVATE_MIN: usize = 512 << 10;
/// The largest allocation.
pub(super) const REGION_MAX: usize = 1 << 30;

/// Time that an allocation waits for other threads that map more memory.
const GROW_DEADLINE: Duration = Duration::from_secs(30);

/// A region, or part of one, with its free blocks.
pub(super) struct Piece {
    pub(super) region: Arc<Region>,
    /// The piece's first byte in the region, in bytes.
    pub(super) start: usize,
    pub(super) buddy: Buddy,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) regions: Vec<Piece>,
    /// Descriptors for reuse: a heap in a steady state does not call the system's allocator.
    #[expect(clippy::vec_box, reason = "what is kept is the allocation, which a `DmaBuf` points to")]
    spare: Vec<Box<Descriptor>>,
    in_use: usize,
}

impl State {
    fn allocate(&mut self, order: u32) -> Option<Block> {
        // The newest region is the largest.
        let found = self.regions.iter_mut().enumerate().rev().find_map(|(index, piece)| {
            let offset = piece.buddy.allocate(order)? + piece.start;
            Some(Block { region: index as u32, order, offset })
        });
        self.in_use += found.map_or(0, |_| 1 << (order + MIN_SHIFT));
        found
    }

    /// Allocates a block, with its region and a spare descriptor if there is one.
    fn take(&mut self, order: u32) -> Option<Taken> {
        let block = self.allocate(order)?;
        let region = self.regions[block.region as usize].region.clone();
        Some(Taken { block, region, spare: self.spare.pop() })
    }

    fn footprint(&self) -> usize {
        let whole = self.regions.iter().filter(|piece| piece.start == 0);
        whole.map(|piece| piece.region.len()).sum()
    }

    fn free(&mut self, block: Block) {
        self.in_use -= 1 << (block.order + MIN_SHIFT);
        let piece = &mut self.regions[block.region as usize];
        piece.buddy.free(block.offset - piece.start, block.order);
    }
}

/// The parts of a new buffer.
struct Taken {
    block: Block,
    region: Arc<Region>,
    spare: Option<Box<Descriptor>>,
}

/// Hands out [`DmaBuf`]s from regions that it maps as it grows. Several threads may use it.
///
/// A block is the length (or the alignment, if larger) rounded up to a power of two, from 512 bytes to 1 GiB, and is
/// aligned to its own size. Freed blocks are merged and reused; the heap keeps its regions until it and all its buffers
/// are gone.
///
/// # Examples
/// ```no_run
/// use upcie_core::dma::Heap;
///
/// let device = upcie_core::open(&"0000:01:00.0".parse()?)?;
/// let heap = Heap::new(device.dma(), None, None);
/// let mut buffer = heap.alloc(4096)?;
/// buffer.write_at(0, b"hello");
/// println!("the device finds it at {:#x}", buffer.iova(0));
/// # Ok::<(), upcie_core::Error>(())
/// ```
///
/// The lists of buffers tell the device which memory to access. They are in regions of another heap, so no buffer's
/// [`region`](DmaBuf::region) leads to them.
pub struct Heap {
    pub(super) space: Arc<DmaSpace>,
    pub(super) growth: Growth,
    pub(super) preparer: Option<Preparer>,
    /// Set if its buffers give no slices.
    pub(super) by_copy: bool,
    /// Locked for short accesses only, never during a wait.
    pub(super) state: Mutex<State>,
    /// Gives one thread at a time the right to map more memory, which may take as long as the device's server answers.
    pub(super) growing: Gate<()>,
}

/// The driver's preparation of a heap's buffers, and the heap of their lists.
pub(super) struct Preparer {
    pub(super) by: Box<dyn Prepare>,
    pub(super) lists: Arc<Heap>,
}

/// The origin of a heap's memory.
#[derive(Debug, Clone, Copy)]
pub(super) enum Growth {
    /// Host memory in these pages, allocated on demand (`None`: see [`DmaSpace::allocate`]).
    Host(Option<PageSize>),
    /// Host memory in smaller steps, of smaller pages at first: for rings and lists.
    Private(Option<PageSize>),
    /// One region, which does not grow.
    Fixed,
}

impl Heap {
    /// Returns the address space of the buffers.
    pub fn space(&self) -> &Arc<DmaSpace> {
        &self.space
    }

    /// Allocates a buffer of `len` zero bytes.
    ///
    /// # Errors
    /// [`Failure::Allocation`](crate::Failure::Allocation) for 0 bytes or more than 1 GiB, and the errors of mapping
    /// more memory. [`Failure::Timeout`](crate::Failure::Timeout) when other threads map more memory for longer than
    /// 30 s, or than the rest of this thread's [`Budget`](deadline::Budget).
    pub fn alloc(self: &Arc<Self>, len: usize) -> Result<DmaBuf> {
        let mut buf = self.alloc_block(len, 1)?;
        buf.fill(0);
        Ok(buf)
    }

    /// Allocates a buffer of `len` bytes, which hold the bytes of their former user: for a caller that overwrites all
    /// of them, with a read from the device, say.
    ///
    /// # Errors
    /// Those of [`alloc`](Self::alloc).
    pub fn alloc_unzeroed(self: &Arc<Self>, len: usize) -> Result<DmaBuf> {
        self.alloc_block(len, 1)
    }

    /// Allocates a buffer of `len` zero bytes that are contiguous for the device too, at a device address that is a
    /// multiple of `align`, a power of two: for rings. Without an IOMMU only the bytes of one huge page are sure to be
    /// contiguous.
    ///
    /// # Errors
    /// Those of [`alloc`](Self::alloc); [`Failure::Allocation`](crate::Failure::Allocation) when `align` is not a power
    /// of two, or the free memory is not contiguous.
    pub fn alloc_aligned(self: &Arc<Self>, len: usize, align: usize) -> Result<DmaBuf> {
        let mut buf = self.alloc_contiguous(len, align)?;
        buf.fill(0);
        Ok(buf)
    }

    /// Allocates a buffer as [`alloc_aligned`](Self::alloc_aligned) does, without zeroing it.
    fn alloc_contiguous(self: &Arc<Self>, len: usize, align: usize) -> Result<DmaBuf> {
        let buf = self.alloc_block(len, align)?;
        if buf.is_contiguous() && buf.iova(0) % align as u64 == 0 {
            return Ok(buf);
        }
        Err(Error::allocation(
            self.space.device(),
            len,
            align,
            "without an IOMMU only the bytes of one huge page are side by side: use pages of 1 GiB, or ask for \
                     less",
        ))
    }

    fn alloc_block(self: &Arc<Self>, len: usize, align: usize) -> Result<DmaBuf> {
        let refuse = |reason| Error::allocation(self.space.device(), len, align, reason);
        if len == 0 || !align.is_power_of_two() {
            return Err(refuse(
                "a length of at least one byte and an alignment that is a power of two are needed",
            ));
        }
        let order = Buddy::order(len, align)
            .filter(|&order| order + MIN_SHIFT <= REGION_MAX.ilog2())
            .ok_or_else(|| refuse("more than the 1 GiB that one buffer can have"))?;
        // Checked before locking: in a forked child the lock may be held by a thread that exists only in the parent.
        // The child would also hand out its parent's memory.
        self.space.check_owner("allocating DMA memory")?;
        let now = self.take(order, refuse)?;
        let Taken { block, region, spare } = match now {
            Some(taken) => taken,
            None => {
                let turn = self.enter(len)?;
                let taken = self.grow(order, refuse)?;
                drop(turn);
                taken
            }
        };
        let iova = |offset: usize| region.iova(block.offset + offset);
        let made = match &self.preparer {
            None => Ok((DmaBuf::empty(), None)),
            Some(Preparer { by, lists }) => match by.list_len(iova(0), len) {
                0 => Ok((DmaBuf::empty(), by.prepare(&iova, len, None))),
                bytes => lists.list(bytes, |list| by.prepare(&iova, len, Some(list))),
            },
        };
        let (list, second) = made.inspect_err(|_| self.lock().free(block))?;
        let whole = second.and(u32::try_from(len).ok()).unwrap_or(0);
        // SAFETY: a block lies within its region.
        let ptr = unsafe { region.as_ptr().add(block.offset) };
        let prepared =
            Prepared { iova: iova(0), second: second.unwrap_or(0), space: self.space.id(), len: whole };
        let descriptor = Descriptor {
            prepared,
            whole,
            linear: region.is_linear(block.offset, len),
            ptr: NonNull::new(ptr).expect("a mapping is not at address 0"),
            len,
            by_copy: self.by_copy || region.is_device_memory() || region.is_shared(),
            next: None,
            spans: None,
            home: Home::Block { source: self.clone(), region, block, list },
        };
        Ok(DmaBuf::from_descriptor(match spare {
            Some(mut spare) => {
                *spare = descriptor;
                spare
            }
            None => Box::new(descriptor),
        }))
    }

    /// Locks the heap, for a test.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Drop + '_ {
        self.lock()
    }

    /// Returns the bytes that the heap and the heap of its lists have mapped; for a heap [over](Self::over) a region,
    /// the region's bytes.
    pub fn footprint(&self) -> usize {
        self.sum(State::footprint)
    }

    /// Returns the bytes in allocated blocks, including those of the heap of its lists; for a heap [over](Self::over) a
    /// region, only those in the region.
    pub fn in_use(&self) -> usize {
        self.sum(|state| state.in_use)
    }

    fn sum(&self, of: impl Fn(&State) -> usize) -> usize {
        // 0 in a forked child if another thread held the lock at the fork: nobody releases it there.
        let sum = |heap: &Self| heap.space.owner().lock(&heap.state).map_or(0, |state| of(&state));
        match (self.growth, &self.preparer) {
            (Growth::Host(_), Some(prepared)) => sum(self) + sum(&prepared.lists),
            _ => sum(self),
        }
    }

    /// Checks that none of its memory has [moved](Region::verify).
    ///
    /// # Errors
    /// [`Failure::Unusable`](crate::Failure::Unusable) when some has moved;
    /// [`Failure::Forked`](crate::Failure::Forked).
    pub fn verify(&self) -> Result<()> {
        self.space.check_owner("looking whether its DMA memory has moved")?;
        self.regions().iter().try_for_each(|region| region.verify())?;
        self.preparer.as_ref().map_or(Ok(()), |preparer| preparer.lists.verify())
    }

    /// Allocates zeroed list memory of `bytes` and lets `fill` fill it.
    fn list(
        self: &Arc<Self>,
        bytes: usize,
        fill: impl FnOnce(List<'_>) -> Option<u64>,
    ) -> Result<(DmaBuf, Option<u64>)> {
        let buf = self.alloc_contiguous(bytes, bytes.next_power_of_two().min(host_page_size()))?;
        let (first, count) = (buf.as_ptr().cast::<u64>(), bytes.div_ceil(8));
        // SAFETY: the new buffer has at least `bytes`, in whole blocks of 512 bytes, and nobody else's memory.
        unsafe { first.write_bytes(0, count) };
        // SAFETY: the new buffer has `count` aligned entries, which nobody else has; it is returned after the list's
        // end.
        let list = unsafe { List::in_memory(first, count, buf.iova(0)) };
        let second = fill(list);
        Ok((buf, second))
    }

    /// Takes a free block; `None` if there is none. Refuses to once the space is closed, because its device did not
    /// stop.
    fn take(&self, order: u32, refuse: impl Fn(&'static str) -> Error) -> Result<Option<Taken>> {
        let mut state = self.lock();
        // With the blocks in hand: those that the device may still write to are freed after the space was closed.
        if self.space.is_closed() {
            return Err(refuse(
                "the device did not stop, so memory that it may still write to is not handed out again",
            ));
        }
        Ok(state.take(order))
    }

    /// Waits for other threads that map more memory.
    fn enter(&self, len: usize) -> Result<Pass<'_, ()>> {
        let mut watch = MessageWatch::new(GROW_DEADLINE);
        let turn = self.growing.enter(|| watch.left());
        deadline::charge(watch.waited());
        turn.ok_or_else(|| Error::timeout(self.space.device(), format!(
                "allocating {len} bytes of DMA memory: waiting for other threads that map more; allocate it ahead of its \
                 use, or try again"
            ), watch.limit()))
    }

    /// Allocates a block, from a new region if necessary; the caller has passed `growing`. Regions grow with the heap,
    /// so that they stay few.
    fn grow(&self, order: u32, refuse: impl Fn(&'static str) -> Error) -> Result<Taken> {
        // Another thread may have mapped enough.
        if let Some(taken) = self.take(order, refuse)? {
            return Ok(taken);
        }
        let (step, pages) = match self.growth {
            Growth::Host(pages) => (REGION_MIN, pages),
            Growth::Private(pages) => (PRIVATE_MIN, pages),
            Growth::Fixed => {
                return Err(Error::allocation(
                    self.space.device(),
                    1 << (order + MIN_SHIFT),
                    1,
                    "the memory in the device has no room for it, and can't grow",
                ));
            }
        };
        let least = step.max(1 << (order + MIN_SHIFT));
        // The device is about to get addresses of these regions again, so they must not have moved.
        self.regions().iter().try_for_each(|region| region.verify())?;
        let footprint = self.lock().footprint();
        let wanted = least.max((footprint / 2).next_power_of_two()).min(REGION_MAX);
        let map = |len| match self.growth {
            // Save a huge page where a little memory is needed and the space takes small pages.
            Growth::Private(_) if len < REGION_MIN => {
                let small = self.space.smallest_page();
                self.space.allocate(len, Some(small)).or_else(|_| self.space.allocate(len, pages))
            }
            _ => self.space.allocate(len, pages),
        };
        // If the preferred size is not available, map the size that is needed.
        let region = map(wanted).or_else(|error| if wanted > least { map(least) } else { Err(error) })?;
        let buddy = Buddy::new(region.len());
        let mut state = self.lock();
        state.regions.push(Piece { region: Arc::new(region), start: 0, buddy });
        Ok(state.take(order).expect("the new region has room"))
    }

    fn regions(&self) -> Vec<Arc<Region>> {
        self.lock().regions.iter().map(|piece| piece.region.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockSource for Heap {
    fn prepare(&self) -> Option<&dyn Prepare> {
        self.preparer.as_ref().map(|preparer| &*preparer.by)
    }

    fn take_back(&self, block: Block, descriptor: Box<Descriptor>) {
        let Some(mut state) = self.space.owner().lock(&self.state) else { return };
        state.free(block);
        state.spare.push(descriptor);
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
