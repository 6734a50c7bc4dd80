//! The kinds of heaps: for data or for lists, growing or over a region, with slices of their buffers or without.

use super::{
    DmaSpace, Heap, Prepare, Region,
    buddy::{Buddy, MIN_SHIFT},
    heap::{Growth, Piece, Preparer, REGION_MAX, State},
};
use crate::{Error, Result, gate::Gate, memory::PageSize};
use std::sync::{Arc, Mutex};

// Here, since a program makes few heaps and allocates often.
impl Heap {
    /// Makes an empty heap over `space`, in pages of `pages`. `None` selects 2 MiB pages while some are free, and
    /// otherwise small ones if the space takes them. `prepare` prepares each buffer for the driver; without it no buffer
    /// is [ready](super::Prepared::len). The buffers' lists are in a [private](Self::private) heap.
    pub fn new(
        space: &Arc<DmaSpace>,
        pages: Option<PageSize>,
        prepare: Option<Box<dyn Prepare>>,
    ) -> Arc<Self> {
        Self::growing(space, pages, prepare, false)
    }

    /// Makes a heap as [`new`](Self::new) does, whose buffers give no slices: they are only copied [from](super::DmaBuf::read_at)
    /// and [to](super::DmaBuf::write_at). Use it for a device that may write to memory outside of its commands in flight: no
    /// reference to such memory is ever formed, so such a write is wrong data and nothing worse. A heap
    /// [over](Self::over) a region does the same if its heap of lists was made so ([`private`](Self::private)).
    pub fn by_copy(
        space: &Arc<DmaSpace>,
        pages: Option<PageSize>,
        prepare: Option<Box<dyn Prepare>>,
    ) -> Arc<Self> {
        Self::growing(space, pages, prepare, true)
    }

    fn growing(
        space: &Arc<DmaSpace>,
        pages: Option<PageSize>,
        prepare: Option<Box<dyn Prepare>>,
        by_copy: bool,
    ) -> Arc<Self> {
        let preparer = prepare.map(|by| Preparer { by, lists: Self::private(space, pages, by_copy) });
        Self::of(space, Growth::Host(pages), preparer, by_copy, State::default())
    }

    /// Makes an empty heap for memory that tells the device which memory to access: a driver's rings, and the lists of
    /// its users' buffers. The driver keeps it to itself, so that no user's buffer leads to its regions.
    ///
    /// It grows by 512 KiB at first, in small pages with an IOMMU and by one 2 MiB page without. If it needs 2 MiB or
    /// more at once, it takes `pages`, as in [`new`](Self::new).
    ///
    /// With `by_copy`, the buffers of heaps whose lists are in this one give no slices ([`by_copy`](Self::by_copy)).
    pub fn private(space: &Arc<DmaSpace>, pages: Option<PageSize>, by_copy: bool) -> Arc<Self> {
        Self::of(space, Growth::Private(pages), None, by_copy, State::default())
    }

    /// Makes a heap as [`new`](Self::new) does, in the space of `lists`: the driver's [private](Self::private) heap for
    /// the lists of the buffers.
    ///
    /// # Errors
    /// [`Failure::Unusable`](crate::Failure::Unusable) when `lists` is not a private heap.
    pub fn with_lists(
        pages: Option<PageSize>,
        prepare: Box<dyn Prepare>,
        lists: &Arc<Self>,
    ) -> Result<Arc<Self>> {
        let preparer = Some(Preparer { by: prepare, lists: lists.for_lists()?.clone() });
        Ok(Self::of(&lists.space, Growth::Host(pages), preparer, lists.by_copy, State::default()))
    }

    fn of(
        space: &Arc<DmaSpace>,
        growth: Growth,
        preparer: Option<Preparer>,
        by_copy: bool,
        state: State,
    ) -> Arc<Self> {
        let by_copy = by_copy || space.is_distrusted();
        let (state, growing) = (Mutex::new(state), Gate::new(()));
        Arc::new(Self { space: space.clone(), growth, preparer, by_copy, state, growing })
    }

    /// Returns the heap itself if it may hold lists.
    fn for_lists(self: &Arc<Self>) -> Result<&Arc<Self>> {
        if let Growth::Private(_) = self.growth {
            return Ok(self);
        }
        Err(Error::unusable(
            self.space.device(),
            "the lists of a heap must be in host memory that nobody else has: use Heap::private",
        ))
    }

    /// Makes a heap of `region` alone (a controller memory buffer, or memory shared with other processes), which never
    /// grows. The lists of its buffers come from `lists`, a [private](Self::private) heap of the same space.
    ///
    /// # Errors
    /// [`Failure::Unusable`](crate::Failure::Unusable) when the region is in another space than `lists`, or has less than 512 bytes, or `lists` is
    /// not a private heap, so that others may write there.
    pub fn over(region: Region, prepare: Option<Box<dyn Prepare>>, lists: &Arc<Self>) -> Result<Arc<Self>> {
        let space = region.space().clone();
        let unusable = |reason: &str| Error::unusable(space.device(), reason);
        if space.id() != lists.space.id() {
            return Err(unusable("the lists of a heap must be in the address space that its memory is in"));
        }
        let lists = lists.for_lists()?.clone();
        let region = Arc::new(region);
        // Blocks are aligned by address to their size, and a piece's length is a power of two.
        let (mut state, mut at) = (State::default(), 0);
        while region.len() - at >= 1 << MIN_SHIFT {
            let largest = 1 << (region.len() - at).min(REGION_MAX).ilog2();
            let aligned = 1_usize << region.iova(at).trailing_zeros().min(REGION_MAX.ilog2());
            let len = largest.min(aligned);
            if len < 1 << MIN_SHIFT {
                return Err(unusable("memory for a heap must be aligned to 512 bytes"));
            }
            state.regions.push(Piece { region: region.clone(), start: at, buddy: Buddy::new(len) });
            at += len;
        }
        if state.regions.is_empty() {
            return Err(unusable("memory for a heap must have at least 512 bytes"));
        }
        let by_copy = lists.by_copy;
        let preparer = prepare.map(|by| Preparer { by, lists });
        Ok(Self::of(&space, Growth::Fixed, preparer, by_copy, state))
    }
}
