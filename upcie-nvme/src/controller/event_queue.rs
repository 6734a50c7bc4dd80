//! The asynchronous events that have arrived and that the program has not taken yet.

use super::{lock, shared_look::SharedLook};
use crate::spec::{AsyncEvent, EventKind, NoticeEvent, Status};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use upcie_core::{
    events::{Hold, emit},
    irq::EventFd,
};

/// The most requests that are pending at once: one for each type of event. A controller reports a type once, and again only
/// after its log page was read.
pub(super) const REQUESTS: usize = 8;
/// The most events that are kept. A controller that reports more gets no further request before the program takes some.
const KEPT: usize = 64;

/// The events of a controller, and how many requests for more it should hold.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    /// `true` while a program wants events: requests are sent again.
    wanted: AtomicBool,
    /// The looks for events by calls that end at once, and by busy queues.
    pub(super) look: SharedLook,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Requests to keep pending.
    limit: usize,
    /// The events, each with dword 1 of its completion.
    events: VecDeque<(AsyncEvent, u32)>,
    /// Events that have arrived in all.
    total: usize,
    /// The status with which the controller refused a request. None is sent before the program knows.
    refused: Option<Status>,
    /// Readable while there is something to take.
    bell: Option<Arc<EventFd>>,
}

impl EventQueue {
    /// Begins to ask for events, with at most `limit` requests. `bell` is kept readable while there are some. Returns `false`
    /// if a program has done so already.
    pub(super) fn begin(&self, limit: usize, bell: Arc<EventFd>) -> bool {
        let _hold = Hold::new();
        let mut state = lock(&self.state);
        if self.wanted.load(Ordering::Relaxed) {
            return false;
        }
        (state.limit, state.refused) = (limit.clamp(1, REQUESTS), None);
        state.bell = Some(bell);
        state.ring();
        self.wanted.store(true, Ordering::Relaxed);
        true
    }

    /// Ends asking for events. The controller keeps the requests that it has.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        self.wanted.store(false, Ordering::Relaxed);
        state.bell = None;
    }

    /// Returns `true` if a program wants events.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Returns how many requests to send when `pending` are pending.
    pub(super) fn missing(&self, pending: usize) -> usize {
        let state = lock(&self.state);
        if state.refused.is_some() {
            return 0;
        }
        state.limit.saturating_sub(pending).min(KEPT.saturating_sub(state.events.len() + pending))
    }

    /// Notes the end of a request: the event, with dword 1 of the completion. Returns `true` if namespace handles are stale by what
    /// it says.
    pub(super) fn arrived(&self, event: Result<(AsyncEvent, u32), Status>) -> bool {
        let _hold = Hold::new();
        let mut state = lock(&self.state);
        state.total = state.total.wrapping_add(1);
        let is_change = match event {
            Ok(event) => {
                state.events.push_back(event);
                event.0.subject() == EventKind::Notice(NoticeEvent::NAMESPACE_ATTRIBUTES)
            }
            // The controller holds others, and as many as it can.
            Err(status) if status == Status::ASYNC_EVENT_LIMIT_EXCEEDED && state.limit > 1 => {
                state.limit -= 1;
                false
            }
            Err(status) => {
                state.refused = Some(status);
                false
            }
        };
        state.ring();
        is_change
    }

    /// Returns the number of events that have arrived so far.
    pub(super) fn total(&self) -> usize {
        lock(&self.state).total
    }

    /// Takes the status of a refused request, if there is one: after this, requests are sent again.
    pub(super) fn take_refusal(&self) -> Option<Status> {
        let _hold = Hold::new();
        let mut state = lock(&self.state);
        let refused = state.refused.take();
        state.ring();
        refused
    }

    /// Returns the oldest event with dword 1 of its completion, and leaves it in the queue.
    pub(super) fn front(&self) -> Option<(AsyncEvent, u32)> {
        lock(&self.state).events.front().copied()
    }

    /// Removes the oldest event.
    pub(super) fn pop(&self) {
        let _hold = Hold::new();
        let mut state = lock(&self.state);
        state.events.pop_front();
        state.ring();
    }
}

impl State {
    /// Makes the bell readable if there is something to take, and not otherwise. The caller holds events back while it has
    /// the lock.
    fn ring(&self) {
        let Some(bell) = &self.bell else { return };
        let is_empty = self.events.is_empty() && self.refused.is_none();
        let rung = if is_empty { bell.take().map(drop) } else { bell.signal() };
        if let Err(error) = rung {
            // Waits look at the queue every 50 ms, with or without the bell.
            emit(move || tracing::warn!(%error, "the descriptor of asynchronous events can't be used"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::AsyncEventType;
    use std::time::Duration;

    fn readable(bell: &EventFd) -> bool {
        bell.wait(Duration::ZERO).unwrap()
    }

    #[test]
    fn a_flood_of_events_gets_no_further_request() {
        let (queue, bell) = (EventQueue::default(), Arc::new(EventFd::new().unwrap()));
        assert!(queue.begin(100, bell.clone()) && !queue.begin(1, bell.clone()));
        assert_eq!((queue.missing(0), queue.missing(3), readable(&bell)), (REQUESTS, REQUESTS - 3, false));
        let vendor = AsyncEvent::new().with_kind(AsyncEventType::VENDOR);
        for _ in 0..KEPT {
            assert!(queue.missing(0) > 0);
            assert!(!queue.arrived(Ok((vendor, 0))));
        }
        assert_eq!((queue.missing(0), readable(&bell)), (0, true));
        queue.pop();
        assert_eq!(queue.missing(0), 1);
    }

    #[test]
    fn a_refused_request_is_told_before_it_is_repeated() {
        let (queue, bell) = (EventQueue::default(), Arc::new(EventFd::new().unwrap()));
        queue.begin(4, bell.clone());
        queue.arrived(Err(Status::ASYNC_EVENT_LIMIT_EXCEEDED));
        assert_eq!((queue.missing(3), queue.missing(0)), (0, 3), "the controller holds three");
        queue.arrived(Err(Status::INTERNAL_ERROR));
        assert_eq!((queue.missing(0), readable(&bell)), (0, true));
        assert_eq!(queue.take_refusal(), Some(Status::INTERNAL_ERROR));
        assert_eq!((queue.missing(0), readable(&bell)), (3, false));
    }
}
