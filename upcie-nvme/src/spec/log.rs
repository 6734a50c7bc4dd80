//! Log pages: Base, "Log Specific Information".

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::identify::text;
use super::macros::{assert_size, named_values};
use super::status::Status;

named_values! {
    /// A log page identifier.
    LogPageId(u8) {
        SUPPORTED_LOG_PAGES = 0x00, "Supported Log Pages";
        ERROR_INFORMATION = 0x01, "Error Information";
        SMART = 0x02, "SMART / Health Information";
        FIRMWARE_SLOT = 0x03, "Firmware Slot Information";
        /// 4096 bytes: a [`NamespaceList`](super::NamespaceList).
        CHANGED_NAMESPACES = 0x04, "Changed Namespace List";
        COMMANDS_SUPPORTED = 0x05, "Commands Supported and Effects";
        DEVICE_SELF_TEST = 0x06, "Device Self-test";
        TELEMETRY_HOST = 0x07, "Telemetry Host-Initiated";
        TELEMETRY_CONTROLLER = 0x08, "Telemetry Controller-Initiated";
        ENDURANCE_GROUP = 0x09, "Endurance Group Information";
        PREDICTABLE_LATENCY = 0x0a, "Predictable Latency Per NVM Set";
        PREDICTABLE_LATENCY_AGGREGATE = 0x0b, "Predictable Latency Event Aggregate";
        ASYMMETRIC_NAMESPACE_ACCESS = 0x0c, "Asymmetric Namespace Access";
        PERSISTENT_EVENTS = 0x0d, "Persistent Event Log";
        LBA_STATUS = 0x0e, "LBA Status Information";
        ENDURANCE_GROUP_AGGREGATE = 0x0f, "Endurance Group Event Aggregate";
        MEDIA_UNIT_STATUS = 0x10, "Media Unit Status";
        SUPPORTED_CAPACITY_CONFIGURATIONS = 0x11, "Supported Capacity Configuration List";
        FEATURES_SUPPORTED = 0x12, "Feature Identifiers Supported and Effects";
        NVME_MI_COMMANDS_SUPPORTED = 0x13, "NVMe-MI Commands Supported and Effects";
        LOCKDOWN = 0x14, "Command and Feature Lockdown";
        BOOT_PARTITION = 0x15, "Boot Partition";
        ROTATIONAL_MEDIA = 0x16, "Rotational Media Information";
        DISCOVERY = 0x70, "Discovery";
        RESERVATION_NOTIFICATION = 0x80, "Reservation Notification";
        SANITIZE_STATUS = 0x81, "Sanitize Status";
    }
}

/// An entry of the Error Information log, 64 bytes. The newest comes first; there are ELPE + 1 at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ErrorLogEntry {
    /// A number that only grows, over power cycles too; 0 for an unused entry.
    pub error_count: u64,
    /// The submission queue of the command; FFFFh if it isn't about one.
    pub sqid: u16,
    /// The identifier of the command; FFFFh if it isn't about one.
    pub cid: u16,
    /// Bits 15:1 the status, bit 0 the phase tag of the completion.
    pub status_field: u16,
    /// The location of the error in the command: bits 7:0 the byte, 10:8 the bit; FFFFh if it isn't about
    /// one.
    pub parameter_location: u16,
    /// The first block that had the error.
    pub lba: u64,
    /// The namespace.
    pub nsid: u32,
    /// The log page with vendor-specific information, or 0.
    pub vendor_log_page: u8,
    /// Transport type; 0 for PCIe.
    pub trtype: u8,
    /// Reserved.
    pub reserved30: [u8; 2],
    /// Command-specific information.
    pub command_specific: u64,
    /// Transport-specific information.
    pub transport_specific: u16,
    /// Reserved.
    pub reserved42: [u8; 22],
}
assert_size!(ErrorLogEntry, 64);

impl ErrorLogEntry {
    /// Returns `true` if the entry holds an error.
    #[must_use]
    pub const fn is_used(&self) -> bool {
        self.error_count != 0
    }

    /// Returns the status that the command completed with.
    #[must_use]
    pub const fn status(&self) -> Status {
        Status::from_bits(self.status_field >> 1)
    }
}

bitflags::bitflags! {
    /// Critical warnings of the SMART log.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct CriticalWarning: u8 {
        /// The spare capacity fell below its threshold.
        const SPARE = 1 << 0;
        /// A temperature is over or under its threshold.
        const TEMPERATURE = 1 << 1;
        /// Reliability is degraded by media or internal errors.
        const RELIABILITY = 1 << 2;
        /// All media is read-only.
        const READ_ONLY = 1 << 3;
        /// The backup of volatile memory has failed.
        const VOLATILE_BACKUP = 1 << 4;
        /// The persistent memory region is read-only or unreliable.
        const PERSISTENT_MEMORY = 1 << 5;
        const _ = !0;
    }
}

