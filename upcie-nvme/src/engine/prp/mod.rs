//! Physical Region Page entries and lists (Base Specification, "Physical Region Page Entry and List").
//!
//! A transfer is one page, two, or a first page and a list of the others. The list of a whole buffer is made
//! once, when the buffer is allocated ([`BufferLists`]). Slices and chains that need one take it from their
//! queue's [`ListPool`] for the time of the command. Data that PRPs can't describe is a scatter gather list there, if the
//! controller takes them.

mod build;
mod pool;
mod sgl;
mod shape;
mod writer;

use crate::error::Refusal;
pub(crate) use pool::{DataPointer, ListPool};
pub use shape::SglUse;
pub(crate) use shape::{Place, Shape, Source, TableRange, pieces};
use upcie_core::dma::{List, Prepare};

/// The most bytes that one Read or Write can name: 65536 blocks of 512 bytes. Larger blocks reach MDTS or
/// this limit first.
pub(crate) const MAX_TRANSFER: u64 = 65536 * 512;
/// Bytes of an entry.
const ENTRY: usize = 8;

/// A walk over the pages of a transfer, in the order of their PRP entries.
///
/// The first piece may start at any dword. Adjacent pieces count as one. Between two pieces that are not
/// adjacent, the end of the first and the start of the second must lie on page boundaries.
#[derive(Debug)]
struct Pages {
    shift: u32,
    /// The address after the last piece (0 at the end of the address space); [`NOWHERE`](Self::NOWHERE)
    /// before the first.
    end: u64,
}

/// The entries that a piece adds: its own address, unless it continues a page that has an entry, and
/// `further` pages from the boundary `next` on.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: Option<u64>,
    next: u64,
    further: u64,
}

impl Pages {
    /// Marks an empty walk. No piece ends at address 1: it would begin at address 0, which no DMA memory has.
    const NOWHERE: u64 = 1;

    fn new(shift: u32) -> Self {
        Self { shift, end: Self::NOWHERE }
    }

    /// Walks a piece of `len` bytes (at least one), contiguous from `address` on.
    #[inline(always)]
    fn piece(&mut self, address: u64, len: u64) -> Result<Run, Refusal> {
        let mask = (1 << self.shift) - 1;
        let inside = address & mask;
        let touches = self.end == address && inside != 0;
        if self.end == Self::NOWHERE {
            if address % 4 != 0 {
                return Err(Refusal::Unaligned);
            }
        } else if !touches && (inside != 0 || self.end & mask != 0) {
            return Err(Refusal::Unaligned);
        }
        // The sum wraps to 0 at the end of the address space.
        self.end = address.wrapping_add(len);
        let start = if touches { None } else { Some(address) };
        Ok(Run { start, next: (address | mask).wrapping_add(1), further: (inside + len - 1) >> self.shift })
    }

    /// Walks `len` bytes page by page; the byte at an offset has the device address `iova(offset)`.
    fn walk(
        &mut self,
        len: usize,
        iova: impl Fn(usize) -> u64,
        mut emit: impl FnMut(u64) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut at = 0;
        while at < len {
            let address = iova(at);
            let left = (1_u64 << self.shift) - (address & ((1 << self.shift) - 1));
            let piece = left.min((len - at) as u64);
            if let Some(start) = self.piece(address, piece)?.start {
                emit(start)?;
            }
            at += piece as usize;
        }
        Ok(())
    }
}

/// Makes the PRP list of each buffer that a heap allocates.
#[derive(Debug)]
pub(crate) struct BufferLists {
    pub(crate) page_shift: u32,
}

impl BufferLists {
    /// Returns the number of entries beyond the first.
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
        let mut walk = Pages::new(self.page_shift);
        let (mut first, mut second) = (true, 0);
        match (self.further(iova(0), len), list) {
            (0 | 1, _) => {
                let emit = |page| {
                    if !std::mem::take(&mut first) {
                        second = page
                    }
                    Ok(())
                };
                walk.walk(len, iova, emit).ok()?;
                Some(second)
            }
            (_, None) => None,
            (entries, Some(mut list)) => {
                let mut writer = ListWriter::new(entries, self.page_shift);
                let base = list.iova;
                let next = |used: usize| base + (used * ENTRY) as u64;
                walk.walk(len, iova, |page| {
                    if !std::mem::take(&mut first) {
                        writer.push(page, next, |at, value| list.store(at, value));
                    }
                    Ok(())
                })
                .ok()?;
                Some(base)
            }
        }
    }
}

/// Returns the bytes of a list of `entries`, including the pointers from page to page.
fn list_bytes(entries: usize, page_shift: u32) -> usize {
    let per_page = (1 << page_shift) / ENTRY;
    if entries <= per_page {
        return entries * ENTRY;
    }
    // Every page but the last uses its last entry for the pointer.
    let full = (entries - per_page).div_ceil(per_page - 1);
    let rest = entries - full * (per_page - 1);
    (full * per_page + rest) * ENTRY
}

/// Writes entries into list memory that begins at a page (or fits into the rest of one), linking page to
/// page.
struct ListWriter {
    per_page: usize,
    left: usize,
    at: usize,
}

impl ListWriter {
    fn new(entries: usize, page_shift: u32) -> Self {
        Self { per_page: (1 << page_shift) / ENTRY, left: entries, at: 0 }
    }

    /// Adds an entry; `next` returns the device address of the entry at an index, `store` stores one.
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

#[cfg(test)]
mod tests;
