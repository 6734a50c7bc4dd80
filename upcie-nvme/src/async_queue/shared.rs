//! The state that an asynchronous queue, its futures and its driver share, in one thread.

use super::inner::Inner;
use crate::Result;
use std::{
    cell::{Cell, RefCell, RefMut},
    mem,
    task::{Context, Waker},
};

#[derive(Debug)]
pub(super) struct Shared {
    inner: RefCell<Inner>,
    /// The queue's handles in this thread: clones of the `AsyncQueue`.
    users: Cell<usize>,
}

impl Shared {
    pub(super) fn new(inner: Inner) -> Self {
        Self { inner: RefCell::new(inner), users: Cell::new(0) }
    }

    /// Borrows the state; `None` in a call from within another one: from a subscriber of the log, or a program's clock.
    #[inline]
    pub(super) fn borrow(&self) -> Option<RefMut<'_, Inner>> {
        self.inner.try_borrow_mut().ok()
    }

    pub(super) fn add_user(&self) {
        self.users.set(self.users.get() + 1);
    }

    pub(super) fn drop_user(&self) {
        self.users.set(self.users.get() - 1);
        self.rouse_if_unused();
    }

    /// Wakes the driver if it has nothing left to do.
    #[inline]
    pub(super) fn rouse_if_unused(&self) {
        if self.users.get() == 0 {
            self.rouse();
        }
    }

    /// Wakes the driver if it sleeps.
    #[inline]
    pub(super) fn rouse(&self) {
        let waker = self.borrow().and_then(|mut inner| inner.sleeping.take());
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Returns `true` if no command is left, and none can come.
    pub(super) fn is_unused(&self) -> bool {
        let has_work = |inner: RefMut<'_, Inner>| {
            inner.table.live() > 0 || inner.remote.as_ref().is_some_and(|remote| remote.has_handles())
        };
        self.users.get() == 0 && !self.borrow().is_some_and(has_work)
    }

    /// Calls `change`, then wakes the tasks whose commands ended. A task may run at once, and use the queue.
    #[inline]
    pub(super) fn with<R>(&self, change: impl FnOnce(&mut Inner) -> R) -> Option<R> {
        let mut inner = self.borrow()?;
        let result = change(&mut inner);
        if inner.woken.is_empty() {
            return Some(result);
        }
        let mut woken = mem::take(&mut inner.woken);
        drop(inner);
        woken.drain(..).for_each(Waker::wake);
        if let Some(mut inner) = self.borrow() {
            if inner.woken.is_empty() {
                inner.woken = woken;
            }
        }
        Some(result)
    }

    /// Reaps and submits; returns the number of commands that ended.
    #[inline]
    pub(super) fn progress(&self) -> Result<usize> {
        self.with(Inner::turn).unwrap_or(Ok(0))
    }

    /// Notes that the driver's task is about to sleep. Returns `false` if a request came meanwhile.
    pub(super) fn sleep(&self, cx: &Context<'_>) -> bool {
        let Some(mut inner) = self.borrow() else { return true };
        let keeps = inner.sleeping.as_ref().is_some_and(|before| before.will_wake(cx.waker()));
        let before = if keeps { None } else { inner.sleeping.replace(cx.waker().clone()) };
        let sleeps = inner.remote.as_ref().is_none_or(|remote| remote.sleep(cx.waker()));
        drop(inner);
        drop(before);
        sleeps
    }
}
