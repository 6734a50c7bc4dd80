//! Log page identifiers: Base, "Get Log Page command"; NVM; ZNS; the PCIe transport; computational programs.

use super::super::macros::named_values;

named_values! {
    /// A log page identifier.
    LogPageId(u8) {
        SUPPORTED_LOG_PAGES = 0x00, "Supported Log Pages";
        ERROR_INFORMATION = 0x01, "Error Information";
        SMART = 0x02, "SMART / Health Information";
        FIRMWARE_SLOT = 0x03, "Firmware Slot Information";
        /// Older revisions: Changed Namespace List.
        CHANGED_NAMESPACES = 0x04, "Changed Attached Namespace List";
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
        DISPERSED_NAMESPACES = 0x17, "Dispersed Namespace Participating NVM Subsystems";
        MANAGEMENT_ADDRESSES = 0x18, "Management Address List";
        EYE_OPENING = 0x19, "Physical Interface Receiver Eye Opening Measurement";
        REACHABILITY_GROUPS = 0x1a, "Reachability Groups";
        REACHABILITY_ASSOCIATIONS = 0x1b, "Reachability Associations";
        CHANGED_ALLOCATED_NAMESPACES = 0x1c, "Changed Allocated Namespace List";
        /// Added by 2.3.
        DEVICE_PERSONALITIES = 0x1d, "Device Personalities";
        /// Added by 2.3.
        CROSS_CONTROLLER_RESET = 0x1e, "Cross-Controller Reset";
        /// Added by 2.3.
        LOST_HOST_COMMUNICATION = 0x1f, "Lost Host Communication";
        FDP_CONFIGURATIONS = 0x20, "FDP Configurations";
        RECLAIM_UNIT_HANDLE_USAGE = 0x21, "Reclaim Unit Handle Usage";
        FDP_STATISTICS = 0x22, "FDP Statistics";
        FDP_EVENTS = 0x23, "FDP Events";
        /// Added by 2.4.
        MANUFACTURER_DEFAULT_CONFIGURATION = 0x24, "Manufacturer Default Configuration";
        /// Added by 2.3.
        POWER_MEASUREMENT = 0x25, "Power Measurement";
        /// Added by 2.4.
        VOLTAGE_MEASUREMENT = 0x27, "Voltage Measurement";
        /// Added by 2.4.
        RATE_LIMITING = 0x28, "Rate Limiting";
        DISCOVERY = 0x70, "Discovery";
        HOST_DISCOVERY = 0x71, "Host Discovery";
        AVE_DISCOVERY = 0x72, "AVE Discovery";
        PULL_MODEL_REQUEST = 0x73, "Pull Model DDC Request";
        /// Added by 2.3.
        SANITIZE_NAMESPACE_STATUS = 0x7f, "Sanitize Namespace Status List";
        RESERVATION_NOTIFICATION = 0x80, "Reservation Notification";
        SANITIZE_STATUS = 0x81, "Sanitize Status";
        /// Belongs to the computational programs command set.
        PROGRAMS = 0x82, "Program List";
        /// Belongs to the computational programs command set.
        PROGRAM_TYPES = 0x83, "Downloadable Program Types List";
        /// Belongs to the computational programs command set.
        MEMORY_RANGE_SETS = 0x84, "Memory Range Set List";
        CHANGED_ZONES = 0xbf, "Changed Zone List";
    }
}
