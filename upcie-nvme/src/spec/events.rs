//! Asynchronous events by type: Base, "Asynchronous Event Request command".

use super::features::{AsyncEvent, AsyncEventType};
use super::log::LogPageId;
use super::macros::named_values;
use core::fmt;

named_values! {
    /// An event of the type "error status".
    ErrorEvent(u8) {
        INVALID_DOORBELL = 0x00, "Write to Invalid Doorbell Register";
        INVALID_DOORBELL_VALUE = 0x01, "Invalid Doorbell Write Value";
        DIAGNOSTIC_FAILURE = 0x02, "Diagnostic Failure";
        PERSISTENT_INTERNAL_ERROR = 0x03, "Persistent Internal Error";
        TRANSIENT_INTERNAL_ERROR = 0x04, "Transient Internal Error";
        FIRMWARE_IMAGE_LOAD_ERROR = 0x05, "Firmware Image Load Error";
    }
}

named_values! {
    /// An event of the type "SMART / health status".
    SmartEvent(u8) {
        RELIABILITY = 0x00, "NVM Subsystem Reliability";
        TEMPERATURE = 0x01, "Temperature Threshold";
        SPARE = 0x02, "Spare Below Threshold";
    }
}

named_values! {
    /// An event of the type "notice".
    NoticeEvent(u8) {
        NAMESPACE_ATTRIBUTES = 0x00, "Namespace Attribute Changed";
        FIRMWARE_ACTIVATION = 0x01, "Firmware Activation Starting";
        TELEMETRY = 0x02, "Telemetry Log Changed";
        ASYMMETRIC_NAMESPACE_ACCESS = 0x03, "Asymmetric Namespace Access Change";
        PREDICTABLE_LATENCY = 0x04, "Predictable Latency Event Aggregate Log Change";
        LBA_STATUS = 0x05, "LBA Status Information Alert";
        ENDURANCE_GROUP = 0x06, "Endurance Group Event Aggregate Log Page Change";
        REACHABILITY_GROUP = 0x07, "Reachability Group Change";
        REACHABILITY_ASSOCIATION = 0x08, "Reachability Association Change";
        ALLOCATED_NAMESPACE_ATTRIBUTES = 0x09, "Allocated Namespace Attribute Changed";
        ZONE_DESCRIPTOR = 0xef, "Zone Descriptor Changed";
        DISCOVERY = 0xf0, "Discovery Log Page Change";
        HOST_DISCOVERY = 0xf1, "Host Discovery Log Page Change";
        AVE_DISCOVERY = 0xf2, "AVE Discovery Log Page Change";
        PULL_MODEL_REQUEST = 0xf3, "Pull Model DDC Request Log Page Change";
    }
}

impl NoticeEvent {
    /// Returns the log page that tells more, by the specification: [`AsyncEvent::log_page`] is what the controller names.
    /// `None` for a notice that the library does not know.
    #[must_use]
    pub const fn log_page(self) -> Option<LogPageId> {
        Some(match self {
            Self::NAMESPACE_ATTRIBUTES => LogPageId::CHANGED_NAMESPACES,
            Self::FIRMWARE_ACTIVATION => LogPageId::FIRMWARE_SLOT,
            Self::TELEMETRY => LogPageId::TELEMETRY_CONTROLLER,
            Self::ASYMMETRIC_NAMESPACE_ACCESS => LogPageId::ASYMMETRIC_NAMESPACE_ACCESS,
            Self::PREDICTABLE_LATENCY => LogPageId::PREDICTABLE_LATENCY_AGGREGATE,
            Self::LBA_STATUS => LogPageId::LBA_STATUS,
            Self::ENDURANCE_GROUP => LogPageId::ENDURANCE_GROUP_AGGREGATE,
            Self::REACHABILITY_GROUP => LogPageId::REACHABILITY_GROUPS,
            Self::REACHABILITY_ASSOCIATION => LogPageId::REACHABILITY_ASSOCIATIONS,
            Self::ALLOCATED_NAMESPACE_ATTRIBUTES => LogPageId::CHANGED_ALLOCATED_NAMESPACES,
            Self::ZONE_DESCRIPTOR => LogPageId::CHANGED_ZONES,
            Self::DISCOVERY => LogPageId::DISCOVERY,
            Self::HOST_DISCOVERY => LogPageId::HOST_DISCOVERY,
            Self::AVE_DISCOVERY => LogPageId::AVE_DISCOVERY,
            Self::PULL_MODEL_REQUEST => LogPageId::PULL_MODEL_REQUEST,
            _ => return None,
        })
    }
}

