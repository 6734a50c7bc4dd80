//! The handle to a piece of DMA memory, the descriptor that it points to, and where both come from.

use super::{Prepare, Region};
use std::{mem::ManuallyDrop, ptr::NonNull, sync::Arc};

/// A buffer that a device can read and write: one pointer wide, moved for free, returned to its heap on drop.
///
/// It derefs to its bytes, if nobody else has them: those in a device ([`is_device_memory`](Self::is_device_memory)), those
/// that other processes have ([`is_shared`](Self::is_shared)) and those of a device that is not trusted
/// ([`Heap::by_copy`](crate::dma::Heap::by_copy)) are read and written by [`read_at`](Self::read_at) and [`write_at`](Self::write_at), which do for all;
/// deref panics, and [`as_slice`](Self::as_slice) is `None`. While a command is in flight the command owns the buffer, so nobody can look at
/// bytes that the device is changing. The bytes are what the last user left there, unless zeroed ones were asked for.
///
/// A reference that deref gives rests on the device: one that writes to a buffer whose command it has completed makes
/// it undefined behaviour (see the [module](super)).
///
/// Buffers can be cut ([`slice`](Self::slice), [`split_at`](Self::split_at)) and chained ([`chain`](Self::chain)) for
/// scattered transfers; both keep the handle one pointer wide.
pub struct DmaBuf(NonNull<Descriptor>);

// SAFETY: the handle owns its descriptor and bytes exclusively.
unsafe impl Send for DmaBuf {}
// SAFETY: `&DmaBuf` gives shared access to plain bytes and fields only.
unsafe impl Sync for DmaBuf {}

impl DmaBuf {
    pub(super) fn from_descriptor(descriptor: Box<Descriptor>) -> Self {
        Self(NonNull::from(Box::leak(descriptor)))
    }

    /// A buffer of no bytes, which belongs to no device: what commands without data carry. Costs nothing.
    #[inline]
    pub const fn empty() -> Self {
        // SAFETY: a static is not at address 0. Never written through: `descriptor_mut` refuses it.
        Self(unsafe { NonNull::new_unchecked((&raw const EMPTY).cast_mut()) })
    }

    #[inline(always)]
    pub(super) fn descriptor(&self) -> &Descriptor {
        // SAFETY: it points to a leaked box that this handle owns, or to the static.
        unsafe { self.0.as_ref() }
    }

    /// `None` for the empty buffer, which is shared and never changed.
    pub(super) fn descriptor_mut(&mut self) -> Option<&mut Descriptor> {
        if std::ptr::eq(self.0.as_ptr(), &EMPTY) {
            return None;
        }
        // SAFETY: a leaked box that only this handle points to, and the handle is borrowed mutably.
        Some(unsafe { self.0.as_mut() })
    }

    pub(super) fn home(&self) -> &Home {
        &self.descriptor().home
    }
}

impl Drop for DmaBuf {
    #[inline]
    fn drop(&mut self) {
        #[cold]
        #[inline(never)]
        fn give_back(mut at: NonNull<Descriptor>) {
            // A chain, and parts cut from parts, are taken apart by loops: dropped recursively, long ones would use up
            // the stack.
            loop {
                // SAFETY: leaked by `from_descriptor`; the handle, its one owner, is being dropped.
                let mut all = unsafe { Box::from_raw(at.as_ptr()) };
                let mut next = all.next.take();
                while let Some(mut segment) = next {
                    next = segment.unchain();
                }
                // The empty buffer is never cut, so a parent has a descriptor of its own.
                let Some(parent) = Home::give_back(all) else { return };
                at = ManuallyDrop::new(parent).0;
            }
        }
        if !std::ptr::eq(self.0.as_ptr(), &EMPTY) {
            give_back(self.0);
        }
    }
}

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

/// What hands out blocks: a heap, which is above this.
pub(super) trait BlockSource: Send + Sync {
    /// Says who prepares its buffers.
    fn prepare(&self) -> Option<&dyn Prepare>;

    /// Takes a block back, and the descriptor of the buffer that had it.
    fn take_back(&self, block: Block, descriptor: Box<Descriptor>);
}

/// A block of a region, by the region's index in the heap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) region: u32,
    pub(super) order: u32,
    pub(super) offset: usize,
}

/// Where a buffer's memory goes when it is dropped.
pub(super) enum Home {
    /// Nowhere: the empty buffer, or a descriptor that has been taken apart.
    None,
    /// A heap's block, and the list, which is in the heap for lists; empty where none is needed.
    Block { source: Arc<dyn BlockSource>, region: Arc<Region>, block: Block, list: DmaBuf },
    /// A part of another buffer.
    Part(Arc<DmaBuf>, Option<Arc<Region>>),
}

impl Home {
    pub(super) fn region(&self) -> Option<&Arc<Region>> {
        match self {
            Self::None => None,
            Self::Block { region, .. } => Some(region),
            Self::Part(_, region) => region.as_ref(),
        }
    }

    pub(super) fn prepare(&self) -> Option<&dyn Prepare> {
        let mut home = self;
        loop {
            match home {
                Self::None => return None,
                Self::Block { source, .. } => return source.prepare(),
                Self::Part(parent, _) => home = parent.home(),
            }
        }
    }

    /// Frees a block; a part gives what it was cut from, if it was the last that held it.
    pub(super) fn give_back(mut descriptor: Box<Descriptor>) -> Option<DmaBuf> {
        match std::mem::replace(&mut descriptor.home, Self::None) {
            Self::None => None,
            Self::Block { source, region, block, list } => {
                drop((region, list));
                source.take_back(block, descriptor);
                None
            }
            Self::Part(parent, _) => Arc::into_inner(parent),
        }
    }
}
