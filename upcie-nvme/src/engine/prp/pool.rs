//! The memory of the lists that are made for one command.

use super::{ENTRY, MAX_TRANSFER, Shape, list_bytes};
use crate::{error::Refusal, spec::SglDescriptor};
use upcie_core::dma::DmaBuf;

/// Bytes of an SGL descriptor.
pub(super) const DESCRIPTOR: usize = size_of::<SglDescriptor>();

/// A command's data pointer, and the list to release when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataPointer {
    pub(crate) prp1: u64,
    pub(crate) prp2: u64,
    /// The first chunk of the list in the pool, as index + 1; 0 for none. The pool links the others to it.
    pub(crate) list: u32,
    /// PSDT of the command's first word: 0 for PRPs. With an SGL, both words are its descriptor.
    pub(crate) psdt: u64,
}

/// A queue's PRP list memory, in chunks: used by commands whose buffers have no prepared list, never grown.
#[derive(Debug)]
pub(crate) struct ListPool {
    pub(super) memory: DmaBuf,
    /// The id of the address space of the memory, and of the data.
    pub(super) space: u64,
    pub(super) shape: Shape,
    pub(super) page_shift: u32,
    /// Entries in a chunk. A longer list takes several chunks; chunks are whole pages then.
    pub(super) capacity: usize,
    /// The first free chunk, as index + 1.
    pub(super) free: u32,
    /// The chunk after each chunk, free or in a list, as index + 1.
    pub(super) next: Box<[u32]>,
}

impl ListPool {
    /// Returns the bytes of a chunk for transfers of at most `max_transfer` bytes.
    pub(crate) fn chunk_bytes(max_transfer: u64, page_shift: u32) -> usize {
        // One entry more than there are pages, as a transfer may begin in the middle of one. At least two,
        // even if a page is larger than a transfer: a list begins with the second page and the third. And at least two
        // descriptors of an SGL: one for data, and one of the next segment.
        let entries =
            ((max_transfer.min(MAX_TRANSFER) >> page_shift) as usize + 1).max(2 * DESCRIPTOR / ENTRY);
        (entries * ENTRY).next_power_of_two().min(1 << page_shift)
    }

    /// Returns the bytes for at least one list of the longest transfer, which may begin in the middle of a
    /// page. With less memory some command could never be sent.
    pub(crate) fn least_bytes(max_transfer: u64, page_shift: u32) -> usize {
        let entries = (max_transfer.min(MAX_TRANSFER) >> page_shift) as usize;
        list_bytes(entries.max(1), page_shift).next_multiple_of(Self::chunk_bytes(max_transfer, page_shift))
    }

    /// Makes a pool over `memory`, aligned to pages, in chunks of `chunk` bytes.
    pub(crate) fn new(memory: DmaBuf, chunk: usize, page_shift: u32) -> Self {
        // An index has 31 bits (`slot::Slot`).
        let chunks = (memory.len() / chunk).min(i32::MAX as usize) as u32;
        let next = (1..=chunks).map(|i| if i == chunks { 0 } else { i + 1 }).collect();
        let (space, shape) = (memory.prepared().space, Shape::prps(page_shift));
        Self { memory, space, shape, page_shift, capacity: chunk / ENTRY, free: u32::from(chunks > 0), next }
    }

    /// Permits data pointers of other forms than PRPs.
    pub(crate) fn with_shape(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    /// Returns the forms of data pointers.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Returns the id of the address space that data must be in.
    pub(crate) fn space(&self) -> u64 {
        self.space
    }

    /// Returns the controller's page size in bytes, less one.
    #[inline(always)]
    pub(crate) fn page_mask(&self) -> u64 {
        (1 << self.page_shift) - 1
    }

    /// Frees all lists: the device reads none any more.
    pub(crate) fn release_all(&mut self) {
        let chunks = self.next.len() as u32;
        self.next
            .iter_mut()
            .zip(2..)
            .for_each(|(next, after)| *next = if after > chunks { 0 } else { after });
        self.free = u32::from(chunks > 0 && !self.memory.is_empty());
    }

    /// Takes the memory away when the pool is no longer used but the device may still read it.
    pub(crate) fn take_memory(&mut self) -> DmaBuf {
        self.free = 0;
        std::mem::take(&mut self.memory)
    }

    /// Takes a chunk and unlinks it.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Result<u32, Refusal> {
        let chunk = self.free;
        if chunk == 0 {
            return Err(Refusal::ListsInUse);
        }
        self.free = std::mem::replace(&mut self.next[chunk as usize - 1], 0);
        Ok(chunk)
    }

