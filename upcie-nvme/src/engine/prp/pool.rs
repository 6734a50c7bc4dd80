//! PRP lists made for one command, in memory of the queue.

use super::{ENTRY, MAX_TRANSFER, Pages, list_bytes};
use crate::error::Refusal;
use upcie_core::dma::DmaBuf;

/// A command's data pointer, and the list to release when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataPointer {
    pub(crate) prp1: u64,
    pub(crate) prp2: u64,
    /// The first chunk of the list in the pool, as index + 1; 0 for none. The pool links the others to it.
    pub(crate) list: u32,
}

/// A queue's PRP list memory, in chunks: used by commands whose buffers have no prepared list, never grown.
#[derive(Debug)]
pub(crate) struct ListPool {
    memory: DmaBuf,
    page_shift: u32,
    /// Entries in a chunk. A longer list takes several chunks; chunks are whole pages then.
    capacity: usize,
    /// The first free chunk, as index + 1.
    free: u32,
    /// The chunk after each chunk, free or in a list, as index + 1.
    next: Box<[u32]>,
}

impl ListPool {
    /// Returns the bytes of a chunk for transfers of at most `max_transfer` bytes.
    pub(crate) fn chunk_bytes(max_transfer: u64, page_shift: u32) -> usize {
        // One entry more than there are pages, as a transfer may begin in the middle of one. At least two,
        // even if a page is larger than a transfer: a list begins with the second page and the third.
        let entries = ((max_transfer.min(MAX_TRANSFER) >> page_shift) as usize + 1).max(2);
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
        // An index has 31 bits (`ring::Slot`).
        let chunks = (memory.len() / chunk).min(i32::MAX as usize) as u32;
        let next = (1..=chunks).map(|i| if i == chunks { 0 } else { i + 1 }).collect();
        Self { memory, page_shift, capacity: chunk / ENTRY, free: u32::from(chunks > 0), next }
    }

    /// Returns the controller's page size in bytes, less one.
    #[inline(always)]
    pub(crate) fn page_mask(&self) -> u64 {
        (1 << self.page_shift) - 1
    }

    /// Makes the data pointer for all segments of `buf`, in the address space `space`; also returns their
    /// bytes.
    pub(crate) fn build(&mut self, buf: &DmaBuf, space: u64) -> Result<(DataPointer, u64), Refusal> {
        let (mut pages, mut total) = (Pages::new(self.page_shift), 0);
        let mut writer = Writer::new(self);
        let end = buf.segments().try_for_each(|segment| {
            let len = segment.len();
            total += len as u64;
            if segment.prepared().space != space && len > 0 {
                return Err(Refusal::ForeignBuffer);
            }
            writer.add(&mut pages, segment, 0, len)
        });
        Ok((writer.finish(end)?, total))
    }

