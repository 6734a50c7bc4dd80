//! Memory in a BAR of the controller.

use super::super::{
    Error,
    shared::{give_back, zero_bytes},
};
use std::sync::Arc;
use upcie_core::memory::{Memory, PageSize};

/// Memory in a BAR. It is shared with a host, which writes to it at any time, also after its session.
#[derive(Debug)]
pub(super) struct BarMemory {
    pub memory: Arc<Memory>,
    /// No client has had the memory.
    is_unused: bool,
}

impl BarMemory {
    /// Makes memory of zeros.
    pub fn new(bytes: u64) -> Result<Self, Error> {
        Ok(Self { memory: Arc::new(Memory::new(bytes as usize, PageSize::Small)?.shared()), is_unused: true })
    }

    /// Returns its bytes.
    pub fn len(&self) -> u64 {
        self.memory.len() as u64
    }

    /// Takes other memory for the next client: the last one may have kept its mapping. `keep` copies what stays.
    pub fn renew(&mut self, keep: impl FnOnce(&Memory, &Memory)) -> Result<(), Error> {
        if !self.is_unused {
            let new = Self::new(self.len())?;
            keep(&self.memory, &new.memory);
            let former = std::mem::replace(&mut self.memory, new.memory);
            give_back(&former);
        }
        self.is_unused = false;
        Ok(())
    }

    /// Zeroes it.
    pub fn clear(&self) {
        zero_bytes(&self.memory);
    }
}
