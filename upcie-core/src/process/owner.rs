//! The process that owns a handle, and words that a forked child does not inherit.

use crate::{Error, Result, events::emit};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use std::{
    ffi::c_void,
    num::NonZeroUsize,
    ops::Deref,
    ptr::{self, NonNull},
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicPtr, AtomicU64, Ordering},
    },
};

/// The process that made a handle.
///
/// A process is identified by a mark in memory that the kernel clears in a child, whether fork(2) or clone(2) made it.
/// The process id would not do: in another pid namespace a child can have the id of its parent, above all 1. A child that
/// shares its parent's memory (vfork(2), CLONE_VM) counts as the same process, as a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(u64);

impl Owner {
    /// Returns the calling process. Only the first call makes system calls.
    pub fn current() -> Self {
        Self(mark())
    }

    /// Returns whether the calling process made the handle: `false` in a child that was forked since.
    pub fn is_current(self) -> bool {
        self == Self::current()
    }

    /// Refuses `operation` on `device` in a child that was forked since.
    ///
    /// # Errors
    /// [`Failure::Forked`](crate::Failure::Forked).
    pub fn check(self, device: &str, operation: &str) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        Err(Error::forked(device, operation))
    }

    /// Locks what threads of this process share, to take something back that the owner has taken. Returns `None` in a forked child if
    /// another thread held the lock at the fork: that thread is not in the child, and would never release it.
    pub(crate) fn lock<T>(self, shared: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        match shared.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if !self.is_current() => None,
            Err(TryLockError::WouldBlock) => Some(shared.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

/// A 64-bit word that reads as 0 in a forked child (MADV_WIPEONFORK of madvise(2)): one load distinguishes a child from
/// the process that made the word.
#[derive(Debug)]
pub struct ProcessWord(NonNull<AtomicU64>);

// SAFETY: an atomic in its own memory, which lives until the value is dropped.
unsafe impl Send for ProcessWord {}
// SAFETY: several threads may use an atomic.
unsafe impl Sync for ProcessWord {}

/// Bytes mapped for a word; the kernel rounds up to a page.
const LEN: NonZeroUsize = NonZeroUsize::new(size_of::<AtomicU64>()).unwrap();

impl ProcessWord {
    /// Makes a word with the given value, in its own page.
    ///
    /// # Errors
    /// [`Failure::Memory`](crate::Failure::Memory) when no page is available, or the kernel is older than 4.14, which has no MADV_WIPEONFORK.
    pub fn new(value: u64) -> Result<Self> {
        let failed = |errno: nix::errno::Errno| {
            Error::memory(
                "a page that a forked child does not inherit",
                "the system is out of memory or mappings (vm.max_map_count), or older than Linux 4.14",
                errno,
            )
        };
        let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: a new mapping at an address that the kernel chooses replaces nothing.
        let base = unsafe { mmap_anonymous(None, LEN, protection, flags) }.map_err(failed)?;
        let word = Self(base.cast());
        // SAFETY: nobody else has the page just mapped, and its bytes do not change in this process.
        unsafe { madvise(base, LEN.get(), MmapAdvise::MADV_WIPEONFORK) }.map_err(failed)?;
        word.store(value, Ordering::Release);
        Ok(word)
    }

    /// Returns the word's address, valid while `self` lives.
    pub fn as_ptr(&self) -> NonNull<AtomicU64> {
        self.0
    }
}

impl Deref for ProcessWord {
    type Target = AtomicU64;

    fn deref(&self) -> &AtomicU64 {
        // SAFETY: it is aligned to a page, and mapped until `self` is dropped. The kernel clears it only in a child,
        // before the child runs.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for ProcessWord {
    fn drop(&mut self) {
        let base: NonNull<c_void> = self.0.cast();
        // SAFETY: `new` made the mapping with this length; every holder of a pointer to it keeps `self`.
        if let Err(error) = unsafe { munmap(base, LEN.get()) } {
            emit(move || tracing::error!(%error, "unmapping the word of a process failed"));
        }
    }
}

/// Returns the calling process's mark.
fn mark() -> u64 {
    /// The process's word, once it exists; a forked child inherits the pointer. A lock would not do: if another thread
    /// holds it during a fork, nobody releases it in the child.
    static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
    /// Stands for a word if none can be made.
    static NONE: AtomicU64 = AtomicU64::new(0);
    let mut word = WORD.load(Ordering::Acquire);
    if word.is_null() {
        let new = ProcessWord::new(0);
        let ours = match &new {
            Ok(new) => new.0.as_ptr(),
            Err(error) => {
                tracing::warn!(%error, "forked children are distinguished from this process only by their ids");
                (&raw const NONE).cast_mut()
            }
        };
        match WORD.compare_exchange(ptr::null_mut(), ours, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                std::mem::forget(new);
                word = ours;
            }
            Err(others) => word = others,
        }
    }
    if ptr::eq(word, &raw const NONE) {
        return u64::from(std::process::id());
    }
    // SAFETY: the `ProcessWord` was forgotten, so that its word stays mapped.
    mark_in(unsafe { &*word })
}

/// Returns the mark in `word`. A word of 0 gets a new mark first: its process has none yet.
fn mark_in(word: &AtomicU64) -> u64 {
    /// Children inherit its value, so the mark of a child differs from those of its ancestors.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    match word.load(Ordering::Acquire) {
        0 => {
            let new = NEXT.fetch_add(1, Ordering::Relaxed);
            word.compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire).map_or_else(|now| now, |_| new)
        }
        mark => mark,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::{CLONE_NEWPID, CLONE_NEWUSER, SIGCHLD};

    /// Runs `work` in a child that clone(2) makes with `flags`, and returns whether it succeeded; `None` if the system
    /// can't make such a child.
    fn in_clone(flags: libc::c_int, work: impl FnOnce() -> bool) -> Option<bool> {
        // SAFETY: without CLONE_VM and a stack this is fork(2). The child calls no allocator and takes no lock before it
        // exits.
        let child = unsafe { libc::syscall(libc::SYS_clone, i64::from(flags | SIGCHLD), 0, 0, 0, 0) };
        if child == 0 {
            let good = work();
            // SAFETY: exits the child without the parent's exit handlers.
            unsafe { libc::_exit(if good { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child process made here.
        (child > 0).then(|| unsafe { libc::waitpid(child as i32, &raw mut status, 0) })?;
        Some(status == 0)
    }

    #[test]
    fn a_child_of_fork_or_clone_is_another_process() {
        let owner = Owner::current();
        assert!(owner.is_current());
        let word = ProcessWord::new(7).unwrap();
        let is_foreign = || {
            let me = Owner::current();
            // The child's own child differs from both.
            let below = in_clone(0, || !me.is_current() && !owner.is_current());
            !owner.is_current() && me.is_current() && word.load(Ordering::Relaxed) == 0 && below == Some(true)
        };
        assert_eq!(in_clone(0, is_foreign), Some(true));
        assert_eq!(word.load(Ordering::Relaxed), 7);
        assert!(owner.is_current(), "the parent has not changed");
    }

    /// Soundness R3: ids are equal if both processes are the first of their pid namespaces.
    #[test]
    fn a_child_with_its_parents_id_is_another_process() {
        let nested = |user: libc::c_int| {
            in_clone(CLONE_NEWPID | user, || {
                let (owner, id) = (Owner::current(), std::process::id());
                let below = || id == std::process::id() && !owner.is_current();
                id == 1 && in_clone(CLONE_NEWPID, below) == Some(true)
            })
        };
        match nested(0).or_else(|| nested(CLONE_NEWUSER)) {
            Some(good) => assert!(good),
            None => println!("skipped: this user may not make a pid namespace"),
        }
    }

    /// A child's drops hung now and then: a thread of the parent had a list at the fork.
    #[test]
    fn a_child_does_not_wait_for_a_lock_of_its_parents_threads() {
        let (owner, list) = (Owner::current(), Mutex::new(()));
        let held = list.lock().unwrap();
        let child = || {
            // SAFETY: the signal ends a child that waits for ever.
            unsafe { libc::alarm(10) };
            owner.lock(&list).is_none()
        };
        assert_eq!(in_clone(0, child), Some(true));
        drop(held);
        assert_eq!(in_clone(0, || owner.lock(&list).is_some()), Some(true), "a free list is taken");
        assert!(owner.lock(&list).is_some());
    }

    #[test]
    fn threads_are_the_same_process() {
        let word = ProcessWord::new(0).unwrap();
        let marks: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (Owner::current(), mark_in(&word)))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(marks.iter().all(|(owner, mark)| owner.is_current() && *mark == marks[0].1), "{marks:?}");
    }
}
