//! Words, rings and bytes that the client and the controller both write; all pointers to them are in this file.
//!
//! The client changes them at any time. So no reference to their bytes exists, entries are copied once and
//! checked afterwards, and the words that hand something over are atomics.

use super::{HostMemory, host::errno, own_memory::OneMemory};
use crate::spec::Status;
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};
use std::{
    fmt,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};
use upcie_core::{barrier, memory::Memory};

/// One doorbell in the memory that stands behind BAR 0.
pub(super) struct Doorbell {
    word: NonNull<AtomicU32>,
    _memory: Arc<Memory>,
}

// SAFETY: a pointer to an atomic in a mapping that it keeps alive.
unsafe impl Send for Doorbell {}

impl Doorbell {
    /// Returns the doorbell at `offset`; `None` if that is outside of the memory or not aligned.
    pub fn new(memory: &Arc<Memory>, offset: usize) -> Option<Self> {
        if offset % 4 != 0 || offset.checked_add(4)? > memory.len() {
            return None;
        }
        // SAFETY: inside the mapping, as just checked.
        let at = unsafe { memory.as_ptr().add(offset) };
        Some(Self { word: NonNull::new(at.cast())?, _memory: memory.clone() })
    }

    /// Reads the value that the client wrote last; its earlier writes are visible then.
    #[inline(always)]
    pub fn load(&self) -> u32 {
        // SAFETY: aligned, inside a live mapping (`new`), and only ever accessed as an atomic here.
        unsafe { self.word.as_ref() }.load(Ordering::Acquire)
    }

    /// Writes the doorbell: with a value that came by message, or 0 for a new queue.
    pub fn store(&self, value: u32) {
        // SAFETY: aligned, inside a live mapping (`new`), and only ever accessed as an atomic here.
        unsafe { self.word.as_ref() }.store(value, Ordering::Release);
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Doorbell({})", self.load())
    }
}

/// Gives the pages of `memory` back to the kernel: a client that is gone may keep its descriptor, and with it pages that this
/// process has filled. Who touches them again gets zeros of its own.
pub(super) fn give_back(memory: &Memory) {
    let Some(file) = memory.shared_file() else { return };
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    if let Err(error) = fallocate(file, hole, 0, memory.len() as i64) {
        tracing::warn!(%error, bytes = memory.len(), "memory of a former client stays allocated while the client has its file");
    }
}

/// Copies the bytes at `offset` of memory that the client writes at any time; leaves those of `data` that are beyond its end.
pub(super) fn read_bytes(memory: &Memory, offset: u64, data: &mut [u8]) {
    for (at, byte) in (offset as usize..memory.len()).zip(data) {
        // SAFETY: inside the mapping, by the end of the range.
        let from = unsafe { memory.as_ptr().add(at) };
        // SAFETY: a mapped byte, to which no reference exists; the client may write it meanwhile: volatile, read once.
        *byte = unsafe { from.read_volatile() };
    }
}

/// Copies `data` to `offset` of memory that the client reads and writes at any time, up to its end.
pub(super) fn write_bytes(memory: &Memory, offset: u64, data: &[u8]) {
    for (at, byte) in (offset as usize..memory.len()).zip(data) {
        // SAFETY: inside the mapping, by the end of the range.
        let to = unsafe { memory.as_ptr().add(at) };
        // SAFETY: a mapped byte, to which no reference exists.
        unsafe { to.write_volatile(*byte) };
    }
}

/// Copies memory that the client writes at any time into memory of zeros, of the same bytes. Pages of zeros stay as
/// they are, and take no memory there.
pub(super) fn copy_bytes(from: &Memory, to: &Memory) {
    let mut page = [0; 4096];
    for offset in (0..from.len() as u64).step_by(page.len()) {
        read_bytes(from, offset, &mut page);
        if page.iter().any(|&byte| byte != 0) {
            write_bytes(to, offset, &page);
        }
    }
}

