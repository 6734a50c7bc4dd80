//! A lock that is waited for with a deadline.

use super::lock;
use crate::Patience;
use std::{
    ops::{Deref, DerefMut},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long a sleep is, so that each counts in full for a [`Patience`].
const NAP: Duration = Duration::from_millis(100);

/// A value that one thread has at a time.
#[derive(Debug, Default)]
pub(crate) struct Gate<T> {
    taken: Mutex<bool>,
    left: Condvar,
    value: Mutex<T>,
}

/// The value, until this is dropped.
#[derive(Debug)]
pub(crate) struct Pass<'g, T> {
    gate: &'g Gate<T>,
    /// `None` while it is dropped.
    value: Option<MutexGuard<'g, T>>,
}

impl<T> Gate<T> {
    /// Waits for the value; `None` when `patience` has waited for `limit` in all.
    pub(crate) fn enter(&self, patience: &mut Patience, limit: Duration) -> Option<Pass<'_, T>> {
        let mut taken = lock(&self.taken);
        while *taken {
            let left = limit.saturating_sub(patience.waited());
            if left.is_zero() {
                return None;
            }
            let slept = self.left.wait_timeout(taken, left.min(NAP));
            taken = slept.unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken = true;
        drop(taken);
        Some(Pass { gate: self, value: Some(lock(&self.value)) })
    }
}

impl<T> Deref for Pass<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("there until the drop")
    }
}

impl<T> DerefMut for Pass<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("there until the drop")
    }
}

impl<T> Drop for Pass<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        *lock(&self.gate.taken) = false;
        self.gate.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, thread};

    /// Soundness finding 5: a call's deadline holds while another thread's call is under way.
    #[test]
    fn it_is_waited_for_no_longer_than_asked() {
        let gate = Arc::new(Gate::<u32>::default());
        let mut first = gate.enter(&mut Patience::new(), Duration::ZERO).unwrap();
        *first += 1;
        assert!(gate.enter(&mut Patience::new(), Duration::from_millis(20)).is_none());
        let second = thread::spawn({
            let gate = gate.clone();
            move || gate.enter(&mut Patience::new(), Duration::from_secs(60)).map(|pass| *pass)
        });
        drop(first);
        assert_eq!(second.join().unwrap(), Some(1));
    }
}
