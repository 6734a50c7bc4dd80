//! Base 2.1, "Flexible Data Placement": configurations, reclaim unit handles, statistics, events. The log-specific identifier
//! of each page names an endurance group.

use zerocopy::FromBytes;

use super::super::fields::{Field, Structure, Value};
use super::super::identify::IdentifyController;
use super::super::macros::{bits, named_values, structure};
use super::id::LogPageId;
use super::page::{LogHeader, VariableLog, entries, fixed_pages, list};

structure! {
    /// The header of the FDP Configurations page (20h).
    PlacementConfigurationsHeader[16], "FDP Configurations" {
        /// Configurations, 0's based.
        0 configurations: u16 => zeros_based;
        /// Version of the page.
        2 version: u8 => number;
        3 reserved3: u8;
        /// Length of the page in bytes, this header included.
        4 length: u32 => unit("bytes");
        8 reserved8: [u8; 8];
    }
}

bits! {
    /// Attributes of a configuration.
    PlacementAttributes(u8), "FDP Attributes" {
        /// Bits of a placement identifier that are the reclaim group (RGIF).
        reclaim_group_identifier_format: u8[4] => number;
        /// The configuration has a volatile write cache (FDPVWC).
        volatile_write_cache: bool[1] => flag;
        __: u8[2];
        /// The configuration can be used.
        valid: bool[1] => flag;
    }
}

structure! {
    /// A configuration, 64 bytes, before its reclaim unit handles.
    PlacementConfiguration[64], "FDP Configuration Descriptor" {
        /// Length of the descriptor with its handles, in bytes.
        0 descriptor_length: u16;
        /// Attributes (FDPA).
        2 attributes: PlacementAttributes => fields;
        /// Vendor-specific bytes at the end (VSS).
        3 vendor_specific_length: u8 => unit("bytes");
        /// Reclaim groups (NRG).
        4 reclaim_groups: u32 => number;
        /// Reclaim unit handles (NRUH).
        8 reclaim_unit_handles: u16 => number;
        /// Most placement identifiers of a namespace, 0's based (MAXPIDS).
        10 max_placement_identifiers: u16 => zeros_based;
        /// Namespaces (NNSS).
        12 namespaces_supported: u32 => number;
        /// Nominal size of a reclaim unit, in bytes (RUNS).
        16 reclaim_unit_nominal_size: u64 => unit("bytes");
        /// Estimated time limit of a reclaim unit, in seconds; 0 not reported (ERUTL).
        24 estimated_reclaim_unit_time_limit: u32 => unit("s");
        28 reserved28: [u8; 36];
    }
}

structure! {
    /// A reclaim unit handle of a configuration, 4 bytes.
    ReclaimUnitHandle[4], "Reclaim Unit Handle Descriptor" {
        /// Isolation of the handle's data (RUHT).
        0 handle_type: u8 => names(&[(1, "initially isolated"), (2, "persistently isolated")]);
        1 reserved1: [u8; 3];
    }
}

/// The FDP Configurations page with its configurations.
pub type PlacementConfigurationsLog = VariableLog<PlacementConfigurationsHeader>;

impl VariableLog<PlacementConfigurationsHeader> {
    /// Returns each configuration with its reclaim unit handles, as far as the page has them.
    pub fn configurations(
        &self,
    ) -> impl Iterator<Item = (PlacementConfiguration, Vec<ReclaimUnitHandle>)> + '_ {
        configurations(self.header.configurations, &self.rest)
    }
}

fn configurations(
    last: u16,
    mut rest: &[u8],
) -> impl Iterator<Item = (PlacementConfiguration, Vec<ReclaimUnitHandle>)> + '_ {
    (0..=last).map_while(move |_| {
        let (configuration, _) = PlacementConfiguration::read_from_prefix(rest).ok()?;
        let (whole, after) = rest.split_at_checked(configuration.descriptor_length.into())?;
        let handles = whole.get(size_of::<PlacementConfiguration>()..)?;
        rest = after;
        Some((configuration, entries(handles, configuration.reclaim_unit_handles.into())))
    })
}

impl LogHeader for PlacementConfigurationsHeader {
    const ID: LogPageId = LogPageId::FDP_CONFIGURATIONS;

    fn rest_len(&self, _: &[u8]) -> u64 {
        u64::from(self.length).saturating_sub(size_of::<Self>() as u64)
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        let shown = configurations(self.configurations, rest).map(|(configuration, handles)| {
            let mut fields = configuration.fields();
            fields.push(Field::new("handles", list(&handles)));
            Value::Fields(fields)
        });
        vec![Field::new("configuration_list", Value::List(shown.collect()))]
    }
}

structure! {
    /// The header of the Reclaim Unit Handle Usage page (21h).
    HandleUsageHeader[8], "Reclaim Unit Handle Usage" {
        /// Reclaim unit handles (NRUH).
        0 reclaim_unit_handles: u16 => number;
        2 reserved2: [u8; 6];
    }
}

structure! {
    /// The use of a reclaim unit handle, 8 bytes.
    HandleUsage[8], "Reclaim Unit Handle Usage Descriptor" {
        /// User of the handle (RUHA).
        0 attributes: u8 => names(&[(0, "unused"), (1, "host"), (2, "controller")]);
        1 reserved1: [u8; 7];
    }
}

