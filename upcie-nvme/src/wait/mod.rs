//! Waiting for completions.
//!
//! One eventfd per vector, which queues may share. Nobody drains it: each queue has an epoll descriptor with the
//! vector's eventfd in it, edge triggered, so every interrupt wakes every queue of its vector, and one queue's wait
//! takes nothing from another's.
//!
//! With MSI-X every completion raises its vector. The pin (INTx) is level triggered and masked whenever it fires, and an
//! MSI is sent only when the last of the vector's completions had been acknowledged before: these are asked for again
//! before each sleep (`Vectors::rearm`). In this order, then, nothing is lost: forget old events, ask again, look at
//! the queue, sleep. What comes before the asking causes an event at once, what comes later its own. While completions of
//! another queue of the vector are not reaped, each asking is answered at once.

mod adaptive;
mod backoff;
mod patience;
mod waiter;

pub use adaptive::SpinPolicy;
pub(crate) use backoff::{Backoff, LOOK};
pub use patience::Patience;
use std::time::Duration;
pub(crate) use waiter::Waiter;

/// How to wait for a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Look at the completion queue again and again: the shortest latency, a whole core. After 50 µs without result (or
    /// sooner, once that was seen to help) the core is offered to others (`sched_yield`) between looks.
    Poll,
    /// Sleep until the queue's interrupt.
    Interrupt,
    /// Poll for this long, then sleep until the interrupt; or sleep at once while polling has not paid, which is learned from
    /// the waits before and tried again now and then ([`SpinPolicy`](crate::SpinPolicy)).
    Adaptive(Duration),
}
