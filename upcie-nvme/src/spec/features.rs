//! Features and asynchronous events: Base, "Feature Specific Information" and "Asynchronous Event Request
//! command". A feature's value is command dword 11 of Set Features, and dword 0 of the completion of Get
//! Features.

use bitfield_struct::bitfield;

use super::log::LogPageId;
use super::macros::named_values;

named_values! {
    /// A feature identifier.
    FeatureId(u8) {
        ARBITRATION = 0x01, "Arbitration";
        POWER_MANAGEMENT = 0x02, "Power Management";
        LBA_RANGE_TYPE = 0x03, "LBA Range Type";
        TEMPERATURE_THRESHOLD = 0x04, "Temperature Threshold";
        ERROR_RECOVERY = 0x05, "Error Recovery";
        VOLATILE_WRITE_CACHE = 0x06, "Volatile Write Cache";
        NUMBER_OF_QUEUES = 0x07, "Number of Queues";
        INTERRUPT_COALESCING = 0x08, "Interrupt Coalescing";
        INTERRUPT_VECTOR_CONFIGURATION = 0x09, "Interrupt Vector Configuration";
        WRITE_ATOMICITY_NORMAL = 0x0a, "Write Atomicity Normal";
        ASYNC_EVENT_CONFIGURATION = 0x0b, "Asynchronous Event Configuration";
        AUTONOMOUS_POWER_STATE_TRANSITION = 0x0c, "Autonomous Power State Transition";
        HOST_MEMORY_BUFFER = 0x0d, "Host Memory Buffer";
        TIMESTAMP = 0x0e, "Timestamp";
        KEEP_ALIVE_TIMER = 0x0f, "Keep Alive Timer";
        HOST_CONTROLLED_THERMAL_MANAGEMENT = 0x10, "Host Controlled Thermal Management";
        NON_OPERATIONAL_POWER_STATE = 0x11, "Non-Operational Power State Config";
        READ_RECOVERY_LEVEL = 0x12, "Read Recovery Level Config";
        PREDICTABLE_LATENCY_MODE = 0x13, "Predictable Latency Mode Config";
        PREDICTABLE_LATENCY_WINDOW = 0x14, "Predictable Latency Mode Window";
        LBA_STATUS_INTERVAL = 0x15, "LBA Status Information Report Interval";
        HOST_BEHAVIOR_SUPPORT = 0x16, "Host Behavior Support";
        SANITIZE_CONFIG = 0x17, "Sanitize Config";
        ENDURANCE_GROUP_EVENTS = 0x18, "Endurance Group Event Configuration";
        COMMAND_SET_PROFILE = 0x19, "I/O Command Set Profile";
        SPINUP_CONTROL = 0x1a, "Spinup Control";
        SOFTWARE_PROGRESS_MARKER = 0x80, "Software Progress Marker";
        HOST_IDENTIFIER = 0x81, "Host Identifier";
        RESERVATION_NOTIFICATION_MASK = 0x82, "Reservation Notification Mask";
        RESERVATION_PERSISTENCE = 0x83, "Reservation Persistence";
        NAMESPACE_WRITE_PROTECTION = 0x84, "Namespace Write Protection Config";
    }
}

named_values! {
    /// The value of a feature that Get Features returns.
    FeatureSelect(u8) {
        CURRENT = 0, "current";
        DEFAULT = 1, "default";
        SAVED = 2, "saved";
        /// Dword 0 then has bit 0 saveable, bit 1 per namespace, bit 2 changeable.
        SUPPORTED = 3, "supported capabilities";
    }
}

/// Feature 01h, Arbitration.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Arbitration {
    /// Arbitration burst: up to 2 ^ AB commands of a queue at a time; 7 is no limit.
    #[bits(3)]
    pub ab: u8,
    #[bits(5)]
    __: u8,
    /// Low priority weight, 0's based.
    pub lpw: u8,
    /// Medium priority weight, 0's based.
    pub mpw: u8,
    /// High priority weight, 0's based.
    pub hpw: u8,
}

/// Feature 02h, Power Management.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PowerManagement {
    /// Power state: index of a descriptor in Identify Controller.
    #[bits(5)]
    pub ps: u8,
    /// Workload hint.
    #[bits(3)]
    pub wh: u8,
    #[bits(24)]
    __: u32,
}

