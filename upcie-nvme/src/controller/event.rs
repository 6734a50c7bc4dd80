//! One asynchronous event, as a program gets it.

use crate::spec::{
    AsyncEvent, ChangedNamespacesLog, ChangedZonesLog, EventKind, LogPageId, NoticeEvent, SmartLog,
};
use std::fmt;
use zerocopy::FromBytes;

/// An asynchronous event of a controller, with the log page that the driver has read for it.
///
/// ```
/// use upcie_nvme::Event;
///
/// fn report(event: &Event) {
///     if let Some(namespaces) = event.changed_namespaces() {
///         println!("get new handles to the namespaces {namespaces:?}");
///     } else if let Some(health) = event.smart() {
///         println!("{event}: {} K", health.temperature());
///     } else {
///         println!("{event}");
///     }
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    pub(super) raw: AsyncEvent,
    /// Dword 1 of the completion: the namespace, for a changed zone.
    pub(super) dword1: u32,
    pub(super) log: Option<Box<[u8]>>,
}

impl Event {
    /// Returns the subject of the event, by its type.
    pub fn kind(&self) -> EventKind {
        self.raw.subject()
    }

    /// Returns the log page that belongs to the event.
    pub fn log_page(&self) -> LogPageId {
        self.raw.log_page()
    }

    /// Returns the bytes of the log page, which the driver has read before it handed out the event: the Error Information log
    /// (up to 4096 bytes), SMART / Health Information (512), Firmware Slot Information (512), the Changed Namespace List (4096), or
    /// the Changed Zone List (4096).
    ///
    /// `None` for other pages, and if the controller refused the read. The controller then reports no event of this type until
    /// the program reads [`log_page`](Self::log_page) ([`Controller::admin`](crate::Controller::admin) with
    /// [`Command::get_log_page`](crate::spec::Command::get_log_page)). Immediate events need no read.
    pub fn log(&self) -> Option<&[u8]> {
        self.log.as_deref()
    }

    /// Returns the namespaces that have changed, ascending; `None` if the event is about something else, or the controller
    /// does not say which (more than 1024): then any may have.
    pub fn changed_namespaces(&self) -> Option<Vec<u32>> {
        let log = self.log().filter(|_| self.log_page() == LogPageId::CHANGED_NAMESPACES)?;
        ChangedNamespacesLog::read_from_prefix(log).ok().and_then(|(log, _)| log.changed())
    }

    /// Returns the namespace whose zones have changed; `None` if the event is about something else.
    pub fn zoned_namespace(&self) -> Option<u32> {
        let is_zone = self.kind() == EventKind::Notice(NoticeEvent::ZONE_DESCRIPTOR);
        is_zone.then_some(self.dword1)
    }

    /// Returns the first blocks of the zones that have changed by themselves, in the event's
    /// [namespace](Self::zoned_namespace). `None` if the event is about something else, or the controller does not say which (more
    /// than 511): then any may have.
    pub fn changed_zones(&self) -> Option<Vec<u64>> {
        let log = self.log().filter(|_| self.log_page() == LogPageId::CHANGED_ZONES)?;
        ChangedZonesLog::read_from_prefix(log).ok().and_then(|(log, _)| log.changed().map(<[u64]>::to_vec))
    }

    /// Returns the SMART / Health Information log of a health event.
    pub fn smart(&self) -> Option<SmartLog> {
        let log = self.log().filter(|_| self.log_page() == LogPageId::SMART)?;
        SmartLog::read_from_prefix(log).ok().map(|(log, _)| log)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; log page {}", self.kind(), self.log_page())
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.log.as_ref().map(|log| log.len());
        f.debug_struct("Event").field("kind", &self.kind()).field("log_bytes", &bytes).finish_non_exhaustive()
    }
}
