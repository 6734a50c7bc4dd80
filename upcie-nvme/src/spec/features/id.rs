//! Feature identifiers, and the value of a feature to ask for: Base, "Get Features command".

use super::super::macros::named_values;

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
        POWER_LOSS_SIGNALING = 0x1b, "Power Loss Signaling Config";
        PERFORMANCE_CHARACTERISTICS = 0x1c, "Performance Characteristics";
        FLEXIBLE_DATA_PLACEMENT = 0x1d, "Flexible Data Placement";
        FDP_EVENTS = 0x1e, "FDP Events";
        NAMESPACE_ADMIN_LABEL = 0x1f, "Namespace Admin Label";
        KEY_VALUE_CONFIGURATION = 0x20, "Key Value Configuration";
        CONTROLLER_DATA_QUEUE = 0x21, "Controller Data Queue";
        /// Added by 2.3.
        DEVICE_PERSONALITY = 0x22, "Configurable Device Personality";
        /// Added by 2.3.
        POWER_LIMIT = 0x23, "Power Limit";
        /// Added by 2.3.
        POWER_THRESHOLD = 0x24, "Power Threshold";
        /// Added by 2.3.
        POWER_MEASUREMENT = 0x25, "Power Measurement";
        /// Added by 2.4.
        VOLTAGE_THRESHOLD = 0x26, "Voltage Threshold";
        /// Added by 2.4.
        VOLTAGE_MEASUREMENT = 0x27, "Voltage Measurement";
        /// Added by 2.4.
        RATE_LIMITING = 0x28, "Rate Limiting";
        EMBEDDED_MANAGEMENT_ADDRESS = 0x78, "Embedded Management Controller Address";
        HOST_MANAGEMENT_ADDRESS = 0x79, "Host Management Agent Address";
        ENHANCED_CONTROLLER_METADATA = 0x7d, "Enhanced Controller Metadata";
        CONTROLLER_METADATA = 0x7e, "Controller Metadata";
        NAMESPACE_METADATA = 0x7f, "Namespace Metadata";
        SOFTWARE_PROGRESS_MARKER = 0x80, "Software Progress Marker";
        HOST_IDENTIFIER = 0x81, "Host Identifier";
        RESERVATION_NOTIFICATION_MASK = 0x82, "Reservation Notification Mask";
        RESERVATION_PERSISTENCE = 0x83, "Reservation Persistence";
        NAMESPACE_WRITE_PROTECTION = 0x84, "Namespace Write Protection Config";
        BOOT_PARTITION_WRITE_PROTECTION = 0x85, "Boot Partition Write Protection Config";
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
