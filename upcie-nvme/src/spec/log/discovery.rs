//! Base, "Discovery Log Page" of fabrics.

use super::super::fields::Field;
use super::super::macros::structure;
use super::super::transports::{ADDRESS_FAMILIES, TRANSPORTS};
use super::id::LogPageId;
use super::page::{LogHeader, VariableLog, entries, list};

structure! {
    /// The header of the Discovery page (70h), 1024 bytes.
    DiscoveryHeader[1024], "Discovery" {
        /// Generation of the page (GENCTR).
        0 generation: u64 => number;
        /// Entries (NUMREC).
        8 records: u64 => number;
        /// Format of the entries: 0 (RECFMT).
        16 record_format: u16 => number;
        18 reserved18: [u8; 1006];
    }
}

structure! {
    /// An entry of the Discovery page, 1024 bytes.
    DiscoveryEntry[1024], "Discovery Log Page Entry" {
        /// Transport (TRTYPE).
        0 transport_type: u8 => names(TRANSPORTS);
        /// Address family (ADRFAM).
        1 address_family: u8 => names(ADDRESS_FAMILIES);
        /// Kind of subsystem (SUBTYPE).
        2 subsystem_type: u8 => names(&[
            (1, "discovery, referral"),
            (2, "NVM subsystem"),
            (3, "discovery, this subsystem"),
        ]);
        /// Requirements of the transport (TREQ).
        3 transport_requirements: u8 => hex;
        /// The port.
        4 port_id: u16 => number;
        /// The controller; FFFFh: dynamic.
        6 controller_id: u16 => hex;
        /// Largest admin submission queue (ASQSZ).
        8 admin_max_queue_size: u16 => number;
        /// Flags of the entry (EFLAGS).
        10 entry_flags: u16 => hex;
        12 reserved12: [u8; 20];
        /// Service of the transport, ASCII (TRSVCID).
        32 transport_service: [u8; 32] => text;
        64 reserved64: [u8; 192];
        /// Qualified name of the subsystem, UTF-8 ended by a zero.
        256 subsystem_name: [u8; 256] => utf8;
        /// Address, ASCII (TRADDR).
        512 transport_address: [u8; 256] => text;
        /// Transport-specific (TSAS).
        768 transport_specific: [u8; 256] => bytes;
    }
}

/// The Discovery page with its entries.
pub type DiscoveryLog = VariableLog<DiscoveryHeader>;

impl VariableLog<DiscoveryHeader> {
    /// Returns the entries, as far as the page has them.
    #[must_use]
    pub fn entries(&self) -> Vec<DiscoveryEntry> {
        entries(&self.rest, self.header.records)
    }
}

impl LogHeader for DiscoveryHeader {
    const ID: LogPageId = LogPageId::DISCOVERY;

    fn rest_len(&self, _: &[u8]) -> u64 {
        self.records.saturating_mul(size_of::<DiscoveryEntry>() as u64)
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        let all: Vec<DiscoveryEntry> = entries(rest, self.records);
        vec![Field::new("entries", list(&all))]
    }
}
