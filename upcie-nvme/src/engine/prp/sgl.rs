//! Scatter gather lists made for one command, in the memory of the queue's PRP lists.

use super::{DataPointer, ListPool, pool::DESCRIPTOR};
use crate::{
    error::Refusal,
    spec::{Command, SglDescriptor},
};

/// PSDT in the first word of a command: the data pointer is an SGL descriptor.
const PSDT: u64 = (Command::PSDT_SGL as u64) << 8;

/// Collects pieces of data in order. A single one is the command's descriptor; more are a list, whose chunks are segments
/// that lead from one to the next.
pub(super) struct SglWriter<'p> {
    pool: &'p mut ListPool,
    /// The last piece, which the next one may continue, and its bytes; 0 bytes before the first.
    address: u64,
    len: u64,
    /// The first chunk of the list, and the chunk that is being filled, as index + 1; 0 for none.
    list: u32,
    chunk: u32,
    /// Descriptors in the chunk that is being filled, and the last of them.
    at: usize,
    last: SglDescriptor,
    /// The chunk whose last descriptor leads to the one that is being filled; 0 for the command's descriptor.
    before: u32,
    /// The command's descriptor, once it leads to a list.
    first: SglDescriptor,
    chunks: usize,
}

impl<'p> SglWriter<'p> {
    pub(super) fn new(pool: &'p mut ListPool) -> Self {
        let none = SglDescriptor::new(SglDescriptor::DATA_BLOCK, 0, 0);
        let (last, first) = (none, none);
        Self { pool, address: 0, len: 0, list: 0, chunk: 0, at: 0, last, before: 0, first, chunks: 0 }
    }

    /// Adds a piece of at least one byte.
    #[inline(always)]
    pub(super) fn add(&mut self, address: u64, len: u64) -> Result<(), Refusal> {
        if len > u64::from(u32::MAX) {
            return Err(Refusal::TooLong);
        }
        let both = self.len + len;
        if self.len > 0 && self.address.wrapping_add(self.len) == address && both <= u64::from(u32::MAX) {
            self.len = both;
            return Ok(());
        }
        self.put()?;
        (self.address, self.len) = (address, len);
        Ok(())
    }

    /// Returns the descriptor of the last piece, which is complete.
    #[inline(always)]
    fn piece(&self) -> Result<SglDescriptor, Refusal> {
        if (self.address | self.len) & self.pool.shape.sgl_mask != 0 {
            return Err(Refusal::Unaligned);
        }
        Ok(SglDescriptor::new(SglDescriptor::DATA_BLOCK, self.address, self.len as u32))
    }

    /// Puts the last piece into the list.
    #[inline(always)]
    fn put(&mut self) -> Result<(), Refusal> {
        if self.len == 0 {
            return Ok(());
        }
        let piece = self.piece()?;
        if self.chunk == 0 || self.at == self.pool.descriptors() {
            self.grow()?;
        }
        self.last = piece;
        self.pool.store_descriptor(self.chunk, self.at, self.last);
        self.at += 1;
        Ok(())
    }

    /// Takes the first or the next chunk. In the full chunk the last descriptor moves to the new one, and the descriptor
    /// of a segment replaces it.
    fn grow(&mut self) -> Result<(), Refusal> {
        if self.chunks == self.pool.next.len() {
            // All lists together have no room for it.
            return Err(Refusal::TooLong);
        }
        let chunk = self.pool.take()?;
        self.chunks += 1;
        if self.chunk == 0 {
            self.list = chunk;
        } else {
            self.pool.next[self.chunk as usize - 1] = chunk;
            self.lead(SglDescriptor::SEGMENT);
            self.before = self.chunk;
            self.pool.store_descriptor(chunk, 0, self.last);
        }
        self.at = usize::from(self.chunk != 0);
        self.chunk = chunk;
        Ok(())
    }

    /// Lets the descriptor before the present chunk lead to it.
    fn lead(&mut self, kind: u8) {
        let descriptor = SglDescriptor::new(kind, self.pool.iova(self.chunk), (self.at * DESCRIPTOR) as u32);
        match self.before {
            0 => self.first = descriptor,
            before => self.pool.store_descriptor(before, self.pool.descriptors() - 1, descriptor),
        }
    }

    /// Returns the data pointer; after a refusal releases the chunks that were taken.
    pub(super) fn finish(mut self, end: Result<(), Refusal>) -> Result<DataPointer, Refusal> {
        let end = end.and_then(|()| {
            if self.list == 0 {
                self.first = self.piece()?;
            } else {
                self.put()?;
                self.lead(SglDescriptor::LAST_SEGMENT);
            }
            Ok(())
        });
        if let Err(refusal) = end {
            if self.list != 0 {
                self.pool.release(self.list);
            }
            return Err(refusal);
        }
        let (prp1, prp2) = self.first.words();
        Ok(DataPointer { prp1, prp2, list: self.list, psdt: PSDT })
    }
}
