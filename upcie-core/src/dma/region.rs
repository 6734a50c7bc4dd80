//! Memory that a device can reach.

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

/// A range of memory in a [`DmaSpace`]: the host's, or a device's own. Taken out of the space, then freed, when dropped.
#[derive(Debug)]
pub struct Region {
    /// Taken when dropped: freed only once the device is known not to reach it.
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

    /// Its id: unique in this process, never 0, never used again. Processes that share regions name them by it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The device address of the byte at `offset`, for `offset` below [`len`](Self::len). Bytes that lie together here
    /// lie together there at least within a page of the region's memory.
    #[inline]
    pub fn iova(&self, offset: usize) -> u64 {
        self.addresses.at(offset)
    }

    /// All its device addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where this process sees it.
    ///
    /// Devices may change it at any time: form no reference to bytes that a command in flight names, and none at all
    /// to [a device's memory](Self::is_device_memory) and to [shared](Self::is_shared) memory.
    pub fn as_ptr(&self) -> *mut u8 {
        match &*self.backing {
            Backing::Host(memory) => memory.as_ptr(),
            Backing::Device { mapping, offset, .. } => mapping.as_ptr().wrapping_add(*offset),
        }
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        match &*self.backing {
            Backing::Host(memory) => memory.len(),
            Backing::Device { len, .. } => *len,
        }
    }

    /// Never: a region has at least one page.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its memory is in a device, behind a base address register: reached by volatile accesses only.
    pub fn is_device_memory(&self) -> bool {
        matches!(*self.backing, Backing::Device { .. })
    }

    /// Whether `len` bytes at `offset` are the host's, and side by side for devices.
    pub(super) fn is_linear(&self, offset: usize, len: usize) -> bool {
        !self.is_device_memory() && self.addresses().is_contiguous(offset, len)
    }

    /// Whether other processes may read and write it at any time ([`DmaSpace::allocate_shared`], [`Memory::import`]).
    pub fn is_shared(&self) -> bool {
        self.memory().is_some_and(Memory::is_shared)
    }

    /// The host's memory that it is made of; `None` for a device's.
    pub fn memory(&self) -> Option<&Memory> {
        match &*self.backing {
            Backing::Host(memory) => Some(memory),
            Backing::Device { .. } => None,
        }
    }

    /// Checks that its memory still is where it was, which matters where no IOMMU translates: huge pages can be
    /// migrated (a memory block taken offline, `move_pages`). Nothing keeps them from it but that nobody asks for it.
    ///
    /// # Errors
    /// [`Error::Unusable`](crate::Error::Unusable) when it has moved: stop the device at once.
    pub fn verify(&self) -> Result<()> {
        self.memory().map_or(Ok(()), |memory| self.space.verify(memory, &self.addresses))
    }

    /// Reads one byte of each page of a device's memory: the kernel maps those of a large register on their first use.
    pub(super) fn touch(&self) {
        if !self.is_device_memory() {
            return;
        }
        for offset in (0..self.len()).step_by(host_page_size()) {
            // SAFETY: a byte of the region, whose mapping lives.
            unsafe { mmio::copy_from(self.as_ptr().wrapping_add(offset), &mut [0]) };
        }
    }

    /// The address space that it is in.
    pub fn space(&self) -> &Arc<DmaSpace> {
        &self.space
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: taken once, here, and not used after.
        let backing = unsafe { ManuallyDrop::take(&mut self.backing) };
        self.space.take_back(backing, &self.addresses);
    }
}
