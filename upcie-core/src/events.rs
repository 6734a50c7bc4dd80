//! Keeps log events of code that holds a lock until the thread holds none.
//!
//! A `tracing` subscriber is code of the program: it may write through the driver, or request memory from it. If an event
//! were emitted under a lock, such a subscriber would wait for its own thread for ever. So code that takes a lock under
//! which events may occur makes a [`Hold`] first, and code that may run under such a lock logs by [`emit`].

use std::{
    cell::{Cell, RefCell},
    marker::PhantomData,
};

type Event = Box<dyn FnOnce()>;

thread_local! {
    static HOLDS: Cell<u32> = const { Cell::new(0) };
    /// Set if the list has events; the list is not accessed otherwise.
    static ANY: Cell<bool> = const { Cell::new(false) };
    static KEPT: RefCell<Vec<Event>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the calling thread's events while it exists; the last one emits them when it is dropped. Make it before you take
/// a lock, and drop it after you release the lock.
#[derive(Debug)]
#[must_use = "the hold ends when it is dropped"]
pub struct Hold {
    /// Makes the type `!Send`: it belongs to the thread that made it.
    _thread: PhantomData<*const ()>,
}

impl Hold {
    /// Begins to keep the calling thread's events. Allocates nothing.
    pub fn new() -> Self {
        HOLDS.set(HOLDS.get() + 1);
        Self { _thread: PhantomData }
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        HOLDS.set(HOLDS.get() - 1);
        if HOLDS.get() == 0 && ANY.take() {
            // A thread that is ending may have dropped its list already, which was empty then.
            let kept = KEPT.try_with(RefCell::take).unwrap_or_default();
            kept.into_iter().for_each(|event| event());
        }
    }
}

/// Emits an event, once the calling thread holds no lock under which events are [kept](Hold). The event owns its data.
pub fn emit(event: impl FnOnce() + 'static) {
    if HOLDS.get() == 0 {
        return event();
    }
    let mut event = Some(event);
    let kept =
        KEPT.try_with(|kept| kept.borrow_mut().extend(event.take().map(|event| Box::new(event) as Event)));
    match (kept, event) {
        (Err(_), Some(event)) => event(),
        _ => ANY.set(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    /// Soundness R6: a subscriber that calls back must find no lock held.
    #[test]
    fn events_wait_for_the_last_hold_and_keep_their_order() {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let log = |what: u32| {
            let seen = seen.clone();
            emit(move || {
                // Acts as a subscriber that calls back.
                drop(Hold::new());
                seen.borrow_mut().push(what);
            });
        };
        log(1);
        assert_eq!(*seen.borrow(), [1]);
        let outer = Hold::new();
        log(2);
        let inner = Hold::new();
        log(3);
        drop(inner);
        assert_eq!(*seen.borrow(), [1]);
        drop(outer);
        assert_eq!(*seen.borrow(), [1, 2, 3]);
    }
}
