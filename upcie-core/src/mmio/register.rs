//! One word of device memory.

use super::Mapping;
use std::{fmt, ptr::NonNull, sync::Arc};

/// A register width: `u8`, `u16`, `u32` or `u64`.
pub trait Word: Copy + sealed::Sealed + 'static {}
mod sealed {
    pub trait Sealed {}
}
macro_rules! words {
    ($($t:ty)*) => { $(impl sealed::Sealed for $t {} impl Word for $t {})* };
}
words!(u8 u16 u32 u64);

/// One word of device memory.
///
/// ```no_run
/// use upcie_core::{device::Device, open};
///
/// let device = open(&"0000:01:00.0".parse()?)?;
/// if let Some(status) = device.bar(0)?.register::<u32>(0x1c) {
///     println!("CSTS of an NVMe controller: {:#x}", status.read());
/// }
/// # Ok::<(), upcie_core::Error>(())
/// ```
pub struct Register<W: Word> {
    at: NonNull<W>,
    mapping: Arc<Mapping>,
}

// SAFETY: the pointer leads into a mapping that the register keeps alive; each access is one volatile load or store.
unsafe impl<W: Word> Send for Register<W> {}
// SAFETY: device memory tolerates volatile accesses from any thread, and the register keeps its mapping alive.
unsafe impl<W: Word> Sync for Register<W> {}

impl<W: Word> Register<W> {
    /// Makes the register at `offset` bytes in `mapping`; `None` if it is out of bounds or not naturally aligned.
    pub fn new(mapping: &Arc<Mapping>, offset: usize) -> Option<Self> {
        let end = offset.checked_add(size_of::<W>())?;
        if end > mapping.len() || offset % size_of::<W>() != 0 {
            return None;
        }
        // SAFETY: `end` is within the mapping.
        let at = unsafe { mapping.base().add(offset) }.cast();
        Some(Self { at, mapping: mapping.clone() })
    }

    /// Reads the register: one volatile load.
    #[inline(always)]
    pub fn read(&self) -> W {
        // SAFETY: aligned and inside a live mapping (`new`); any bits are a valid word.
        unsafe { self.at.read_volatile() }
    }

    /// Writes the register: one volatile store, which is not ordered with stores to DMA memory (see [`crate::barrier`]).
    ///
    /// # Safety
    /// The caller drives the device behind the mapping, and the device's reaction to this value is sound: the device
    /// accesses only memory that was given to it for that, and changes nothing that another driver of it relies on.
    #[inline(always)]
    pub unsafe fn write(&self, value: W) {
        // SAFETY: aligned and inside a live mapping (`new`).
        unsafe { self.at.write_volatile(value) }
    }

    /// Returns the pointer itself, for a driver's hot path, which keeps the register beside it.
    #[inline]
    pub fn as_ptr(&self) -> *mut W {
        self.at.as_ptr()
    }
}

impl<W: Word> Clone for Register<W> {
    fn clone(&self) -> Self {
        Self { at: self.at, mapping: self.mapping.clone() }
    }
}

impl<W: Word> fmt::Debug for Register<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Does not read the register: a read may have side effects.
        write!(f, "Register<{}>({:p} in {:p})", std::any::type_name::<W>(), self.at, self.mapping.base())
    }
}
