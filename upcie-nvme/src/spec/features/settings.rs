//! Features whose value is one dword: Base and NVM, "Feature Specific Information".

use super::super::fields::{FieldPlace, Places};
use super::super::macros::bits;
use super::id::FeatureId;
use super::value::dword_features;

bits! {
    /// Feature 01h, Arbitration.
    Arbitration(u32), "Arbitration" {
        /// Arbitration burst: up to 2 ^ AB commands of a queue at a time; 7 is no limit.
        ab as arbitration_burst: u8[3] => names(&[(7, "no limit")]);
        __: u8[5];
        /// Low priority weight, 0's based.
        lpw as low_priority_weight: u8[8] => zeros_based;
        /// Medium priority weight, 0's based.
        mpw as medium_priority_weight: u8[8] => zeros_based;
        /// High priority weight, 0's based.
        hpw as high_priority_weight: u8[8] => zeros_based;
    }
}

bits! {
    /// Feature 02h, Power Management.
    PowerManagement(u32), "Power Management" {
        /// Power state: index of a descriptor in Identify Controller.
        ps as power_state: u8[5] => number;
        /// Workload hint.
        wh as workload_hint: u8[3] => number;
        __: u32[24];
    }
}

bits! {
    /// Feature 04h, Temperature Threshold.
    TemperatureThreshold(u32), "Temperature Threshold" {
        /// Threshold, in kelvins.
        tmpth as threshold: u16[16] => unit("K");
        /// Sensor: 0 composite, 1 to 8 a sensor, Fh all (Set Features).
        tmpsel as sensor: u8[4] => names(&[(0, "composite temperature"), (15, "all sensors")]);
        /// Threshold type: 0 over, 1 under.
        thsel as threshold_type: u8[2] => names(&[(0, "over"), (1, "under")]);
        /// Hysteresis below the threshold, in kelvins (2.1).
        hysteresis: u8[3] => unit("K");
        __: u16[7];
    }
}

bits! {
    /// Feature 05h, Error Recovery, of a namespace.
    ErrorRecovery(u32), "Error Recovery" {
        /// Time-limited error recovery, in 100 ms units; 0 is no limit.
        tler as time_limited_error_recovery: u16[16] => unit("× 100 ms");
        /// Reading a deallocated or unwritten block is an error.
        dulbe as deallocated_or_unwritten_block_error: bool[1] => flag;
        __: u16[15];
    }
}

bits! {
    /// Feature 06h, Volatile Write Cache.
    VolatileWriteCache(u32), "Volatile Write Cache" {
        /// The cache is enabled.
        wce as write_cache_enabled: bool[1] => flag;
        __: u32[31];
    }
}

