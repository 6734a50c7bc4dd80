//! Turns of threads at something that one of them uses at a time: first come, first served.
//!
//! A mutex lets the thread that has just released it take it again before another one wakes up, so a busy controller could keep
//! the others from their steps. A step takes microseconds, less than it takes to wake a thread: a waiting thread spins first.

use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

/// Checks before a waiting thread offers its core to others, and before it sleeps between two checks.
const SPINS: u32 = 256;
const YIELDS: u32 = 4096;
const SLEEP: Duration = Duration::from_micros(50);

/// Gives threads turns in the order in which they ask.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The number of the next thread that asks.
    next: AtomicU64,
    /// The number of the thread that has its turn, or is the next to have one.
    current: AtomicU64,
}

/// A thread's turn, until it is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits until the threads that asked before have had their turns.
    #[inline]
    pub fn wait(&self) -> Turn<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut checks = 0_u32;
        while self.current.load(Ordering::Acquire) != number {
            match checks {
                ..SPINS => spin_loop(),
                SPINS..YIELDS => thread::yield_now(),
                _ => thread::sleep(SLEEP),
            }
            checks = checks.saturating_add(1);
        }
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.current.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Mutex, time::Instant};

    /// A controller that is served again and again lets each waiting one in first.
    #[test]
    fn a_thread_that_asks_again_comes_last() {
        let (turns, order) = (Turns::default(), Mutex::new(Vec::new()));
        let note = |name: u64| order.lock().unwrap().push(name);
        let turn = turns.wait();
        thread::scope(|scope| {
            for asked in [1, 2] {
                let (turns, note) = (&turns, &note);
                scope.spawn(move || {
                    let _turn = turns.wait();
                    note(asked);
                });
                let end = Instant::now() + Duration::from_secs(60);
                while turns.next.load(Ordering::Relaxed) <= asked {
                    assert!(Instant::now() < end, "thread {asked} does not ask");
                    thread::yield_now();
                }
            }
            drop(turn);
            let _again = turns.wait();
            note(3);
        });
        assert_eq!(order.into_inner().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_panic_ends_a_turn() {
        let turns = Turns::default();
        thread::scope(|scope| {
            let panicking = scope.spawn(|| {
                let _turn = turns.wait();
                panic!("on purpose");
            });
            assert!(panicking.join().is_err());
        });
        assert_eq!(turns.current.load(Ordering::Relaxed), 1);
    }
}
