//! Makes regions of a space: from new memory, existing memory, and memory in a device.

use super::{Addresses, DmaSpace, Region, backing::Backing, space::Kind};
use crate::{
    Error, Failure, Result,
    events::emit,
    memory::Memory,
    mmio::Bar,
    page::{PageSize, host_page_size},
};
use std::sync::Arc;

impl DmaSpace {
    /// Allocates at least `len` bytes of memory in pages of `page` and maps it for the device. `None` selects 2 MiB pages
    /// while enough are free, and otherwise small ones, if an IOMMU translates. A vfio-user server may refuse huge pages, and a
    /// device that is [not trusted](Self::distrust) may not get any: `None` selects small ones then, too.
    ///
    /// # Errors
    /// [`Failure::Memory`] when too few pages are free (it says how many there are, and how to get more), and those of
    /// [`map`](Self::map).
    pub fn allocate(self: &Arc<Self>, len: usize, page: Option<PageSize>) -> Result<Region> {
        self.allocate_as(len, page, |memory| memory)
    }

    /// Allocates memory that other processes may have too ([`Region::export`]). No reference to its bytes is ever formed,
    /// so its buffers are read and written by copies.
    ///
    /// # Errors
    /// Those of [`allocate`](Self::allocate).
    pub fn allocate_shared(self: &Arc<Self>, len: usize, page: Option<PageSize>) -> Result<Region> {
        self.allocate_as(len, page, Memory::shared)
    }

    /// Allocates memory, makes it what `make` says, and maps it.
    fn allocate_as(
        self: &Arc<Self>,
        len: usize,
        page: Option<PageSize>,
        make: impl Fn(Memory) -> Memory,
    ) -> Result<Region> {
        let memory = make(self.memory(len, page)?);
        let can_be_smaller = page.is_none() && memory.page_size() != self.smallest_page();
        match self.map(memory) {
            // A server refuses pages that this process could take back, unless it survives that.
            Err(error) if can_be_smaller && matches!(error.failure(), Failure::Peer { .. }) => {
                let device = self.device.clone();
                emit(move || tracing::debug!(device, %error, "huge pages are refused: small ones are taken"));
                self.map(make(self.memory(len, Some(PageSize::Small))?))
            }
            mapped => mapped,
        }
    }

    /// Returns the pages for `len` bytes whose caller leaves the choice, while `free` huge pages are free.
    fn preferred_page(&self, len: usize, free: usize) -> PageSize {
        let is_enough = free.saturating_mul(PageSize::Huge2M.bytes()) >= len;
        if is_enough && !self.avoids_huge_pages() { PageSize::Huge2M } else { PageSize::Small }
    }

    /// Allocates memory that is suitable for this space.
    fn memory(&self, len: usize, page: Option<PageSize>) -> Result<Memory> {
        self.check_owner("allocating DMA memory")?;
        self.check_stopped()?;
        let node = self.node.get().copied();
        match (&self.kind, page) {
            (Kind::Physical(physical), page) => {
                let memory = physical.memory(len, page.unwrap_or(PageSize::Huge2M))?;
                // It may be retired memory that a device which did not stop can write to: that is retired after the space was
                // closed.
                if let Err(error) = self.check_stopped() {
                    physical.retire(memory);
                    return Err(error);
                }
                Ok(memory)
            }
            (Kind::Translated { .. }, Some(page)) => Memory::new_on(len, page, node),
            (Kind::Translated { .. }, None) => {
                let free = PageSize::Huge2M.available().map_or(0, |(free, _)| free) as usize;
                let wanted = self.preferred_page(len, free);
                Memory::new_on(len, wanted, node).or_else(|error| match wanted {
                    PageSize::Small => Err(error),
                    // Another process has taken the huge pages since they were counted.
                    _ => Memory::new_on(len, PageSize::Small, node),
                })
            }
        }
    }

    /// Refuses to allocate once the space is closed, because its device did not stop.
    fn check_stopped(&self) -> Result<()> {
        if self.is_closed() {
            return Err(Error::unusable(
                self.device.clone(),
                "it did not stop, so it gets no more memory: reset it",
            ));
        }
        Ok(())
    }