named_values! {
    /// An event of the type "immediate", which is never masked.
    ImmediateEvent(u8) {
        SUBSYSTEM_SHUTDOWN = 0x00, "Normal NVM Subsystem Shutdown";
        TEMPERATURE_HYSTERESIS = 0x01, "Temperature Threshold Hysteresis Recovery";
    }
}

named_values! {
    /// An event of the type "one-shot": of a controller data queue, until it is asked for again.
    OneShotEvent(u8) {
        DATA_QUEUE_TAIL = 0x00, "Controller Data Queue Tail Pointer";
        DATA_QUEUE_FULL = 0x01, "Controller Data Queue Full Error";
    }
}

named_values! {
    /// An event of the type "I/O command specific status".
    CommandSetEvent(u8) {
        RESERVATION_LOG = 0x00, "Reservation Log Page Available";
        SANITIZE_COMPLETED = 0x01, "Sanitize Operation Completed";
        SANITIZE_DEALLOCATED = 0x02, "Sanitize Operation Completed With Unexpected Deallocation";
        SANITIZE_MEDIA_VERIFICATION = 0x03, "Sanitize Operation Entered Media Verification State";
    }
}

/// The subject of an asynchronous event, by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// An error that belongs to no command. The Error Information log has it.
    Error(ErrorEvent),
    /// A critical warning. The SMART / Health Information log has it.
    Smart(SmartEvent),
    /// A change that hosts may want to know of.
    Notice(NoticeEvent),
    /// An event that no log page belongs to.
    Immediate(ImmediateEvent),
    /// An event of a controller data queue. No log page belongs to it.
    OneShot(OneShotEvent),
    /// An event of the I/O command set.
    CommandSet(CommandSetEvent),
    /// A vendor's event, with its number.
    Vendor(u8),
    /// An event of a type that the specification does not assign.
    Other {
        /// The type.
        kind: AsyncEventType,
        /// The event's number.
        information: u8,
    },
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(event) => write!(f, "error: {event}"),
            Self::Smart(event) => write!(f, "SMART / health: {event}"),
            Self::Notice(event) => write!(f, "notice: {event}"),
            Self::Immediate(event) => write!(f, "immediate: {event}"),
            Self::OneShot(event) => write!(f, "one-shot: {event}"),
            Self::CommandSet(event) => write!(f, "I/O command set: {event}"),
            Self::Vendor(information) => write!(f, "vendor specific: {information:02X}h"),
            Self::Other { kind, information } => write!(f, "{kind}: {information:02X}h"),
        }
    }
}

impl AsyncEvent {
    /// Returns the subject of the event.
    #[must_use]
    pub const fn subject(self) -> EventKind {
        let information = self.information();
        match self.kind() {
            AsyncEventType::ERROR => EventKind::Error(ErrorEvent(information)),
            AsyncEventType::SMART => EventKind::Smart(SmartEvent(information)),
            AsyncEventType::NOTICE => EventKind::Notice(NoticeEvent(information)),
            AsyncEventType::IMMEDIATE => EventKind::Immediate(ImmediateEvent(information)),
            AsyncEventType::ONE_SHOT => EventKind::OneShot(OneShotEvent(information)),
            AsyncEventType::COMMAND_SET => EventKind::CommandSet(CommandSetEvent(information)),
            AsyncEventType::VENDOR => EventKind::Vendor(information),
            kind => EventKind::Other { kind, information },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_notice_that_has_a_name_has_a_log_page() {
        for notice in (0..=u8::MAX).map(NoticeEvent) {
            assert_eq!(notice.log_page().is_some(), notice.name().is_some(), "{notice}");
        }
        let pages: Vec<u8> = (7..=9)
            .chain(0xef..=0xf3)
            .filter_map(|notice| NoticeEvent(notice).log_page())
            .map(|page| page.0)
            .collect();
        assert_eq!(pages, [0x1a, 0x1b, 0x1c, 0xbf, 0x70, 0x71, 0x72, 0x73]);
    }

    #[test]
    fn events_of_all_types_are_told_apart() {
        let shown = |bits| AsyncEvent::from_bits(bits).subject().to_string();
        assert_eq!(shown(0xbf_ef02), "notice: Zone Descriptor Changed (EFh)");
        assert_eq!(shown(0x0103), "immediate: Temperature Threshold Hysteresis Recovery (01h)");
        assert_eq!(shown(0x0104), "one-shot: Controller Data Queue Full Error (01h)");
        assert_eq!(
            shown(0x81_0306),
            "I/O command set: Sanitize Operation Entered Media Verification State (03h)"
        );
        assert_eq!(shown(0x0705), "unknown (05h): 07h");
    }
}
