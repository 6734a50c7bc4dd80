//! A lock that is waited for in turn, and with a deadline.

use crate::events::Hold;
use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long a sleep is, so that each counts in full for a clock that takes longer ones for a stop of the process.
const NAP: Duration = Duration::from_millis(100);

/// A value that one thread has at a time: for control paths, where whoever has it may wait for a device. Threads get it in
/// the order in which they asked. What its holder logs by [`events::emit`](crate::events::emit) is emitted after it has
/// given the value back.
#[derive(Debug, Default)]
pub struct Gate<T> {
    line: Mutex<Line>,
    moved: Condvar,
    value: Mutex<T>,
}

/// Who has the value, and who waits for it.
#[derive(Debug, Default)]
struct Line {
    taken: bool,
    waiting: VecDeque<u64>,
    next: u64,
}

/// The value, until this is dropped.
#[derive(Debug)]
pub struct Pass<'g, T> {
    gate: &'g Gate<T>,
    /// `None` while it is dropped.
    value: Option<MutexGuard<'g, T>>,
    /// After the lock.
    _hold: Hold,
}

impl<T> Gate<T> {
    /// One that nobody waits for.
    pub fn new(value: T) -> Self {
        Self { line: Mutex::default(), moved: Condvar::new(), value: Mutex::new(value) }
    }

    /// Waits for the value; `None` once `left`, which is asked now and then, gives no more time. A value that is free is
    /// given in any case.
    pub fn enter(&self, mut left: impl FnMut() -> Duration) -> Option<Pass<'_, T>> {
        let hold = Hold::new();
        let mut line = lock(&self.line);
        if line.taken || !line.waiting.is_empty() {
            let ticket = line.next;
            line.next += 1;
            line.waiting.push_back(ticket);
            while line.taken || line.waiting.front() != Some(&ticket) {
                let left = left();
                if left.is_zero() {
                    line.waiting.retain(|waiting| *waiting != ticket);
                    self.moved.notify_all();
                    return None;
                }
                let slept = self.moved.wait_timeout(line, left.min(NAP));
                line = slept.unwrap_or_else(PoisonError::into_inner).0;
            }
            line.waiting.pop_front();
        }
        line.taken = true;
        drop(line);
        Some(Pass { gate: self, value: Some(lock(&self.value)), _hold: hold })
    }

    /// The value, without a lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A poisoned lock is taken all the same: its holder's panic is its own affair, and values are valid at any point.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        lock(&self.gate.line).taken = false;
        self.gate.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    const LONG: fn() -> Duration = || Duration::from_secs(60);

    fn wait_for_line<T>(gate: &Gate<T>, len: usize) {
        while lock(&gate.line).waiting.len() < len {
            thread::yield_now();
        }
    }

    /// Soundness finding 5: a call's deadline holds while another thread's call is under way.
    #[test]
    fn it_is_waited_for_no_longer_than_asked() {
        let gate = Arc::new(Gate::new(0));
        let mut first = gate.enter(|| Duration::ZERO).expect("it is free");
        *first += 1;
        let mut looks = 0;
        let late = gate.enter(|| {
            looks += 1;
            if looks < 3 { Duration::from_millis(1) } else { Duration::ZERO }
        });
        assert!(late.is_none());
        let second = thread::spawn({
            let gate = gate.clone();
            move || gate.enter(LONG).map(|pass| *pass)
        });
        drop(first);
        assert_eq!(second.join().unwrap(), Some(1));
    }

    #[test]
    fn threads_get_it_in_the_order_of_asking() {
        let (gate, late) = (Arc::new(Gate::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let first = gate.enter(LONG).unwrap();
        let mut threads: Vec<_> = (0..4)
            .map(|index| {
                let (shared, late) = (gate.clone(), late.clone());
                // The third gives up once all are in line, and holds nobody up.
                let left =
                    move || if index == 2 && late.load(Ordering::Relaxed) { Duration::ZERO } else { LONG() };
                let thread = thread::spawn(move || shared.enter(left).map(|mut pass| pass.push(index)));
                wait_for_line(&gate, index + 1);
                thread
            })
            .collect();
        late.store(true, Ordering::Relaxed);
        threads.remove(2).join().unwrap();
        drop(first);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(*gate.enter(LONG).unwrap(), [0, 1, 3]);
    }

    #[test]
    fn a_holder_that_panics_gives_it_back() {
        let gate = Arc::new(Gate::new(1));
        let held = gate.clone();
        let thread = thread::spawn(move || {
            let _pass = held.enter(LONG);
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert_eq!(gate.enter(LONG).map(|pass| *pass), Some(1));
    }
}
