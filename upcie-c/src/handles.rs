//! Handles: tagged numbers in place of pointers.
//!
//! A handle has the index of a table's entry in bits 8 to 21, its kind in bits 22 and 23, and the number of its use
//! above. The entry holds the handle that is valid for it now, and the object. So one compare finds NULL, a closed
//! handle, one of another kind, and any number that is none. The entries are in pages that the kernel clears in a
//! forked child, where no handle is valid then. An entry for a queue begins a [`Block`]: a station.

use crate::errors::{Failure, Result};
use std::{
    cell::UnsafeCell,
    ffi::c_void,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering},
    },
};

const INDEX_BITS: usize = 14;
const ENTRIES: usize = 1 << INDEX_BITS;
const MASK: usize = (ENTRIES - 1) << SHIFT;
/// The index's place: that of a block's offset.
const SHIFT: u32 = BLOCK.trailing_zeros();
/// Bytes of a block.
pub(crate) const BLOCK: usize = 256;
/// The first entry that is given out: entry 0 is that of NULL.
const FIRST: usize = 1;

/// The kinds of handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Heap = 0,
    Controller = 1,
    Queue = 2,
}

#[derive(Debug)]
#[repr(C, align(16))]
pub(crate) struct Entry {
    /// The handle that is valid, or 0.
    handle: AtomicUsize,
    object: AtomicPtr<c_void>,
}

impl Entry {
    /// Returns `true` if the handle is valid, or if it is NULL and this is the entry for it.
    #[inline(always)]
    pub(crate) fn is_named(&self, handle: usize) -> bool {
        self.handle.load(Ordering::Acquire) == handle
    }

    pub(crate) fn handle(&self) -> usize {
        self.handle.load(Ordering::Relaxed)
    }

    pub(crate) fn object(&self) -> *mut c_void {
        self.object.load(Ordering::Relaxed)
    }

    pub(crate) fn set_object(&self, object: *mut c_void) {
        self.object.store(object, Ordering::Release);
    }
}

/// An entry with room behind it, for the hot state of a queue.
#[repr(C, align(256))]
struct Block {
    entry: Entry,
    rest: UnsafeCell<[u8; BLOCK - size_of::<Entry>()]>,
}

/// The entries of all kinds, and the lock of changes: cleared in a child.
#[repr(C, align(4096))]
struct Tables {
    blocks: [Block; ENTRIES],
    entries: [[Entry; ENTRIES]; 2],
}

struct Shared(UnsafeCell<Tables>);

// SAFETY: entries consist of atomics; the bytes behind them are cells.
unsafe impl Sync for Shared {}

// SAFETY: zeros are valid atomics: a null pointer and 0.
static TABLES: Shared = Shared(UnsafeCell::new(unsafe { std::mem::zeroed() }));
/// The number of uses of handles, in parents and children together.
static USES: AtomicUsize = AtomicUsize::new(1);

impl Kind {
    /// Returns the entry of a handle, or of a number that is none.
    #[inline(always)]
    pub(crate) fn entry(self, handle: usize) -> *const Entry {
        let (offset, tables) = (handle & MASK, TABLES.0.get());
        let first: *const Entry = match self {
            // SAFETY: a static.
            Self::Queue => return unsafe { &raw const (*tables).blocks }.wrapping_byte_add(offset).cast(),
            // SAFETY: a static.
            Self::Heap => unsafe { &raw const (*tables).entries[0] }.cast(),
            // SAFETY: a static.
            Self::Controller => unsafe { &raw const (*tables).entries[1] }.cast(),
        };
        first.wrapping_add(offset >> SHIFT)
    }