/// Zeroes memory that the client reads and writes at any time.
pub(super) fn zero_bytes(memory: &Memory) {
    // SAFETY: the range is all of the mapping, to which no reference exists.
    unsafe { memory.as_ptr().write_bytes(0, memory.len()) };
}

/// The entries of a queue, or the words of a doorbell buffer, of `SIZE` bytes each, in the client's memory.
///
/// If the entries are mapped in one piece, they are reached by a pointer, otherwise entry by entry through
/// the host (by message, if need be).
#[derive(Debug)]
pub(super) struct Ring<const SIZE: usize> {
    iova: u64,
    entries: u32,
    /// Valid while the memory's generation is the one below.
    base: Option<NonNull<u8>>,
    generation: u64,
}

// SAFETY: a pointer into memory of the client, which is mapped in this process, not in a thread; `generation` says
// until when.
unsafe impl<const SIZE: usize> Send for Ring<SIZE> {}

impl<const SIZE: usize> Ring<SIZE> {
    /// Makes the ring of a queue of `entries` at the client's address `iova`.
    ///
    /// # Errors
    /// Invalid Use of Controller Memory Buffer: it is not in one memory.
    pub fn of_queue(host: &mut impl HostMemory, iova: u64, entries: u32) -> Result<Self, Status> {
        OneMemory::of(host).check(iova, entries as usize * SIZE)?;
        Ok(Self::new(host, iova, entries))
    }

    /// Makes a ring of `entries` at the client's address `iova`.
    pub fn new(host: &mut impl HostMemory, iova: u64, entries: u32) -> Self {
        let mut ring = Self { iova, entries, base: None, generation: 0 };
        ring.refresh(host);
        ring
    }

    #[cold]
    #[inline(never)]
    fn refresh(&mut self, host: &mut impl HostMemory) {
        let len = self.entries as usize * SIZE;
        // A client may map pages to odd places; the atomics need alignment.
        self.base = host.translate(self.iova, len).filter(|base| base.addr().get() % SIZE == 0);
        self.generation = host.generation();
    }

    /// Returns the address of entry `index`; `None` if it isn't mapped, or is no entry.
    #[inline(always)]
    fn entry(&mut self, host: &mut impl HostMemory, index: u32) -> Option<NonNull<u8>> {
        if host.generation() != self.generation {
            self.refresh(host);
        }
        let base = self.base.filter(|_| index < self.entries)?;
        // SAFETY: `base` starts `entries` entries that are mapped as long as the generation stays (`refresh`), and
        // `index` is below `entries`.
        Some(unsafe { base.add(index as usize * SIZE) })
    }

    fn iova_of(&self, index: u32) -> u64 {
        self.iova.wrapping_add(u64::from(index) * SIZE as u64)
    }

    /// Returns `true` if the entries were reached by a pointer the last time.
    pub fn is_mapped(&self) -> bool {
        self.base.is_some()
    }
}

impl Ring<4> {
    /// Reads word `index`, which must be below the number of words; the client's writes before it are visible then.
    #[inline]
    pub fn load(&mut self, host: &mut impl HostMemory, index: u32) -> Result<u32, Errno> {
        let Some(word) = self.entry(host, index) else { return self.load_unmapped(host, index) };
        // SAFETY: 4 mapped bytes, aligned to 4 (`refresh`); this side accesses the words by these atomics only.
        let word = unsafe { word.cast::<AtomicU32>().as_ref() };
        Ok(word.load(Ordering::Acquire))
    }

    #[cold]
    #[inline(never)]
    fn load_unmapped(&mut self, host: &mut impl HostMemory, index: u32) -> Result<u32, Errno> {
        let mut word = [0; 4];
        host.read(self.iova_of(index), &mut word).map_err(errno)?;
        Ok(u32::from_le_bytes(word))
    }

    /// Writes word `index`, which must be below the number of words.
    #[inline]
    pub fn store(&mut self, host: &mut impl HostMemory, index: u32, value: u32) -> Result<(), Errno> {
        let Some(word) = self.entry(host, index) else {
            return host.write(self.iova_of(index), &value.to_le_bytes()).map_err(errno);
        };
        // SAFETY: 4 mapped bytes, aligned to 4 (`refresh`); this side accesses the words by these atomics only.
        let word = unsafe { word.cast::<AtomicU32>().as_ref() };
        word.store(value, Ordering::Release);
        Ok(())
    }
}

