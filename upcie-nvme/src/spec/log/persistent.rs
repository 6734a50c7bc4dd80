//! Base, "Persistent Event Log": a header and events of different lengths.

use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::super::fields::{Field, Structure, Value};
use super::super::macros::{named_values, structure};
use super::id::LogPageId;
use super::page::{LogHeader, VariableLog};

named_values! {
    /// The type of a persistent event.
    PersistentEventType(u8) {
        HEALTH_SNAPSHOT = 0x01, "SMART / Health Log Snapshot";
        FIRMWARE_COMMIT = 0x02, "Firmware Commit";
        TIMESTAMP_CHANGE = 0x03, "Timestamp Change";
        POWER_ON_OR_RESET = 0x04, "Power-on or Reset";
        HARDWARE_ERROR = 0x05, "NVM Subsystem Hardware Error";
        CHANGE_NAMESPACE = 0x06, "Change Namespace";
        FORMAT_START = 0x07, "Format NVM Start";
        FORMAT_COMPLETION = 0x08, "Format NVM Completion";
        SANITIZE_START = 0x09, "Sanitize Start";
        SANITIZE_COMPLETION = 0x0a, "Sanitize Completion";
        SET_FEATURE = 0x0b, "Set Feature";
        TELEMETRY_CREATED = 0x0c, "Telemetry Log Created";
        THERMAL_EXCURSION = 0x0d, "Thermal Excursion";
        SANITIZE_MEDIA_VERIFICATION = 0x0e, "Sanitize Media Verification";
        VENDOR_SPECIFIC = 0xde, "Vendor Specific";
        TCG = 0xdf, "TCG Defined";
    }
}

structure! {
    /// The header of the Persistent Event page (0Dh). The log-specific parameter 1 begins a context, 2 ends it.
    PersistentEventHeader[512], "Persistent Event Log" {
        /// The identifier of the page.
        0 log_page_id: u8 => hex;
        1 reserved1: [u8; 3];
        /// Events in the page (TNEV).
        4 events: U32 => number;
        /// Length of the page in bytes, this header included (TLL).
        8 total_length: U64 => unit("bytes");
        /// Revision of the page.
        16 revision: u8 => number;
        17 reserved17: u8;
        /// Length of the header after this field, in bytes (LHL).
        18 header_length: U16 => unit("bytes");
        /// The time of the report, as feature 0Eh has it.
        20 timestamp: [u8; 8] => hex;
        /// Hours powered on, little endian.
        28 power_on_hours: [u8; 16] => unit("h");
        /// Power cycles.
        44 power_cycle_count: U64 => number;
        /// PCI vendor ID.
        52 vendor_id: U16 => hex;
        /// PCI subsystem vendor ID.
        54 subsystem_vendor_id: U16 => hex;
        /// Serial number, ASCII.
        56 serial_number: [u8; 20] => text;
        /// Model number, ASCII.
        76 model_number: [u8; 40] => text;
        /// Qualified name of the NVM subsystem, UTF-8 ended by a zero.
        116 subsystem_name: [u8; 256] => utf8;
        /// Generation of the page (2.0).
        372 generation: U16 => number;
        /// Owner of the context (2.0).
        374 reporting_context: U32 => hex;
        378 reserved378: [u8; 102];
        /// The event types that the controller reports, one bit each.
        480 supported_events: [u8; 32] => bytes;
    }
}

structure! {
    /// Header of a persistent event, 24 bytes.
    PersistentEvent[24], "Persistent Event" {
        /// The [`PersistentEventType`].
        0 event_type: u8 = shown_type;
        /// Revision of the event's data.
        1 revision: u8 => number;
        /// Length of this header after this field, in bytes: 21 (EHL).
        2 header_length: u8;
        /// Type of the port `port_id`: of the NVM subsystem, or for management.
        3 port_type: u8 => names(&[
            (0, "not reported"),
            (1, "NVM subsystem port"),
            (2, "management port"),
            (3, "no port"),
        ]);
        /// The controller.
        4 controller_id: U16 => number;
        /// The time, as feature 0Eh has it.
        6 timestamp: [u8; 8] => hex;
        /// The port (2.0).
        14 port_id: U16 => number;
        16 reserved16: [u8; 4];
        /// Vendor-specific bytes at the beginning of the data.
        20 vendor_length: U16 => unit("bytes");
        /// Length of the data with the vendor-specific bytes (EL).
        22 event_length: U16 => unit("bytes");
    }
}

impl PersistentEvent {
    fn shown_type(&self) -> Value {
        super::super::fields::show::named(&PersistentEventType(self.event_type))
    }
}

/// The Persistent Event page with its events.
pub type PersistentEventLog = VariableLog<PersistentEventHeader>;

impl VariableLog<PersistentEventHeader> {
    /// Returns each event with its data, as far as the page has them.
    pub fn events(&self) -> impl Iterator<Item = (PersistentEvent, &[u8])> + '_ {
        events(self.header.events.get(), &self.rest)
    }
}

fn events(count: u32, mut rest: &[u8]) -> impl Iterator<Item = (PersistentEvent, &[u8])> {
    (0..count).map_while(move |_| {
        let (event, _) = PersistentEvent::read_from_prefix(rest).ok()?;
        // A header of a later revision is longer.
        let (_, data) = rest.split_at_checked(usize::from(event.header_length) + 3)?;
        let (data, after) = data.split_at_checked(event.event_length.get().into())?;
        rest = after;
        Some((event, data))
    })
}

impl LogHeader for PersistentEventHeader {
    const ID: LogPageId = LogPageId::PERSISTENT_EVENTS;

    fn rest_len(&self, _: &[u8]) -> u64 {
        self.total_length.get().saturating_sub(size_of::<Self>() as u64)
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        let shown = events(self.events.get(), rest).map(|(event, data)| {
            let mut fields = event.fields();
            fields.push(Field::new("data", Value::Bytes(data.to_vec())));
            Value::Fields(fields)
        });
        vec![Field::new("event_list", Value::List(shown.collect()))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::LogPage;
    use zerocopy::{FromZeros, IntoBytes};

    #[test]
    fn events_are_walked_by_their_lengths() {
        let header = PersistentEventHeader { events: 3.into(), ..FromZeros::new_zeroed() };
        let event = |event_type, length: u16| PersistentEvent {
            event_type,
            header_length: 21,
            event_length: length.into(),
            ..FromZeros::new_zeroed()
        };
        let mut page = header.as_bytes().to_vec();
        page.extend(event(1, 2).as_bytes());
        page.extend([7, 8]);
        page.extend(event(0xde, 0).as_bytes());
        // The third claims more than the page has.
        page.extend(event(4, 100).as_bytes());
        let log = PersistentEventLog::from_page(&page).unwrap();
        let found: Vec<_> = log.events().map(|(event, data)| (event.event_type, data)).collect();
        assert_eq!(found, [(1, &[7, 8][..]), (0xde, &[])]);
    }
}
