//! The end of a call by a panic: waits run the program's clock, and its subscriber of log events.

/// Calls a function when a panic drops it. A call that goes on [ends](Self::end) it.
#[must_use = "dropping it calls the function"]
pub(super) struct OnUnwind<F: FnMut()>(F);

impl<F: FnMut()> OnUnwind<F> {
    /// Lets `call`, which owns nothing, be called in a panic from here on.
    pub(super) fn new(call: F) -> Self {
        Self(call)
    }

    /// Lets the function not be called any more.
    pub(super) fn end(self) {
        std::mem::forget(self);
    }
}

impl<F: FnMut()> Drop for OnUnwind<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        cell::Cell,
        panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    };

    #[test]
    fn a_panic_calls_the_function_and_an_end_does_not() {
        let calls = Cell::new(0);
        let call = || calls.set(calls.get() + 1);
        OnUnwind::new(call).end();
        assert_eq!(calls.get(), 0);
        let panics = AssertUnwindSafe(|| {
            let _unwinding = OnUnwind::new(call);
            resume_unwind(Box::new("a clock's bug"))
        });
        assert!(catch_unwind::<_, ()>(panics).is_err());
        assert_eq!(calls.get(), 1);
    }
}
