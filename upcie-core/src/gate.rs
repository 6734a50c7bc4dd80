//! A lock that threads wait for in turn and with a deadline.

use crate::events::Hold;
use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Length of one sleep: short enough that a clock that ignores stops of the process counts it in full.
const SLEEP: Duration = Duration::from_millis(100);

/// A value that one thread has at a time: for control paths, whose holder may wait for a device. Threads get it in the
/// order in which they asked. Events that its holder logs by [`events::emit`](crate::events::emit) are emitted after it
/// has released the value.
#[derive(Debug, Default)]
pub struct Gate<T> {
    queue: Mutex<Queue>,
    released: Condvar,
    value: Mutex<T>,
}

/// The state of the queue of threads.
#[derive(Debug, Default)]
struct Queue {
    taken: bool,
    waiting: VecDeque<u64>,
    next: u64,
}

/// A thread's place in the queue, which it leaves when this is dropped: at its deadline, and when `left` panics, which
/// calls the program's clock.
struct Place<'g, T> {
    gate: &'g Gate<T>,
    /// `None` while the thread does not wait.
    ticket: Option<u64>,
}

/// Exclusive access to the value, until this is dropped.
#[derive(Debug)]
#[must_use = "the gate is free again once it is dropped"]
pub struct Pass<'g, T> {
    gate: &'g Gate<T>,
    /// `None` while it is dropped.
    value: Option<MutexGuard<'g, T>>,
    /// Declared last, so that it is dropped after the lock.
    _hold: Hold,
}

impl<T> Gate<T> {
    /// Makes a gate that no thread waits for.
    pub fn new(value: T) -> Self {
        Self { queue: Mutex::default(), released: Condvar::new(), value: Mutex::new(value) }
    }

    /// Waits for the value. `left` is called repeatedly; when it returns zero, the result is `None`. A free value is
    /// always given.
    pub fn enter(&self, mut left: impl FnMut() -> Duration) -> Option<Pass<'_, T>> {
        let hold = Hold::new();
        // Declared before the lock's guard, so that it is dropped after it.
        let mut place = Place { gate: self, ticket: None };
        let mut queue = lock(&self.queue);
        if queue.taken || !queue.waiting.is_empty() {
            let ticket = queue.next;
            queue.next += 1;
            queue.waiting.push_back(ticket);
            place.ticket = Some(ticket);
            while queue.taken || queue.waiting.front() != Some(&ticket) {
                let left = left();
                if left.is_zero() {
                    return None;
                }
                let slept = self.released.wait_timeout(queue, left.min(SLEEP));
                queue = slept.unwrap_or_else(PoisonError::into_inner).0;
            }
            queue.waiting.pop_front();
            place.ticket = None;
        }
        queue.taken = true;
        drop(queue);
        Some(Pass { gate: self, value: Some(lock(&self.value)), _hold: hold })
    }

    /// Returns the value without locking.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ignores poisoning: the value is valid even after its holder's panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Deref for Pass<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("present until the drop")
    }
}

impl<T> DerefMut for Pass<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("present until the drop")
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            lock(&self.gate.queue).waiting.retain(|waiting| *waiting != ticket);
            self.gate.released.notify_all();
        }
    }
}

impl<T> Drop for Pass<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        lock(&self.gate.queue).taken = false;
        self.gate.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    const LONG: fn() -> Duration = || Duration::from_secs(60);

    fn wait_for_queue<T>(gate: &Gate<T>, len: usize) {
        while lock(&gate.queue).waiting.len() < len {
            thread::yield_now();
        }
    }

    /// A call keeps its deadline while another thread's call is in progress.
    #[test]
    fn waiting_ends_at_the_deadline() {
        let gate = Arc::new(Gate::new(0));
        let mut first = gate.enter(|| Duration::ZERO).expect("it is free");
        *first += 1;
        let mut calls = 0;
        let late = gate.enter(|| {
            calls += 1;
            if calls < 3 { Duration::from_millis(1) } else { Duration::ZERO }
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
    fn threads_get_the_value_in_order() {
        let (gate, late) = (Arc::new(Gate::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let first = gate.enter(LONG).unwrap();
        let mut threads: Vec<_> = (0..4)
            .map(|index| {
                let (shared, late) = (gate.clone(), late.clone());
                // The third gives up once all are queued, and blocks no other.
                let left =
                    move || if index == 2 && late.load(Ordering::Relaxed) { Duration::ZERO } else { LONG() };
                let thread = thread::spawn(move || shared.enter(left).map(|mut pass| pass.push(index)));
                wait_for_queue(&gate, index + 1);
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
    fn a_panicking_holder_releases_the_value() {
        let gate = Arc::new(Gate::new(1));
        let held = gate.clone();
        let thread = thread::spawn(move || {
            let _pass = held.enter(LONG);
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert_eq!(gate.enter(LONG).map(|pass| *pass), Some(1));
    }
    /// A program's clock may panic, which blocked the gate for all threads.
    #[test]
    fn a_thread_that_panics_while_it_waits_leaves_the_queue() {
        let gate = Gate::new(1);
        let held = gate.enter(LONG);
        let wait = AssertUnwindSafe(|| drop(gate.enter(|| resume_unwind(Box::new("a clock's bug")))));
        assert!(catch_unwind(wait).is_err());
        drop(held);
        assert_eq!(gate.enter(|| Duration::ZERO).map(|pass| *pass), Some(1), "nobody else waits");
    }
}
