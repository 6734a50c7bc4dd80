//! Keeps this process alive when another process shrinks a file that is mapped here, or takes pages of it back.
//!
//! A file that can't be [sealed](crate::memory::MemoryFile) can be shrunk by its owner, and holes can be punched into one of
//! huge pages. The next access beyond its new end, or to a hole while no huge page is free, raises SIGBUS, which would end
//! this process. A program may install a handler of that signal, which replaces such memory by zeros; the session with the
//! owner ends then.

use super::slots::{Slot, Slots};
use crate::{Error, Result, process::PerProcess};
use nix::errno::Errno;
use std::{
    mem::MaybeUninit,
    ptr::{self, NonNull},
    sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
};

/// Base and length of each range, which the handler reads, with a flag that is set when zeros have replaced it.
static RANGES: Slots<AtomicBool> = Slots::new();
/// Number of ranges lost so far.
static LOSSES: AtomicUsize = AtomicUsize::new(0);
/// The action for SIGBUS before ours; it is never freed.
static BEFORE: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());
/// Set once the handler is installed.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// A mapping that the handler may replace by zeros, until this is dropped.
#[derive(Debug)]
pub(crate) struct Guarded(&'static Slot<AtomicBool>);

impl Guarded {
    /// Adds the range to the handler's list.
    ///
    /// # Safety
    /// The range is one mapping of the caller's, no reference to its bytes is formed, and it stays mapped until this is
    /// dropped.
    pub(crate) unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        let slot = RANGES.take();
        slot.extra.store(false, Ordering::Relaxed);
        slot.set(base.as_ptr().expose_provenance() as u64, len as u64);
        Self(slot)
    }

    /// Returns whether zeros have replaced the mapping.
    pub(crate) fn is_lost(&self) -> bool {
        self.0.extra.load(Ordering::Acquire)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Returns the number of mappings lost so far in this process, to be compared with an earlier one.
pub(crate) fn losses() -> usize {
    LOSSES.load(Ordering::Relaxed)
}

/// Returns whether [`survive_shrinking`] was called.
pub(crate) fn is_installed() -> bool {
    INSTALLED.load(Ordering::Acquire)
}

/// Installs a handler of SIGBUS for the whole process, for good.
///
/// When another process shrinks memory that is mapped here, or takes huge pages of it back, the handler replaces it by zeros;
/// without it, the next access would end this process. It covers clients' memory in a vfio-user server and the server's
/// memory in a client; the session ends then. It does not cover this process's own memory, or memory that was
/// [imported](crate::memory::Memory::import). SIGBUS of any other cause has its former effect.
///
/// Programs call this, not libraries: signal handlers belong to the process. Call it before a device is opened or served:
/// unsealable memory and huge pages of the other side are mapped only while the handler is installed, and refused otherwise.
///
/// # Errors
/// The system's errors.
pub fn survive_shrinking() -> Result<()> {
    static INSTALL: PerProcess<()> = PerProcess::new();
    let _one = INSTALL.lock();
    if is_installed() {
        return Ok(());
    }
    let fail = |errno| Error::os("SIGBUS", "installing its handler", errno);
    let mut before = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only reads the current action, into memory large enough for it.
    let asked = unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), before.as_mut_ptr()) };
    Errno::result(asked).map_err(fail)?;
    // SAFETY: the successful call filled it in.
    let mut action = unsafe { before.assume_init() };
    // A child that was forked in the midst of its parent's call inherits the action before, and maybe the handler.
    if BEFORE.load(Ordering::Acquire).is_null() {
        BEFORE.store(Box::leak(Box::new(action)), Ordering::Release);
    }
    action.sa_sigaction = on_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler makes system calls and atomic accesses only, on data that is never freed.
    Errno::result(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) })
        .map_err(fail)?;
    INSTALLED.store(true, Ordering::Release);
    Ok(())
}

extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let errno = Errno::last_raw();
    // SAFETY: the kernel passes a handler with SA_SIGINFO a valid description.
    let info = unsafe { &*info };
    // SAFETY: a SIGBUS description has an address.
    let address = unsafe { info.si_addr() }.addr();
    if !replace(address) {
        // When the handler returns, the access is repeated, and the former action decides.
        let before = BEFORE.load(Ordering::Acquire);
        // SAFETY: restores the action that the system returned, which was kept before the handler was installed.
        unsafe { libc::sigaction(libc::SIGBUS, before, ptr::null_mut()) };
    }
    Errno::set_raw(errno);
}

/// Replaces the guarded mapping around `address` by zeros; `false` if no mapping there is guarded.
fn replace(address: usize) -> bool {
    for slot in RANGES.iter() {
        let Some((base, len)) = slot.get().map(|(base, len)| (base as usize, len as usize)) else { continue };
        if address.wrapping_sub(base) >= len {
            continue;
        }
        let at = ptr::with_exposed_provenance_mut(base);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: `base` and `len` are one whole mapping whose owner allows this replacement (`Guarded::new`). Part
        // of a huge page could not be replaced.
        let new = unsafe { libc::mmap(at, len, access, flags, -1, 0) };
        if new == libc::MAP_FAILED {
            return false;
        }
        slot.extra.store(true, Ordering::Release);
        LOSSES.fetch_add(1, Ordering::Release);
        return true;
    }
    false
}
