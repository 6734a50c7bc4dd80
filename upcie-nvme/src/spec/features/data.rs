//! Features with data: Base, "Feature Specific Information"; NVM, "LBA Range Type".

use core::time::Duration;

use super::super::fields::{Field, FieldPlace, Places, Structure, Value};
use super::super::macros::{bits, structure};
use super::id::FeatureId;
use super::value::data_features;

structure! {
    /// A range of blocks and its use, 64 bytes.
    LbaRange[64], "LBA Range Type" {
        /// The use of the range.
        0 range_type: u8 => names(&[
            (0, "general purpose"),
            (1, "file system"),
            (2, "RAID"),
            (3, "cache"),
            (4, "page or swap file"),
        ]);
        /// Bit 0: may be overwritten, bit 1: to be hidden.
        1 attributes: u8 => hex;
        2 reserved2: [u8; 14];
        /// The first block (SLBA).
        16 starting_lba: u64 => number;
        /// Blocks (NLB), 0's based.
        24 blocks: u64 => zeros_based;
        /// An identifier of the use, big endian.
        32 guid: [u8; 16] => bytes;
        48 reserved48: [u8; 16];
    }
}

structure! {
    /// The data of feature 03h, LBA Range Type.
    LbaRanges[4096], "LBA Range Type" {
        /// The ranges; dword 0 says how many are valid.
        0 ranges: [LbaRange; 64] => each;
    }
}

bits! {
    /// Dword 0 of feature 03h.
    LbaRangeCount(u32), "LBA Range Type" {
        /// Ranges, 0's based (NUM).
        count: u8[6] => zeros_based;
        __: u32[26];
    }
}

bits! {
    /// An entry of the autonomous power state transition table.
    PowerStateTransition(u64), "Autonomous Power State Transition Data" {
        __: u8[3];
        /// The state to go to (ITPS).
        idle_transition_power_state: u8[5] => number;
        /// Idle time before that, in ms; 0 is off (ITPT).
        idle_time: u32[24] => unit("ms");
        __: u32[32];
    }
}

structure! {
    /// The data of feature 0Ch, Autonomous Power State Transition.
    PowerStateTransitions[256], "Autonomous Power State Transition" {
        /// Transition of each power state.
        0 entries: [PowerStateTransition; 32] = shown;
    }
}

impl PowerStateTransitions {
    fn shown(&self) -> Value {
        let used = (0_u64..).zip(&self.entries).filter(|(_, entry)| entry.idle_time() != 0);
        let shown = used.map(|(state, entry)| {
            let mut fields = vec![Field::new("power_state", Value::Number(state.into()))];
            fields.extend(entry.fields());
            Value::Fields(fields)
        });
        Value::List(shown.collect())
    }
}

bits! {
    /// Dword 0 of feature 0Ch.
    PowerStateTransitionEnable(u32), "Autonomous Power State Transition" {
        /// The transitions take place (APSTE).
        enabled: bool[1] => flag;
        __: u32[31];
    }
}

structure! {
    /// The data of feature 0Dh, Host Memory Buffer.
    HostMemoryBufferAttributes[4096], "Host Memory Buffer" {
        /// Size of the buffer, in memory pages (HSIZE).
        0 size: u32 => unit("pages");
        /// Descriptor list address, lower bits (HMDLAL).
        4 descriptor_list_address_lower: u32 => hex;
        /// Descriptor list address, upper bits (HMDLAU).
        8 descriptor_list_address_upper: u32 => hex;
        /// Entries of the descriptor list (HMDLEC).
        12 descriptor_list_entries: u32 => number;
        16 reserved16: [u8; 4080];
    }
}

structure! {
    /// An entry of the list that describes a host memory buffer, 16 bytes.
    HostMemoryDescriptor[16], "Host Memory Buffer Descriptor" {
        /// Address of the piece, a multiple of the memory page size (BADD).
        0 address: u64 => hex;
        /// Size of the piece, in memory pages (BSIZE).
        8 size: u32 => unit("pages");
        12 reserved12: u32;
    }
}

bits! {
    /// Dword 0 of feature 0Dh.
    HostMemoryBufferEnable(u32), "Host Memory Buffer" {
        /// The controller may use the buffer (EHM).
        enabled: bool[1] => flag;
        /// The host returns a buffer that the controller had before (MR).
        memory_return: bool[1] => flag;
        __: u32[30];
    }
}

bits! {
    /// Origin of a timestamp.
    TimestampAttributes(u8), "Timestamp Attributes" {
        /// The timestamp may have stopped at times, in sleep for example (SYNCH).
        stopped: bool[1] => flag;
        /// Origin of the timestamp.
        origin: u8[3] => names(&[(0, "zero at a controller level reset"), (1, "set by a host")]);
        __: u8[4];
    }
}

