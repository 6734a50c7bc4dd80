//! The address space of a device.

use super::{Addresses, Mapper, Untranslated, backing::Backing, physical::Physical};
use crate::{
    Error, Result,
    events::emit,
    iova::IovaAllocator,
    memory::{Memory, PageSize, physical_pages},
    pci::Bdf,
    process::Owner,
};
use std::{
    fmt,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// The origin of the addresses.
pub(super) enum Kind {
    /// The space chooses device addresses, and an IOMMU or a server translates them.
    Translated { page_size: u64, free: Mutex<IovaAllocator>, mapper: Box<dyn Mapper> },
    /// Device addresses are the host's physical addresses.
    Physical(Physical),
}

/// One address space of a device, or of several that share it, with its allocator.
///
/// Its id is unique in the process and never reused: it tells equal addresses of two spaces apart.
///
/// ```no_run
/// use upcie_core::{device::Device, memory::{Memory, PageSize}, open};
///
/// let device = open(&"0000:01:00.0".parse()?)?;
/// let region = device.dma().map(Memory::new(64 << 10, PageSize::Small)?)?;
/// println!("the device reaches it at {:#x}", region.iova(0));
/// # Ok::<(), upcie_core::Error>(())
/// ```
pub struct DmaSpace {
    id: u64,
    pub(super) device: String,
    owner: Owner,
    /// The preferred NUMA node for memory.
    pub(super) node: OnceLock<u32>,
    agreed: OnceLock<u64>,
    /// Set once its heaps must not hand out memory any more.
    closed: AtomicBool,
    /// Set if the device may harm this process where it can.
    distrusted: AtomicBool,
    pub(super) kind: Kind,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl DmaSpace {
    /// Makes a translated space for `device` (a name, for messages). It uses the device addresses in `ranges`, which
    /// `mapper` maps in multiples of `page_size` bytes: a power of two, the smallest page of the IOMMU.
    pub fn new(
        device: impl Into<String>,
        ranges: impl IntoIterator<Item = RangeInclusive<u64>>,
        page_size: u64,
        mapper: Box<dyn Mapper>,
    ) -> Arc<Self> {
        let free = Mutex::new(IovaAllocator::new(ranges));
        Self::of(device.into(), Kind::Translated { page_size, free, mapper })
    }

    /// Makes the space of a device without an IOMMU: device addresses are physical addresses of huge pages.
    pub fn physical(device: impl Into<String>, function: Untranslated) -> Arc<Self> {
        Self::of(device.into(), Kind::Physical(Physical::new(function)))
    }

    fn of(device: String, kind: Kind) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            device,
            owner: Owner::current(),
            node: OnceLock::new(),
            agreed: OnceLock::new(),
            closed: AtomicBool::new(false),
            distrusted: AtomicBool::new(false),
            kind,
        })
    }

    /// Lets another untranslated function use this space.
    ///
    /// # Errors
    /// [`Failure::Unsupported`](crate::Failure::Unsupported) when the space's addresses are translated; the system's errors when its memory files are
    /// named after the function too.
    pub fn join(&self, function: Untranslated) -> Result<()> {
        match &self.kind {
            Kind::Physical(physical) => physical.join(function),
            Kind::Translated { .. } => Err(Error::unsupported(
                self.device.clone(),
                "sharing its address space with a device without an IOMMU",
                "open both through the same transport",
            )),
        }
    }

    /// Removes a closed untranslated function.
    pub(crate) fn leave(&self, function: Bdf) {
        if let Kind::Physical(physical) = &self.kind {
            physical.leave(function);
        }
    }

    /// Allocates memory on the NUMA node `node` from now on, as far as possible. Only the first call has an effect.
    pub fn prefer_node(&self, node: Option<u32>) {
        if let Some(node) = node {
            self.node.get_or_init(|| node);
        }
    }

    /// Treats the device from now on as one that may harm this process. Buffers of heaps that are made later can only be
    /// [copied](super::DmaBuf::is_by_copy), because it may write to them at any time. [`allocate`](Self::allocate) takes small pages
    /// where the caller leaves the choice and the device gets the files of its memory (a vfio-user server). It could take huge pages of
    /// them back, and while no huge page is free the next access to the memory would end this process (SIGBUS). Pages that the caller
    /// chooses, and memory that it [maps](Self::map), stay as they are.
    pub fn distrust(&self) {
        self.distrusted.store(true, Ordering::Relaxed);
    }

    /// Returns whether the device is [not trusted](Self::distrust).
    pub(super) fn is_distrusted(&self) -> bool {
        self.distrusted.load(Ordering::Relaxed)
    }

    /// Returns whether [`allocate`](Self::allocate) leaves huge pages alone, unless its caller chooses them: the device gets the
    /// files of its memory, and is [not trusted](Self::distrust).
    pub fn avoids_huge_pages(&self) -> bool {
        let Kind::Translated { mapper, .. } = &self.kind else { return false };
        mapper.hands_out_files() && self.is_distrusted()
    }

    /// Agrees on how the drivers of all devices in the space [prepare](super::Prepare) buffers (NVMe: the bytes of a
    /// memory page), so that one driver's buffers suit the others. The first call decides, and later calls return its
    /// value. A driver that can't use that value must not use the space.
    pub fn agree(&self, wanted: u64) -> u64 {
        *self.agreed.get_or_init(|| wanted)
    }

    /// Returns the id: unique in this process, never 0, never reused.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the device's name, for messages.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Returns whether the addresses are physical: no IOMMU keeps the device from other memory.
    pub fn is_physical(&self) -> bool {
        matches!(self.kind, Kind::Physical(_))
    }

    /// Returns the smallest host page that the space takes.
    pub(super) fn smallest_page(&self) -> PageSize {
        match &self.kind {
            Kind::Physical(_) => PageSize::Huge2M,
            Kind::Translated { .. } => PageSize::Small,
        }
    }

    /// Makes all heaps over this space stop handing out memory, because the device can't be stopped. Buffers that it may
    /// still write to can then be returned safely: nobody else gets their memory, and regions are unmapped before they
    /// are freed, as always.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Returns whether the space was [closed](Self::close).
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Refuses `operation` in a child that was forked since the space was made.
    ///
    /// # Errors
    /// [`Failure::Forked`](crate::Failure::Forked).
    pub fn check_owner(&self, operation: &str) -> Result<()> {
        self.owner.check(&self.device, operation)
    }

    /// Returns the process that made the space.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// Returns whether this process inherited the space by a fork.
    pub(super) fn is_inherited(&self) -> bool {
        !self.owner.is_current()
    }

    /// Looks up the physical addresses of `memory`.
    pub(super) fn find(&self, memory: &Memory) -> Result<Addresses> {
        let pages = physical_pages(&self.device, memory)?;
        Ok(Addresses::of_pages(memory.page_size().bytes().ilog2(), pages))
    }

    /// Checks that `memory` is still at `addresses`.
    pub(super) fn verify(&self, memory: &Memory, addresses: &Addresses) -> Result<()> {
        if !self.is_physical() || self.find(memory)? == *addresses {
            return Ok(());
        }
        Err(Error::unusable(
            self.device.clone(),
            "its DMA memory was moved (memory taken offline, or pages migrated by request), so the device would \
                     write into what is there now: stop it, and open it anew",
        ))
    }

    /// Unmaps a region, then frees its memory once the device can't reach it.
    pub(super) fn take_back(&self, backing: Backing, addresses: &Addresses) {
        match (&self.kind, backing) {
            // A forked child: the parent owns the mappings, and only the child's view of the memory goes.
            (_, _) if self.is_inherited() => {}
            (Kind::Physical(physical), Backing::Host(memory)) => physical.retire(memory),
            (Kind::Physical(_), Backing::Device { .. }) => {}
            // Memory that stays mapped is kept before the log says so: a subscriber may panic.
            (Kind::Translated { mapper, .. }, Backing::Host(memory)) => {
                let (iova, len) = (addresses.at(0), memory.len() as u64);
                let unmapped = mapper.unmap(iova, len);
                if unmapped.is_err() {
                    mapper.keep(memory);
                }
                self.end_unmapping(iova, len, unmapped);
            }
            (Kind::Translated { mapper, .. }, Backing::Device { shared: Some((iova, len)), mapping, .. }) => {
                let unmapped = mapper.unmap(iova, len);
                if unmapped.is_err() {
                    std::mem::forget(mapping);
                }
                self.end_unmapping(iova, len, unmapped);
            }
            (Kind::Translated { .. }, Backing::Device { mapping, offset, shared: None, .. }) => {
                self.free_iova(addresses.at(0) - offset as u64, mapping.len() as u64);
            }
        }
    }

    /// Frees the device addresses of a range that was unmapped, and logs the result.
    fn end_unmapping(&self, iova: u64, len: u64, unmapped: Result<()>) {
        let device = self.device.clone();
        match unmapped {
            Ok(()) => {
                self.free_iova(iova, len);
                emit(move || {
                    tracing::trace!(device, iova = format_args!("{iova:#x}"), len, "unmapped DMA memory");
                });
            }
            Err(error) => emit(move || {
                tracing::error!(
                    device,
                    iova,
                    len,
                    %error,
                    "unmapping DMA memory failed: it is kept while the device may reach it"
                );
            }),
        }
    }

    /// Allocates device addresses for `len` bytes in pages of `page`, aligned to their length, so that an IOMMU can use
    /// large pages and a heap can have blocks of any size.
    pub(super) fn allocate_iova(&self, len: usize, page: u64) -> Result<u64> {
        let align = page.max((len as u64).next_power_of_two().min(1 << 30));
        self.allocator().and_then(|mut free| free.allocate(len as u64, align)).ok_or_else(|| {
            Error::allocation(
                self.device.clone(),
                len,
                page as usize,
                "no room in the device's address space",
            )
        })
    }

    pub(super) fn free_iova(&self, iova: u64, len: u64) {
        if let Some(mut free) = self.allocator() {
            free.release(iova, len);
        }
    }

    fn allocator(&self) -> Option<MutexGuard<'_, IovaAllocator>> {
        match &self.kind {
            Kind::Translated { free, .. } => Some(free.lock().unwrap_or_else(PoisonError::into_inner)),
            Kind::Physical(_) => None,
        }
    }
}