    /// Returns the device address of a chunk.
    pub(super) fn iova(&self, chunk: u32) -> u64 {
        let at = (chunk as usize - 1) * self.capacity * ENTRY;
        if self.memory.is_linear() { self.memory.prepared().iova + at as u64 } else { self.memory.iova(at) }
    }

    /// Writes the addresses of `count` pages, from `page` on, into a chunk, starting at entry `at`.
    #[inline(always)]
    pub(super) fn store(&mut self, chunk: u32, at: usize, page: u64, count: usize) {
        let first = (chunk as usize - 1) * self.capacity + at;
        assert!((first + count) * ENTRY <= self.memory.len(), "a list lies within the pool");
        // By pointer, without a reference: an untrusted device may write to the memory at any time.
        // SAFETY: the memory begins at a page, and has room for `count` entries from there on.
        let entries = unsafe { self.memory.as_ptr().cast::<u64>().add(first) };
        // Read once: for all that the compiler knows, an entry is the pool's own field.
        let (mut address, step) = (page, 1 << self.page_shift);
        for entry in 0..count {
            // SAFETY: as many entries as were just checked; the pool is borrowed mutably, and forms no reference to them.
            unsafe { entries.wrapping_add(entry).write(address.to_le()) };
            address = address.wrapping_add(step);
        }
    }

    /// Writes `entries` into a chunk that has room for them.
    #[inline(always)]
    pub(super) fn store_all(&mut self, chunk: u32, entries: &[u64]) {
        let first = (chunk as usize - 1) * self.capacity;
        assert!((first + entries.len()) * ENTRY <= self.memory.len(), "a list lies within the pool");
        // By pointer, without a reference: an untrusted device may write to the memory at any time.
        // SAFETY: the memory begins at a page, and has room for the entries from there on.
        let to = unsafe { self.memory.as_ptr().cast::<u64>().add(first) };
        // SAFETY: as many entries as were just checked; `entries` is ordinary memory, so they do not overlap.
        unsafe { to.copy_from_nonoverlapping(entries.as_ptr(), entries.len()) };
    }

    /// Returns the SGL descriptors that a chunk has room for.
    pub(super) fn descriptors(&self) -> usize {
        self.capacity * ENTRY / DESCRIPTOR
    }

    /// Writes an SGL descriptor into a chunk.
    #[inline(always)]
    pub(super) fn store_descriptor(&mut self, chunk: u32, at: usize, descriptor: SglDescriptor) {
        let first = (chunk as usize - 1) * self.capacity + at * (DESCRIPTOR / ENTRY);
        assert!((first * ENTRY) + DESCRIPTOR <= self.memory.len(), "a list lies within the pool");
        // By pointer, without a reference: an untrusted device may write to the memory at any time.
        // SAFETY: the memory begins at a page, and has room for a descriptor from there on.
        let to = unsafe { self.memory.as_ptr().cast::<u64>().add(first) };
        // SAFETY: the two words of the descriptor, as just checked, aligned to 8 bytes.
        unsafe { to.cast::<SglDescriptor>().write(descriptor) };
    }

    /// Releases the list of a [`DataPointer`].
    pub(crate) fn release(&mut self, list: u32) {
        let mut last = list;
        while self.next[last as usize - 1] != 0 {
            last = self.next[last as usize - 1];
        }
        self.next[last as usize - 1] = self.free;
        self.free = list;
    }
}
