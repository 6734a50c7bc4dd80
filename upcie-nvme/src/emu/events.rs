//! The state of the admin queue: completions that wait, and asynchronous events.

use super::{features::TEMPERATURE_WARNING, flight::Done};
use crate::spec::{
    AsyncEvent, AsyncEventConfiguration, AsyncEventType, ErrorEvent, LogPageId, NamespaceList, NoticeEvent,
    SmartEvent, Status,
};
use std::collections::VecDeque;
use zerocopy::{FromZeros, IntoBytes};

/// The most namespaces that the Changed Namespace List names; of more, it says only that there are more.
const CHANGED: usize = 1024;

/// The most events that wait for a request: those that the controller has, and some that a host raises (C0h).
const EVENTS: usize = 64;

/// The log page to read before an event is reported again, by event type.
type Masked = [Option<LogPageId>; 8];

/// The state of the admin queue.
#[derive(Debug, Default)]
pub(super) struct Admin {
    /// Completions that wait for room.
    pub done: VecDeque<Done>,
    /// The Asynchronous Event Requests held.
    pub requests: VecDeque<u16>,
    /// Events for which no request has come yet.
    events: VecDeque<AsyncEvent>,
    masked: Masked,
    /// Events that a fault plan reports.
    burst: EventBurst,
    /// Namespaces that changed since the Changed Namespace List was read.
    changed: Vec<u32>,
    /// The opcode of commands whose completions are held back, and these completions.
    held: (Option<u8>, VecDeque<Done>),
    /// The doorbell to check next for stray writes: twice its queue's identifier, plus 1 for a completion
    /// queue's.
    pub stray: u16,
}

impl Admin {
    /// Records an event. An event that waits is not recorded twice; one for which there is no room is lost.
    pub fn raise(&mut self, kind: AsyncEventType, information: u8, log_page: LogPageId) {
        let event = AsyncEvent::new().with_kind(kind).with_information(information).with_log_page(log_page);
        if self.events.len() < EVENTS && !self.events.contains(&event) {
            self.events.push_back(event);
        }
    }

    /// Records a notice, if the host asks for it by feature 0Bh (`wanted`); returns whether it does.
    pub fn notice(
        &mut self,
        wanted: AsyncEventConfiguration,
        notice: NoticeEvent,
        log_page: LogPageId,
    ) -> bool {
        // The bits of the feature that ask for notices stand in the order of the notices.
        let is_wanted = notice.0 >= 8 || wanted.into_bits() & 1 << (8 + notice.0) != 0;
        if is_wanted {
            self.raise(AsyncEventType::NOTICE, notice.0, log_page);
        }
        is_wanted
    }

    /// Reports `number` events as requests for them come: of each type in turn that is not masked, and of those only that
    /// the host asks for by feature 0Bh (`wanted`).
    pub fn report_burst(&mut self, number: u32, wanted: AsyncEventConfiguration) {
        self.burst.left = self.burst.left.saturating_add(number);
        self.burst.wanted = wanted;
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

    /// Returns the number of completions that are held back.
    pub fn held_count(&self) -> usize {
        self.held.1.len()
    }

    /// Notes that a command has ended.
    pub fn end(&mut self, opcode: u8, done: Done) {
        let done_with = if self.held.0 == Some(opcode) { &mut self.held.1 } else { &mut self.done };
        done_with.push_back(done);
    }

    /// Returns `true` if there is an event that may be reported, and a request for it.
    pub fn can_deliver(&self) -> bool {
        !self.requests.is_empty() && (self.next_event().is_some() || self.burst.next(&self.masked).is_some())
    }

    /// Returns the index of the next event whose type is not masked.
    fn next_event(&self) -> Option<usize> {
        self.events.iter().position(|event| self.masked[usize::from(event.kind().0)].is_none())
    }

    /// Takes the next event whose type is not masked.
    fn take_event(&mut self) -> Option<AsyncEvent> {
        match self.next_event() {
            Some(at) => self.events.remove(at),
            None => self.burst.take(&self.masked),
        }
    }

    /// Answers requests with events.
    pub fn deliver(&mut self) {
        while !self.requests.is_empty() {
            let Some(event) = self.take_event() else { break };
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

/// Events that a fault plan reports, made one by one.
#[derive(Debug, Default)]
struct EventBurst {
    left: u32,
    wanted: AsyncEventConfiguration,
    /// The index of the type that is next in turn.
    turn: usize,
}

impl EventBurst {
    /// The events: an error, a warning of the SMART log (temperature) and a notice, each with its log page.
    const EVENTS: [(AsyncEventType, u8, LogPageId); 3] = [
        (AsyncEventType::ERROR, ErrorEvent::TRANSIENT_INTERNAL_ERROR.0, LogPageId::ERROR_INFORMATION),
        (AsyncEventType::SMART, SmartEvent::TEMPERATURE.0, LogPageId::SMART),
        (AsyncEventType::NOTICE, NoticeEvent::FIRMWARE_ACTIVATION.0, LogPageId::FIRMWARE_SLOT),
    ];

    /// Returns the index of the next event that is not masked.
    fn next(&self, masked: &Masked) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        let can_come = |at: &usize| {
            let (kind, information, _) = Self::EVENTS[*at];
            let is_wanted = match kind {
                AsyncEventType::SMART => self.wanted.smart() & TEMPERATURE_WARNING != 0,
                AsyncEventType::NOTICE => self.wanted.into_bits() & 1 << (8 + information) != 0,
                _ => true,
            };
            is_wanted && masked[usize::from(kind.0)].is_none()
        };
        (0..Self::EVENTS.len()).map(|step| (self.turn + step) % Self::EVENTS.len()).find(can_come)
    }

    fn take(&mut self, masked: &Masked) -> Option<AsyncEvent> {
        let at = self.next(masked)?;
        self.left -= 1;
        self.turn = at + 1;
        let (kind, information, log_page) = Self::EVENTS[at];
        Some(AsyncEvent::new().with_kind(kind).with_information(information).with_log_page(log_page))
    }
}