    /// Makes the data pointer for `len` bytes from `start` on of a buffer that is not chained.
    pub(crate) fn build_range(
        &mut self,
        buf: &DmaBuf,
        start: usize,
        len: usize,
    ) -> Result<DataPointer, Refusal> {
        let mut pages = Pages::new(self.page_shift);
        let mut writer = Writer::new(self);
        let end = writer.add(&mut pages, buf, start, len);
        writer.finish(end)
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
    fn take(&mut self) -> Result<u32, Refusal> {
        let chunk = self.free;
        if chunk == 0 {
            return Err(Refusal::ListsInUse);
        }
        self.free = std::mem::replace(&mut self.next[chunk as usize - 1], 0);
        Ok(chunk)
    }

    /// Returns the device address of a chunk.
    fn iova(&self, chunk: u32) -> u64 {
        self.memory.iova((chunk as usize - 1) * self.capacity * ENTRY)
    }

    /// Writes the addresses of `count` pages, from `page` on, into a chunk, starting at entry `at`.
    #[inline(always)]
    fn store(&mut self, chunk: u32, at: usize, page: u64, count: usize) {
        let first = (chunk as usize - 1) * self.capacity + at;
        assert!((first + count) * ENTRY <= self.memory.len(), "a list lies within the pool");
        // By pointer, without a reference: an untrusted device may write to the memory at any time.
        // SAFETY: the memory begins at a page, and has room for `count` entries from there on.
        let entries = unsafe { self.memory.as_ptr().cast::<u64>().add(first) };
        let mut address = page;
        for entry in 0..count {
            // SAFETY: as many entries as were just checked; the pool is borrowed mutably, and forms no reference to them.
            unsafe { entries.wrapping_add(entry).write(address.to_le()) };
            address = address.wrapping_add(1 << self.page_shift);
        }
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

/// Collects entries in order: up to two go into the command; with more, the first goes there and the others
/// into a list.
struct Writer<'p> {
    pool: &'p mut ListPool,
    first: u64,
    /// The second page while there are no more; then the last entry of the last chunk.
    last: u64,
    count: usize,
    /// The first chunk of the list, and the chunk that is being filled, as index + 1; 0 for none.
    list: u32,
    chunk: u32,
    /// Entries in the chunk that is being filled.
    at: usize,
}

impl<'p> Writer<'p> {
    #[inline(always)]
    fn new(pool: &'p mut ListPool) -> Self {
        Self { pool, first: 0, last: 0, count: 0, list: 0, chunk: 0, at: 0 }
    }

    /// Adds the pages of `len` bytes, from `start` on, of one segment.
    #[inline(always)]
    fn add(&mut self, pages: &mut Pages, segment: &DmaBuf, start: usize, len: usize) -> Result<(), Refusal> {
        if segment.is_linear() && len > 0 {
            let run = pages.piece(segment.prepared().iova + start as u64, len as u64)?;
            if let Some(start) = run.start {
                self.push(start, 1)?;
            }
            return self.push(run.next, run.further as usize);
        }
        pages.walk(len, |at| segment.iova(start + at), |page| self.push(page, 1))
    }

    /// Adds `count` pages from `page` on.
    #[inline(always)]
    fn push(&mut self, mut page: u64, mut count: usize) -> Result<(), Refusal> {
        while count > 0 {
            let mut taken = 1;
            match self.count {
                0 => self.first = page,
                1 => self.last = page,
                _ => {
                    if self.at == 0 || self.at == self.pool.capacity {
                        self.grow()?;
                    }
                    taken = count.min(self.pool.capacity - self.at);
                    self.pool.store(self.chunk, self.at, page, taken);
                    self.at += taken;
                    self.last = page + ((taken as u64 - 1) << self.pool.page_shift);
                }
            }
            self.count += taken;
            page = page.wrapping_add((taken as u64) << self.pool.page_shift);
            count -= taken;
        }
        Ok(())
    }

    /// Takes the first or the next chunk. In the full chunk the last entry moves to the new one, and a
    /// pointer replaces it.
    fn grow(&mut self) -> Result<(), Refusal> {
        if self.at > 0 && self.at << 3 != 1 << self.pool.page_shift {
            // Only a chunk of a whole page can end with a pointer.
            return Err(Refusal::TooLong);
        }
        let chunk = self.pool.take()?;
        if self.at == 0 {
            self.list = chunk;
        } else {
            self.pool.next[self.chunk as usize - 1] = chunk;
            let pointer = self.pool.iova(chunk);
            self.pool.store(self.chunk, self.at - 1, pointer, 1);
        }
        self.chunk = chunk;
        self.pool.store(chunk, 0, self.last, 1);
        self.at = 1;
        Ok(())
    }

    /// Returns the data pointer; after a refusal releases the chunks that were taken.
    #[inline(always)]
    fn finish(self, end: Result<(), Refusal>) -> Result<DataPointer, Refusal> {
        let Self { pool, first, last, list, .. } = self;
        if let Err(refusal) = end {
            if list != 0 {
                pool.release(list);
            }
            return Err(refusal);
        }
        let prp2 = if list == 0 { last } else { pool.iova(list) };
        Ok(DataPointer { prp1: first, prp2, list })
    }
}