    /// Maps `memory` for the device at an address that this space chooses (without an IOMMU: looks up its physical
    /// addresses), until the region is dropped.
    ///
    /// Without an IOMMU, unnamed memory returns to the system when its process ends. If the process was killed, the
    /// device may still write to it: prefer [`allocate`](Self::allocate).
    ///
    /// # Errors
    /// [`Failure::Allocation`] when the address space is full, [`Failure::Unusable`] when the memory's pages are smaller than
    /// the IOMMU's (without an IOMMU: not huge), and the transport's errors, above all the locked-memory limit. For
    /// memory behind a dma-buf these name the alternative.
    pub fn map(self: &Arc<Self>, memory: Memory) -> Result<Region> {
        self.check_owner("mapping DMA memory")?;
        let addresses = match &self.kind {
            Kind::Physical(_) if memory.is_dma_buf() => {
                return Err(Error::unsupported(
                    self.device.clone(),
                    "a dma-buf as DMA memory",
                    "no IOMMU translates for it, and the physical addresses of a dma-buf are its exporter's to \
                             know and to change: import the memory file behind it (`Memory::import`), of huge pages",
                ));
            }
            Kind::Physical(physical) => {
                let found = physical.adopt(&memory).and_then(|()| self.find(&memory)).and_then(|addresses| {
                    // Checks the addresses again, to notice pages that were being migrated during the lookup.
                    self.verify(&memory, &addresses).map(|()| addresses)
                });
                match found {
                    Ok(addresses) => addresses,
                    // The memory may have been in use before, so a device may still write to it.
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
                    return Err(Error::unusable(
                        self.device.clone(),
                        format!(
                            "its IOMMU maps pages of {page_size} bytes, the memory has pages of {page}: use huge pages"
                        ),
                    ));
                }
                let iova = self.allocate_iova(memory.len(), page)?;
                if let Err(error) = mapper.map(iova, &memory) {
                    self.free_iova(iova, memory.len() as u64);
                    return Err(if memory.is_dma_buf() { explain_dma_buf(error) } else { error });
                }
                Addresses::Linear(iova)
            }
        };
        let (device, iova) = (self.device.clone(), addresses.at(0));
        let (len, page) = (memory.len(), memory.page_size().bytes());
        // Before the log: if a subscriber panics, dropping the region unmaps it.
        let region = Region::new(self.clone(), Backing::Host(memory), addresses);
        emit(move || {
            tracing::trace!(device, iova = format_args!("{iova:#x}"), len, page, "mapped DMA memory");
        });
        Ok(region)
    }

