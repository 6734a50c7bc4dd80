//! Where a device's addresses live.

use super::{Addresses, Mapper, Region, Untranslated, physical::Physical, region::Backing};
use crate::{
    Error, Result,
    events::emit,
    iova::IovaAllocator,
    memory::{Memory, PageSize, physical_pages},
    mmio::Bar,
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

/// How addresses come about.
enum Kind {
    /// The space chooses them, and something translates.
    Translated { page_size: u64, free: Mutex<IovaAllocator>, mapper: Box<dyn Mapper> },
    /// They are the host's own.
    Physical(Physical),
}

/// One address space of a device (or of several that share it), with its allocator.
///
/// Its id is unique in the process and never used again: equal numbers from two spaces are told apart by it.
pub struct DmaSpace {
    id: u64,
    device: String,
    owner: Owner,
    /// The NUMA node that memory is taken from, if there is a choice.
    node: OnceLock<u32>,
    agreed: OnceLock<u64>,
    /// Its heaps hand out nothing more.
    closed: AtomicBool,
    kind: Kind,
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
        let free = Mutex::new(IovaAllocator::new(ranges));
        Self::of(device.into(), Kind::Translated { page_size, free, mapper })
    }

    /// The space of a device that no IOMMU translates for: memory is where it is, in huge pages.
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
            kind,
        })
    }

    /// Lets another untranslated function use this space.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the space's addresses are translated; the system's, in naming its memory after the
    /// function too.
    pub fn join(&self, function: Untranslated) -> Result<()> {
        match &self.kind {
            Kind::Physical(physical) => physical.join(function),
            Kind::Translated { .. } => Err(Error::Unsupported {
                device: self.device.clone(),
                what: "sharing its address space with a device without an IOMMU".into(),
                reason: "open both by the same way".into(),
            }),
        }
    }

    /// Lets an untranslated function go that was closed.
    pub(crate) fn leave(&self, function: Bdf) {
        if let Kind::Physical(physical) = &self.kind {
            physical.leave(function);
        }
    }

    /// Takes memory from the NUMA node `node` from now on, where there is some: the first call counts.
    pub fn prefer_node(&self, node: Option<u32>) {
        if let Some(node) = node {
            self.node.get_or_init(|| node);
        }
    }

    /// How the drivers of all devices in the space [prepare](super::Prepare) buffers (NVMe: bytes of a memory page), so that
    /// one's are good for the others: the first call says it, and the others get that. Who can't work with it must not
    /// use the space.
    pub fn agree(&self, wanted: u64) -> u64 {
        *self.agreed.get_or_init(|| wanted)
    }

    /// Its id: unique in this process, never 0, never used again.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The device's name, for messages.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Whether its addresses are physical: no IOMMU keeps the device from memory that it was not given.
    pub fn is_physical(&self) -> bool {
        matches!(self.kind, Kind::Physical(_))
    }

    /// The smallest pages of the host's that it takes.
    pub(super) fn smallest_page(&self) -> PageSize {
        match &self.kind {
            Kind::Physical(_) => PageSize::Huge2M,
            Kind::Translated { .. } => PageSize::Small,
        }
    }

    /// New memory of at least `len` bytes that the device reaches, of pages of `page`; `None` takes 2 MiB pages while
    /// some are free, and small ones otherwise where an IOMMU translates.
    ///
    /// # Errors
    /// [`Error::Memory`] when there are not enough pages (how many there are, and how to get more), and those of
    /// [`map`](Self::map).
    pub fn allocate(self: &Arc<Self>, len: usize, page: Option<PageSize>) -> Result<Region> {
        self.map(self.memory(len, page)?)
    }

    /// The same for memory that other processes are to have too ([`Region::export`]): no reference to its bytes is ever
    /// formed, so buffers in it are read and written by copies.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub fn allocate_shared(self: &Arc<Self>, len: usize, page: Option<PageSize>) -> Result<Region> {
        self.map(self.memory(len, page)?.shared())
    }

    /// New memory that suits it.
    fn memory(&self, len: usize, page: Option<PageSize>) -> Result<Memory> {
        self.check_owner("allocating DMA memory")?;
        if self.is_closed() {
            return Err(Error::Unusable {
                device: self.device.clone(),
                reason: "it did not stop, so it is given no more memory: reset it".into(),
            });
        }
        let node = self.node.get().copied();
        match (&self.kind, page) {
            (Kind::Physical(physical), page) => physical.memory(len, page.unwrap_or(PageSize::Huge2M)),
            (Kind::Translated { .. }, Some(page)) => Memory::new_on(len, page, node),
            (Kind::Translated { .. }, None) => {
                let huge = PageSize::Huge2M;
                let free = huge.available().map_or(0, |(free, _)| free) as usize;
                let wanted = if free.saturating_mul(huge.bytes()) >= len { huge } else { PageSize::Small };
                Memory::new_on(len, wanted, node).or_else(|error| match wanted {
                    PageSize::Small => Err(error),
                    // Somebody else was faster.
                    _ => Memory::new_on(len, PageSize::Small, node),
                })
            }
        }
    }

    /// Makes `memory` visible to the device at an address of this space's choice (or, without an IOMMU, finds out where
    /// it is), until the region is dropped.
    ///
    /// Without an IOMMU, memory that has no name goes back to the system with its process, though the device may still
    /// write to it if the process was killed: prefer [`allocate`](Self::allocate).
    ///
    /// # Errors
    /// [`Error::Allocation`] when the address space has no room, [`Error::Unusable`] when the memory's pages are
    /// smaller than the IOMMU's (without one: not huge), and the way in's errors (the locked-memory limit above all). For
    /// memory behind a dma-buf these say what to do instead.
    pub fn map(self: &Arc<Self>, memory: Memory) -> Result<Region> {
        self.check_owner("mapping DMA memory")?;
        let addresses = match &self.kind {
            Kind::Physical(_) if memory.is_dma_buf() => {
                return Err(Error::Unsupported {
                    device: self.device.clone(),
                    what: "a dma-buf as DMA memory".into(),
                    reason: "no IOMMU translates for it, and the physical addresses of a dma-buf are its exporter's to \
                             know and to change: import the memory file behind it (`Memory::import`), of huge pages"
                        .into(),
                });
            }
            Kind::Physical(physical) => {
                let found = physical.adopt(&memory).and_then(|()| self.find(&memory)).and_then(|addresses| {
                    // Once more: what was being migrated meanwhile is noticed here.
                    self.verify(&memory, &addresses).map(|()| addresses)
                });
                match found {
                    Ok(addresses) => addresses,
                    // It may be memory that was in use before: then the device may still write to it.
                    Err(error) if memory.is_named() => {
                        physical.retire(memory);
                        return Err(error);
                    }
                    Err(error) => return Err(error),
                }
            }
            Kind::Translated { page_size, mapper, .. } => {
                let page = memory.page_size().bytes() as u64;
                if page % page_size != 0 {
                    return Err(Error::Unusable {
                        device: self.device.clone(),
                        reason: format!(
                            "its IOMMU maps pages of {page_size} bytes, the memory has pages of {page}: use huge pages"
                        ),
                    });
                }
                let iova = self.place(memory.len(), page)?;
                if let Err(error) = mapper.map(iova, &memory) {
                    self.give_back(iova, memory.len() as u64);
                    return Err(if memory.is_dma_buf() { explain_dma_buf(error) } else { error });
                }
                Addresses::Linear(iova)
            }
        };
        let (device, iova) = (self.device.clone(), addresses.at(0));
        let (len, page) = (memory.len(), memory.page_size().bytes());
        emit(move || {
            tracing::trace!(device, iova = format_args!("{iova:#x}"), len, page, "mapped DMA memory")
        });
        Ok(Region::new(self.clone(), Backing::Host(memory), addresses))
    }

    /// The `len` bytes at `offset` of a base address register as memory for DMA: a controller memory buffer.
    ///
    /// It must be memory, and no registers: each page is read once, so that no page fault comes later.
    ///
    /// With `shared`, the devices of this space reach it (peer-to-peer). Otherwise its addresses are only taken, for the
    /// register's own device to be told to answer to them.
    ///
    /// What peer-to-peer depends on, and who sees to it:
    /// - *Address translation*: the device addresses given here go through the IOMMU of this space. Whether the peer's
    ///   requests reach the other device at all is up to the switches and the root complex between them (access control
    ///   services, ACS, may redirect or block them): try it with data that is verified.
    /// - *Alignment and spacing*: mappings are whole pages; what else shares the register's page is shared, too. The
    ///   range is checked against the register.
    /// - *Ordering and coherency*: accesses of this process to the memory are volatile, and uncached or write-combining;
    ///   those of a peer are ordered with them only by the commands' completions. Write-combined stores are flushed by
    ///   [`DmaBuf::write_at`](super::DmaBuf::write_at) ([`mmio_wmb`](crate::barrier::mmio_wmb) for stores by pointer).
    /// - *Architecture*: x86-64's root complexes mostly forward between their ports; others, and some of these, don't.
    ///   On aarch64 device memory takes aligned accesses only, which is what [`DmaBuf`](super::DmaBuf) uses.
    ///
    /// # Safety
    /// `bar` is a register of a device that this process drives, which has it at its [bus address](Bar::bus_address); the
    /// range is memory in it, and nothing else in this process hands out its bytes. What devices write there changes no
    /// register and nothing that a driver relies on.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when the range is not in one mapped part of the register, [`Error::Allocation`] when the
    /// space has no room, and for `shared` what the way in has against it.
    pub unsafe fn map_bar(
        self: &Arc<Self>,
        bar: &Bar,
        offset: u64,
        len: usize,
        shared: bool,
    ) -> Result<Region> {
        self.check_owner("using memory of a base address register for DMA")?;
        let outside = || Error::OutOfRange {
            device: self.device.clone(),
            operation: "using memory of a base address register for DMA".into(),
            offset,
            len: len as u64,
            size: bar.size(),
        };
        let end = offset.checked_add(len as u64).filter(|_| len > 0).ok_or_else(outside)?;
        let area = bar.areas().iter().find(|area| {
            area.offset <= offset && end <= area.offset.saturating_add(area.mapping.len() as u64)
        });
        let area = area.ok_or_else(outside)?;
        let (mapping, within) = (area.mapping.clone(), offset - area.offset);
        let mut backing = Backing::Device { mapping, offset: within as usize, len, shared: None };
        let first = match &self.kind {
            Kind::Physical(_) => {
                bar.bus_address().ok_or_else(|| Error::Unsupported {
                    device: self.device.clone(),
                    what: "using memory of a base address register for DMA".into(),
                    reason: "its address on the bus is not known".into(),
                })? + offset
            }
            Kind::Translated { mapper, .. } => {
                let whole = area.mapping.len();
                let iova = self.place(whole, crate::memory::host_page_size() as u64)?;
                if let Backing::Device { shared: mapped, mapping, .. } = &mut backing {
                    if shared {
                        if let Err(error) = mapper.map_device(iova, mapping) {
                            self.give_back(iova, whole as u64);
                            return Err(error);
                        }
                    }
                    *mapped = shared.then_some((iova, whole as u64));
                }
                iova + within
            }
        };
        let region = Region::new(self.clone(), backing, Addresses::Linear(first));
        region.touch();
        Ok(region)
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

    /// Refuses `operation` in a child that was forked since the space was made.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn check_owner(&self, operation: &str) -> Result<()> {
        self.owner.check(&self.device, operation)
    }

    /// Whether this process has the space from the one that forked it.
    pub(super) fn is_inherited(&self) -> bool {
        !self.owner.is_current()
    }

    /// Where `memory` is.
    fn find(&self, memory: &Memory) -> Result<Addresses> {
        let pages = physical_pages(&self.device, memory)?;
        Ok(Addresses::of_pages(memory.page_size().bytes().ilog2(), pages))
    }

    /// Checks that `memory` still is at `addresses`.
    pub(super) fn verify(&self, memory: &Memory, addresses: &Addresses) -> Result<()> {
        if !self.is_physical() || self.find(memory)? == *addresses {
            return Ok(());
        }
        Err(Error::Unusable {
            device: self.device.clone(),
            reason: "its DMA memory was moved (memory taken offline, or pages migrated by request), so the device would \
                     write into what is there now: stop it, and open it anew"
                .into(),
        })
    }

    /// Undoes what made a region; its memory is freed when the device no longer reaches it.
    pub(super) fn take_back(&self, backing: Backing, addresses: &Addresses) {
        match (&self.kind, backing) {
            // A forked child: all is the parent's. Its own view of the memory may go.
            (_, _) if self.is_inherited() => {}
            (Kind::Physical(physical), Backing::Host(memory)) => physical.retire(memory),
            (Kind::Physical(_), Backing::Device { .. }) => {}
            (Kind::Translated { mapper, .. }, Backing::Host(memory)) => {
                if !self.unmap(addresses.at(0), memory.len() as u64) {
                    mapper.keep(memory);
                }
            }
            (Kind::Translated { .. }, Backing::Device { shared: Some((iova, len)), mapping, .. }) => {
                if !self.unmap(iova, len) {
                    std::mem::forget(mapping);
                }
            }
            (Kind::Translated { .. }, Backing::Device { mapping, offset, shared: None, .. }) => {
                self.give_back(addresses.at(0) - offset as u64, mapping.len() as u64);
            }
        }
    }

    /// `true` when the device no longer reaches the memory, and it may be freed.
    fn unmap(&self, iova: u64, len: u64) -> bool {
        let Kind::Translated { mapper, .. } = &self.kind else { return false };
        match mapper.unmap(iova, len) {
            Ok(()) => {
                let device = self.device.clone();
                emit(move || {
                    tracing::trace!(device, iova = format_args!("{iova:#x}"), len, "unmapped DMA memory");
                });
                self.give_back(iova, len);
                true
            }
            Err(error) => {
                let device = self.device.clone();
                emit(move || {
                    tracing::error!(
                        device,
                        iova,
                        len,
                        %error,
                        "unmapping DMA memory: it is kept while the device may reach it"
                    );
                });
                false
            }
        }
    }

    /// Free device addresses for `len` bytes of pages of `page`, aligned to their length, so that an IOMMU can use large
    /// pages and a heap blocks of any size.
    fn place(&self, len: usize, page: u64) -> Result<u64> {
        let align = page.max((len as u64).next_power_of_two().min(1 << 30));
        self.free().and_then(|mut free| free.allocate(len as u64, align)).ok_or_else(|| Error::Allocation {
            device: self.device.clone(),
            len,
            align: page as usize,
            reason: "no room in the device's address space",
        })
    }

    fn give_back(&self, iova: u64, len: u64) {
        if let Some(mut free) = self.free() {
            free.release(iova, len);
        }
    }

    fn free(&self) -> Option<MutexGuard<'_, IovaAllocator>> {
        match &self.kind {
            Kind::Translated { free, .. } => Some(free.lock().unwrap_or_else(PoisonError::into_inner)),
            Kind::Physical(_) => None,
        }
    }
}

/// The way in refused a dma-buf: what to do instead.
fn explain_dma_buf(error: Error) -> Error {
    let more = |operation| {
        format!(
            "{operation}: the memory is a dma-buf, whose pages this way in can't pin (a kernel maps what has pages of \
             its own alone): import the memory file behind it instead (`Memory::import`)"
        )
    };
    match error {
        Error::Os { device, operation, source } => Error::Os { device, operation: more(operation), source },
        Error::Peer { device, operation, source } => {
            Error::Peer { device, operation: more(operation), source }
        }
        other => other,
    }
}

impl fmt::Debug for DmaSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaSpace").field("id", &self.id).field("device", &self.device).finish_non_exhaustive()
    }
}
