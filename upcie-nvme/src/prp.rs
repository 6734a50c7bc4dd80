//! Physical Region Page entries and lists (Base Specification, "Physical Region Page Entry and List").
//!
//! A transfer is one page, two, or a first page and a list of the others. The list of a whole buffer is made once, when
//! the buffer is allocated ([`BufferLists`]); parts and chains that need one take it from their queue's [`ListPool`] for
//! the time of the command.

use crate::queue::Refusal;
use upcie_core::dma::{DmaBuf, List, Prepare};

/// The most that one Read or Write can name: 65536 blocks of 512 bytes. Larger blocks reach MDTS or this first.
pub(crate) const MAX_TRANSFER: u64 = 65536 * 512;
/// Bytes of an entry.
const ENTRY: usize = 8;

/// Where the pages of a transfer are, in order, as they go into PRP entries.
///
/// The first may start at any dword. Pieces that touch are one; between pieces that don't, both the end of the one and
/// the start of the other must lie on page boundaries.
#[derive(Debug)]
struct Pages {
    mask: u64,
    /// The address after what has been walked; 0 before the first byte.
    end: u64,
}

impl Pages {
    /// Walks the piece of `len` bytes whose byte at an offset is at `iova(offset)`, giving each new page to `emit`.
    fn walk(
        &mut self,
        len: usize,
        iova: impl Fn(usize) -> u64,
        mut emit: impl FnMut(u64),
    ) -> Result<(), Refusal> {
        let mut at = 0;
        while at < len {
            let address = iova(at);
            let inside = address & self.mask;
            if self.end == 0 {
                if address % 4 != 0 {
                    return Err(Refusal::Unaligned);
                }
                emit(address);
            } else if self.end != address || inside == 0 {
                if inside != 0 || self.end & self.mask != 0 {
                    return Err(Refusal::Unaligned);
                }
                emit(address);
            }
            let piece = ((self.mask + 1 - inside) as usize).min(len - at);
            self.end = address + piece as u64;
            at += piece;
        }
        Ok(())
    }
}

/// Walks all segments of `buf`.
fn pages(buf: &DmaBuf, page_shift: u32, mut emit: impl FnMut(u64)) -> Result<(), Refusal> {
    let mut walk = Pages { mask: (1 << page_shift) - 1, end: 0 };
    buf.segments().try_for_each(|segment| walk.walk(segment.len(), |at| segment.iova(at), &mut emit))
}

/// Makes the list of each buffer that a heap hands out.
#[derive(Debug)]
pub(crate) struct BufferLists {
    pub(crate) page_shift: u32,
}

impl BufferLists {
    /// Entries beyond the first.
    fn further(&self, iova: u64, len: usize) -> usize {
        let page = 1_usize << self.page_shift;
        ((iova as usize & (page - 1)) + len).div_ceil(page) - 1
    }
}

// SAFETY: the word is the buffer's second page or its list, and the list's entries are the buffer's further pages and the
// list's own.
unsafe impl Prepare for BufferLists {
    fn list_len(&self, iova: u64, len: usize) -> usize {
        match self.further(iova, len) {
            _ if len as u64 > MAX_TRANSFER => 0,
            0 | 1 => 0,
            entries => list_bytes(entries, self.page_shift),
        }
    }

    fn prepare(&self, iova: &dyn Fn(usize) -> u64, len: usize, list: Option<List<'_>>) -> Option<u64> {
        if len as u64 > MAX_TRANSFER || iova(0) % 4 != 0 {
            return None;
        }
        let mut walk = Pages { mask: (1 << self.page_shift) - 1, end: 0 };
        let (mut first, mut second) = (true, 0);
        match (self.further(iova(0), len), list) {
            (0 | 1, _) => {
                let emit = |page| {
                    if !std::mem::take(&mut first) {
                        second = page
                    }
                };
                walk.walk(len, iova, emit).ok()?;
                Some(second)
            }
            (_, None) => None,
            (entries, Some(list)) => {
                let mut writer = ListWriter::new(entries, self.page_shift);
                let (out, base) = (list.entries, list.iova);
                let next = |used: usize| base + (used * ENTRY) as u64;
                walk.walk(len, iova, |page| {
                    if !std::mem::take(&mut first) {
                        writer.push(page, next, |at, value| out[at] = value);
                    }
                })
                .ok()?;
                Some(base)
            }
        }
    }
}

/// Bytes of a list of `entries`, the pointers from page to page included.
fn list_bytes(entries: usize, page_shift: u32) -> usize {
    let per_page = (1 << page_shift) / ENTRY;
    if entries <= per_page {
        return entries * ENTRY;
    }
    // Every page but the last gives its last entry to the pointer.
    let full = (entries - per_page).div_ceil(per_page - 1);
    let rest = entries - full * (per_page - 1);
    (full * per_page + rest) * ENTRY
}

/// Puts entries into list memory that begins at a page (or fits into what is left of one), linking page to page.
struct ListWriter {
    per_page: usize,
    left: usize,
    at: usize,
}

impl ListWriter {
    fn new(entries: usize, page_shift: u32) -> Self {
        Self { per_page: (1 << page_shift) / ENTRY, left: entries, at: 0 }
    }

    /// Adds an entry; `next` gives the device address of the entry at an index, `store` stores one.
    fn push(&mut self, page: u64, next: impl Fn(usize) -> u64, mut store: impl FnMut(usize, u64)) {
        if self.at % self.per_page == self.per_page - 1 && self.left > 1 {
            store(self.at, next(self.at + 1));
            self.at += 1;
        }
        store(self.at, page);
        self.at += 1;
        self.left -= 1;
    }
}