    /// Returns the entry of an index.
    fn at(self, index: usize) -> &'static Entry {
        // SAFETY: an entry of a static that is only changed through its atomics.
        unsafe { &*self.entry(index << SHIFT) }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Controller => "controller",
            Self::Queue => "queue",
        }
    }

    /// Returns the failure of a handle that is not valid.
    #[cold]
    pub(crate) fn bad(self) -> Failure {
        let name = self.name();
        Failure::new(
            libc::EBADF,
            format!(
                "not a handle of an open {name} (NULL, closed, of another kind, or of the process that this was forked from)"
            ),
        )
    }

    /// Returns the object of a handle; `None` if the handle is not valid.
    ///
    /// The object lives until its owner closes the handle, which no other thread may use then.
    #[inline(always)]
    pub(crate) fn find(self, handle: usize) -> Option<*mut c_void> {
        // SAFETY: the mask leaves an entry of the table, which is only changed through its atomics.
        let entry = unsafe { &*self.entry(handle) };
        if !entry.is_named(handle) {
            return None;
        }
        // NULL finds an entry without a handle.
        let object = entry.object();
        if object.is_null() { None } else { Some(object) }
    }

    /// Makes a handle that finds no object yet.
    pub(crate) fn reserve(self) -> Result<usize> {
        let _lock = Lock::enter()?;
        let free = |index: &usize| self.at(*index).is_named(0);
        let index = (FIRST..ENTRIES - 1).find(free).ok_or_else(|| {
            Failure::new(libc::EMFILE, format!("{} handles are open: close some first", ENTRIES - 1 - FIRST))
        })?;
        let uses = USES.fetch_add(1, Ordering::Relaxed);
        let handle = uses << (SHIFT as usize + INDEX_BITS + 2)
            | (self as usize) << (SHIFT as usize + INDEX_BITS)
            | index << SHIFT;
        self.at(index).handle.store(handle, Ordering::Release);
        Ok(handle)
    }

    /// Ends a handle, and returns its object to the one who does.
    pub(crate) fn remove(self, handle: usize) -> Result<*mut c_void> {
        // In a child no handle is valid, and the lock is free.
        let _lock = Lock::enter()?;
        let entry = self.at((handle & MASK) >> SHIFT);
        if handle == 0 || !entry.is_named(handle) {
            return Err(self.bad());
        }
        entry.handle.store(0, Ordering::Release);
        Ok(entry.object.swap(ptr::null_mut(), Ordering::AcqRel))
    }

    /// Takes the object from a handle, which stays reserved, and returns it to the one who does.
    pub(crate) fn unseat(self, handle: usize) -> Result<*mut c_void> {
        let _lock = Lock::enter()?;
        let entry = self.at((handle & MASK) >> SHIFT);
        let is_named = entry.is_named(handle);
        let object =
            if is_named { entry.object.swap(ptr::null_mut(), Ordering::AcqRel) } else { ptr::null_mut() };
        if object.is_null() { Err(self.bad()) } else { Ok(object) }
    }

    /// Returns the object of a valid handle.
    fn look(self, handle: usize) -> Result<*mut c_void> {
        self.find(handle).ok_or_else(|| self.bad())
    }

    /// Makes a handle of a shared object.
    pub(crate) fn share<T>(self, object: Arc<T>) -> Result<usize> {
        let raw: *mut c_void = Arc::into_raw(object).cast_mut().cast();
        let handle = self.reserve().inspect_err(|_| {
            // SAFETY: from `into_raw` just now; no handle has it.
            drop(unsafe { Arc::from_raw(raw.cast::<T>()) });
        })?;
        self.at((handle & MASK) >> SHIFT).set_object(raw);
        Ok(handle)
    }

    /// Returns the shared object of a handle.
    ///
    /// # Safety
    /// All handles of this kind were made by [`share`](Self::share) with this type.
    pub(crate) unsafe fn get<T>(self, handle: usize) -> Result<Arc<T>> {
        // Before the lock: in a forked child this is the answer.
        self.look(handle)?;
        let _lock = Lock::enter()?;
        let raw = self.look(handle)?.cast::<T>().cast_const();
        // SAFETY: the caller promises the type; the handle holds a count while the lock keeps it from being removed.
        unsafe { Arc::increment_strong_count(raw) };
        // SAFETY: the count that was just added.
        Ok(unsafe { Arc::from_raw(raw) })
    }

    /// Ends a handle and returns its shared object.
    ///
    /// # Safety
    /// All handles of this kind were made by [`share`](Self::share) with this type.
    pub(crate) unsafe fn take<T>(self, handle: usize) -> Result<Arc<T>> {
        self.look(handle)?;
        let raw = self.remove(handle)?.cast::<T>().cast_const();
        // SAFETY: the handle's count, which is nobody's now.
        Ok(unsafe { Arc::from_raw(raw) })
    }
}

/// The right to change the tables, for some instructions. A lock of its own, since a child must find it free: it is in
/// the last entry of the first table, which the kernel clears in a child.
struct Lock(&'static AtomicU32);

impl Lock {
    fn word() -> &'static AtomicU32 {
        let entry = &Kind::Heap.at(ENTRIES - 1).object;
        let at: *const AtomicU32 = ptr::from_ref(entry).cast();
        // SAFETY: four aligned bytes of a static that is made of atomics; the last entry is never given out.
        unsafe { &*at }
    }

    fn enter() -> Result<Self> {
        prepare()?;
        let word = Self::word();
        while word.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            std::thread::yield_now();
        }
        Ok(Self(word))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

/// Keeps the tables' pages from forked children, once.
fn prepare() -> Result<()> {
    static READY: AtomicU32 = AtomicU32::new(0);
    if READY.load(Ordering::Acquire) != 0 {
        return Ok(());
    }
    // SAFETY: whole pages of a static without initial bytes, which is private and anonymous memory; the advice changes
    // nothing in this process.
    let result = unsafe { libc::madvise(TABLES.0.get().cast(), size_of::<Tables>(), libc::MADV_WIPEONFORK) };
    if result != 0 {
        return Err(Failure::new(
            libc::ENOTSUP,
            format!(
                "the table of handles can't be kept from forked children: {}",
                std::io::Error::last_os_error()
            ),
        ));
    }
    READY.store(1, Ordering::Release);
    Ok(())
}
