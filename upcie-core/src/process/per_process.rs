//! Values that the threads of one process share, and that a forked child does not wait for.

use super::Owner;
use std::{
    fmt, ptr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicPtr, Ordering},
    },
};

/// A static value behind a lock, of which each process has its own: a forked child begins with `T::default()`.
///
/// A child inherits a copy of its parent's memory. If another thread held a [`Mutex`] at the fork, nobody releases it in the
/// child. So the child does not touch its parent's value; it makes its own when it first wants it.
///
/// ```
/// use upcie_core::process::PerProcess;
/// static NAMES: PerProcess<Vec<String>> = PerProcess::new();
/// NAMES.lock().push("one".into());
/// assert_eq!(*NAMES.lock(), ["one"]);
/// ```
pub struct PerProcess<T: 'static> {
    /// The value of the newest process, which is the only one that runs here.
    newest: AtomicPtr<Value<T>>,
}

/// A value with its lock. It is never freed: a child's copy of it may be in use by a thread that the child does not have.
struct Value<T> {
    owner: Owner,
    value: Mutex<T>,
}

impl<T: Default + Send> PerProcess<T> {
    /// Makes a value that no process has used.
    pub const fn new() -> Self {
        Self { newest: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Locks the calling process's value. Waits only for threads of this process. A lock that a panic has poisoned is taken all
    /// the same.
    pub fn lock(&self) -> MutexGuard<'static, T> {
        let owner = Owner::current();
        let mut newest = self.newest.load(Ordering::Acquire);
        loop {
            // SAFETY: null, or a value that was complete before it was published, and is never freed.
            if let Some(ours) = unsafe { newest.as_ref() }.filter(|value| value.owner == owner) {
                return ours.value.lock().unwrap_or_else(PoisonError::into_inner);
            }
            let new = Box::into_raw(Box::new(Value { owner, value: Mutex::new(T::default()) }));
            match self.newest.compare_exchange(newest, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => newest = new,
                Err(others) => {
                    // SAFETY: the box was just made, and was not published.
                    drop(unsafe { Box::from_raw(new) });
                    newest = others;
                }
            }
        }
    }
}

impl<T: Default + Send> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for PerProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerProcess").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_child;
    use std::thread;

    /// A child that opened a device hung now and then: a thread of its parent had a list at the fork.
    #[test]
    fn a_child_does_not_wait_for_its_parents_threads() {
        static LIST: PerProcess<Vec<i32>> = PerProcess::new();
        let mut held = LIST.lock();
        held.push(1);
        let code = in_child(|| {
            let fresh = LIST.lock().is_empty();
            LIST.lock().push(7);
            // A grandchild neither has its list nor waits for it.
            let held = LIST.lock();
            let below = in_child(|| i32::try_from(LIST.lock().len()).unwrap_or(-1));
            if fresh && below == Some(0) && *held == [7] { 0 } else { 1 }
        });
        assert_eq!(code, Some(0));
        assert_eq!(*held, [1], "the parent's list is as before");
    }

    #[test]
    fn threads_share_one_value() {
        static COUNT: PerProcess<u32> = PerProcess::new();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..100).for_each(|_| *COUNT.lock() += 1));
            }
        });
        assert_eq!(*COUNT.lock(), 800);
    }
}
