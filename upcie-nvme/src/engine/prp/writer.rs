//! The entries of a PRP list, written in order.

use super::{DataPointer, ListPool, Pages};
use crate::error::Refusal;

/// Collects entries in order: up to two go into the command; with more, the first goes there and the others
/// into a list.
pub(super) struct Writer<'p> {
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
    pub(super) fn new(pool: &'p mut ListPool) -> Self {
        Self { pool, first: 0, last: 0, count: 0, list: 0, chunk: 0, at: 0 }
    }

    /// Adds the pages of a piece of `len` bytes, at least one.
    #[inline(always)]
    pub(super) fn add(&mut self, pages: &mut Pages, address: u64, len: u64) -> Result<(), Refusal> {
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
    pub(super) fn finish(self, end: Result<(), Refusal>) -> Result<DataPointer, Refusal> {
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