/// Feature 04h, Temperature Threshold.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct TemperatureThreshold {
    /// Threshold, in kelvins.
    pub tmpth: u16,
    /// Sensor: 0 composite, 1 to 8 a sensor, Fh all (Set Features).
    #[bits(4)]
    pub tmpsel: u8,
    /// Threshold type: 0 over, 1 under.
    #[bits(2)]
    pub thsel: u8,
    #[bits(10)]
    __: u16,
}

/// Feature 05h, Error Recovery, of a namespace.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ErrorRecovery {
    /// Time-limited error recovery, in 100 ms units; 0 is no limit.
    pub tler: u16,
    /// Reading a deallocated or unwritten block is an error.
    pub dulbe: bool,
    #[bits(15)]
    __: u16,
}

/// Feature 06h, Volatile Write Cache.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct VolatileWriteCache {
    /// The cache is enabled.
    pub wce: bool,
    #[bits(31)]
    __: u32,
}

/// Feature 07h, Number of Queues: requested in Set Features, allocated in the completion, which may hold less
/// or more than the request.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct NumberOfQueues {
    /// I/O submission queues, 0's based; FFFFh is invalid to ask for.
    pub nsq: u16,
    /// I/O completion queues, 0's based; FFFFh is invalid to ask for.
    pub ncq: u16,
}

impl NumberOfQueues {
    /// Requests this many queues of each kind; the numbers are limited to 1 to 65535.
    #[must_use]
    pub const fn of(submission: u32, completion: u32) -> Self {
        Self::new().with_nsq(zeros_based(submission)).with_ncq(zeros_based(completion))
    }

    /// Returns the number of submission queues, 1 to 65536.
    #[must_use]
    pub const fn submission_queues(self) -> u32 {
        self.nsq() as u32 + 1
    }

    /// Returns the number of completion queues, 1 to 65536.
    #[must_use]
    pub const fn completion_queues(self) -> u32 {
        self.ncq() as u32 + 1
    }
}

const fn zeros_based(count: u32) -> u16 {
    match count {
        0 => 0,
        1..=0xffff => (count - 1) as u16,
        _ => 0xfffe,
    }
}

/// Feature 08h, Interrupt Coalescing.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InterruptCoalescing {
    /// Aggregation threshold: completions per interrupt, 0's based.
    pub thr: u8,
    /// Aggregation time, in 100 µs units; 0 is no delay.
    pub time: u8,
    __: u16,
}

/// Feature 09h, Interrupt Vector Configuration.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InterruptVectorConfiguration {
    /// Interrupt vector.
    pub iv: u16,
    /// Coalescing disabled for this vector.
    pub cd: bool,
    #[bits(15)]
    __: u16,
}

/// Feature 0Ah, Write Atomicity Normal.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct WriteAtomicity {
    /// Disable normal: only the power-fail units (AWUPF, NAWUPF) are honoured.
    pub dn: bool,
    #[bits(31)]
    __: u32,
}

/// Feature 0Bh, Asynchronous Event Configuration: the events to report.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AsyncEventConfiguration {
    /// SMART critical warnings, one bit each as in [`SmartLog::critical_warning`](super::SmartLog).
    pub smart: u8,
    /// Namespace attributes changed.
    pub namespace_attribute: bool,
    /// Firmware activation starts.
    pub firmware_activation: bool,
    /// Telemetry log changed.
    pub telemetry: bool,
    /// Asymmetric namespace access changed.
    pub ana_change: bool,
    /// Predictable latency event aggregate log changed.
    pub predictable_latency: bool,
    /// LBA status information.
    pub lba_status: bool,
    /// Endurance group event aggregate log changed.
    pub endurance_group: bool,
    /// Normal NVM subsystem shutdown.
    pub subsystem_shutdown: bool,
    __: u16,
}

named_values! {
    /// The kind of an asynchronous event.
    AsyncEventType(u8) {
        ERROR = 0, "error status";
        SMART = 1, "SMART / health status";
        NOTICE = 2, "notice";
        IMMEDIATE = 3, "immediate";
        COMMAND_SET = 6, "I/O command specific status";
        VENDOR = 7, "vendor specific";
    }
}

/// Dword 0 of the completion of an Asynchronous Event Request.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AsyncEvent {
    /// The kind of event.
    #[bits(3)]
    pub kind: AsyncEventType,
    #[bits(5)]
    __: u8,
    /// The event, by its kind. Notice: 0 namespace attributes changed, 1 firmware activation starting.
    pub information: u8,
    /// The log page to read; reading it lets the controller report such an event again.
    #[bits(8)]
    pub log_page: LogPageId,
    __: u8,
}
