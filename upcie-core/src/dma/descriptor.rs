//! The handle to a buffer in DMA memory, its descriptor with the driver's preparation, and their origin.

use super::{Region, Spans};
use std::{fmt, marker::PhantomData, mem::ManuallyDrop, ptr::NonNull, sync::Arc};

/// A buffer that a device can read and write: one pointer wide, cheap to move, returned to its heap on drop.
///
/// [`read_at`](Self::read_at), [`write_at`](Self::write_at), [`fill`](Self::fill) and [`to_vec`](Self::to_vec) copy the
/// bytes of all buffers. If nobody else can write to them, [`as_slice`](Self::as_slice) and
/// [`as_mut_slice`](Self::as_mut_slice) give references; they are `None` for [device memory](Self::is_device_memory), for
/// memory that is [shared](Self::is_shared) with other processes, and for buffers of a device that is not trusted
/// ([`Heap::by_copy`](crate::dma::Heap::by_copy)). While a command is in flight it owns the buffer, so nobody can look at
/// bytes that the device is changing. It can be sent to, and shared between, threads.
///
/// A slice relies on the device: if the device writes to a buffer whose command it has completed, the slice is undefined
/// behaviour (see the [module](super)).
///
/// ```compile_fail
/// fn first(buffer: &upcie_core::dma::DmaBuf) -> u8 {
///     buffer[0] // the buffer may be in a device, or shared: `as_slice` says so
/// }
/// ```
///
/// Buffers can be cut ([`slice`](Self::slice), [`split_at`](Self::split_at)) and chained ([`chain`](Self::chain)) for
/// scattered transfers; the handle stays one pointer wide.
pub struct DmaBuf(NonNull<Descriptor>);

// SAFETY: the handle owns its descriptor and bytes exclusively.
unsafe impl Send for DmaBuf {}
// SAFETY: `&DmaBuf` gives shared access to plain bytes and fields only.
unsafe impl Sync for DmaBuf {}

impl DmaBuf {
    pub(super) fn from_descriptor(descriptor: Box<Descriptor>) -> Self {
        Self(NonNull::from(Box::leak(descriptor)))
    }

    /// Makes a buffer of no bytes, which belongs to no device and costs nothing: for commands without data.
    #[inline]
    pub const fn empty() -> Self {
        // SAFETY: a static is not at address 0. It is never written through the pointer: `descriptor_mut` refuses it.
        Self(unsafe { NonNull::new_unchecked((&raw const EMPTY).cast_mut()) })
    }

    #[inline(always)]
    pub(super) fn descriptor(&self) -> &Descriptor {
        // SAFETY: it points to a leaked box that this handle owns, or to the static.
        unsafe { self.0.as_ref() }
    }

    /// Returns the descriptor for changes; `None` for the empty buffer, which is shared and immutable.
    pub(super) fn descriptor_mut(&mut self) -> Option<&mut Descriptor> {
        if std::ptr::eq(self.0.as_ptr(), &EMPTY) {
            return None;
        }
        // SAFETY: only this handle points to the leaked box, and the handle is borrowed mutably.
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
        fn release(mut at: NonNull<Descriptor>) {
            // Chains, and parts of parts, are taken apart by loops: recursive drops of long ones would overflow the
            // stack.
            loop {
                // SAFETY: `from_descriptor` leaked the box; the handle, its one owner, is being dropped.
                let mut all = unsafe { Box::from_raw(at.as_ptr()) };
                let mut next = all.next.take();
                // The heap keeps the descriptor.
                all.spans = None;
                while let Some(mut segment) = next {
                    next = segment.unchain();
                }
                // The empty buffer is never cut, so a parent has a descriptor of its own.
                let Some(parent) = Home::release(all) else { return };
                at = ManuallyDrop::new(parent).0;
            }
        }
        if !std::ptr::eq(self.0.as_ptr(), &EMPTY) {
            release(self.0);
        }
    }
}

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
    /// A device may write to the entries at any time, so no reference to them is made.
    entries: *mut u64,
    len: usize,
    /// The device address of the first entry.
    pub iova: u64,
    memory: PhantomData<&'a mut [u64]>,
}

