//! What there is to know of a buffer.

use super::{DmaBuf, heap::Home};
use std::ptr::NonNull;

/// What a driver's submission path reads of a buffer: prepared once, when the buffer is made.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Transfer {
    /// The device address of the first byte.
    pub iova: u64,
    /// The driver's word for the whole buffer (see [`Prepare`](super::Prepare)): NVMe's second PRP entry.
    pub companion: u64,
    /// The id of the address space that `iova` is in.
    pub space: u64,
    /// The bytes that `iova` and `companion` describe: the buffer's length, or 0 when they don't suffice (a chain, a
    /// part that needs a list of its own, more than the device takes at once) and the driver has to look closer.
    pub ready: u32,
}

/// Everything there is to know of a buffer; never in DMA memory.
#[repr(C, align(64))]
pub(super) struct Descriptor {
    pub(super) transfer: Transfer,
    /// What `transfer.ready` is while the buffer is not chained.
    pub(super) whole: u32,
    /// All bytes of this segment are side by side for the device, and none of them in a device.
    pub(super) linear: bool,
    pub(super) ptr: NonNull<u8>,
    pub(super) len: usize,
    pub(super) next: Option<DmaBuf>,
    pub(super) home: Home,
    /// Behind a base address register, or other processes' too: no reference to its bytes is ever formed.
    pub(super) by_copy: bool,
}

// SAFETY: a descriptor is reached through its one `DmaBuf` only (or is the immutable empty one); what `ptr` points to
// belongs to that handle alone.
unsafe impl Send for Descriptor {}
// SAFETY: as above; shared access reads plain fields.
unsafe impl Sync for Descriptor {}

pub(super) static EMPTY: Descriptor = Descriptor {
    transfer: Transfer { iova: 0, companion: 0, space: 0, ready: 0 },
    whole: 0,
    linear: false,
    ptr: NonNull::dangling(),
    len: 0,
    by_copy: false,
    next: None,
    home: Home::None,
};