bits! {
    /// Feature 07h, Number of Queues: requested in Set Features, allocated in the completion, which may hold less
    /// or more than the request.
    NumberOfQueues(u32), "Number of Queues" {
        /// I/O submission queues, 0's based; FFFFh is invalid to ask for.
        nsq as submission_queues: u16[16] => zeros_based;
        /// I/O completion queues, 0's based; FFFFh is invalid to ask for.
        ncq as completion_queues: u16[16] => zeros_based;
    }
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

bits! {
    /// Feature 08h, Interrupt Coalescing.
    InterruptCoalescing(u32), "Interrupt Coalescing" {
        /// Aggregation threshold: completions per interrupt, 0's based.
        thr as aggregation_threshold: u8[8] => zeros_based;
        /// Aggregation time, in 100 µs units; 0 is no delay.
        time as aggregation_time: u8[8] => unit("× 100 µs");
        __: u16[16];
    }
}

bits! {
    /// Feature 09h, Interrupt Vector Configuration.
    InterruptVectorConfiguration(u32), "Interrupt Vector Configuration" {
        /// Interrupt vector.
        iv as interrupt_vector: u16[16] => number;
        /// Coalescing disabled for this vector.
        cd as coalescing_disabled: bool[1] => flag;
        __: u16[15];
    }
}

bits! {
    /// Feature 0Ah, Write Atomicity Normal.
    WriteAtomicity(u32), "Write Atomicity Normal" {
        /// Disable normal: only the power-fail units (AWUPF, NAWUPF) are honoured.
        dn as disable_normal: bool[1] => flag;
        __: u32[31];
    }
}

bits! {
    /// Feature 0Bh, Asynchronous Event Configuration: the events to report.
    AsyncEventConfiguration(u32), "Asynchronous Event Configuration" {
        /// SMART critical warnings, one bit each as in [`SmartLog::critical_warning`](crate::spec::SmartLog).
        smart as smart_critical_warnings: u8[8] => hex;
        /// Namespace attributes changed.
        namespace_attribute: bool[1] => flag;
        /// Firmware activation starts.
        firmware_activation: bool[1] => flag;
        /// Telemetry log changed.
        telemetry: bool[1] => flag;
        /// Asymmetric namespace access changed.
        ana_change: bool[1] => flag;
        /// Predictable latency event aggregate log changed.
        predictable_latency: bool[1] => flag;
        /// LBA status information.
        lba_status: bool[1] => flag;
        /// Endurance group event aggregate log changed.
        endurance_group: bool[1] => flag;
        /// Normal NVM subsystem shutdown.
        subsystem_shutdown: bool[1] => flag;
        /// A temperature is back below its threshold by the hysteresis (2.1).
        temperature_hysteresis: bool[1] => flag;
        /// Reachability associations changed (2.1).
        reachability_association: bool[1] => flag;
        /// Reachability groups changed (2.1).
        reachability_group: bool[1] => flag;
        /// Attributes of an allocated namespace changed (2.1).
        allocated_namespace_attribute: bool[1] => flag;
        __: u8[7];
        /// A zone's descriptor changed (ZNS).
        zone_descriptor: bool[1] => flag;
        /// The Pull Model DDC Request log page changed (2.1).
        pull_model_request: bool[1] => flag;
        /// The AVE Discovery log page changed (2.1).
        ave_discovery: bool[1] => flag;
        /// The Host Discovery log page changed (2.1).
        host_discovery: bool[1] => flag;
        /// The discovery log page changed.
        discovery: bool[1] => flag;
    }
}

bits! {
    /// Feature 0Fh, Keep Alive Timer.
    KeepAliveTimer(u32), "Keep Alive Timer" {
        /// Keep alive timeout in ms, rounded up to the granularity (KAS); 0 is off.
        timeout: u32[32] => unit("ms");
    }
}

bits! {
    /// Feature 10h, Host Controlled Thermal Management; temperatures in kelvins, 0 is off.
    HostControlledThermalManagement(u32), "Host Controlled Thermal Management" {
        /// Thermal management temperature 2 (TMT2): performance falls until it is reached no more.
        temperature_2: u16[16] => unit("K");
        /// Thermal management temperature 1 (TMT1): performance falls a little.
        temperature_1: u16[16] => unit("K");
    }
}

bits! {
    /// Feature 11h, Non-Operational Power State Config.
    NonOperationalPowerState(u32), "Non-Operational Power State Config" {
        /// Background work may use more power than the state allows, for a while (NOPPME).
        permissive_mode: bool[1] => flag;
        __: u32[31];
    }
}

bits! {
    /// Feature 12h, Read Recovery Level Config, of an NVM set.
    ReadRecoveryLevel(u32), "Read Recovery Level Config" {
        /// The level: 0 the most effort, 4 the default, Fh to fail fast (RRL).
        level: u8[4] => number;
        __: u32[28];
    }
}

bits! {
    /// Feature 14h, Predictable Latency Mode Window, of an NVM set.
    PredictableLatencyWindow(u32), "Predictable Latency Mode Window" {
        /// The window (WSEL).
        window: u8[3] => names(&[(1, "deterministic"), (2, "non-deterministic")]);
        __: u32[29];
    }
}

bits! {
    /// Feature 15h, LBA Status Information Report Interval; both in 100 ms units.
    LbaStatusInterval(u32), "LBA Status Information Report Interval" {
        /// The shortest time between two events (LSIRI).
        report_interval: u16[16] => unit("× 100 ms");
        /// The time between two looks of the host (LSIPI).
        poll_interval: u16[16] => unit("× 100 ms");
    }
}

bits! {
    /// Feature 17h, Sanitize Config.
    SanitizeConfig(u32), "Sanitize Config" {
        /// A Sanitize that must not deallocate does so with a warning instead of an error (NODRM).
        no_deallocate_response_mode: bool[1] => flag;
        __: u32[31];
    }
}

bits! {
    /// Feature 18h, Endurance Group Event Configuration.
    EnduranceGroupEvents(u32), "Endurance Group Event Configuration" {
        /// The endurance group (ENDGID).
        endurance_group_id: u16[16] => number;
        /// The critical warnings that raise an event, as bits of [`EnduranceGroupLog`](crate::spec::EnduranceGroupLog).
        critical_warnings: u8[8] => hex;
        __: u8[8];
    }
}

bits! {
    /// Feature 19h, I/O Command Set Profile.
    CommandSetProfile(u32), "I/O Command Set Profile" {
        /// The index of the combination (IOCSCI).
        combination: u16[9] => number;
        __: u32[23];
    }
}

bits! {
    /// Feature 1Ah, Spinup Control.
    SpinupControl(u32), "Spinup Control" {
        /// The disk does not spin up by itself.
        enabled: bool[1] => flag;
        __: u32[31];
    }
}

bits! {
    /// Feature 1Bh, Power Loss Signaling Config (2.1).
    PowerLossSignaling(u32), "Power Loss Signaling Config" {
        /// The mode (PLSM).
        mode: u8[2] => names(&[(0, "off"), (1, "emergency power fail"), (2, "forced quiescence")]);
        __: u32[30];
    }
}

bits! {
    /// Feature 1Dh, Flexible Data Placement, of an endurance group (2.1): dword 11 of Get Features names it.
    FlexibleDataPlacement(u32), "Flexible Data Placement" {
        /// Flexible data placement is enabled (FDPE).
        enabled: bool[1] => flag;
        __: u8[7];
        /// The index of the configuration (FDPCIDX).
        configuration: u8[8] => number;
        __: u16[16];
    }
}

bits! {
    /// Feature 20h, Key Value Configuration, of a key value namespace.
    KeyValueConfiguration(u32), "Key Value Configuration" {
        /// A Delete of a key that does not exist fails (EDNEK).
        error_on_missing_key: bool[1] => flag;
        __: u32[31];
    }
}

bits! {
    /// Feature 80h, Software Progress Marker.
    SoftwareProgressMarker(u32), "Software Progress Marker" {
        /// Loads of pre-boot software without an operating system's answer (PBSLC).
        pre_boot_load_count: u8[8] => number;
        __: u32[24];
    }
}

bits! {
    /// Feature 82h, Reservation Notification Mask, of a namespace: the notifications that are not sent.
    ReservationNotificationMask(u32), "Reservation Notification Mask" {
        __: bool[1];
        /// Registration preempted (REGPRE).
        registration_preempted: bool[1] => flag;
        /// Reservation released (RESREL).
        reservation_released: bool[1] => flag;
        /// Reservation preempted (RESPRE).
        reservation_preempted: bool[1] => flag;
        __: u32[28];
    }
}

bits! {
    /// Feature 83h, Reservation Persistence, of a namespace.
    ReservationPersistence(u32), "Reservation Persistence" {
        /// Reservations outlast a loss of power (PTPL).
        persist_through_power_loss: bool[1] => flag;
        __: u32[31];
    }
}

bits! {
    /// Feature 84h, Namespace Write Protection Config.
    NamespaceWriteProtection(u32), "Namespace Write Protection Config" {
        /// The state (WPS).
        state: u8[3] => names(&[
            (0, "no write protection"),
            (1, "write protected"),
            (2, "write protected until a power cycle"),
            (3, "write protected for ever"),
        ]);
        __: u32[29];
    }
}

const BOOT_STATES: &[(u64, &str)] = &[
    (0, "no change"),
    (1, "unlocked"),
    (2, "locked"),
    (3, "locked until a power cycle"),
    (4, "controlled by the replay protected memory block"),
];

bits! {
    /// Feature 85h, Boot Partition Write Protection Config (2.1).
    BootPartitionWriteProtection(u32), "Boot Partition Write Protection Config" {
        /// The state of partition 0 (BP0WPS).
        partition_0: u8[3] => names(BOOT_STATES);
        /// The state of partition 1 (BP1WPS).
        partition_1: u8[3] => names(BOOT_STATES);
        __: u32[26];
    }
}

dword_features! {
    Arbitration: ARBITRATION;
    PowerManagement: POWER_MANAGEMENT;
    TemperatureThreshold: TEMPERATURE_THRESHOLD [SELECTS: u32 = 0x3f << 16];
    ErrorRecovery: ERROR_RECOVERY [OF_NAMESPACE: bool = true];
    VolatileWriteCache: VOLATILE_WRITE_CACHE;
    NumberOfQueues: NUMBER_OF_QUEUES;
    InterruptCoalescing: INTERRUPT_COALESCING;
    InterruptVectorConfiguration: INTERRUPT_VECTOR_CONFIGURATION [SELECTS: u32 = 0xffff];
    WriteAtomicity: WRITE_ATOMICITY_NORMAL;
    AsyncEventConfiguration: ASYNC_EVENT_CONFIGURATION;
    KeepAliveTimer: KEEP_ALIVE_TIMER;
    HostControlledThermalManagement: HOST_CONTROLLED_THERMAL_MANAGEMENT;
    NonOperationalPowerState: NON_OPERATIONAL_POWER_STATE;
    ReadRecoveryLevel: READ_RECOVERY_LEVEL [IN_DWORD12: bool = true, SELECTS: u32 = 0xffff];
    PredictableLatencyWindow: PREDICTABLE_LATENCY_WINDOW [IN_DWORD12: bool = true, SELECTS: u32 = 0xffff];
    LbaStatusInterval: LBA_STATUS_INTERVAL;
    SanitizeConfig: SANITIZE_CONFIG;
    EnduranceGroupEvents: ENDURANCE_GROUP_EVENTS [SELECTS: u32 = 0xffff];
    CommandSetProfile: COMMAND_SET_PROFILE;
    SpinupControl: SPINUP_CONTROL;
    PowerLossSignaling: POWER_LOSS_SIGNALING;
    FlexibleDataPlacement: FLEXIBLE_DATA_PLACEMENT [IN_DWORD12: bool = true, SELECTS: u32 = 0xffff];
    KeyValueConfiguration: KEY_VALUE_CONFIGURATION [OF_NAMESPACE: bool = true];
    SoftwareProgressMarker: SOFTWARE_PROGRESS_MARKER;
    ReservationNotificationMask: RESERVATION_NOTIFICATION_MASK [OF_NAMESPACE: bool = true];
    ReservationPersistence: RESERVATION_PERSISTENCE [OF_NAMESPACE: bool = true];
    NamespaceWriteProtection: NAMESPACE_WRITE_PROTECTION [OF_NAMESPACE: bool = true];
    BootPartitionWriteProtection: BOOT_PARTITION_WRITE_PROTECTION;
}
