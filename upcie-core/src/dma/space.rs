//! Where a device's addresses live.

use super::Region;
use crate::{Error, Result, iova::IovaAllocator, memory::Memory, process::Owner};
use std::{
    fmt,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// How a way in makes memory visible to its device: an IOMMU's container, a vfio-user connection.
///
/// It holds whatever must stay open for a mapping to last.
///
/// # Safety
/// An implementation owes that the device reaches at `iova` the memory that it was given and no other, and that it reaches
/// none of it any more once `unmap` has returned `Ok`: the memory is freed then.
pub unsafe trait Mapper: Send + Sync + fmt::Debug {
    /// Lets the device read and write all of `memory` at `iova`.
    ///
    /// # Errors
    /// The way in's. Nothing is mapped then.
    fn map(&self, iova: u64, memory: &Memory) -> Result<()>;

    /// Takes `len` bytes at `iova` away from the device: exactly what one `map` made visible. When this returns `Ok`,
    /// the device no longer reaches the memory.
    ///
    /// # Errors
    /// The way in's. The memory must then be taken as still visible.
    fn unmap(&self, iova: u64, len: u64) -> Result<()>;
}

/// One address space of a device (or of several that share it), with its allocator.
///
/// Its id is unique in the process and never used again: equal numbers from two spaces are told apart by it.
pub struct DmaSpace {
    id: u64,
    device: String,
    page_size: u64,
    owner: Owner,
    free: Mutex<IovaAllocator>,
    /// Its heaps hand out nothing more.
    closed: AtomicBool,
    mapper: Box<dyn Mapper>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl DmaSpace {
    /// The space that `mapper` serves, for `device` (its name, for errors): the device addresses in `ranges`,
    /// mapped in multiples of `page_size` bytes (a power of two; the smallest that the IOMMU has).
    pub fn new(
        device: impl Into<String>,
        ranges: impl IntoIterator<Item = RangeInclusive<u64>>,
        page_size: u64,
        mapper: Box<dyn Mapper>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            device: device.into(),
            page_size,
            owner: Owner::current(),
            free: Mutex::new(IovaAllocator::new(ranges)),
            closed: AtomicBool::new(false),
            mapper,
        })
    }

    /// Its id: unique in this process, never 0, never used again.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The device's name, for messages.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Makes `memory` visible to the device at an address of this space's choice, until the region is dropped.
    ///
    /// # Errors
    /// [`Error::Allocation`] when the address space has no room, [`Error::Unusable`] when the memory's pages are
    /// smaller than the IOMMU's, and the way in's errors (the locked-memory limit above all).
    pub fn map(self: &Arc<Self>, memory: Memory) -> Result<Region> {
        let (len, page) = (memory.len() as u64, memory.page_size().bytes() as u64);
        if page % self.page_size != 0 {
            return Err(Error::Unusable {
                device: self.device.clone(),
                reason: format!(
                    "its IOMMU maps pages of {} bytes, the memory has pages of {page}: use huge pages",
                    self.page_size
                ),
            });
        }
        // Aligned to large pages, so that the IOMMU can use them.
        let align = page.max(len.next_power_of_two().min(2 << 20));
        let iova = self.lock().allocate(len, align).ok_or_else(|| Error::Allocation {
            device: self.device.clone(),
            len: memory.len(),
            align: page as usize,
            reason: "no room in the device's address space",
        })?;
        if let Err(error) = self.mapper.map(iova, &memory) {
            self.lock().release(iova, len);
            return Err(error);
        }
        Ok(Region::new(self.clone(), memory, iova))
    }

    /// Ends the handing out of memory in this space, by all heaps over it. For when the device can't be stopped: what it may
    /// still write to can be given back then, for it goes to nobody else, and regions are unmapped from the device
    /// before they are freed, as ever.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether it was [closed](Self::close).
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether this process has the space from the one that forked it.
    pub(super) fn is_inherited(&self) -> bool {
        !self.owner.is_current()
    }

    /// Undoes `map`; `true` when the device no longer reaches the memory, and it may be freed.
    pub(super) fn unmap(&self, iova: u64, len: u64) -> bool {
        if self.is_inherited() {
            // A forked child: the mapping is the parent's. Its own view of the memory may go.
            return true;
        }
        match self.mapper.unmap(iova, len) {
            Ok(()) => {
                self.lock().release(iova, len);
                true
            }
            Err(error) => {
                tracing::error!(device = self.device, iova, len, %error, "unmapping DMA memory: leaking it");
                false
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, IovaAllocator> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for DmaSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaSpace").field("id", &self.id).field("device", &self.device).finish_non_exhaustive()
    }
}
