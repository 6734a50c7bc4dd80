//! Memory that a device can access.

use super::{Addresses, DmaSpace, backing::Backing};
use crate::{
    Result,
    memory::{Memory, host_page_size},
    mmio,
};
use std::{
    mem::ManuallyDrop,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A range of memory in a [`DmaSpace`]: the host's, or a device's own. When dropped it is unmapped from the space, then
/// freed.
///
/// # Examples
/// ```no_run
/// let device = upcie_core::open(&"0000:01:00.0".parse()?)?;
/// // 2 MiB, of the pages that suit best: zeroed, mapped here and for the device.
/// let region = device.dma().allocate(2 << 20, None)?;
/// println!("{} bytes at device address {:#x}", region.len(), region.iova(0));
/// # Ok::<(), upcie_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Region {
    /// Taken on drop, and freed only once the device can't reach it.
    backing: ManuallyDrop<Backing>,
    addresses: Addresses,
    space: Arc<DmaSpace>,
    id: u64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Region {
    pub(super) fn new(space: Arc<DmaSpace>, backing: Backing, addresses: Addresses) -> Self {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self { backing: ManuallyDrop::new(backing), addresses, space, id }
    }

    /// Returns the id: unique in this process, never 0, never reused. Processes that share regions name them by it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the device address of the byte at `offset`, which is below [`len`](Self::len). Bytes that are contiguous
    /// here are contiguous for the device within one page of the region's memory.
    #[inline]
    pub fn iova(&self, offset: usize) -> u64 {
        self.addresses.at(offset)
    }

    /// Returns all device addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Returns the address of the first byte in this process.
    ///
    /// Devices may change the memory at any time: form no reference to bytes that a command in flight names, and none at
    /// all to [device memory](Self::is_device_memory) and [shared](Self::is_shared) memory.
    pub fn as_ptr(&self) -> *mut u8 {
        match &*self.backing {
            Backing::Host(memory) => memory.as_ptr(),
            Backing::Device { mapping, offset, .. } => mapping.as_ptr().wrapping_add(*offset),
        }
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        match &*self.backing {
            Backing::Host(memory) => memory.len(),
            Backing::Device { len, .. } => *len,
        }
    }

    /// Returns `false`: a region has at least one page.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether the memory is in a device, behind a base address register, where only volatile accesses are
    /// allowed.
    pub fn is_device_memory(&self) -> bool {
        matches!(*self.backing, Backing::Device { .. })
    }

    /// Returns whether `len` bytes at `offset` are host memory and contiguous for devices.
    pub(super) fn is_linear(&self, offset: usize, len: usize) -> bool {
        !self.is_device_memory() && self.addresses().is_contiguous(offset, len)
    }

    /// Returns whether other processes may read and write the memory at any time ([`DmaSpace::allocate_shared`],
    /// [`Memory::import`]).
    pub fn is_shared(&self) -> bool {
        self.memory().is_some_and(Memory::is_shared)
    }

    /// Returns the host memory that the region is made of; `None` for device memory.
    pub fn memory(&self) -> Option<&Memory> {
        match &*self.backing {
            Backing::Host(memory) => Some(memory),
            Backing::Device { .. } => None,
        }
    }

    /// Checks that the memory has not moved, which matters without an IOMMU: huge pages can be migrated (a memory block
    /// taken offline, `move_pages`). Nothing prevents such a request.
    ///
    /// # Errors
    /// [`Failure::Unusable`](crate::Failure::Unusable) when it has moved: stop the device at once.
    pub fn verify(&self) -> Result<()> {
        self.memory().map_or(Ok(()), |memory| self.space.verify(memory, &self.addresses))
    }

    /// Reads one byte of each page of device memory, because the kernel maps the pages of a large register on first use.
    pub(super) fn touch(&self) {
        if !self.is_device_memory() {
            return;
        }
        for offset in (0..self.len()).step_by(host_page_size()) {
            // SAFETY: the byte is in the region, whose mapping lives.
            unsafe { mmio::copy_from(self.as_ptr().wrapping_add(offset), &mut [0]) };
        }
    }

    /// Returns the address space of the region.
    pub fn space(&self) -> &Arc<DmaSpace> {
        &self.space
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `drop` runs once, and nothing uses the backing afterwards.
        let backing = unsafe { ManuallyDrop::take(&mut self.backing) };
        self.space.take_back(backing, &self.addresses);
    }
}
