//! A DMA address space without a device.

use crate::{Result, dma::Mapper, memory::Memory};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Records the mapped memory by device address; clones share the record.
#[derive(Debug, Default, Clone)]
pub struct FakeIommu(Arc<Mutex<BTreeMap<u64, (usize, usize)>>>);

// SAFETY: no device exists; a test that acts as one reaches memory by `pointer`, while it is mapped.
unsafe impl Mapper for FakeIommu {
    fn map(&self, iova: u64, memory: &Memory) -> Result<()> {
        let before = self.table().insert(iova, (memory.as_ptr() as usize, memory.len()));
        assert_eq!(before, None, "{iova:#x} is mapped already");
        Ok(())
    }

    fn unmap(&self, iova: u64, len: u64) -> Result<()> {
        let mapped = self.table().remove(&iova).map(|(_, len)| len as u64);
        assert_eq!(mapped, Some(len), "{iova:#x} is not mapped with that length");
        Ok(())
    }
}

impl FakeIommu {
    /// Translates `len` bytes at a device address.
    ///
    /// # Panics
    /// Panics if the bytes are not inside one mapping.
    pub fn pointer(&self, iova: u64, len: usize) -> *mut u8 {
        let table = self.table();
        let (base, (pointer, mapped)) = table.range(..=iova).next_back().expect("a mapped address");
        let offset = (iova - base) as usize;
        assert!(offset + len <= *mapped, "{len} bytes at {iova:#x} go beyond the mapping");
        (pointer + offset) as *mut u8
    }

    /// Counts the mappings.
    pub fn mappings(&self) -> usize {
        self.table().len()
    }

    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, (usize, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
