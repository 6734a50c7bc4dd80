//! Memory for PRP lists: one place for each slot of a queue, so that a command that has a slot has a list.

use crate::errors::{Failure, Result};
use upcie_nvme::{Controller, DmaBuf};

/// The most that one place has: lists are contiguous for the device.
const MOST: usize = 2 << 20;

/// The places of a queue.
#[derive(Debug)]
pub(crate) struct Lists {
    memory: DmaBuf,
    /// Bytes of a place: a power of two.
    stride: usize,
}

/// The list of one command, as the command's maker sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) entries: *mut u64,
    pub(crate) iova: u64,
    /// Entries.
    pub(crate) room: usize,
}

impl Lists {
    /// Makes lists for transfers of at most `longest` bytes.
    pub(crate) fn new(controller: &Controller, slots: usize, longest: usize) -> Result<Self> {
        let page = controller.page_size();
        // The pages behind the first one, and a pointer for each page of the list.
        let entries = longest.div_ceil(page).max(2);
        let pointers = entries * 8 / page;
        let stride = ((entries + pointers) * 8).next_power_of_two();
        if stride > MOST {
            return Err(Failure::argument(format!(
                "commands of {longest} bytes are too long for one PRP list"
            )));
        }
        // A block is aligned to its size, so that no place crosses a page that it fits into.
        let memory = controller.alloc(stride * slots)?;
        Ok(Self { memory, stride })
    }

    /// Returns the place of a slot.
    pub(crate) fn place(&self, slot: u32) -> Place {
        let offset = slot as usize * self.stride;
        let entries = self.memory.as_ptr().wrapping_add(offset).cast();
        Place { entries, iova: self.memory.iova(offset), room: self.stride / 8 }
    }

    /// Returns the memory.
    pub(crate) fn into_memory(self) -> DmaBuf {
        self.memory
    }
}