/// The Reclaim Unit Handle Usage page with its handles.
pub type HandleUsageLog = VariableLog<HandleUsageHeader>;

impl VariableLog<HandleUsageHeader> {
    /// Returns the use of each handle.
    #[must_use]
    pub fn handles(&self) -> Vec<HandleUsage> {
        entries(&self.rest, self.header.reclaim_unit_handles.into())
    }
}

impl LogHeader for HandleUsageHeader {
    const ID: LogPageId = LogPageId::RECLAIM_UNIT_HANDLE_USAGE;

    fn rest_len(&self, _: &[u8]) -> u64 {
        u64::from(self.reclaim_unit_handles) * size_of::<HandleUsage>() as u64
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        let handles: Vec<HandleUsage> = entries(rest, self.reclaim_unit_handles.into());
        vec![Field::new("handles", list(&handles))]
    }
}

structure! {
    /// FDP Statistics (22h). Numbers of 16 bytes are little endian.
    PlacementStatisticsLog[64], "FDP Statistics" {
        /// Bytes written by hosts (HBMW).
        0 host_bytes_with_metadata_written: [u8; 16] => unit("bytes");
        /// Bytes written to the media (MBMW).
        16 media_bytes_with_metadata_written: [u8; 16] => unit("bytes");
        /// Bytes erased (MBE).
        32 media_bytes_erased: [u8; 16] => unit("bytes");
        48 reserved48: [u8; 16];
    }
}

impl PlacementStatisticsLog {
    /// Returns the bytes that hosts wrote, with metadata.
    #[must_use]
    pub const fn host_bytes(&self) -> u128 {
        u128::from_le_bytes(self.host_bytes_with_metadata_written)
    }

    /// Returns the bytes that were written to the media, with metadata: those of hosts, and those that the controller moved.
    #[must_use]
    pub const fn media_bytes(&self) -> u128 {
        u128::from_le_bytes(self.media_bytes_with_metadata_written)
    }

    /// Returns the bytes of media that were erased.
    #[must_use]
    pub const fn erased_bytes(&self) -> u128 {
        u128::from_le_bytes(self.media_bytes_erased)
    }
}

named_values! {
    /// The type of a placement event.
    PlacementEventType(u8) {
        UNIT_NOT_FULLY_WRITTEN = 0x00, "Reclaim Unit Not Fully Written To Capacity";
        UNIT_TIME_LIMIT = 0x01, "Reclaim Unit Time Limit Exceeded";
        RESET_MODIFIED_HANDLES = 0x02, "Controller Level Reset Modified Reclaim Unit Handles";
        INVALID_PLACEMENT_IDENTIFIER = 0x03, "Invalid Placement Identifier";
        MEDIA_REALLOCATED = 0x80, "Media Reallocated";
        IMPLICITLY_MODIFIED_HANDLE = 0x81, "Implicitly Modified Reclaim Unit Handle";
    }
}

bits! {
    /// Valid fields of a placement event.
    PlacementEventFlags(u8), "FDP Event Flags" {
        /// The placement identifier is valid (PIV).
        placement_identifier: bool[1] => flag;
        /// The namespace is valid (NSIDV).
        namespace_id: bool[1] => flag;
        /// The reclaim group and handle are valid (LV).
        location: bool[1] => flag;
        __: u8[5];
    }
}

structure! {
    /// A placement event, 64 bytes.
    PlacementEvent[64], "FDP Event" {
        /// The [`PlacementEventType`].
        0 event_type: u8 = shown_type;
        /// Valid fields.
        1 valid: PlacementEventFlags => fields;
        /// The placement identifier (PID).
        2 placement_identifier: u16 => number;
        /// The time, as feature 0Eh has it.
        4 timestamp: [u8; 8] => hex;
        /// The namespace.
        12 namespace_id: u32 => number;
        /// Data whose format depends on the event's type.
        16 type_specific: [u8; 16] => bytes;
        /// The reclaim group (RGID).
        32 reclaim_group_id: u16 => number;
        /// The reclaim unit handle (RUHID).
        34 reclaim_unit_handle_id: u8 => number;
        35 reserved35: [u8; 5];
        /// Vendor specific.
        40 vendor_specific: [u8; 24] => bytes;
    }
}

impl PlacementEvent {
    fn shown_type(&self) -> Value {
        super::super::fields::show::named(&PlacementEventType(self.event_type))
    }
}

structure! {
    /// FDP Events (23h): of the controller, or with bit 0 of the log-specific parameter those of hosts.
    PlacementEventsLog[4096], "FDP Events" {
        /// Events in the page.
        0 count: u32 => number;
        4 reserved4: [u8; 60];
        /// The events; see [`Self::events`].
        64 all_events: [PlacementEvent; 63] = shown;
    }
}

impl PlacementEventsLog {
    /// Returns the events in the page.
    #[must_use]
    pub fn events(&self) -> &[PlacementEvent] {
        &self.all_events[..self.all_events.len().min(self.count as usize)]
    }

    fn shown(&self) -> Value {
        list(self.events())
    }
}

fixed_pages! {
    PlacementStatisticsLog: FDP_STATISTICS;
    PlacementEventsLog: FDP_EVENTS;
}