    /// Makes a region of the `len` bytes at `offset` of a base address register: a controller memory buffer.
    ///
    /// The range must be memory, not registers: each page is read once, so that no page fault comes later.
    ///
    /// With `shared`, the devices of this space can access it (peer-to-peer). Otherwise its addresses are only reserved,
    /// for the register's own device to be told to answer to them.
    ///
    /// Peer-to-peer depends on these conditions:
    /// - *Address translation*: the device addresses given here go through the IOMMU of this space. The switches and the
    ///   root complex between two devices decide whether requests pass from one to the other (access control services,
    ///   ACS, may redirect or block them): test it with data that you verify.
    /// - *Alignment and spacing*: mappings are whole pages, so everything else in the register's page is shared, too. The
    ///   range is checked against the register.
    /// - *Ordering and coherency*: this process accesses the memory by volatile accesses, uncached or write-combining;
    ///   only the completions of a peer's commands order its accesses with them.
    ///   [`DmaBuf::write_at`](super::DmaBuf::write_at) flushes write-combined stores (after stores by pointer issue
    ///   [`mmio_wmb`](crate::barrier::mmio_wmb)).
    /// - *Architecture*: most x86-64 root complexes forward between their ports; some do not, nor do many others. On
    ///   aarch64 device memory takes aligned accesses only, which is what [`DmaBuf`](super::DmaBuf) uses.
    ///
    /// # Safety
    /// `bar` is a register of a device that this process drives, and the device has it at its [bus
    /// address](Bar::bus_address). The range is memory, and nothing else in this process hands out its bytes. Writes of
    /// devices to it change no register and nothing that a driver relies on.
    ///
    /// # Errors
    /// [`Failure::OutOfRange`] when the range is not in one mapped part of the register, [`Failure::Allocation`] when the
    /// space is full, and for `shared` the transport's errors.
    pub unsafe fn map_bar(
        self: &Arc<Self>,
        bar: &Bar,
        offset: u64,
        len: usize,
        shared: bool,
    ) -> Result<Region> {
        self.check_owner("using memory of a base address register for DMA")?;
        let outside = || {
            Error::out_of_range(
                self.device.clone(),
                "using memory of a base address register for DMA",
                offset,
                len as u64,
                bar.size(),
            )
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
                bar.bus_address().ok_or_else(|| {
                    Error::unsupported(
                        self.device.clone(),
                        "using memory of a base address register for DMA",
                        "its address on the bus is not known",
                    )
                })? + offset
            }
            Kind::Translated { mapper, .. } => {
                let whole = area.mapping.len();
                let iova = self.allocate_iova(whole, host_page_size() as u64)?;
                if let Backing::Device { shared: mapped, mapping, .. } = &mut backing {
                    if shared {
                        if let Err(error) = mapper.map_device(iova, mapping) {
                            self.free_iova(iova, whole as u64);
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

/// Adds the way out to the transport's refusal of a dma-buf.
fn explain_dma_buf(error: Error) -> Error {
    match error.failure() {
        Failure::Os { .. } | Failure::Peer { .. } => error.explained(
            ": the memory is a dma-buf, whose pages this transport can't pin (a kernel maps what has pages of its own \
             alone): import the memory file behind it instead (`Memory::import`)",
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dma::Mapper, testing::FakeIommu};
    use nix::errno::Errno;

    /// A server that gets the files of its client's memory, and may refuse huge pages.
    #[derive(Debug)]
    struct Peer {
        iommu: FakeIommu,
        gets_files: bool,
        refuses_huge: bool,
    }

    // SAFETY: no device exists.
    unsafe impl Mapper for Peer {
        fn map(&self, iova: u64, memory: &Memory) -> Result<()> {
            if self.refuses_huge && memory.page_size() != PageSize::Small {
                return Err(Error::peer("test", "mapping DMA memory", Errno::EPERM));
            }
            self.iommu.map(iova, memory)
        }

        fn hands_out_files(&self) -> bool {
            self.gets_files
        }

        fn unmap(&self, iova: u64, len: u64) -> Result<()> {
            self.iommu.unmap(iova, len)
        }
    }

    fn space(gets_files: bool, refuses_huge: bool) -> Arc<DmaSpace> {
        let peer = Peer { iommu: FakeIommu::default(), gets_files, refuses_huge };
        DmaSpace::new("test", [0..=u64::MAX >> 16], 4096, Box::new(peer))
    }

    #[test]
    fn an_untrusted_holder_of_files_gets_small_pages() {
        for (gets_files, wanted) in [(true, PageSize::Small), (false, PageSize::Huge2M)] {
            let space = space(gets_files, false);
            let huge = PageSize::Huge2M;
            assert_eq!((space.preferred_page(1, 1), space.avoids_huge_pages()), (huge, false), "trusted");
            assert_eq!(space.preferred_page(1, 0), PageSize::Small, "none is free");
            space.distrust();
            assert_eq!((space.preferred_page(1, 1), space.avoids_huge_pages()), (wanted, gets_files));
        }
    }

    #[test]
    fn refused_huge_pages_give_way_to_small_ones() {
        let space = space(true, true);
        let region = space.allocate(4096, None).unwrap();
        assert_eq!(region.len(), host_page_size());
        assert!(space.allocate_shared(4096, None).unwrap().is_shared());
        // The caller's own choice is an error.
        if PageSize::Huge2M.available().is_some_and(|(free, _)| free > 0) {
            let error = space.allocate(4096, Some(PageSize::Huge2M)).unwrap_err();
            assert!(matches!(error.failure(), Failure::Peer { .. } | Failure::Memory { .. }), "{error:?}");
        } else {
            println!("only with small pages: no free 2 MiB pages");
        }
    }
}
