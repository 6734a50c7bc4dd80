//! A driver's preparation of each buffer.

use std::fmt;

/// Prepares the driver's word and list for a buffer once, so that transfers of the whole buffer need no work: NVMe's PRP
/// list.
///
/// # Safety
/// Drivers put the word into commands as it is, so it decides where the device reads and writes. The word and the list
/// entries must name no memory except the buffer and its list. This holds for the driver of this heap and for the drivers
/// of all other devices in the space, which take its buffers too: [`DmaSpace::agree`](super::DmaSpace::agree).
pub unsafe trait Prepare: Send + Sync + fmt::Debug {
    /// Returns the bytes of list memory for a buffer of `len` bytes at `iova`; 0 if it needs none.
    fn list_len(&self, iova: u64, len: usize) -> usize;

    /// Fills `list` for a buffer of `len` bytes, whose byte at an offset has the device address `iova(offset)`. Returns
    /// the word that goes with the first address; `None` if the buffer needs a list and none was given, or is larger than
    /// the device takes at once.
    fn prepare(&self, iova: &dyn Fn(usize) -> u64, len: usize, list: Option<List<'_>>) -> Option<u64>;
}

/// List memory, aligned to its size rounded up to a power of two; to the page if it is larger than a page.
#[derive(Debug)]
pub struct List<'a> {
    /// The entries.
    pub entries: &'a mut [u64],
    /// The device address of the first entry.
    pub iova: u64,
}
