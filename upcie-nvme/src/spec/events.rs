//! Asynchronous events by type: Base, "Asynchronous Event Request command".

use super::features::{AsyncEvent, AsyncEventType};
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
    }
}

named_values! {
    /// An event of the type "immediate", which is never masked.
    ImmediateEvent(u8) {
        SUBSYSTEM_SHUTDOWN = 0x00, "Normal NVM Subsystem Shutdown";
    }
}

named_values! {
    /// An event of the type "I/O command specific status".
    CommandSetEvent(u8) {
        RESERVATION_LOG = 0x00, "Reservation Log Page Available";
        SANITIZE_COMPLETED = 0x01, "Sanitize Operation Completed";
        SANITIZE_DEALLOCATED = 0x02, "Sanitize Operation Completed With Unexpected Deallocation";
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
            AsyncEventType::COMMAND_SET => EventKind::CommandSet(CommandSetEvent(information)),
            AsyncEventType::VENDOR => EventKind::Vendor(information),
            kind => EventKind::Other { kind, information },
        }
    }
}
