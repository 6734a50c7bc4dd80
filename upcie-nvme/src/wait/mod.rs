//! Waiting for completions.
//!
//! One eventfd per vector, which queues may share. Nobody drains it: each queue has an epoll descriptor with the
//! vector's eventfd in it, edge triggered, so every interrupt wakes every queue of its vector, and one queue's wait
//! takes nothing from another's. Beside it is an eventfd of the controller's own, by which a reset wakes them all: the
//! device's server has those of the vectors, and could make a write to them wait.
//!
//! With MSI-X every completion raises its vector. The pin (INTx) is level triggered and masked whenever it
//! fires, and an MSI is sent only if all earlier completions of the vector had been acknowledged. So both are
//! re-armed before each sleep (`Vectors::rearm`). This order loses no event: forget old events, re-arm, look
//! at the queue, sleep. A completion before re-arming raises an event at once; a later one raises its own.
//! While completions of another queue of the vector wait to be reaped, re-arming raises an event at once each
//! time.

mod adaptive;
mod waiter;
mod waiting;

pub(crate) use adaptive::SpinPolicy;
use std::time::Duration;
pub(crate) use waiter::Waiter;
pub(crate) use waiting::{Outcome, Waiting, wait};

/// The interval of checks that the controller is still well: a wait notices a fault within 100 ms.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// The way to wait for a completion.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use upcie_nvme::{Controller, Wait};
///
/// let controller = Controller::open("emu:size=1M")?;
/// let namespace = controller.namespace(1)?;
/// let vector = controller.vectors()?.saturating_sub(1).min(1);
/// let mut queue = controller.queue_pair().interrupt(vector).create::<()>()?;
/// for how in [Wait::Poll, Wait::Interrupt, Wait::Adaptive(Duration::from_micros(20))] {
///     queue.turn()?.flush(&namespace, ())?;
///     assert!(queue.wait(how, Duration::from_secs(30))?, "{}", queue.diagnose());
///     for done in queue.turn()? {
///         done.result()?;
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wait {
    /// Poll the completion queue: the shortest latency, for a whole core. After 50 µs without result, or
    /// sooner where that has helped before, the core is offered to others (`sched_yield`) between polls.
    Poll,
    /// Sleep until the queue's interrupt.
    Interrupt,
    /// Poll for this long, then sleep until the interrupt. While polling does not pay, sleep at once: this is
    /// learned from earlier waits, and tried again now and then.
    Adaptive(Duration),
}
