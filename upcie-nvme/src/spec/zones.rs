//! Zones: ZNS, "Zone Append command", "Zone Management Receive command", "Zone Management Send command".

use bitfield_struct::bitfield;
use zerocopy::FromBytes;

use super::command::Command;
use super::fields::Value;
use super::macros::{bits, named_values, structure};
use super::opcode::NvmOpcode;

named_values! {
    /// The change that a Zone Management Send makes (ZSA).
    ZoneAction(u8) {
        CLOSE = 0x01, "Close Zone";
        FINISH = 0x02, "Finish Zone";
        OPEN = 0x03, "Open Zone";
        RESET = 0x04, "Reset Zone";
        OFFLINE = 0x05, "Offline Zone";
        SET_DESCRIPTOR_EXTENSION = 0x10, "Set Zone Descriptor Extension";
        FLUSH_RANDOM_WRITE_AREA = 0x11, "ZRWA Flush";
    }
}

named_values! {
    /// The state of a zone (ZS).
    ZoneState(u8) {
        EMPTY = 0x1, "Empty";
        IMPLICITLY_OPENED = 0x2, "Implicitly Opened";
        EXPLICITLY_OPENED = 0x3, "Explicitly Opened";
        CLOSED = 0x4, "Closed";
        READ_ONLY = 0xd, "Read Only";
        FULL = 0xe, "Full";
        OFFLINE = 0xf, "Offline";
    }
}

impl ZoneState {
    /// Returns `true` for a zone that counts against the limit of open zones.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::IMPLICITLY_OPENED | Self::EXPLICITLY_OPENED)
    }

    /// Returns `true` for a zone that counts against the limit of active zones.
    #[must_use]
    pub const fn is_active(self) -> bool {
        self.is_open() || matches!(self, Self::CLOSED)
    }

    /// Returns `true` for a zone whose write pointer has a meaning.
    #[must_use]
    pub const fn has_write_pointer(self) -> bool {
        self.is_active() || matches!(self, Self::EMPTY)
    }
}

named_values! {
    /// The type of a zone (ZT).
    ZoneType(u8) {
        SEQUENTIAL_WRITE_REQUIRED = 0x2, "Sequential Write Required";
    }
}

named_values! {
    /// The zones that a report lists (ZRASF).
    ZoneFilter(u8) {
        ALL = 0x0, "all zones";
        EMPTY = 0x1, "empty zones";
        IMPLICITLY_OPENED = 0x2, "implicitly opened zones";
        EXPLICITLY_OPENED = 0x3, "explicitly opened zones";
        CLOSED = 0x4, "closed zones";
        FULL = 0x5, "full zones";
        READ_ONLY = 0x6, "read-only zones";
        OFFLINE = 0x7, "offline zones";
    }
}

impl ZoneFilter {
    /// Returns the state of the listed zones; `None` if zones of all states are listed, or for a reserved value.
    #[must_use]
    pub const fn state(self) -> Option<ZoneState> {
        match self {
            Self::EMPTY => Some(ZoneState::EMPTY),
            Self::IMPLICITLY_OPENED => Some(ZoneState::IMPLICITLY_OPENED),
            Self::EXPLICITLY_OPENED => Some(ZoneState::EXPLICITLY_OPENED),
            Self::CLOSED => Some(ZoneState::CLOSED),
            Self::FULL => Some(ZoneState::FULL),
            Self::READ_ONLY => Some(ZoneState::READ_ONLY),
            Self::OFFLINE => Some(ZoneState::OFFLINE),
            _ => None,
        }
    }
}

/// Zone Management Send, command dword 13.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ZoneSendDword13 {
    /// The change (ZSA).
    #[bits(8)]
    pub action: ZoneAction,
    /// All zones that the action applies to, whatever the block is.
    pub select_all: bool,
    /// Open Zone: gives the zone a random write area (ZRWAA).
    pub allocate_random_write_area: bool,
    #[bits(22)]
    __: u32,
}

/// Zone Management Receive, command dword 13.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ZoneReceiveDword13 {
    /// The action (ZRA): [`REPORT`](Self::REPORT) or [`EXTENDED_REPORT`](Self::EXTENDED_REPORT).
    pub action: u8,
    /// The zones to list (ZRASF).
    #[bits(8)]
    pub filter: ZoneFilter,
    /// Partial: the report's count is the number of descriptors that were transferred, not of all that match.
    pub partial: bool,
    #[bits(15)]
    __: u16,
}

bits! {
    /// Attributes of a zone (ZA).
    ZoneAttributes(u8), "Zone Attributes" {
        /// The controller has finished the zone (ZFC).
        finished_by_controller: bool[1] => flag;
        /// The host should finish the zone soon (FZR).
        finish_recommended: bool[1] => flag;
        /// The host should reset the zone soon (RZR).
        reset_recommended: bool[1] => flag;
        /// The zone has a random write area (ZRWAV).
        random_write_area: bool[1] => flag;
        __: u8[3];
        /// The zone's descriptor extension holds data of a host (ZDEV).
        extension_valid: bool[1] => flag;
    }
}