impl fmt::Debug for DmaSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaSpace").field("id", &self.id).field("device", &self.device).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dma::Region, testing::FakeIommu};
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use tracing::{Event, Level, Metadata, Subscriber, span, subscriber::with_default};

    /// Unmaps nothing, and counts what is kept.
    #[derive(Debug)]
    struct Stuck(Arc<AtomicU64>);

    // SAFETY: no device exists.
    unsafe impl Mapper for Stuck {
        fn map(&self, _: u64, _: &Memory) -> Result<()> {
            Ok(())
        }

        fn unmap(&self, _: u64, _: u64) -> Result<()> {
            Err(Error::unusable("test", "it is stuck"))
        }

        fn keep(&self, memory: Memory) {
            std::mem::forget(memory);
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A subscriber that panics at the first event of a level.
    struct Panics(Level, AtomicBool);

    impl Subscriber for Panics {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() == self.0
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, _: &Event<'_>) {
            if !self.1.swap(true, Ordering::Relaxed) {
                resume_unwind(Box::new("a subscriber's bug"));
            }
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    fn map(mapper: Box<dyn Mapper>) -> Region {
        let space = DmaSpace::new("test", [0x1000..=0xff_ffff], 4096, mapper);
        space.map(Memory::new(4096, PageSize::Small).unwrap()).unwrap()
    }

    /// Returns `true` if the first event of `level` in `call`, which panics, ends it.
    fn is_ended_by(level: Level, call: impl FnOnce()) -> bool {
        let panics = Panics(level, AtomicBool::new(false));
        catch_unwind(AssertUnwindSafe(|| with_default(panics, call))).is_err()
    }

    /// A subscriber that panicked freed memory which the device could still reach.
    #[test]
    fn memory_is_safe_before_its_mapping_is_logged() {
        let kept = Arc::<AtomicU64>::default();
        let region = map(Box::new(Stuck(kept.clone())));
        assert!(is_ended_by(Level::ERROR, || drop(region)));
        assert_eq!(kept.load(Ordering::Relaxed), 1);

        let iommu = FakeIommu::default();
        assert!(is_ended_by(Level::TRACE, || drop(map(Box::new(iommu.clone())))));
        assert_eq!(iommu.mappings(), 0, "unmapped before it was freed");
    }
}
