//! Command opcodes: Base, "Opcodes for Admin Commands", and NVM, "Opcodes for NVM Commands".

use super::macros::named_values;

/// The direction in which a command moves data: the two low bits of its opcode, by convention of the
/// specification.
///
/// Use it as a hint for a passthrough's buffer; vendor opcodes need not follow the convention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataDirection {
    /// The command has no data buffer.
    None,
    /// The controller reads the host's buffer.
    ToController,
    /// The controller writes the host's buffer.
    FromController,
    /// The controller reads and writes the host's buffer.
    Bidirectional,
}

impl DataDirection {
    const fn of(opcode: u8) -> Self {
        match opcode & 3 {
            0 => Self::None,
            1 => Self::ToController,
            2 => Self::FromController,
            _ => Self::Bidirectional,
        }
    }
}

named_values! {
    /// The opcode of an admin command.
    AdminOpcode(u8) {
        DELETE_SQ = 0x00, "Delete I/O Submission Queue";
        CREATE_SQ = 0x01, "Create I/O Submission Queue";
        GET_LOG_PAGE = 0x02, "Get Log Page";
        DELETE_CQ = 0x04, "Delete I/O Completion Queue";
        CREATE_CQ = 0x05, "Create I/O Completion Queue";
        IDENTIFY = 0x06, "Identify";
        ABORT = 0x08, "Abort";
        SET_FEATURES = 0x09, "Set Features";
        GET_FEATURES = 0x0a, "Get Features";
        ASYNC_EVENT_REQUEST = 0x0c, "Asynchronous Event Request";
        NAMESPACE_MANAGEMENT = 0x0d, "Namespace Management";
        FIRMWARE_COMMIT = 0x10, "Firmware Commit";
        FIRMWARE_IMAGE_DOWNLOAD = 0x11, "Firmware Image Download";
        DEVICE_SELF_TEST = 0x14, "Device Self-test";
        NAMESPACE_ATTACHMENT = 0x15, "Namespace Attachment";
        KEEP_ALIVE = 0x18, "Keep Alive";
        DIRECTIVE_SEND = 0x19, "Directive Send";
        DIRECTIVE_RECEIVE = 0x1a, "Directive Receive";
        VIRTUALIZATION_MANAGEMENT = 0x1c, "Virtualization Management";
        NVME_MI_SEND = 0x1d, "NVMe-MI Send";
        NVME_MI_RECEIVE = 0x1e, "NVMe-MI Receive";
        CAPACITY_MANAGEMENT = 0x20, "Capacity Management";
        DISCOVERY_INFORMATION_MANAGEMENT = 0x21, "Discovery Information Management";
        FABRIC_ZONING_RECEIVE = 0x22, "Fabric Zoning Receive";
        LOCKDOWN = 0x24, "Lockdown";
        FABRIC_ZONING_LOOKUP = 0x25, "Fabric Zoning Lookup";
        CLEAR_EXPORTED_CONFIGURATION = 0x28, "Clear Exported NVM Resource Configuration";
        FABRIC_ZONING_SEND = 0x29, "Fabric Zoning Send";
        /// Later revisions: Manage Exported NVM Subsystem Receive.
        CREATE_EXPORTED_SUBSYSTEM = 0x2a, "Create Exported NVM Subsystem";
        /// Later revisions: Manage Exported NVM Subsystem Send.
        MANAGE_EXPORTED_SUBSYSTEM = 0x2d, "Manage Exported NVM Subsystem";
        MANAGE_EXPORTED_NAMESPACE = 0x31, "Manage Exported Namespace";
        MANAGE_EXPORTED_PORT = 0x35, "Manage Exported Port";
        /// Added by 2.3.
        CROSS_CONTROLLER_RESET = 0x38, "Cross-Controller Reset";
        SEND_DISCOVERY_LOG_PAGE = 0x39, "Send Discovery Log Page";
        TRACK_SEND = 0x3d, "Track Send";
        TRACK_RECEIVE = 0x3e, "Track Receive";
        MIGRATION_SEND = 0x41, "Migration Send";
        MIGRATION_RECEIVE = 0x42, "Migration Receive";
        /// The data pointer names a queue that the controller writes to until it is deleted.
        CONTROLLER_DATA_QUEUE = 0x45, "Controller Data Queue";
        DOORBELL_BUFFER_CONFIG = 0x7c, "Doorbell Buffer Config";
        FABRICS = 0x7f, "Fabrics Commands";
        FORMAT_NVM = 0x80, "Format NVM";
        SECURITY_SEND = 0x81, "Security Send";
        SECURITY_RECEIVE = 0x82, "Security Receive";
        SANITIZE = 0x84, "Sanitize";
        /// Belongs to the computational programs command set.
        LOAD_PROGRAM = 0x85, "Load Program";
        GET_LBA_STATUS = 0x86, "Get LBA Status";
        /// Belongs to the computational programs command set.
        PROGRAM_ACTIVATION_MANAGEMENT = 0x88, "Program Activation Management";
        /// Belongs to the computational programs command set.
        MEMORY_RANGE_SET_MANAGEMENT = 0x89, "Memory Range Set Management";
        /// Added by 2.3.
        SANITIZE_NAMESPACE = 0x8c, "Sanitize Namespace";
    }
}

named_values! {
    /// The opcode of an I/O command: those of all command sets, of the NVM command set and of the zoned command set.
    NvmOpcode(u8) {
        FLUSH = 0x00, "Flush";
        WRITE = 0x01, "Write";
        READ = 0x02, "Read";
        WRITE_UNCORRECTABLE = 0x04, "Write Uncorrectable";
        COMPARE = 0x05, "Compare";
        WRITE_ZEROES = 0x08, "Write Zeroes";
        DATASET_MANAGEMENT = 0x09, "Dataset Management";
        VERIFY = 0x0c, "Verify";
        RESERVATION_REGISTER = 0x0d, "Reservation Register";
        RESERVATION_REPORT = 0x0e, "Reservation Report";
        RESERVATION_ACQUIRE = 0x11, "Reservation Acquire";
        IO_MANAGEMENT_RECEIVE = 0x12, "I/O Management Receive";
        RESERVATION_RELEASE = 0x15, "Reservation Release";
        CANCEL = 0x18, "Cancel";
        COPY = 0x19, "Copy";
        IO_MANAGEMENT_SEND = 0x1d, "I/O Management Send";
        ZONE_MANAGEMENT_SEND = 0x79, "Zone Management Send";
        ZONE_MANAGEMENT_RECEIVE = 0x7a, "Zone Management Receive";
        ZONE_APPEND = 0x7d, "Zone Append";
    }
}

impl AdminOpcode {
    /// Returns the direction of data that the opcode's low bits state.
    #[must_use]
    pub const fn direction(self) -> DataDirection {
        DataDirection::of(self.0)
    }
}

impl NvmOpcode {
    /// Returns the direction of data that the opcode's low bits state.
    #[must_use]
    pub const fn direction(self) -> DataDirection {
        DataDirection::of(self.0)
    }
}
