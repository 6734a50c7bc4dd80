//! PRP lists made for one command, in memory of the queue.

use super::{
    ENTRY, MAX_TRANSFER, Pages, SglUse, Shape, Source, list_bytes,
    sgl::{DESCRIPTOR, SglWriter},
    shape::{Part, Whole},
};
use crate::{error::Refusal, spec::SglDescriptor};
use std::ops::Range;
use upcie_core::dma::{DmaBuf, Spans};

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

/// Segments whose addresses are a PRP list: the first one, and their bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageList {
    first: u64,
    pub(crate) len: u64,
}

/// A queue's PRP list memory, in chunks: used by commands whose buffers have no prepared list, never grown.
#[derive(Debug)]
pub(crate) struct ListPool {
    memory: DmaBuf,
    /// The id of the address space of the memory, and of the data.
    space: u64,
    pub(super) shape: Shape,
    page_shift: u32,
    /// Entries in a chunk. A longer list takes several chunks; chunks are whole pages then.
    capacity: usize,
    /// The first free chunk, as index + 1.
    free: u32,
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
        // An index has 31 bits (`ring::Slot`).
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

    /// Makes the data pointer for all segments of `buf`; also returns their bytes.
    pub(crate) fn build(&mut self, buf: &DmaBuf) -> Result<(DataPointer, u64), Refusal> {
        if let Some(spans) = buf.spans() {
            return self.build_spans(spans).map(|pointer| (pointer, spans.total_len() as u64));
        }
        if let Some(pages) = self.pages(buf.segments().map(|segment| (segment, 0..segment.len()))) {
            return Ok((self.take_pages(pages)?, pages.len));
        }
        let mut total = 0;
        let pointer = self.describe(&Whole(buf, self.space), |len| total += len)?;
        Ok((pointer, total))
    }

    /// Writes the addresses of segments into the next free chunk if they are a list as they are: single pages from the
    /// second on, of linear memory in the queue's address space. Otherwise, or if no chunk is free, returns `None`.
    #[inline(always)]
    pub(crate) fn pages<'b>(
        &mut self,
        mut segments: impl Iterator<Item = (&'b DmaBuf, Range<usize>)>,
    ) -> Option<PageList> {
        let mask = self.page_mask();
        if self.shape.sgl == SglUse::Always || self.free == 0 {
            return None;
        }
        let space = self.space;
        let linear = move |(buffer, part): (&DmaBuf, Range<usize>)| {
            let (data, len) = (buffer.prepared(), part.end.wrapping_sub(part.start));
            let good = part.end <= buffer.len()
                && len.wrapping_sub(1) < buffer.len()
                && data.space == space
                && buffer.is_linear();
            good.then(|| (data.iova + part.start as u64, len as u64))
        };
        let (first, mut len) = linear(segments.next()?)?;
        if first & 3 != 0 || (first & mask) + len > mask + 1 {
            return None;
        }
        let start = (self.free as usize - 1) * self.capacity;
        assert!((start + self.capacity) * ENTRY <= self.memory.len(), "a list lies within the pool");
        // By pointer, without a reference: an untrusted device may write to the memory at any time.
        // SAFETY: the memory begins at a page, and has room for a chunk's entries from there on.
        let entries = unsafe { self.memory.as_ptr().cast::<u64>().add(start) };
        let (mut end, mut count) = (first + len, 0);
        for segment in segments {
            let (address, next) = linear(segment)?;
            // The one before ends with its page, and this one begins with its own.
            if (end | address) & mask != 0 || next > mask + 1 || count == self.capacity {
                return None;
            }
            // SAFETY: one of the chunk's entries, which no command uses; no reference to them exists.
            unsafe { entries.wrapping_add(count).write(address.to_le()) };
            (end, len, count) = (address.wrapping_add(next), len + next, count + 1);
        }
        (count > 1).then_some(PageList { first, len })
    }

    /// Takes the list that [`pages`](Self::pages) has just written.
    #[inline(always)]
    pub(crate) fn take_pages(&mut self, pages: PageList) -> Result<DataPointer, Refusal> {
        let list = self.take()?;
        Ok(DataPointer { prp1: pages.first, prp2: self.iova(list), list, psdt: 0 })
    }

    /// Makes the data pointer for all bytes of a gathered chain.
    #[inline(always)]
    fn build_spans(&mut self, spans: &Spans) -> Result<DataPointer, Refusal> {
        if !spans.is_in(self.space) {
            return Err(Refusal::ForeignBuffer);
        }
        let mask = self.page_mask();
        if let ([first, rest @ ..], [len, _, .., last]) = (spans.addresses(), spans.lens()) {
            // Single pages from the second on: their addresses are the entries of the list.
            if spans.joints() & mask == 0
                && spans.are_inner(mask + 1)
                && (first & mask) + len <= mask + 1
                && *last <= mask + 1
                && first & 3 == 0
                && (2..=self.capacity).contains(&rest.len())
                && self.shape.sgl != SglUse::Always
            {
                let list = self.take()?;
                self.store_all(list, rest);
                return Ok(DataPointer { prp1: *first, prp2: self.iova(list), list, psdt: 0 });
            }
        }
        self.describe(spans, |_| ())
    }

    /// Makes the data pointer for `len` bytes from `start` on of all segments of `buf`, which are in the queue's address
    /// space.
    pub(crate) fn build_range(
        &mut self,
        buf: &DmaBuf,
        start: usize,
        len: usize,
    ) -> Result<DataPointer, Refusal> {
        self.describe(&Part(buf, start..start + len), |_| ())
    }

    /// Makes the data pointer for all pieces of `source`, which are in the queue's address space: PRPs if they can describe
    /// them, otherwise an SGL if the queue may use one. `count` is called with the bytes of each piece.
    #[inline(always)]
    pub(crate) fn describe(
        &mut self,
        source: &impl Source,
        mut count: impl FnMut(u64),
    ) -> Result<DataPointer, Refusal> {
        if self.shape.sgl != SglUse::Always {
            let mut pages = Pages::new(self.page_shift);
            let sgl = self.shape.sgl;
            let mut writer = Writer::new(self);
            let mut total = 0;
            let end = source.each(&mut |address, len| {
                total += len;
                writer.add(&mut pages, address, len)
            });
            match writer.finish(end) {
                Err(Refusal::Unaligned) if sgl == SglUse::WhereNeeded => {}
                done => {
                    count(total);
                    return done;
                }
            }
        }
        self.describe_by_sgl(source, count)
    }

    #[cold]
    #[inline(never)]
    fn describe_by_sgl(
        &mut self,
        source: &impl Source,
        mut count: impl FnMut(u64),
    ) -> Result<DataPointer, Refusal> {
        let mut writer = SglWriter::new(self);
        let end = source.each(&mut |address, len| {
            count(len);
            writer.add(address, len)
        });
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

    /// Writes `entries` into a chunk that has room for them.
    #[inline(always)]
    fn store_all(&mut self, chunk: u32, entries: &[u64]) {
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

    /// Adds the pages of a piece of `len` bytes, at least one.
    #[inline(always)]
    fn add(&mut self, pages: &mut Pages, address: u64, len: u64) -> Result<(), Refusal> {
        let run = pages.piece(address, len)?;
        if let Some(start) = run.start {
            self.push(start, 1)?;
        }
        self.push(run.next, run.further as usize)
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
        Ok(DataPointer { prp1: first, prp2, list, psdt: 0 })
    }
}
