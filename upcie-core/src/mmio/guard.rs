//! Survives memory of another process that shrinks while it is mapped.
//!
//! A file that can't be [sealed](crate::memory::MemoryFile) is its owner's to shrink. The next access beyond its new end raises
//! SIGBUS, which ends a process: the owner's peer, and not the owner. A program may ask for a handler of that signal, which
//! puts zeros where such memory was; the session with the owner ends then.

use crate::{Error, Result};
use nix::errno::Errno;
use std::{
    mem::MaybeUninit,
    ptr::NonNull,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence},
    },
};

/// A place in the list that the handler walks. It is never freed, but used again.
#[derive(Debug)]
struct Slot {
    /// Odd while the range changes: such a slot is nobody's, so the handler passes over it.
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

/// The newest slot.
static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(std::ptr::null_mut());
/// Slots without a range.
static FREE: Mutex<Vec<&'static Slot>> = Mutex::new(Vec::new());
/// How many ranges were lost.
static LOSSES: AtomicUsize = AtomicUsize::new(0);
/// What SIGBUS did before.
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

    /// Base and length, if `address` is within.
    fn around(&self, address: usize) -> Option<(usize, usize)> {
        let version = self.version.load(Ordering::Acquire);
        let (base, len) = (self.base.load(Ordering::Relaxed), self.len.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let stable = version % 2 == 0 && version == self.version.load(Ordering::Relaxed);
        (stable && address.wrapping_sub(base) < len).then_some((base, len))
    }
}

/// A mapping that the handler may replace by zeros, from now until it is dropped.
#[derive(Debug)]
pub(crate) struct Guarded(&'static Slot);

impl Guarded {
    /// # Safety
    /// All of the range is one mapping of the caller's, from whose bytes no reference is formed, and it stays mapped until
    /// this is dropped.
    pub(crate) unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let slot = free.unwrap_or_else(publish);
        slot.lost.store(false, Ordering::Relaxed);
        slot.set(base.as_ptr().expose_provenance(), len);
        Self(slot)
    }

    /// Whether it was replaced by zeros.
    pub(crate) fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Acquire)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.set(0, 0);
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
    }
}

/// A new slot at the head of the list.
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

/// How many mappings were lost so far in this process: a number to compare with an earlier one.
pub(crate) fn losses() -> usize {
    LOSSES.load(Ordering::Relaxed)
}

/// Whether [`survive_shrinking`] was called.
pub(crate) fn is_installed() -> bool {
    BEFORE.get().is_some()
}

/// Installs a handler of SIGBUS, for the whole process and for good: memory of other processes that these shrink while it is
/// mapped here turns into zeros, where an access would end the process otherwise. It covers what a vfio-user server maps
/// of its clients and a client of its server, whose session ends then. SIGBUS of any other cause does what it did before.
///
/// For programs, not for libraries: signal handlers are the process's. Where it is installed, memory of the other side that
/// can't be sealed is mapped, which is refused otherwise: call it before a device is opened or served.
///
/// # Errors
/// The system's.
pub fn survive_shrinking() -> Result<()> {
    static INSTALL: Mutex<()> = Mutex::new(());
    let _one = INSTALL.lock().unwrap_or_else(PoisonError::into_inner);
    if is_installed() {
        return Ok(());
    }
    let fail = |errno| Error::os("SIGBUS", "installing its handler", errno);
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only; there is room for the answer.
    let asked = unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), before.as_mut_ptr()) };
    Errno::result(asked).map_err(fail)?;
    // SAFETY: the call above has filled it in.
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
    // SAFETY: the kernel hands a handler with SA_SIGINFO a valid description.
    let info = unsafe { &*info };
    // SAFETY: SIGBUS has an address.
    let address = unsafe { info.si_addr() }.addr();
    if !replace(address) {
        if let Some(before) = BEFORE.get() {
            // The access is made again when this returns, and then what was in place before decides.
            // SAFETY: restores what the system gave.
            unsafe { libc::sigaction(libc::SIGBUS, before, std::ptr::null_mut()) };
        }
    }
    Errno::set_raw(errno);
}

/// Puts zeros in place of the mapping around `address`, if it is a guarded one.
fn replace(address: usize) -> bool {
    let mut next: *const Slot = SLOTS.load(Ordering::Acquire);
    // SAFETY: a slot of the list, which is never freed.
    while let Some(slot) = unsafe { next.as_ref() } {
        if let Some((base, len)) = slot.around(address) {
            let at = std::ptr::with_exposed_provenance_mut(base);
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
            // SAFETY: all of it is a mapping of its owner's that the owner lets be replaced (`Guarded::new`). The whole of it,
            // for a part of huge pages can't be.
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