impl<'a> List<'a> {
    /// Makes a list of ordinary memory.
    pub fn new(entries: &'a mut [u64], iova: u64) -> Self {
        Self { entries: entries.as_mut_ptr(), len: entries.len(), iova, memory: PhantomData }
    }

    /// Makes a list of `len` entries in DMA memory.
    ///
    /// # Safety
    /// For `'a` the memory has so many entries at `entries`, aligned, and they are the list's alone in this process.
    pub(super) unsafe fn in_memory(entries: *mut u64, len: usize, iova: u64) -> Self {
        Self { entries, len, iova, memory: PhantomData }
    }

    /// Stores entry `at`.
    ///
    /// # Panics
    /// Panics if the list has no such entry.
    pub fn store(&mut self, at: usize, value: u64) {
        assert!(at < self.len, "entry {at} of a list of {}", self.len);
        // SAFETY: one of the list's entries, as was just checked.
        let entry = unsafe { self.entries.add(at) };
        // SAFETY: aligned, and nobody else in this process uses it while the list is borrowed.
        unsafe { entry.write(value) };
    }
}

/// The fields of a buffer that a driver's submission path reads, prepared when the buffer is made.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Prepared {
    /// The device address of the first byte.
    pub iova: u64,
    /// The driver's word for the whole buffer (see [`Prepare`]): NVMe's second PRP entry.
    pub second: u64,
    /// The id of the address space of `iova`.
    pub space: u64,
    /// The number of bytes that `iova` and `second` describe: the buffer's length, or 0 if the driver has to examine
    /// the buffer (a chain, a part that needs its own list, more bytes than the device takes at once).
    pub len: u32,
}

/// The state of a buffer, which is never in DMA memory.
#[repr(C, align(64))]
pub(super) struct Descriptor {
    pub(super) prepared: Prepared,
    /// The value of `prepared.len` while the buffer is not chained.
    pub(super) whole: u32,
    /// Set if all bytes of this segment are in host memory and contiguous for the device.
    pub(super) linear: bool,
    pub(super) ptr: NonNull<u8>,
    pub(super) len: usize,
    pub(super) next: Option<DmaBuf>,
    pub(super) home: Home,
    /// Set for device memory, shared memory and untrusted devices: no reference to the bytes is ever formed.
    pub(super) by_copy: bool,
    /// The addresses of all bytes of a chain, in its first segment, if it was gathered.
    pub(super) spans: Option<Box<Spans>>,
}

// SAFETY: a descriptor is reached only through its one `DmaBuf` (or is the immutable empty one), and the bytes at `ptr`
// belong to that handle alone.
unsafe impl Send for Descriptor {}
// SAFETY: shared access only reads plain fields.
unsafe impl Sync for Descriptor {}

pub(super) static EMPTY: Descriptor = Descriptor {
    prepared: Prepared { iova: 0, second: 0, space: 0, len: 0 },
    whole: 0,
    linear: false,
    ptr: NonNull::dangling(),
    len: 0,
    by_copy: false,
    next: None,
    home: Home::None,
    spans: None,
};

/// The owner of blocks: a heap, which is in a higher layer.
pub(super) trait BlockSource: Send + Sync {
    /// Returns the driver's preparation of buffers.
    fn prepare(&self) -> Option<&dyn Prepare>;

    /// Takes back a block and the descriptor of its buffer.
    fn take_back(&self, block: Block, descriptor: Box<Descriptor>);
}

/// A block of a region, by the region's index in the heap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) region: u32,
    pub(super) order: u32,
    pub(super) offset: usize,
}

/// The owner to which a dropped buffer returns its memory.
pub(super) enum Home {
    /// No owner: the empty buffer, or a descriptor that has been taken apart.
    None,
    /// A heap's block, and the list from the heap of lists; the list is empty if none is needed.
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

    /// Frees a block. For the last part of a buffer, returns that buffer.
    pub(super) fn release(mut descriptor: Box<Descriptor>) -> Option<DmaBuf> {
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
