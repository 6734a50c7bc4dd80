//! What a driver wants to know of each buffer.

use std::fmt;

/// What a driver prepares of a buffer, once, so that a transfer of all of it needs no work: NVMe's PRP list.
///
/// # Safety
/// Drivers put the word into commands as it is, so it decides where the device reads and writes. It, and what is put
/// into the list, must name no memory but the buffer's own and its list's, for the driver whose heap this is and for
/// those of all other devices in the space, which take its buffers too: [`DmaSpace::agree`](super::DmaSpace::agree).
pub unsafe trait Prepare: Send + Sync + fmt::Debug {
    /// Bytes of list memory that a buffer of `len` bytes whose first is at `iova` needs; 0 for none.
    fn list_len(&self, iova: u64, len: usize) -> usize;

    /// Fills `list` for the buffer of `len` bytes whose byte at an offset has the device address `iova(offset)`, and
    /// gives the word that goes with the first address; `None` when it takes more than that (no `list` was given
    /// though one is needed, or the device never takes so much at once).
    fn prepare(&self, iova: &dyn Fn(usize) -> u64, len: usize, list: Option<List<'_>>) -> Option<u64>;
}

/// List memory: aligned to its size rounded up to a power of two, or to the page for what is larger.
#[derive(Debug)]
pub struct List<'a> {
    /// Its entries.
    pub entries: &'a mut [u64],
    /// The device address of the first.
    pub iova: u64,
}
