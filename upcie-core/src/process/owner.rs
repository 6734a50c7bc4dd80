//! Which process a handle belongs to, and words that a forked child does not inherit.

use crate::{Error, Result, events::emit};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use std::{
    ffi::c_void,
    num::NonZeroUsize,
    ops::Deref,
    ptr::{self, NonNull},
    sync::atomic::{AtomicPtr, AtomicU64, Ordering},
};

/// The process that made a handle.
///
/// A process is told by a mark in memory that the kernel clears in a child, whether fork(2) or clone(2) made it. Its id would not do:
/// in another pid namespace a child can have the id of its parent, 1 above all. A child that shares its parent's
/// memory (vfork(2), CLONE_VM) is the same process here, as a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(u64);

impl Owner {
    /// The calling process. Calls the system the first time only.
    pub fn current() -> Self {
        Self(mark())
    }

    /// Whether the calling process made the handle: `false` in a child that was forked since.
    pub fn is_current(self) -> bool {
        self == Self::current()
    }

    /// Refuses `operation` on `device` in a child that was forked since.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn check(self, device: &str, operation: &str) -> Result<()> {
        if self.is_current() {
            return Ok(());
        }
        Err(Error::Forked { device: device.into(), operation: operation.into() })
    }
}

/// A 64-bit word that reads as 0 in a forked child (MADV_WIPEONFORK of madvise(2)): one load tells a child from the process
/// that made it.
#[derive(Debug)]
pub struct ProcessWord(NonNull<AtomicU64>);

// SAFETY: an atomic in memory of its own, which lives until the value is dropped.
unsafe impl Send for ProcessWord {}
// SAFETY: an atomic may be used by several threads.
unsafe impl Sync for ProcessWord {}

/// Bytes mapped for a word; the kernel rounds up to a page.
const LEN: NonZeroUsize = NonZeroUsize::new(size_of::<AtomicU64>()).unwrap();

impl ProcessWord {
    /// A word with `value` in it, in a page of its own.
    ///
    /// # Errors
    /// [`Error::Memory`] when there is no page, or the kernel is older than 4.14, which has no MADV_WIPEONFORK.
    pub fn new(value: u64) -> Result<Self> {
        let failed = |errno: nix::errno::Errno| Error::Memory {
            what: "a page that a forked child does not inherit".into(),
            reason: "the system is out of memory or mappings (vm.max_map_count), or older than Linux 4.14"
                .into(),
            source: errno.into(),
        };
        let (protection, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing existing is replaced.
        let base = unsafe { mmap_anonymous(None, LEN, protection, flags) }.map_err(failed)?;
        let word = Self(base.cast());
        // SAFETY: the page just mapped, which nobody else has; its bytes stay as they are in this process.
        unsafe { madvise(base, LEN.get(), MmapAdvise::MADV_WIPEONFORK) }.map_err(failed)?;
        word.store(value, Ordering::Release);
        Ok(word)
    }

    /// Where the word is, for as long as `self` lives.
    pub fn as_ptr(&self) -> NonNull<AtomicU64> {
        self.0
    }
}

impl Deref for ProcessWord {
    type Target = AtomicU64;

    fn deref(&self) -> &AtomicU64 {
        // SAFETY: aligned to a page, and mapped until `self` is dropped. The kernel clears it only in a child, before
        // that runs.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for ProcessWord {
    fn drop(&mut self) {
        let base: NonNull<c_void> = self.0.cast();
        // SAFETY: mapped by `new` with this length; whoever has a pointer to it keeps `self`.
        if let Err(error) = unsafe { munmap(base, LEN.get()) } {
            emit(move || tracing::error!(%error, "unmapping the word of a process"));
        }
    }
}

/// The calling process's mark.
fn mark() -> u64 {
    /// The process's word, once there is one; a forked child inherits the pointer. No lock: the thread that holds one
    /// while another forks is not there in the child to give it back.
    static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
    /// In place of a word where there can't be one.
    static NONE: AtomicU64 = AtomicU64::new(0);
    let mut word = WORD.load(Ordering::Acquire);
    if word.is_null() {
        let new = ProcessWord::new(0);
        let ours = match &new {
            Ok(new) => new.0.as_ptr(),
            Err(error) => {
                tracing::warn!(%error, "forked children are told from this process by their ids alone");
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
    // SAFETY: the word of a `ProcessWord` that was forgotten, so that it stays mapped.
    mark_in(unsafe { &*word })
}

/// The mark in `word`, which is given a new one where it is 0: in a process that has not asked yet.
fn mark_in(word: &AtomicU64) -> u64 {
    /// Inherited by children as it is: so the mark of a child is none that a process before it had.
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

    /// Runs `work` in a child that clone(2) makes with `flags`, and gives what it exits with; `None` where the system
    /// makes no such child.
    fn in_clone(flags: libc::c_int, work: impl FnOnce() -> bool) -> Option<bool> {
        // SAFETY: without CLONE_VM and a stack this is fork(2). The child calls no allocator and takes no lock before it exits.
        let child = unsafe { libc::syscall(libc::SYS_clone, i64::from(flags | SIGCHLD), 0, 0, 0, 0) };
        if child == 0 {
            let good = work();
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(if good { 0 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: waits for the child just made.
        (child > 0).then(|| unsafe { libc::waitpid(child as i32, &raw mut status, 0) })?;
        Some(status == 0)
    }

    #[test]
    fn a_child_of_fork_or_clone_is_another_process() {
        let owner = Owner::current();
        assert!(owner.is_current());
        let word = ProcessWord::new(7).unwrap();
        let strange = || {
            let me = Owner::current();
            // The child's own child is a stranger to both.
            let below = in_clone(0, || !me.is_current() && !owner.is_current());
            !owner.is_current() && me.is_current() && word.load(Ordering::Relaxed) == 0 && below == Some(true)
        };
        assert_eq!(in_clone(0, strange), Some(true));
        assert_eq!(word.load(Ordering::Relaxed), 7);
        assert!(owner.is_current(), "the parent is who it was");
    }

    /// Soundness R3: ids are compared in vain where both processes are the first of their pid namespaces.
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
            None => println!("left out: this user may make no pid namespace"),
        }
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
