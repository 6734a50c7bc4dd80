//! Threads that end together.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// Calls `serve` with each of `all`, the first on this thread and the others on threads of their own, and waits for all calls.
/// The first call that fails or panics sets `stop`, by which the others are to end: they would go on without it.
///
/// # Errors
/// The first error, in the order of `all`.
///
/// # Panics
/// If a call panics, once all have ended.
pub fn together<T: Send, E: Send>(
    all: Vec<T>,
    stop: &AtomicBool,
    serve: impl Fn(T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let one = |item: T| {
        let served = catch_unwind(AssertUnwindSafe(|| serve(item)));
        if !matches!(served, Ok(Ok(()))) {
            stop.store(true, Ordering::Relaxed);
        }
        served.unwrap_or_else(|panic| resume_unwind(panic))
    };
    let one = &one;
    let mut all = all.into_iter();
    let Some(first) = all.next() else { return Ok(()) };
    thread::scope(|scope| {
        let others: Vec<_> = all.map(|item| scope.spawn(move || one(item))).collect();
        let first = one(first);
        let others =
            others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        others.fold(first, |result, other| result.and(other))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// Runs three calls of which one ends by `end`, and the others once they are to stop; returns the outcome of all.
    fn run(ends: u32, end: impl Fn() -> Result<(), u32> + Sync) -> thread::Result<Result<(), u32>> {
        let (stop, is_late) = (AtomicBool::new(false), AtomicBool::new(false));
        let serve = |number| {
            if number == ends {
                return end();
            }
            let deadline = Instant::now() + Duration::from_secs(10);
            while !stop.load(Ordering::Relaxed) && !is_late.load(Ordering::Relaxed) {
                is_late.fetch_or(Instant::now() > deadline, Ordering::Relaxed);
                thread::yield_now();
            }
            Ok(())
        };
        let ended = catch_unwind(AssertUnwindSafe(|| together(vec![0, 1, 2], &stop, serve)));
        assert!(!is_late.load(Ordering::Relaxed), "call {ends} has ended, and the others were not told");
        ended
    }

    #[test]
    fn a_call_that_panics_ends_the_others() {
        for number in 0..3 {
            // Without the message that a panic prints.
            let ended = run(number, || resume_unwind(Box::new("planned")));
            assert_eq!(ended.unwrap_err().downcast_ref(), Some(&"planned"));
        }
    }

    #[test]
    fn a_call_that_fails_ends_the_others() {
        for number in 0..3 {
            assert_eq!(run(number, || Err(7)).unwrap(), Err(7));
        }
    }
}
