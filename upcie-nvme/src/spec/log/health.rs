//! The log pages that every controller has: errors, health, firmware. Base, "Log Specific Information".

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use core::fmt;

use super::super::fields::{DATA_UNITS, Field, Structure, Value, ascii};
use super::super::identify::IdentifyController;
use super::super::macros::{assert_size, printed, shown};
use super::super::status::Status;
use super::id::LogPageId;
use super::page::{LogPage, entries, fixed_pages};

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
    /// Command set identifier of the command, if `log_page_version` is 1 (2.1).
    pub csi: u8,
    /// Opcode of the command, if `log_page_version` is 1 (2.1).
    pub opcode: u8,
    /// Command-specific information.
    pub command_specific: u64,
    /// Transport-specific information.
    pub transport_specific: u16,
    /// Reserved.
    pub reserved42: [u8; 21],
    /// Version of the page: 1 if `csi` and `opcode` are valid (2.1).
    pub log_page_version: u8,
}
assert_size!(ErrorLogEntry, 64);
shown! {
    ErrorLogEntry, "Error Information" {
        (error_count) error_count => number;
        (sqid) submission_queue_id => number;
        (cid) command_id => number;
        (status_field) status = shown_status;
        (parameter_location) parameter_location => hex;
        (lba) lba => number;
        (nsid) namespace_id => number;
        (vendor_log_page) vendor_log_page => number;
        (trtype) transport_type => number;
        (csi) command_set => number;
        (opcode) opcode => hex;
        (command_specific) command_specific => hex;
        (transport_specific) transport_specific => hex;
        (log_page_version) log_page_version => number;
    }
}

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

    fn shown_status(&self) -> Value {
        Value::Text(self.status().to_string())
    }
}

/// The names of the critical warnings, from bit 0 on.
const WARNINGS: &[&str] = &[
    "available_spare_below_threshold",
    "temperature_beyond_threshold",
    "reliability_degraded",
    "media_read_only",
    "volatile_memory_backup_failed",
    "persistent_memory_region_read_only_or_unreliable",
];

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
shown! {
    SmartLog, "SMART / Health Information" {
        (critical_warning) critical_warning = shown_warnings;
        (composite_temperature) composite_temperature => unit("K");
        (available_spare) available_spare => unit("%");
        (available_spare_threshold) available_spare_threshold => unit("%");
        (percentage_used) percentage_used => unit("%");
        (endurance_group_warning) endurance_group_critical_warning_summary => hex;
        (data_units_read) data_units_read => unit(DATA_UNITS);
        (data_units_written) data_units_written => unit(DATA_UNITS);
        (host_read_commands) host_read_commands => number;
        (host_write_commands) host_write_commands => number;
        (controller_busy_time) controller_busy_time => unit("min");
        (power_cycles) power_cycles => number;
        (power_on_hours) power_on_hours => unit("h");
        (unsafe_shutdowns) unsafe_shutdowns => number;
        (media_errors) media_and_data_integrity_errors => number;
        (error_log_entries) error_information_log_entries => number;
        (warning_temperature_time) warning_composite_temperature_time => unit("min");
        (critical_temperature_time) critical_composite_temperature_time => unit("min");
        (temperature_sensors) temperature_sensors => nonzero("K");
        (thermal_transitions_1) thermal_management_temperature_1_transitions => number;
        (thermal_transitions_2) thermal_management_temperature_2_transitions => number;
        (thermal_time_1) thermal_management_temperature_1_time => unit("s");
        (thermal_time_2) thermal_management_temperature_2_time => unit("s");
    }
}

impl SmartLog {
    fn shown_warnings(&self) -> Value {
        Value::flags(self.critical_warning.into(), WARNINGS)
    }

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
shown! {
    FirmwareSlotLog, "Firmware Slot Information" {
        (active_slot()) active_slot => number;
        (next_slot().unwrap_or(0)) next_slot => number;
        (frs) revisions = shown_revisions;
    }
}

impl FirmwareSlotLog {
    /// Shows the slots up to the last one with a revision.
    fn shown_revisions(&self) -> Value {
        let used = self.frs.iter().rposition(|frs| *frs != [0; 8]).map_or(0, |last| last + 1);
        Value::List(self.frs[..used].iter().map(|frs| Value::Text(ascii(frs))).collect())
    }

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
        (*frs != [0; 8]).then(|| ascii(frs))
    }
}

/// The Error Information page (01h): as many entries as the controller keeps (ELPE), the newest first.
#[derive(Clone, PartialEq, Eq)]
pub struct ErrorLog {
    /// The entries, unused ones included.
    pub entries: Vec<ErrorLogEntry>,
}

impl ErrorLog {
    /// Returns the entries that hold an error, the newest first.
    pub fn errors(&self) -> impl Iterator<Item = &ErrorLogEntry> {
        self.entries.iter().filter(|entry| entry.is_used())
    }
}

impl Structure for ErrorLog {
    const TITLE: &'static str = "Error Information";

    fn fields(&self) -> Vec<Field> {
        let used = self.errors().map(|entry| Value::Fields(entry.fields())).collect();
        vec![
            Field::new("entries", Value::Number(self.entries.len() as u128)),
            Field::new("errors", Value::List(used)),
        ]
    }
}
printed!(ErrorLog);

impl fmt::Debug for ErrorLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.errors()).finish()
    }
}

impl LogPage for ErrorLog {
    const ID: LogPageId = LogPageId::ERROR_INFORMATION;

    fn len(_: &[u8], identify: &IdentifyController) -> u64 {
        (u64::from(identify.elpe) + 1) * size_of::<ErrorLogEntry>() as u64
    }

    fn from_page(bytes: &[u8]) -> Option<Self> {
        let entries = entries(bytes, 256);
        (!entries.is_empty()).then_some(Self { entries })
    }
}

fixed_pages! {
    SmartLog: SMART;
    FirmwareSlotLog: FIRMWARE_SLOT;
}