/// The SMART / Health Information log, 512 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SmartLog {
    /// [`CriticalWarning`] bits.
    pub critical_warning: u8,
    /// Composite temperature in kelvins, little endian.
    pub composite_temperature: [u8; 2],
    /// Spare capacity left, in percent.
    pub available_spare: u8,
    /// Threshold of the spare capacity in percent; falling below it raises an event.
    pub available_spare_threshold: u8,
    /// Life used by the vendor's estimate, in percent; may be over 100, and 255 means "255 or more".
    pub percentage_used: u8,
    /// Critical warnings of endurance groups, summed up.
    pub endurance_group_warning: u8,
    /// Reserved.
    pub reserved7: [u8; 25],
    /// Little endian; see [`Self::data_units_read`].
    pub data_units_read: [u8; 16],
    /// Little endian; see [`Self::data_units_written`].
    pub data_units_written: [u8; 16],
    /// Little endian; see [`Self::host_read_commands`].
    pub host_read_commands: [u8; 16],
    /// Little endian; see [`Self::host_write_commands`].
    pub host_write_commands: [u8; 16],
    /// Little endian; see [`Self::controller_busy_time`].
    pub controller_busy_time: [u8; 16],
    /// Little endian; see [`Self::power_cycles`].
    pub power_cycles: [u8; 16],
    /// Little endian; see [`Self::power_on_hours`].
    pub power_on_hours: [u8; 16],
    /// Little endian; see [`Self::unsafe_shutdowns`].
    pub unsafe_shutdowns: [u8; 16],
    /// Little endian; see [`Self::media_errors`].
    pub media_errors: [u8; 16],
    /// Little endian; see [`Self::error_log_entries`].
    pub error_log_entries: [u8; 16],
    /// Minutes over the warning temperature (WCTEMP).
    pub warning_temperature_time: u32,
    /// Minutes over the critical temperature (CCTEMP).
    pub critical_temperature_time: u32,
    /// Temperature sensors 1 to 8, in kelvins; 0 where there is none.
    pub temperature_sensors: [u16; 8],
    /// Transitions by thermal management temperature 1.
    pub thermal_transitions_1: u32,
    /// Transitions by thermal management temperature 2.
    pub thermal_transitions_2: u32,
    /// Seconds throttled by thermal management temperature 1.
    pub thermal_time_1: u32,
    /// Seconds throttled by thermal management temperature 2.
    pub thermal_time_2: u32,
    /// Reserved.
    pub reserved232: [u8; 280],
}
assert_size!(SmartLog, 512);

impl SmartLog {
    /// Returns the critical warnings.
    #[must_use]
    pub const fn warnings(&self) -> CriticalWarning {
        CriticalWarning::from_bits_retain(self.critical_warning)
    }

    /// Returns the composite temperature in kelvins; subtract 273 for degrees Celsius.
    #[must_use]
    pub const fn temperature(&self) -> u16 {
        u16::from_le_bytes(self.composite_temperature)
    }

    /// Returns the data read by the host, in units of 1000 × 512 bytes, rounded up.
    #[must_use]
    pub const fn data_units_read(&self) -> u128 {
        u128::from_le_bytes(self.data_units_read)
    }

    /// Returns the data written by the host, in units of 1000 × 512 bytes, rounded up.
    #[must_use]
    pub const fn data_units_written(&self) -> u128 {
        u128::from_le_bytes(self.data_units_written)
    }

    /// Returns the number of Read (and Compare, Verify) commands completed.
    #[must_use]
    pub const fn host_read_commands(&self) -> u128 {
        u128::from_le_bytes(self.host_read_commands)
    }

    /// Returns the number of Write commands completed.
    #[must_use]
    pub const fn host_write_commands(&self) -> u128 {
        u128::from_le_bytes(self.host_write_commands)
    }

    /// Returns the minutes during which an I/O command was outstanding.
    #[must_use]
    pub const fn controller_busy_time(&self) -> u128 {
        u128::from_le_bytes(self.controller_busy_time)
    }

    /// Returns the number of power cycles.
    #[must_use]
    pub const fn power_cycles(&self) -> u128 {
        u128::from_le_bytes(self.power_cycles)
    }

    /// Returns the hours powered on.
    #[must_use]
    pub const fn power_on_hours(&self) -> u128 {
        u128::from_le_bytes(self.power_on_hours)
    }

    /// Returns the number of power losses without a shutdown before them.
    #[must_use]
    pub const fn unsafe_shutdowns(&self) -> u128 {
        u128::from_le_bytes(self.unsafe_shutdowns)
    }

    /// Returns the number of data integrity errors that the controller couldn't recover.
    #[must_use]
    pub const fn media_errors(&self) -> u128 {
        u128::from_le_bytes(self.media_errors)
    }

    /// Returns the number of error log entries over the life of the controller.
    #[must_use]
    pub const fn error_log_entries(&self) -> u128 {
        u128::from_le_bytes(self.error_log_entries)
    }
}

/// The Firmware Slot Information log, 512 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FirmwareSlotLog {
    /// Active firmware: bits 2:0 the slot in use, bits 6:4 the slot after the next reset, 0 if it isn't
    /// known.
    pub afi: u8,
    /// Reserved.
    pub reserved1: [u8; 7],
    /// Firmware revisions of slots 1 to 7, ASCII; zeros where there is none.
    pub frs: [[u8; 8]; 7],
    /// Reserved.
    pub reserved64: [u8; 448],
}
assert_size!(FirmwareSlotLog, 512);

impl FirmwareSlotLog {
    /// Returns the slot in use, 1 to 7; 0 is invalid.
    #[must_use]
    pub const fn active_slot(&self) -> u8 {
        self.afi & 7
    }

    /// Returns the slot that the next controller reset activates, if the controller reports one.
    #[must_use]
    pub const fn next_slot(&self) -> Option<u8> {
        match self.afi >> 4 & 7 {
            0 => None,
            slot => Some(slot),
        }
    }

    /// Returns the revision in slot 1 to 7, safe to print; `None` for an empty or impossible slot.
    #[must_use]
    pub fn revision(&self, slot: u8) -> Option<String> {
        let frs = self.frs.get(usize::from(slot).checked_sub(1)?)?;
        (*frs != [0; 8]).then(|| text(frs))
    }
}
