//! Keeps this process alive when another process shrinks a file that is mapped here.
//!
//! A file that can't be [sealed](crate::memory::MemoryFile) can be shrunk by its owner. The next access beyond its new
//! end raises SIGBUS, which would end this process. A program may install a handler of that signal, which replaces such
//! memory by zeros; the session with the owner ends then.

use crate::{Error, Result, process::Owner};
use nix::errno::Errno;
use std::{
    mem::MaybeUninit,
    ptr::NonNull,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence},
    },
};

/// An entry of the list that the handler walks. It is never freed, but reused.
#[derive(Debug)]
struct Slot {
    /// Odd while the range changes: the handler passes over such a slot.
    version: AtomicU32,
    base: AtomicUsize,
    len: AtomicUsize,
    lost: AtomicBool,
    next: *const Slot,
}

// SAFETY: `next` is written before the slot is published and never again; all else is atomic.
unsafe impl Send for Slot {}
// SAFETY: `next` is written before the slot is published and never again; all else is atomic.
unsafe impl Sync for Slot {}

/// The newest slot, head of the list.
static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(std::ptr::null_mut());
/// Slots without a range, for reuse.
static FREE: Mutex<Vec<&'static Slot>> = Mutex::new(Vec::new());
/// Number of ranges lost so far.
static LOSSES: AtomicUsize = AtomicUsize::new(0);
/// The action for SIGBUS before ours.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

impl Slot {
    fn set(&self, base: usize, len: usize) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.base.store(base, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// Returns base and length if `address` is within.
    fn around(&self, address: usize) -> Option<(usize, usize)> {
        let version = self.version.load(Ordering::Acquire);
        let (base, len) = (self.base.load(Ordering::Relaxed), self.len.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let stable = version % 2 == 0 && version == self.version.load(Ordering::Relaxed);
        (stable && address.wrapping_sub(base) < len).then_some((base, len))
    }
}

/// A mapping that the handler may replace by zeros, until this is dropped.
#[derive(Debug)]
pub(crate) struct Guarded(&'static Slot, Owner);

impl Guarded {
    /// Adds the range to the handler's list.
    ///
    /// # Safety
    /// The range is one mapping of the caller's, no reference to its bytes is formed, and it stays mapped until this is
    /// dropped.
    pub(crate) unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let slot = free.unwrap_or_else(publish);
        slot.lost.store(false, Ordering::Relaxed);
        slot.set(base.as_ptr().expose_provenance(), len);
        Self(slot, Owner::current())
    }

    /// Returns whether zeros have replaced the mapping.
    pub(crate) fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Acquire)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.set(0, 0);
        if let Some(mut free) = self.1.lock(&FREE) {
            free.push(self.0);
        }
    }
}

/// Adds a new slot at the head of the list.
fn publish() -> &'static Slot {
    let slot = Box::leak(Box::new(Slot {
        version: AtomicU32::new(0),
        base: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
        next: std::ptr::null(),
    }));
    let mut head = SLOTS.load(Ordering::Relaxed);
    loop {
        slot.next = head;
        match SLOTS.compare_exchange_weak(head, slot, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return slot,
            Err(other) => head = other,
        }
    }
}

/// Returns the number of mappings lost so far in this process, to be compared with an earlier one.
pub(crate) fn losses() -> usize {
    LOSSES.load(Ordering::Relaxed)
}

/// Returns whether [`survive_shrinking`] was called.
pub(crate) fn is_installed() -> bool {
    BEFORE.get().is_some()
}

/// Installs a handler of SIGBUS for the whole process, for good.
///
/// When another process shrinks memory that is mapped here, the handler replaces it by zeros; without it, the next access
/// would end this process. It covers clients' memory in a vfio-user server and the server's memory in a client; the
/// session ends then. SIGBUS of any other cause has its former effect.
///
/// Programs call this, not libraries: signal handlers belong to the process. Call it before a device is opened or served:
/// unsealable memory of the other side is mapped only while the handler is installed, and refused otherwise.
///
/// # Errors
/// The system's errors.
pub fn survive_shrinking() -> Result<()> {
    static INSTALL: Mutex<()> = Mutex::new(());
    let _one = INSTALL.lock().unwrap_or_else(PoisonError::into_inner);
    if is_installed() {
        return Ok(());
    }
    let fail = |errno| Error::os("SIGBUS", "installing its handler", errno);
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only reads the current action, into memory large enough for it.
    let asked = unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), before.as_mut_ptr()) };
    Errno::result(asked).map_err(fail)?;
    // SAFETY: the successful call filled it in.
    let before = *BEFORE.get_or_init(|| unsafe { before.assume_init() });
    let mut action = before;
    action.sa_sigaction = on_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler makes system calls and atomic accesses only, on data that is never freed.
    Errno::result(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) })
        .map_err(fail)?;
    Ok(())
}

extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let errno = Errno::last_raw();
    // SAFETY: the kernel passes a handler with SA_SIGINFO a valid description.
    let info = unsafe { &*info };
    // SAFETY: a SIGBUS description has an address.
    let address = unsafe { info.si_addr() }.addr();
    if !replace(address) {
        if let Some(before) = BEFORE.get() {
            // When the handler returns, the access is repeated, and the former action decides.
            // SAFETY: restores the action that the system returned.
            unsafe { libc::sigaction(libc::SIGBUS, before, std::ptr::null_mut()) };
        }
    }
    Errno::set_raw(errno);
}

/// Replaces the guarded mapping around `address` by zeros; `false` if no mapping there is guarded.
fn replace(address: usize) -> bool {
    let mut next: *const Slot = SLOTS.load(Ordering::Acquire);
    // SAFETY: `next` points to a slot of the list, and slots are never freed.
    while let Some(slot) = unsafe { next.as_ref() } {
        if let Some((base, len)) = slot.around(address) {
            let at = std::ptr::with_exposed_provenance_mut(base);
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
            // SAFETY: `base` and `len` are one whole mapping whose owner allows this replacement (`Guarded::new`). Part
            // of a huge page could not be replaced.
            let new = unsafe { libc::mmap(at, len, access, flags, -1, 0) };
            if new == libc::MAP_FAILED {
                return false;
            }
            slot.lost.store(true, Ordering::Release);
            LOSSES.fetch_add(1, Ordering::Release);
            return true;
        }
        next = slot.next;
    }
    false
}
