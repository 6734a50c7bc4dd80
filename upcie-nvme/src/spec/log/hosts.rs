//! Base 2.1, "Host Discovery", "AVE Discovery" and "Pull Model DDC Request": log pages of the discovery controllers of
//! fabrics.

use zerocopy::FromBytes;

use super::super::fields::{Field, Structure, Value, ascii, show, utf8};
use super::super::macros::{named_values, structure};
use super::super::transports::{ADDRESS_FAMILIES, TRANSPORTS};
use super::id::LogPageId;
use super::page::{LogHeader, VariableLog, entries, list};

/// Walks entries that say how long each is, and returns each with the bytes after its structure.
fn sized<'a, T: FromBytes + 'a>(
    count: u64,
    len: fn(&T) -> u32,
    mut rest: &'a [u8],
) -> impl Iterator<Item = (T, &'a [u8])> + 'a {
    (0..count).map_while(move |_| {
        let (entry, _) = T::read_from_prefix(rest).ok()?;
        let size = (len(&entry) as usize).max(size_of::<T>());
        let (whole, after) = rest.split_at_checked(size)?;
        rest = after;
        Some((entry, &whole[size_of::<T>()..]))
    })
}

/// Returns the bytes after a header, for a page of `len` bytes.
const fn after<H>(len: u32) -> u64 {
    (len as u64).saturating_sub(size_of::<H>() as u64)
}

structure! {
    /// The header of the Host Discovery page (71h), 1024 bytes.
    HostDiscoveryHeader[1024], "Host Discovery" {
        /// Generation of the page (GENCTR).
        0 generation: u64 => number;
        /// Entries (NUMREC).
        8 records: u64 => number;
        /// Format of the entries: 0 (RECFMT).
        16 record_format: u16 => number;
        /// Bit 0: the page has all hosts (HDLPF).
        18 page_flags: u8 => hex;
        19 reserved19: u8;
        /// Length of the page in bytes, this header included (THDLPL).
        20 length: u32 => unit("bytes");
        24 reserved24: [u8; 1000];
    }
}

structure! {
    /// A host, 1032 bytes, before its extended attributes.
    HostDiscoveryEntry[1032], "Host Extended Discovery Log Page Entry" {
        /// Transport (TRTYPE).
        0 transport_type: u8 => names(TRANSPORTS);
        /// Address family (ADRFAM).
        1 address_family: u8 => names(ADDRESS_FAMILIES);
        2 reserved2: [u8; 8];
        /// Bit 2: the host is not connected to the central discovery controller (EFLAGS).
        10 entry_flags: u16 => hex;
        12 reserved12: [u8; 244];
        /// Qualified name of the host, UTF-8 ended by a zero (HOSTNQN).
        256 host_name: [u8; 256] => utf8;
        /// Address of the host, ASCII (TRADDR).
        512 transport_address: [u8; 256] => text;
        /// Transport-specific (TSAS).
        768 transport_specific: [u8; 256] => bytes;
        /// Length of the entry in bytes, its extended attributes included (TEL).
        1024 length: u32 => unit("bytes");
        /// Extended attributes (NUMEXAT).
        1028 attribute_count: u16 => number;
        1030 reserved1030: [u8; 2];
    }
}

named_values! {
    /// The type of an extended attribute (EXATTYPE).
    HostAttributeType(u16) {
        /// 16 bytes.
        HOST_IDENTIFIER = 1, "host identifier";
        ADMIN_LABEL_ASCII = 2, "admin label, ASCII";
        ADMIN_LABEL = 3, "admin label, UTF-8";
    }
}

/// An extended attribute of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostAttribute<'a> {
    /// The type.
    pub kind: HostAttributeType,
    /// The value; zeros may follow a label.
    pub value: &'a [u8],
}

impl HostAttribute<'_> {
    fn shown(&self) -> Value {
        let value = match self.kind {
            HostAttributeType::ADMIN_LABEL_ASCII => Value::Text(ascii(self.value)),
            HostAttributeType::ADMIN_LABEL => Value::Text(utf8(self.value)),
            _ => show::bytes(self.value),
        };
        Value::Fields(vec![Field::new("attribute_type", show::named(&self.kind)), Field::new("value", value)])
    }
}

/// Walks extended attributes: a type and a length of 16 bits each, and the value.
fn attributes(count: u16, mut rest: &[u8]) -> impl Iterator<Item = HostAttribute<'_>> {
    (0..count).map_while(move |_| {
        let (&[kind, kind_high, len, len_high], after) = rest.split_first_chunk::<4>()?;
        let len = u16::from_le_bytes([len, len_high]);
        let (value, after) = after.split_at_checked(len.into())?;
        rest = after;
        Some(HostAttribute { kind: HostAttributeType(u16::from_le_bytes([kind, kind_high])), value })
    })
}

