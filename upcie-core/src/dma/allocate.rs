//! Regions of a space: new memory, memory that there is already, and memory in a device.

use super::{Addresses, DmaSpace, Region, backing::Backing, space::Kind};
use crate::{
    Error, Result,
    events::emit,
    memory::Memory,
    mmio::Bar,
    page::{PageSize, host_page_size},
};
use std::sync::Arc;

impl DmaSpace {
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
                let iova = self.allocate_iova(memory.len(), page)?;
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
            tracing::trace!(device, iova = format_args!("{iova:#x}"), len, page, "mapped DMA memory");
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
                let iova = self.allocate_iova(whole, host_page_size() as u64)?;
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