structure! {
    /// A zone, as a report lists it: 64 bytes.
    ZoneDescriptor[64], "Zone Descriptor" {
        /// The type in bits 3:0 (ZT).
        0 zone_type: u8 = shown_type;
        /// The state in bits 7:4 (ZS).
        1 zone_state: u8 = shown_state;
        /// Attributes (ZA).
        2 attributes: ZoneAttributes => fields;
        /// Time limits that belong to the attributes (ZAI).
        3 attribute_information: u8 => hex;
        4 reserved4: [u8; 4];
        /// Blocks that can be written, from the first on (ZCAP).
        8 capacity: u64 => unit("blocks");
        /// The first block (ZSLBA).
        16 start: u64 => number;
        /// The next block to write (WP); no meaning in a zone that is full, read-only or offline.
        24 write_pointer: u64 = shown_write_pointer;
        32 reserved32: [u8; 32];
    }
}

impl ZoneDescriptor {
    /// Returns the zone's type.
    #[must_use]
    pub const fn kind(&self) -> ZoneType {
        ZoneType(self.zone_type & 0xf)
    }

    /// Returns the zone's state.
    #[must_use]
    pub const fn state(&self) -> ZoneState {
        ZoneState(self.zone_state >> 4)
    }

    /// Returns the number of blocks that were written: up to the write pointer, or all of a full zone. `None` if the
    /// zone's state leaves that open.
    #[must_use]
    pub const fn written(&self) -> Option<u64> {
        match self.state() {
            ZoneState::FULL => Some(self.capacity),
            state if state.has_write_pointer() => Some(self.write_pointer.saturating_sub(self.start)),
            _ => None,
        }
    }

    /// Decodes the data of a Zone Management Receive: the zones, each with its descriptor extension of `extension`
    /// bytes, which is 0 for a plain report. A report that counts more zones than `data` has ends with its last whole
    /// one.
    #[must_use]
    pub fn list(data: &[u8], extension: usize) -> Vec<(Self, Vec<u8>)> {
        let Ok((header, rest)) = ZoneReportHeader::read_from_prefix(data) else { return Vec::new() };
        // The count is the controller's word: no more than there are.
        let count = usize::try_from(header.count).unwrap_or(usize::MAX);
        let zones = rest.chunks_exact(size_of::<Self>().saturating_add(extension)).take(count);
        zones
            .filter_map(|zone| Self::read_from_prefix(zone).ok())
            .map(|(zone, extension)| (zone, extension.to_vec()))
            .collect()
    }

    fn shown_type(&self) -> Value {
        super::fields::show::named(&self.kind())
    }

    fn shown_state(&self) -> Value {
        super::fields::show::named(&self.state())
    }

    fn shown_write_pointer(&self) -> Value {
        match self.state().has_write_pointer() {
            true => super::fields::show::number(&self.write_pointer),
            false => Value::Text("none".into()),
        }
    }
}

structure! {
    /// The beginning of a report of zones; the descriptors follow it.
    ZoneReportHeader[64], "Report Zones" {
        /// The zones that match; of a partial report, the descriptors in it.
        0 count: u64 => number;
        8 reserved8: [u8; 56];
    }
}

impl ZoneReceiveDword13 {
    /// The action that reports zones.
    pub const REPORT: u8 = 0;
    /// The action that reports zones with their descriptor extensions.
    pub const EXTENDED_REPORT: u8 = 1;
}

/// Commands of the zoned command set.
impl Command {
    /// Makes a Zone Append command of `nlb` blocks, 1 to 65536, for the zone whose first block is `zslba`. Dwords 0 and
    /// 1 of the completion are the first block that was written.
    ///
    /// # Panics
    ///
    /// In debug builds, if `nlb` is out of that range.
    #[must_use]
    pub const fn zone_append(nsid: u32, zslba: u64, nlb: u32) -> Self {
        let mut command = Self::write(nsid, zslba, nlb);
        command.opcode = NvmOpcode::ZONE_APPEND.0;
        command
    }

    /// Makes a Zone Management Send command, which changes the state of the zone whose first block is `zslba`, or of
    /// all zones.
    #[must_use]
    pub const fn zone_management_send(nsid: u32, zslba: u64, dword13: ZoneSendDword13) -> Self {
        Self {
            cdw10: zslba as u32,
            cdw11: (zslba >> 32) as u32,
            cdw13: dword13.into_bits(),
            ..Self::io(NvmOpcode::ZONE_MANAGEMENT_SEND, nsid)
        }
    }

    /// Makes a Zone Management Receive command, which returns `bytes` (a multiple of 4, at least 4) of a report that
    /// begins with the zone of block `slba`.
    ///
    /// # Panics
    ///
    /// In debug builds, if `bytes` is not such a multiple.
    #[must_use]
    pub const fn zone_management_receive(
        nsid: u32,
        slba: u64,
        bytes: u32,
        dword13: ZoneReceiveDword13,
    ) -> Self {
        debug_assert!(bytes >= 4 && bytes % 4 == 0);
        Self {
            cdw10: slba as u32,
            cdw11: (slba >> 32) as u32,
            cdw12: (bytes / 4).wrapping_sub(1),
            cdw13: dword13.into_bits(),
            ..Self::io(NvmOpcode::ZONE_MANAGEMENT_RECEIVE, nsid)
        }
    }
}