/// The Host Discovery page with its hosts.
pub type HostDiscoveryLog = VariableLog<HostDiscoveryHeader>;

impl VariableLog<HostDiscoveryHeader> {
    /// Returns each host with its extended attributes, as far as the page has them.
    pub fn hosts(&self) -> impl Iterator<Item = (HostDiscoveryEntry, Vec<HostAttribute<'_>>)> {
        hosts(self.header.records, &self.rest)
    }
}

fn hosts(count: u64, rest: &[u8]) -> impl Iterator<Item = (HostDiscoveryEntry, Vec<HostAttribute<'_>>)> {
    let all = sized(count, |entry: &HostDiscoveryEntry| entry.length, rest);
    all.map(|(entry, after)| (entry, attributes(entry.attribute_count, after).collect()))
}

impl LogHeader for HostDiscoveryHeader {
    const ID: LogPageId = LogPageId::HOST_DISCOVERY;

    fn rest_len(&self, _: &[u8]) -> u64 {
        after::<Self>(self.length)
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        let shown = hosts(self.records, rest).map(|(entry, attributes)| {
            let mut fields = entry.fields();
            let attributes = attributes.iter().map(HostAttribute::shown);
            fields.push(Field::new("attributes", Value::List(attributes.collect())));
            Value::Fields(fields)
        });
        vec![Field::new("hosts", Value::List(shown.collect()))]
    }
}

structure! {
    /// The header of the AVE Discovery page (72h), 1024 bytes.
    AveDiscoveryHeader[1024], "AVE Discovery" {
        /// Generation of the page (GENCTR).
        0 generation: u64 => number;
        /// Entries (NUMREC).
        8 records: u64 => number;
        /// Format of the entries: 0 (RECFMT).
        16 record_format: u16 => number;
        18 reserved18: [u8; 2];
        /// Length of the page in bytes, this header included (TADLPL).
        20 length: u32 => unit("bytes");
        24 reserved24: [u8; 1000];
    }
}

structure! {
    /// An authentication verification entity (AVE), 232 bytes, before its transport records.
    AveDiscoveryEntry[232], "AVE Discovery Log Page Entry" {
        /// Length of the entry in bytes, its transport records included (TEL).
        0 length: u32 => unit("bytes");
        /// Qualified name of the entity, UTF-8 ended by a zero (AVENQN).
        4 name: [u8; 224] => utf8;
        /// Transport records (NUMATR).
        228 record_count: u8 => number;
        229 reserved229: [u8; 3];
    }
}

structure! {
    /// A way to an authentication verification entity, 20 bytes.
    AveTransportRecord[20], "AVE Transport Record" {
        /// Address family (AVEADRFAM).
        0 address_family: u8 => names(&[(1, "IPv4"), (2, "IPv6")]);
        1 reserved1: u8;
        /// TCP port (AVETRSVCID).
        2 port: u16 => number;
        /// The address, big endian; an IPv4 address is in the first 4 bytes (AVETRADDR).
        4 address: [u8; 16] => bytes;
    }
}

/// The AVE Discovery page with its entities.
pub type AveDiscoveryLog = VariableLog<AveDiscoveryHeader>;

impl VariableLog<AveDiscoveryHeader> {
    /// Returns each entity with its transport records, as far as the page has them.
    pub fn entities(&self) -> impl Iterator<Item = (AveDiscoveryEntry, Vec<AveTransportRecord>)> + '_ {
        entities(self.header.records, &self.rest)
    }
}

fn entities(
    count: u64,
    rest: &[u8],
) -> impl Iterator<Item = (AveDiscoveryEntry, Vec<AveTransportRecord>)> + '_ {
    let all = sized(count, |entry: &AveDiscoveryEntry| entry.length, rest);
    all.map(|(entry, after)| (entry, entries(after, entry.record_count.into())))
}

impl LogHeader for AveDiscoveryHeader {
    const ID: LogPageId = LogPageId::AVE_DISCOVERY;

    fn rest_len(&self, _: &[u8]) -> u64 {
        after::<Self>(self.length)
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        let shown = entities(self.records, rest).map(|(entry, records)| {
            let mut fields = entry.fields();
            fields.push(Field::new("transport_records", list(&records)));
            Value::Fields(fields)
        });
        vec![Field::new("entities", Value::List(shown.collect()))]
    }
}

named_values! {
    /// An operation that a discovery controller requests of the central one (ORI).
    PullModelOperation(u8) {
        GET_ACTIVE_ZONE_GROUP = 1, "Get Active ZoneGroup";
        ADD_OR_REPLACE_ACTIVE_ZONE_GROUP = 2, "Add or Replace Active ZoneGroup";
        REMOVE_ACTIVE_ZONE_GROUP = 3, "Remove Active ZoneGroup";
        DISCOVERY_LOG_PAGE_REQUEST = 4, "Discovery Log Page Request";
    }
}

