//! Memory that a device can reach.

use super::DmaSpace;
use crate::memory::Memory;
use std::{mem::ManuallyDrop, sync::Arc};

/// A range of memory mapped into a [`DmaSpace`]; unmapped, then freed, when dropped.
#[derive(Debug)]
pub struct Region {
    /// Dropped by hand: freed only once the device is known not to reach it.
    memory: ManuallyDrop<Memory>,
    iova: u64,
    space: Arc<DmaSpace>,
}

impl Region {
    pub(super) fn new(space: Arc<DmaSpace>, memory: Memory, iova: u64) -> Self {
        Self { memory: ManuallyDrop::new(memory), iova, space }
    }

    /// The device address of the byte at `offset`, for `offset` below [`len`](Self::len). Bytes that lie together here
    /// lie together there at least within a page of the region's memory.
    #[inline]
    pub fn iova(&self, offset: usize) -> u64 {
        self.iova + offset as u64
    }

    /// Where this process sees it.
    ///
    /// Devices may change it at any time: form no reference to bytes that a command in flight names.
    pub fn as_ptr(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Never: a region has at least one page.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// The address space that it is in.
    pub fn space(&self) -> &Arc<DmaSpace> {
        &self.space
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.space.unmap(self.iova, self.memory.len() as u64) {
            // SAFETY: dropped once, here, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.memory) }
        }
    }
}
