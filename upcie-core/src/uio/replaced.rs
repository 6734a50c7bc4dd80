//! A value that is replaced while others look at it.

use crate::Result;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A value that threads replace in turn. Dropping it may take seconds, which nobody waits for who only looks whether there is
/// one.
#[derive(Debug)]
pub(super) struct Replaced<T> {
    value: Mutex<Option<T>>,
    turn: Mutex<()>,
}

impl<T> Default for Replaced<T> {
    fn default() -> Self {
        Self { value: Mutex::new(None), turn: Mutex::new(()) }
    }
}

impl<T> Replaced<T> {
    /// Drops the value, and keeps what `make` makes after that. Returns the turn: other threads replace the value after it was
    /// dropped.
    ///
    /// # Errors
    /// The error of `make`: there is no value.
    pub(super) fn replace(&self, make: impl FnOnce() -> Result<Option<T>>) -> Result<MutexGuard<'_, ()>> {
        let turn = lock(&self.turn);
        let before = lock(&self.value).take();
        drop(before);
        let made = make()?;
        *lock(&self.value) = made;
        Ok(turn)
    }

    /// Returns `true` if there is a value.
    pub(super) fn is_set(&self) -> bool {
        lock(&self.value).is_some()
    }

    /// Takes the value, without a lock.
    pub(super) fn take(&mut self) -> Option<T> {
        self.value.get_mut().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::mpsc::{Receiver, Sender, channel},
        thread,
        time::Duration,
    };

    const LONG: Duration = Duration::from_secs(60);

    /// A value whose drop tells the test, and waits for it.
    struct Slow {
        drops: Sender<()>,
        go: Receiver<()>,
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            // Errors mean that the test has ended, or waits for this drop itself.
            let _ = self.drops.send(());
            let _ = self.go.recv_timeout(LONG);
        }
    }

    #[test]
    fn a_look_does_not_wait_for_a_slow_drop() {
        let ((drops, begins), (go, wait)) = (channel(), channel());
        let replaced = Replaced::default();
        drop(replaced.replace(|| Ok(Some(Slow { drops, go: wait }))).unwrap());
        assert!(replaced.is_set());
        thread::scope(|scope| {
            // Dropped when this test fails, which ends the wait as well.
            let go = go;
            let replaces = scope.spawn(|| replaced.replace(|| Ok(None)).map(drop));
            begins.recv_timeout(LONG).unwrap();
            assert!(!replaced.is_set());
            go.send(()).expect("the drop goes on");
            replaces.join().unwrap().unwrap();
        });
    }
}
