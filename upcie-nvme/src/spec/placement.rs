//! Flexible data placement in I/O commands and features (Base 2.1): "I/O Management Receive command", "I/O Management
//! Send command", feature "FDP Events", "Placement Identifier".

use zerocopy::FromBytes;

use super::command::Command;
use super::fields::Value;
use super::log::{PlacementConfiguration, PlacementEventType};
use super::macros::{bits, structure};
use super::opcode::NvmOpcode;

/// The management operation of both I/O management commands (MO): reclaim unit handle status, and update.
const HANDLES: u32 = 1;

structure! {
    /// The beginning of the status of reclaim unit handles; the descriptors follow it.
    HandleStatusHeader[16], "Reclaim Unit Handle Status" {
        0 reserved0: [u8; 14];
        /// Descriptors (NRUHSD): of each placement handle of the namespace in each reclaim group.
        14 count: u16 => number;
    }
}

structure! {
    /// The reclaim unit that writes with a placement identifier go to: 32 bytes.
    HandleStatus[32], "Reclaim Unit Handle Status Descriptor" {
        /// The placement identifier (PID), for [`Io::placement`](crate::Io::placement).
        0 placement_identifier: u16 => hex;
        /// The reclaim unit handle that the placement handle refers to (RUHID).
        2 reclaim_unit_handle: u16 => number;
        /// Estimated time until the controller moves on to another unit, in seconds; 0 not reported (EARUTR).
        4 estimated_time_remaining: u32 => unit("s");
        /// Blocks that can still be written to the unit (RUAMW).
        8 available_media_writes: u64 => unit("blocks");
        16 reserved16: [u8; 16];
    }
}

impl HandleStatus {
    /// Decodes the data of an I/O Management Receive of Reclaim Unit Handle Status: the number of descriptors that
    /// there are, and those that `data` has room for.
    #[must_use]
    pub fn list(data: &[u8]) -> (usize, Vec<Self>) {
        let Ok((header, rest)) = HandleStatusHeader::read_from_prefix(data) else { return (0, Vec::new()) };
        let count = usize::from(header.count);
        let handles = rest.chunks_exact(size_of::<Self>()).take(count);
        (count, handles.filter_map(|handle| Self::read_from_bytes(handle).ok()).collect())
    }
}

bits! {
    /// Attributes of an event of a reclaim unit handle.
    PlacementEventAttributes(u8), "FDP Event Type Attributes" {
        /// The event is noted (FDPEE).
        enabled: bool[1] => flag;
        __: u8[7];
    }
}

structure! {
    /// An event that the controller can note of a reclaim unit handle: Get Features of FDP Events, 2 bytes.
    PlacementEventSetting[2], "Supported FDP Event Descriptor" {
        /// The [`PlacementEventType`].
        0 event_type: u8 = shown_type;
        /// True if it is noted.
        1 attributes: PlacementEventAttributes => fields;
    }
}

impl PlacementEventSetting {
    /// Returns the type of the event.
    #[must_use]
    pub const fn kind(&self) -> PlacementEventType {
        PlacementEventType(self.event_type)
    }

    fn shown_type(&self) -> Value {
        super::fields::show::named(&self.kind())
    }
}

impl PlacementConfiguration {
    /// Returns the placement identifier of a placement handle in a reclaim group: the group is in the upper RGIF bits.
    /// Bits of either that have no place are cut off.
    #[must_use]
    pub const fn identifier(&self, reclaim_group: u16, placement_handle: u16) -> u16 {
        let shift = 16 - self.attributes.reclaim_group_identifier_format() as u32;
        let handles = (1_u32 << shift) - 1;
        ((reclaim_group as u32) << shift | placement_handle as u32 & handles) as u16
    }

    /// Returns the reclaim group and the placement handle of a placement identifier.
    #[must_use]
    pub const fn parts_of(&self, identifier: u16) -> (u16, u16) {
        let shift = 16 - self.attributes.reclaim_group_identifier_format() as u32;
        let handles = (1_u32 << shift) - 1;
        ((identifier as u32 >> shift) as u16, (identifier as u32 & handles) as u16)
    }
}

/// Commands of flexible data placement.
impl Command {
    /// Makes an I/O Management Receive command for Reclaim Unit Handle Status, which returns `bytes` (a multiple of 4,
    /// at least 4) of a [`HandleStatusHeader`] and the [`HandleStatus`]es of the namespace's placement handles.
    ///
    /// # Panics
    ///
    /// In debug builds, if `bytes` is not such a multiple.
    #[must_use]
    pub const fn reclaim_unit_handle_status(nsid: u32, bytes: u32) -> Self {
        debug_assert!(bytes >= 4 && bytes % 4 == 0);
        let cdw11 = (bytes / 4).wrapping_sub(1);
        Self { cdw10: HANDLES, cdw11, ..Self::io(NvmOpcode::IO_MANAGEMENT_RECEIVE, nsid) }
    }

    /// Makes an I/O Management Send command for Reclaim Unit Handle Update: its data is `count` placement identifiers,
    /// 1 to 65536, of 2 bytes each. Their reclaim unit handles refer to other reclaim units, which are empty,
    /// afterwards.
    ///
    /// # Panics
    ///
    /// In debug builds, if `count` is out of that range.
    #[must_use]
    pub const fn reclaim_unit_handle_update(nsid: u32, count: u32) -> Self {
        debug_assert!(count >= 1 && count <= 1 << 16);
        let cdw10 = HANDLES | count.wrapping_sub(1) << 16;
        Self { cdw10, ..Self::io(NvmOpcode::IO_MANAGEMENT_SEND, nsid) }
    }
}