structure! {
    /// The header of the Pull Model DDC Request page (73h), 8 bytes, before the parameters of the operation.
    PullModelRequestHeader[8], "Pull Model DDC Request" {
        /// The [`PullModelOperation`] (ORI).
        0 operation: u8 = shown_operation;
        1 reserved1: [u8; 3];
        /// Length of the page in bytes, this header included (TPDRPL).
        4 length: u32 => unit("bytes");
    }
}

impl PullModelRequestHeader {
    /// Returns the operation.
    #[must_use]
    pub const fn kind(&self) -> PullModelOperation {
        PullModelOperation(self.operation)
    }

    fn shown_operation(&self) -> Value {
        show::named(&self.kind())
    }
}

/// The Pull Model DDC Request page; [`rest`](VariableLog::rest) has the parameters of the operation (OSP).
pub type PullModelRequestLog = VariableLog<PullModelRequestHeader>;

impl LogHeader for PullModelRequestHeader {
    const ID: LogPageId = LogPageId::PULL_MODEL_REQUEST;

    fn rest_len(&self, _: &[u8]) -> u64 {
        after::<Self>(self.length)
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        let len = rest.len().min(usize::try_from(after::<Self>(self.length)).unwrap_or(usize::MAX));
        vec![Field::new("parameters", show::bytes(&rest[..len]))]
    }
}

#[cfg(test)]
mod tests {
    use super::super::LogPage;
    use super::*;
    use crate::spec::IdentifyController;
    use zerocopy::{FromZeros, IntoBytes};

    fn len<L: LogPage>(page: &[u8]) -> u64 {
        L::len(page, &IdentifyController::new_zeroed())
    }

    #[test]
    fn hosts_have_extended_attributes() {
        let host = |length, attribute_count| HostDiscoveryEntry {
            transport_type: 3,
            length,
            attribute_count,
            ..FromZeros::new_zeroed()
        };
        let mut first = host(1032 + 28, 2);
        first.host_name[..4].copy_from_slice(b"nqn.");
        let length = 1024 + first.length + 1032;
        let header = HostDiscoveryHeader { records: 2, page_flags: 1, length, ..FromZeros::new_zeroed() };
        let mut page = header.as_bytes().to_vec();
        page.extend(first.as_bytes());
        page.extend([1, 0, 16, 0]);
        page.extend([7; 16]);
        page.extend([3, 0, 4, 0]);
        page.extend(b"rk\0\0");
        // A length below that of an entry, and an attribute that the page does not have.
        page.extend(host(4, 1).as_bytes());
        assert_eq!(len::<HostDiscoveryLog>(&page), page.len() as u64);
        let log = HostDiscoveryLog::from_page(&page).unwrap();
        let all: Vec<_> = log.hosts().collect();
        assert_eq!(all.len(), 2);
        let kinds: Vec<_> = all[0].1.iter().map(|attribute| attribute.kind).collect();
        assert_eq!(kinds, [HostAttributeType::HOST_IDENTIFIER, HostAttributeType::ADMIN_LABEL]);
        assert_eq!((all[0].1[1].value, all[1].1.len()), (&b"rk\0\0"[..], 0));
        let text = log.to_string();
        for part in ["host name: nqn.", "transport type: TCP (3h)", "value rk"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn entities_have_transport_records() {
        let header = AveDiscoveryHeader { records: 9, length: 1024 + 272, ..FromZeros::new_zeroed() };
        let mut entity = AveDiscoveryEntry { length: 272, record_count: 2, ..FromZeros::new_zeroed() };
        entity.name[..3].copy_from_slice(b"ave");
        let mut page = header.as_bytes().to_vec();
        page.extend(entity.as_bytes());
        for port in [4420, 8009] {
            let record = AveTransportRecord { address_family: 1, port, ..FromZeros::new_zeroed() };
            page.extend(record.as_bytes());
        }
        assert_eq!(len::<AveDiscoveryLog>(&page[..1024]), page.len() as u64);
        let log = AveDiscoveryLog::from_page(&page).unwrap();
        let all: Vec<_> = log.entities().collect();
        assert_eq!(all.len(), 1, "the page has fewer entries than it says");
        assert_eq!(all[0].1.iter().map(|record| record.port).collect::<Vec<_>>(), [4420, 8009]);
    }

    #[test]
    fn a_request_has_the_parameters_of_its_operation() {
        let page = [4, 0, 0, 0, 11, 0, 0, 0, 1, 2, 3, 9];
        assert_eq!(len::<PullModelRequestLog>(&page[..8]), 11);
        assert_eq!(len::<PullModelRequestLog>(&[0; 8]), 8, "less than the header");
        let log = PullModelRequestLog::from_page(&page).unwrap();
        assert_eq!(log.header.kind(), PullModelOperation::DISCOVERY_LOG_PAGE_REQUEST);
        assert!(log.to_string().contains("parameters: 010203"), "{log}");
    }
}