/// What goes into a command's data pointer, and the list to give back when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataPointer {
    pub(crate) prp1: u64,
    pub(crate) prp2: u64,
    /// A chunk of the pool and those chained to it, as index + 1; 0 for none.
    pub(crate) list: u32,
}

/// List memory of one queue, in chunks: taken by commands whose buffers have no list ready, never grown.
#[derive(Debug)]
pub(crate) struct ListPool {
    memory: DmaBuf,
    page_shift: u32,
    /// Entries in a chunk. A list of more goes over several chunks, which are whole pages then.
    capacity: usize,
    /// The first free chunk, as index + 1.
    free: u32,
    /// What follows each chunk, free or in a list, as index + 1.
    next: Box<[u32]>,
}

impl ListPool {
    /// Bytes of a chunk for transfers of at most `max_transfer` bytes.
    pub(crate) fn chunk_bytes(max_transfer: u64, page_shift: u32) -> usize {
        // One entry more than there are pages: a transfer may begin in the middle of one.
        let entries = (max_transfer.min(MAX_TRANSFER) >> page_shift) as usize + 1;
        (entries * ENTRY).next_power_of_two().min(1 << page_shift)
    }

    /// Bytes that hold at least one list of the longest transfer, which may begin in the middle of a page: with less, a
    /// command could be refused for good.
    pub(crate) fn least_bytes(max_transfer: u64, page_shift: u32) -> usize {
        let entries = (max_transfer.min(MAX_TRANSFER) >> page_shift) as usize;
        list_bytes(entries.max(1), page_shift).next_multiple_of(Self::chunk_bytes(max_transfer, page_shift))
    }

    /// Over `memory`, aligned to pages, in chunks of `chunk` bytes.
    pub(crate) fn new(memory: DmaBuf, chunk: usize, page_shift: u32) -> Self {
        let chunks = (memory.len() / chunk) as u32;
        let next = (1..=chunks).map(|i| if i == chunks { 0 } else { i + 1 }).collect();
        Self { memory, page_shift, capacity: chunk / ENTRY, free: u32::from(chunks > 0), next }
    }

    /// The controller's page size in bytes, less one.
    #[inline(always)]
    pub(crate) fn page_mask(&self) -> u64 {
        (1 << self.page_shift) - 1
    }

    /// The data pointer for all segments of `buf`.
    pub(crate) fn build(&mut self, buf: &DmaBuf) -> Result<DataPointer, Refusal> {
        let shift = self.page_shift;
        self.fill(|emit| pages(buf, shift, emit))
    }

    /// The data pointer for `len` bytes from `start` on of a buffer that is not chained.
    pub(crate) fn build_range(
        &mut self,
        buf: &DmaBuf,
        start: usize,
        len: usize,
    ) -> Result<DataPointer, Refusal> {
        let mask = (1 << self.page_shift) - 1;
        self.fill(|emit| Pages { mask, end: 0 }.walk(len, |at| buf.iova(start + at), emit))
    }

    /// Walks the pages twice: to count them, then to write them down.
    fn fill(
        &mut self,
        walk: impl Fn(&mut dyn FnMut(u64)) -> Result<(), Refusal>,
    ) -> Result<DataPointer, Refusal> {
        let (mut count, mut ends) = (0_usize, [0; 2]);
        walk(&mut |page| {
            if let Some(end) = ends.get_mut(count) {
                *end = page;
            }
            count += 1;
        })?;
        let [prp1, prp2] = ends;
        if count <= 2 {
            return Ok(DataPointer { prp1, prp2, list: 0 });
        }
        let chunks = (list_bytes(count - 1, self.page_shift) / ENTRY).div_ceil(self.capacity);
        if chunks > 1 && self.capacity << 3 != 1 << self.page_shift {
            return Err(Refusal::TooLong);
        }
        let list = self.take(chunks)?;
        let Self { memory, next, capacity, .. } = self;
        let capacity = *capacity;
        let offset = |list: u32, at: usize| (list as usize - 1) * capacity * ENTRY + at * ENTRY;
        let mut writer = ListWriter::new(count - 1, self.page_shift);
        let (mut chunk, mut first) = (list, true);
        walk(&mut |page| {
            if std::mem::take(&mut first) {
                return;
            }
            let following = next[chunk as usize - 1];
            let link = if following == 0 { 0 } else { memory.iova(offset(following, 0)) };
            let store = |at: usize, value: u64| {
                if at > 0 && at % capacity == 0 {
                    chunk = following;
                }
                let offset = offset(chunk, at % capacity);
                memory[offset..offset + ENTRY].copy_from_slice(&value.to_le_bytes());
            };
            writer.push(page, |_| link, store);
        })?;
        Ok(DataPointer { prp1, prp2: self.memory.iova(offset(list, 0)), list })
    }

    /// Takes the memory away, for when the pool is of no more use but the device may still read it.
    pub(crate) fn take_memory(&mut self) -> DmaBuf {
        self.free = 0;
        std::mem::take(&mut self.memory)
    }

    /// Takes `count` chunks, linked; none when there are not that many.
    fn take(&mut self, count: usize) -> Result<u32, Refusal> {
        let first = self.free;
        let mut last = first;
        for taken in 1..=count {
            if last == 0 {
                return Err(Refusal::ListsInUse);
            }
            if taken < count {
                last = self.next[last as usize - 1];
            }
        }
        self.free = std::mem::replace(&mut self.next[last as usize - 1], 0);
        Ok(first)
    }

    /// Gives back what a [`DataPointer`] took.
    pub(crate) fn release(&mut self, list: u32) {
        let mut last = list;
        while self.next[last as usize - 1] != 0 {
            last = self.next[last as usize - 1];
        }
        self.next[last as usize - 1] = self.free;
        self.free = list;
    }
}

#[cfg(test)]
mod tests;
