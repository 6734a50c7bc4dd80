//! The state of the admin queue: completions that wait, and asynchronous events.

use super::flight::Done;
use crate::spec::{AsyncEvent, AsyncEventType, LogPageId, Status};
use std::collections::VecDeque;

/// The state of the admin queue.
#[derive(Debug, Default)]
pub(super) struct Admin {
    /// Completions that wait for room.
    pub done: VecDeque<Done>,
    /// The Asynchronous Event Requests held.
    pub requests: VecDeque<u16>,
    /// Events for which no request has come yet.
    events: VecDeque<AsyncEvent>,
    /// Event types, a bit each, that are not reported again before their log page is read.
    reported: u8,
    /// The opcode of commands whose completions are held back, and these completions.
    held: (Option<u8>, VecDeque<Done>),
    /// The doorbell to check next for stray writes: twice its queue's identifier, plus 1 for a completion
    /// queue's.
    pub stray: u16,
}

impl Admin {
    /// Records an event. An event that is waiting, or whose log page was not read, is not reported twice.
    pub fn raise(&mut self, kind: AsyncEventType, information: u8, log_page: LogPageId) {
        let event = AsyncEvent::new().with_kind(kind).with_information(information).with_log_page(log_page);
        if !self.events.contains(&event) {
            self.events.push_back(event);
        }
    }

    /// Holds back the completions of commands with this opcode, or posts them.
    pub fn hold(&mut self, opcode: u8, hold: bool) {
        self.held.0 = hold.then_some(opcode);
        if !hold {
            self.done.append(&mut self.held.1);
        }
    }

    /// Notes that a command has ended.
    pub fn end(&mut self, opcode: u8, done: Done) {
        let done_with = if self.held.0 == Some(opcode) { &mut self.held.1 } else { &mut self.done };
        done_with.push_back(done);
    }

    /// Returns `true` if there is an event and a request for it.
    pub fn can_deliver(&self) -> bool {
        !self.events.is_empty() && !self.requests.is_empty()
    }

    /// Answers requests with events.
    pub fn deliver(&mut self) {
        while !self.requests.is_empty() {
            let free = |event: &AsyncEvent| self.reported & 1 << event.kind().0 == 0;
            let Some(event) = self.events.iter().position(free).and_then(|at| self.events.remove(at)) else {
                break;
            };
            let Some(cid) = self.requests.pop_front() else { break };
            self.reported |= 1 << event.kind().0;
            self.done.push_back(Done { dw0: event.into_bits(), cid, status: Status::SUCCESS });
        }
    }

    /// Notes that the log page of a kind of event was read.
    pub fn read_log(&mut self, kind: AsyncEventType) {
        self.reported &= !(1 << kind.0);
    }
}
