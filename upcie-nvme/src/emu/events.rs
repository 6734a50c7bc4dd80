//! The state of the admin queue: completions that wait, and asynchronous events.

use super::flight::Done;
use crate::spec::{AsyncEvent, AsyncEventType, LogPageId, NamespaceList, Status};
use std::collections::VecDeque;
use zerocopy::{FromZeros, IntoBytes};

/// The most namespaces that the Changed Namespace List names; of more, it says only that there are more.
const CHANGED: usize = 1024;

/// The state of the admin queue.
#[derive(Debug, Default)]
pub(super) struct Admin {
    /// Completions that wait for room.
    pub done: VecDeque<Done>,
    /// The Asynchronous Event Requests held.
    pub requests: VecDeque<u16>,
    /// Events for which no request has come yet.
    events: VecDeque<AsyncEvent>,
    /// By event type: the log page to read before such an event is reported again.
    masked: [Option<LogPageId>; 8],
    /// Namespaces that changed since the Changed Namespace List was read.
    changed: Vec<u32>,
    /// The opcode of commands whose completions are held back, and these completions.
    held: (Option<u8>, VecDeque<Done>),
    /// The doorbell to check next for stray writes: twice its queue's identifier, plus 1 for a completion
    /// queue's.
    pub stray: u16,
}

impl Admin {
    /// Records an event. An event that waits is not recorded twice.
    pub fn raise(&mut self, kind: AsyncEventType, information: u8, log_page: LogPageId) {
        let event = AsyncEvent::new().with_kind(kind).with_information(information).with_log_page(log_page);
        if !self.events.contains(&event) {
            self.events.push_back(event);
        }
    }

    /// Notes that a namespace changed, for the Changed Namespace List.
    pub fn change(&mut self, nsid: u32) {
        if !self.changed.contains(&nsid) && self.changed.len() <= CHANGED {
            self.changed.push(nsid);
            self.changed.sort_unstable();
        }
    }

    /// Returns the Changed Namespace List log page.
    pub fn changed_page(&self) -> Vec<u8> {
        let mut list = NamespaceList::new_zeroed();
        match self.changed.get(CHANGED) {
            Some(_) => list.nsids[0] = u32::MAX,
            None => list.nsids[..self.changed.len()].copy_from_slice(&self.changed),
        }
        list.as_bytes().to_vec()
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

    /// Returns `true` if there is an event that may be reported, and a request for it.
    pub fn can_deliver(&self) -> bool {
        !self.requests.is_empty() && self.next_event().is_some()
    }

    /// Returns the index of the next event whose type is not masked.
    fn next_event(&self) -> Option<usize> {
        self.events.iter().position(|event| self.masked[usize::from(event.kind().0)].is_none())
    }

    /// Answers requests with events.
    pub fn deliver(&mut self) {
        while !self.requests.is_empty() {
            let Some(event) = self.next_event().and_then(|at| self.events.remove(at)) else { break };
            let Some(cid) = self.requests.pop_front() else { break };
            // Immediate events have no log page to read, so they mask nothing.
            if event.kind() != AsyncEventType::IMMEDIATE {
                self.masked[usize::from(event.kind().0)] = Some(event.log_page());
            }
            self.done.push_back(Done { dw0: event.into_bits(), cid, status: Status::SUCCESS });
        }
    }

    /// Clears the events that a log page belongs to, because it was read without Retain Asynchronous Event: those that were
    /// reported may come again, and those that wait for a request are told by the page itself.
    pub fn read_log(&mut self, page: LogPageId) {
        for masked in &mut self.masked {
            *masked = masked.filter(|&of| of != page);
        }
        self.events.retain(|event| event.log_page() != page);
        if page == LogPageId::CHANGED_NAMESPACES {
            self.changed.clear();
        }
    }
}