structure! {
    /// The data of feature 0Eh, Timestamp, 8 bytes.
    TimestampData[8], "Timestamp" {
        /// Milliseconds since 1970, little endian, if a host set it; since the reset otherwise.
        0 timestamp: [u8; 6] => unit("ms");
        /// Origin of the timestamp.
        6 attributes: TimestampAttributes => fields;
        7 reserved7: u8;
    }
}

impl TimestampData {
    /// Returns the time since 1970, if a host has set it; since the reset otherwise.
    #[must_use]
    pub const fn time(&self) -> Duration {
        let [a, b, c, d, e, f] = self.timestamp;
        Duration::from_millis(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }
}

structure! {
    /// The data of feature 13h, Predictable Latency Mode Config.
    PredictableLatencyConfig[512], "Predictable Latency Mode Config" {
        /// The events to report (EE), as bits of the Predictable Latency page's event type.
        0 enabled_events: u16 => hex;
        2 reserved2: [u8; 30];
        /// Reads left in a deterministic window that raise an event (DTWINRT).
        32 reads_threshold: u64 => number;
        /// Writes left in a deterministic window that raise an event (DTWINWT).
        40 writes_threshold: u64 => number;
        /// Time left in a deterministic window that raises an event, in ms (DTWINTT).
        48 time_threshold: u64 => unit("ms");
        56 reserved56: [u8; 456];
    }
}

bits! {
    /// Dword 0 of feature 13h.
    PredictableLatencyEnable(u32), "Predictable Latency Mode Config" {
        /// Predictable latency mode is on (PLME).
        enabled: bool[1] => flag;
        __: u32[31];
    }
}

structure! {
    /// The data of feature 16h, Host Behavior Support.
    HostBehaviorData[512], "Host Behavior Support" {
        /// The host takes Command Interrupted as a reason to retry (ACRE).
        0 advanced_command_retry: u8 => number;
        /// The host takes telemetry data area 4 (ETDAS).
        1 extended_telemetry_data_area_4: u8 => number;
        /// The host takes more than 16 block formats, and formats with 32- and 64-bit guards (LBAFEE).
        2 extended_lba_formats: u8 => number;
        /// The host takes dispersed namespaces (HDISNS).
        3 host_dispersed_namespaces: u8 => number;
        /// Copy descriptor formats that the host uses, one bit each (CDFE).
        4 copy_descriptor_formats: u16 => hex;
        6 reserved6: [u8; 506];
    }
}

structure! {
    /// A host identifier of 64 bits.
    HostIdentifierData[8], "Host Identifier" {
        /// The identifier, little endian; 0 is none.
        0 identifier: u64 => hex;
    }
}

structure! {
    /// A host identifier of 128 bits.
    ExtendedHostIdentifierData[16], "Host Identifier (128 bits)" {
        /// The identifier; zeros are none.
        0 identifier: [u8; 16] => bytes;
    }
}

data_features! {
    /// Feature 03h, LBA Range Type, of a namespace.
    LbaRangeType: LBA_RANGE_TYPE, "LBA Range Type", LbaRanges, dword = LbaRangeCount
        [OF_NAMESPACE: bool = true];
    /// Feature 0Ch, Autonomous Power State Transition.
    AutonomousPowerStateTransition: AUTONOMOUS_POWER_STATE_TRANSITION, "Autonomous Power State Transition",
        PowerStateTransitions, dword = PowerStateTransitionEnable;
    /// Feature 0Dh, Host Memory Buffer.
    HostMemoryBuffer: HOST_MEMORY_BUFFER, "Host Memory Buffer", HostMemoryBufferAttributes,
        dword = HostMemoryBufferEnable;
    /// Feature 0Eh, Timestamp.
    Timestamp: TIMESTAMP, "Timestamp", TimestampData;
    /// Feature 13h, Predictable Latency Mode Config, of an NVM set.
    PredictableLatencyMode: PREDICTABLE_LATENCY_MODE, "Predictable Latency Mode Config", PredictableLatencyConfig,
        dword = PredictableLatencyEnable [IN_DWORD12: bool = true, SELECTS: u32 = 0xffff];
    /// Feature 16h, Host Behavior Support.
    HostBehaviorSupport: HOST_BEHAVIOR_SUPPORT, "Host Behavior Support", HostBehaviorData;
    /// Feature 81h, Host Identifier, of 64 bits.
    HostIdentifier: HOST_IDENTIFIER, "Host Identifier", HostIdentifierData;
    /// Feature 81h, Host Identifier, of 128 bits (EXHID).
    ExtendedHostIdentifier: HOST_IDENTIFIER, "Host Identifier (128 bits)", ExtendedHostIdentifierData
        [DWORD11: u32 = 1];
}