impl Ring<64> {
    /// Copies submission queue entry `index`.
    #[inline(always)]
    pub fn fetch(&mut self, host: &mut impl HostMemory, index: u32) -> Result<[u64; 8], Errno> {
        let Some(entry) = self.entry(host, index) else { return self.fetch_unmapped(host, index) };
        let words = entry.cast::<u64>();
        // Word by word, so that the compiler keeps them in registers.
        let word = |index: usize| {
            // SAFETY: below 8, so inside the entry.
            let word = unsafe { words.add(index) };
            // SAFETY: 64 mapped bytes, aligned to 64 (`refresh`); any bits are valid, and a client that writes
            // meanwhile spoils only its own command: volatile, copied once.
            unsafe { word.read_volatile() }
        };
        Ok([word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7)])
    }

    /// Returns the namespace and first block of submission queue entry `index`, if entries are mapped. A hint
    /// only: the client may change the entry before it is [fetched](Self::fetch).
    #[inline(always)]
    pub fn peek(&mut self, host: &mut impl HostMemory, index: u32) -> Option<(u32, u64)> {
        let words = self.entry(host, index)?.cast::<u64>();
        // SAFETY: the entry's 64 bytes are mapped and aligned to 64 (`refresh`); any bits are valid.
        let first = unsafe { words.read_volatile() };
        // SAFETY: inside the entry.
        let slba = unsafe { words.add(5) };
        // SAFETY: aligned and mapped, as part of the entry; any bits are valid.
        let slba = unsafe { slba.read_volatile() };
        Some(((first >> 32) as u32, slba))
    }

    #[cold]
    #[inline(never)]
    fn fetch_unmapped(&mut self, host: &mut impl HostMemory, index: u32) -> Result<[u64; 8], Errno> {
        let mut entry = [0; 8];
        host.read(self.iova_of(index), zerocopy::IntoBytes::as_mut_bytes(&mut entry)).map_err(errno)?;
        Ok(entry)
    }
}

impl Ring<16> {
    /// Returns the words of completion queue entry `index` as they are now, if they can be read.
    pub fn present(&mut self, host: &mut impl HostMemory, index: u32) -> Option<(u64, u64)> {
        let mut words = [0; 2];
        host.read(self.iova_of(index), zerocopy::IntoBytes::as_mut_bytes(&mut words)).ok()?;
        Some((words[0], words[1]))
    }

    /// Writes completion queue entry `index`: dwords 0 and 1, then dwords 2 and 3 with the phase tag, which hand the
    /// entry and everything written before over to the client.
    #[inline(always)]
    pub fn post(&mut self, host: &mut impl HostMemory, index: u32, low: u64, high: u64) -> Result<(), Errno> {
        let Some(entry) = self.entry(host, index) else {
            return self.post_unmapped(host, index, low, high);
        };
        let entry = entry.cast::<u64>();
        // SAFETY: 16 mapped bytes, aligned to 16 (`refresh`).
        unsafe { entry.write_volatile(low) };
        // SAFETY: the upper half of the same entry.
        let high_word = unsafe { entry.add(1) };
        // SAFETY: aligned and mapped; this side accesses completions by this atomic only.
        unsafe { high_word.cast::<AtomicU64>().as_ref() }.store(high, Ordering::Release);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn post_unmapped(
        &mut self,
        host: &mut impl HostMemory,
        index: u32,
        low: u64,
        high: u64,
    ) -> Result<(), Errno> {
        let iova = self.iova_of(index);
        barrier::dma_wmb();
        host.write(iova, &low.to_le_bytes()).map_err(errno)?;
        barrier::dma_wmb();
        host.write(iova.wrapping_add(8), &high.to_le_bytes()).map_err(errno)
    }
}
