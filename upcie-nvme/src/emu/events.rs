//! The state of the admin queue: completions that wait, and asynchronous events.

use super::{changed_zones::ChangedZones, features::TEMPERATURE_WARNING, flight::Done};
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

/// The log page to read before an event is reported again, and the namespace that it is about, by event type.
type Masked = [Option<(LogPageId, u32)>; 8];

/// The state of the admin queue.
#[derive(Debug, Default)]
pub(super) struct Admin {
    /// Completions that wait for room, each with its dword 1.
    pub done: VecDeque<(Done, u32)>,
    /// The Asynchronous Event Requests held.
    pub requests: VecDeque<u16>,
    /// Events for which no request has come yet, each with the namespace that its log page is about, or 0.
    events: VecDeque<(AsyncEvent, u32)>,
    masked: Masked,
    /// Events that a fault plan reports.
    burst: EventBurst,
    /// Namespaces that changed since the Changed Namespace List was read.
    changed: Vec<u32>,
    changed_zones: ChangedZones,
    /// The opcode of commands whose completions are held back, and these completions.
    held: (Option<u8>, VecDeque<(Done, u32)>),
    /// The doorbell to check next for stray writes: twice its queue's identifier, plus 1 for a completion
    /// queue's.
    pub stray: u16,
}

impl Admin {
    /// Records an event. An event that waits is not recorded twice; one for which there is no room is lost.
    pub fn raise(&mut self, kind: AsyncEventType, information: u8, log_page: LogPageId) {
        self.raise_of(kind, information, (log_page, 0));
    }

    /// Records an event like [`raise`](Self::raise), whose log page is about a namespace, or 0.
    fn raise_of(&mut self, kind: AsyncEventType, information: u8, (log_page, nsid): (LogPageId, u32)) {
        let event = AsyncEvent::new().with_kind(kind).with_information(information).with_log_page(log_page);
        if self.events.len() < EVENTS && !self.events.contains(&(event, nsid)) {
            self.events.push_back((event, nsid));
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

    /// Notes that the controller has changed a zone by itself, for the Changed Zone List, and records the notice if the host asks
    /// for it by feature 0Bh (`wanted`).
    pub fn change_zone(&mut self, wanted: AsyncEventConfiguration, nsid: u32, zslba: u64) {
        self.changed_zones.note(nsid, zslba);
        if wanted.zone_descriptor() {
            let notice = NoticeEvent::ZONE_DESCRIPTOR.0;
            self.raise_of(AsyncEventType::NOTICE, notice, (LogPageId::CHANGED_ZONES, nsid));
        }
    }

    /// Forgets the changed zones of namespaces without zones, and their events: one may be gone, and its list can't be read any
    /// more, without which no notice would come again.
    pub fn forget_zones(&mut self, has_zones: impl Fn(u32) -> bool) {
        let is_kept = |of: (LogPageId, u32)| of.0 != LogPageId::CHANGED_ZONES || has_zones(of.1);
        for masked in &mut self.masked {
            *masked = masked.filter(|&of| is_kept(of));
        }
        self.events.retain(|(event, nsid)| is_kept((event.log_page(), *nsid)));
        self.changed_zones.retain(&has_zones);
    }

    /// Returns the Changed Zone List log page of a namespace.
    pub fn changed_zones_page(&self, nsid: u32) -> Vec<u8> {
        self.changed_zones.page(nsid)
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
        done_with.push_back((done, 0));
    }

    /// Returns `true` if there is an event that may be reported, and a request for it.
    pub fn can_deliver(&self) -> bool {
        !self.requests.is_empty() && (self.next_event().is_some() || self.burst.next(&self.masked).is_some())
    }

    /// Returns the index of the next event whose type is not masked.
    fn next_event(&self) -> Option<usize> {
        self.events.iter().position(|(event, _)| self.masked[usize::from(event.kind().0)].is_none())
    }

    /// Takes the next event whose type is not masked.
    fn take_event(&mut self) -> Option<(AsyncEvent, u32)> {
        match self.next_event() {
            Some(at) => self.events.remove(at),
            None => self.burst.take(&self.masked).map(|event| (event, 0)),
        }
    }

    /// Answers requests with events. Dword 1 of the completion is the namespace.
    pub fn deliver(&mut self) {
        while !self.requests.is_empty() {
            let Some((event, nsid)) = self.take_event() else { break };
            let Some(cid) = self.requests.pop_front() else { break };
            // Immediate events have no log page to read, so they mask nothing.
            if event.kind() != AsyncEventType::IMMEDIATE {
                self.masked[usize::from(event.kind().0)] = Some((event.log_page(), nsid));
            }
            self.done.push_back((Done { dw0: event.into_bits(), cid, status: Status::SUCCESS }, nsid));
        }
    }

    /// Clears the events that a log page belongs to, because it was read without Retain Asynchronous Event: those that were
    /// reported may come again, and those that wait for a request are told by the page itself. A list of zones has those of the
    /// namespace `nsid`.
    pub fn read_log(&mut self, page: LogPageId, nsid: u32) {
        let is_told =
            |of: (LogPageId, u32)| of.0 == page && (page != LogPageId::CHANGED_ZONES || of.1 == nsid);
        for masked in &mut self.masked {
            *masked = masked.filter(|&of| !is_told(of));
        }
        self.events.retain(|(event, nsid)| !is_told((event.log_page(), *nsid)));
        match page {
            LogPageId::CHANGED_NAMESPACES => self.changed.clear(),
            LogPageId::CHANGED_ZONES => self.changed_zones.forget(nsid),
            _ => {}
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
