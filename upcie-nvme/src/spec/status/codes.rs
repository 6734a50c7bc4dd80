//! The statuses: Base, "Status Field Definition"; NVM, "I/O Command Set specific Status Codes".

use super::Status;

/// The constants and texts: `type { CONSTANT = code, "name", "meaning"; }`.
macro_rules! statuses {
    ($( $sct:literal { $( $constant:ident = $sc:literal, $name:literal, $meaning:literal; )* } )*) => {
        impl Status {
            $($(
                #[doc = concat!($name, ": ", $meaning, ".")]
                pub const $constant: Self = Self($sct << 8 | $sc);
            )*)*

            /// Returns name and meaning.
            pub(super) const fn texts(self) -> Option<(&'static str, &'static str)> {
                match (self.0 >> 8 & 7, self.0 & 0xff) {
                    $($( ($sct, $sc) => Some(($name, $meaning)), )*)*
                    _ => None,
                }
            }

            #[cfg(test)]
            pub(in crate::spec) const ALL: &[Self] = &[$($( Self::$constant, )*)*];
        }
    };
}

statuses! {
    0x0 {
        SUCCESS = 0x00, "Successful Completion", "the command succeeded";
        INVALID_OPCODE = 0x01, "Invalid Command Opcode", "the controller doesn't have this command";
        INVALID_FIELD = 0x02, "Invalid Field in Command",
            "a field of the command has a value that is reserved or that the controller doesn't support";
        COMMAND_ID_CONFLICT = 0x03, "Command ID Conflict",
            "the identifier belongs to a command still in flight";
        DATA_TRANSFER_ERROR = 0x04, "Data Transfer Error",
            "data or metadata couldn't be moved between host memory and controller";
        ABORTED_POWER_LOSS = 0x05, "Commands Aborted due to Power Loss Notification",
            "power is about to be lost";
        INTERNAL_ERROR = 0x06, "Internal Error", "the controller failed inside";
        ABORT_REQUESTED = 0x07, "Command Abort Requested", "an Abort command ended it";
        ABORTED_SQ_DELETION = 0x08, "Command Aborted due to SQ Deletion", "its submission queue was deleted";
        ABORTED_FAILED_FUSED = 0x09, "Command Aborted due to Failed Fused Command",
            "the other command of the fused pair failed";
        ABORTED_MISSING_FUSED = 0x0a, "Command Aborted due to Missing Fused Command",
            "the other command of the fused pair isn't beside it in the queue";
        INVALID_NAMESPACE_OR_FORMAT = 0x0b, "Invalid Namespace or Format",
            "there is no such namespace, or its format doesn't allow the command";
        COMMAND_SEQUENCE_ERROR = 0x0c, "Command Sequence Error",
            "the commands of a sequence came in the wrong order";
        INVALID_SGL_SEGMENT = 0x0d, "Invalid SGL Segment Descriptor",
            "a descriptor of a scatter-gather list's next segment is wrong";
        INVALID_SGL_COUNT = 0x0e, "Invalid Number of SGL Descriptors",
            "a scatter-gather segment holds too many descriptors, or its link isn't the last";
        DATA_SGL_LENGTH_INVALID = 0x0f, "Data SGL Length Invalid",
            "the scatter-gather list's length isn't the data's";
        METADATA_SGL_LENGTH_INVALID = 0x10, "Metadata SGL Length Invalid",
            "the scatter-gather list's length isn't the metadata's";
        SGL_TYPE_INVALID = 0x11, "SGL Descriptor Type Invalid",
            "the controller doesn't support this type of scatter-gather descriptor";
        INVALID_USE_OF_CMB = 0x12, "Invalid Use of Controller Memory Buffer",
            "the controller doesn't allow its memory buffer to be used like this";
        PRP_OFFSET_INVALID = 0x13, "PRP Offset Invalid",
            "a PRP entry isn't dword-aligned, or one after the first isn't page-aligned";
        ATOMIC_WRITE_UNIT_EXCEEDED = 0x14, "Atomic Write Unit Exceeded",
            "the write is longer than the controller can make atomic";
        OPERATION_DENIED = 0x15, "Operation Denied", "the host lacks the access rights";
        SGL_OFFSET_INVALID = 0x16, "SGL Offset Invalid", "a scatter-gather descriptor's offset is wrong";
        HOST_ID_INCONSISTENT = 0x18, "Host Identifier Inconsistent Format",
            "host identifiers of 64 and of 128 bits are in use at once";
        KEEP_ALIVE_EXPIRED = 0x19, "Keep Alive Timer Expired", "the host sent no Keep Alive in time";
        KEEP_ALIVE_INVALID = 0x1a, "Keep Alive Timeout Invalid", "the keep alive timeout isn't allowed here";
        ABORTED_PREEMPT = 0x1b, "Command Aborted due to Preempt and Abort",
            "another host preempted the reservation";
        SANITIZE_FAILED = 0x1c, "Sanitize Failed",
            "the last sanitize failed, and nothing else is allowed until it succeeds";
        SANITIZE_IN_PROGRESS = 0x1d, "Sanitize In Progress", "not allowed until the sanitize is over";
        SGL_GRANULARITY_INVALID = 0x1e, "SGL Data Block Granularity Invalid",
            "a scatter-gather address or length isn't a multiple of 4";
        NOT_SUPPORTED_IN_CMB = 0x1f, "Command Not Supported for Queue in CMB",
            "not for queues in the controller memory buffer";
        WRITE_PROTECTED = 0x20, "Namespace is Write Protected", "the namespace was made read-only";
        INTERRUPTED = 0x21, "Command Interrupted",
            "the controller was interrupted; the command should be tried again";
        TRANSIENT_TRANSPORT_ERROR = 0x22, "Transient Transport Error",
            "the transport failed for a moment; the command should be tried again";
        LOCKDOWN = 0x23, "Command Prohibited by Command and Feature Lockdown",
            "the command or feature is locked down";
        MEDIA_NOT_READY = 0x24, "Admin Command Media Not Ready",
            "the command needs the media, which isn't ready yet";
        INVALID_KEY_TAG = 0x25, "Invalid Key Tag", "there is no such media encryption key";
        HOST_DISPERSED_NOT_ENABLED = 0x26, "Host Dispersed Namespace Support Not Enabled",
            "the host hasn't said that it supports dispersed namespaces";
        HOST_ID_NOT_INITIALIZED = 0x27, "Host Identifier Not Initialized",
            "the host must set its identifier first";
        INCORRECT_KEY = 0x28, "Incorrect Key", "the media encryption key is wrong";
        FDP_DISABLED = 0x29, "FDP Disabled", "flexible data placement is not enabled in the endurance group";
        INVALID_PLACEMENT_HANDLES = 0x2a, "Invalid Placement Handle List",
            "the list of placement handles is wrong";
        LBA_OUT_OF_RANGE = 0x80, "LBA Out of Range", "the range goes past the end of the namespace";
        CAPACITY_EXCEEDED = 0x81, "Capacity Exceeded", "the namespace has no capacity left for the write";
        NAMESPACE_NOT_READY = 0x82, "Namespace Not Ready", "the namespace can't be accessed now";
        RESERVATION_CONFLICT = 0x83, "Reservation Conflict",
            "another host's reservation of the namespace prohibits this, or the key isn't that of this host";
        FORMAT_IN_PROGRESS = 0x84, "Format In Progress", "the namespace is being formatted; try again later";
        INVALID_VALUE_SIZE = 0x85, "Invalid Value Size", "the size of a key's value is wrong";
        INVALID_KEY_SIZE = 0x86, "Invalid Key Size", "the size of a key is wrong";
        KEY_DOES_NOT_EXIST = 0x87, "KV Key Does Not Exist", "there is no such key";
        UNRECOVERED_ERROR = 0x88, "Unrecovered Error", "the key's value can't be recovered";
        KEY_EXISTS = 0x89, "Key Exists", "the key exists already";
    }
    0x1 {
        COMPLETION_QUEUE_INVALID = 0x00, "Completion Queue Invalid", "there is no such completion queue";
        INVALID_QUEUE_ID = 0x01, "Invalid Queue Identifier",
            "the queue identifier is in use, beyond the number of queues, or there is no such queue";
        INVALID_QUEUE_SIZE = 0x02, "Invalid Queue Size", "more or fewer entries than the controller supports";
        ABORT_LIMIT_EXCEEDED = 0x03, "Abort Command Limit Exceeded", "too many Abort commands at a time";
        ASYNC_EVENT_LIMIT_EXCEEDED = 0x05, "Asynchronous Event Request Limit Exceeded",
            "too many Asynchronous Event Requests at a time";
        INVALID_FIRMWARE_SLOT = 0x06, "Invalid Firmware Slot", "the slot doesn't exist or is read-only";
        INVALID_FIRMWARE_IMAGE = 0x07, "Invalid Firmware Image", "the image is damaged or for another device";
        INVALID_INTERRUPT_VECTOR = 0x08, "Invalid Interrupt Vector", "there is no such interrupt vector";
        INVALID_LOG_PAGE = 0x09, "Invalid Log Page", "the controller doesn't have this log page";
        INVALID_FORMAT = 0x0a, "Invalid Format", "the controller doesn't support this format or setting";
        FIRMWARE_NEEDS_CONVENTIONAL_RESET = 0x0b, "Firmware Activation Requires Conventional Reset",
            "the firmware is committed, and runs after a conventional reset (power cycle, hot reset)";
        INVALID_QUEUE_DELETION = 0x0c, "Invalid Queue Deletion",
            "a completion queue can't be deleted before its submission queues";
        FEATURE_NOT_SAVEABLE = 0x0d, "Feature Identifier Not Saveable", "the feature's value can't be saved";
        FEATURE_NOT_CHANGEABLE = 0x0e, "Feature Not Changeable", "the feature's value can't be changed";
        FEATURE_NOT_NAMESPACE_SPECIFIC = 0x0f, "Feature Not Namespace Specific",
            "the feature belongs to the controller, not to a namespace";
        FIRMWARE_NEEDS_SUBSYSTEM_RESET = 0x10, "Firmware Activation Requires NVM Subsystem Reset",
            "the firmware is committed, and runs after a subsystem reset";
        FIRMWARE_NEEDS_CONTROLLER_RESET = 0x11, "Firmware Activation Requires Controller Level Reset",
            "the firmware is committed, and runs after a controller reset";
        FIRMWARE_MAXIMUM_TIME = 0x12, "Firmware Activation Requires Maximum Time Violation",
            "activating the firmware now would take longer than MTFA; reset instead";
        FIRMWARE_PROHIBITED = 0x13, "Firmware Activation Prohibited",
            "the controller doesn't accept this firmware";
        OVERLAPPING_RANGE = 0x14, "Overlapping Range", "ranges overlap that must not";
        NAMESPACE_INSUFFICIENT_CAPACITY = 0x15, "Namespace Insufficient Capacity",
            "not enough free capacity for the namespace";
        NAMESPACE_ID_UNAVAILABLE = 0x16, "Namespace Identifier Unavailable",
            "no more namespaces are possible";
        NAMESPACE_ALREADY_ATTACHED = 0x18, "Namespace Already Attached",
            "the namespace is attached to that controller already";
        NAMESPACE_IS_PRIVATE = 0x19, "Namespace Is Private",
            "the namespace is attached to another controller";
        NAMESPACE_NOT_ATTACHED = 0x1a, "Namespace Not Attached",
            "the namespace isn't attached to the controller";
        THIN_PROVISIONING_NOT_SUPPORTED = 0x1b, "Thin Provisioning Not Supported",
            "capacity and size must be the same";
        CONTROLLER_LIST_INVALID = 0x1c, "Controller List Invalid", "the list of controllers is wrong";
        SELF_TEST_IN_PROGRESS = 0x1d, "Device Self-test In Progress", "a self-test is running";
        BOOT_PARTITION_WRITE_PROHIBITED = 0x1e, "Boot Partition Write Prohibited",
            "the boot partition is locked";
        INVALID_CONTROLLER_ID = 0x1f, "Invalid Controller Identifier", "there is no such controller";
        INVALID_SECONDARY_STATE = 0x20, "Invalid Secondary Controller State",
            "the secondary controller's state doesn't allow this";
        INVALID_RESOURCE_COUNT = 0x21, "Invalid Number of Controller Resources",
            "more resources than can be assigned";
        INVALID_RESOURCE_ID = 0x22, "Invalid Resource Identifier", "there is no such resource";
        SANITIZE_PROHIBITED_PMR = 0x23, "Sanitize Prohibited While Persistent Memory Region is Enabled",
            "the persistent memory region must be disabled first";
        ANA_GROUP_INVALID = 0x24, "ANA Group Identifier Invalid", "there is no such ANA group";
        ANA_ATTACH_FAILED = 0x25, "ANA Attach Failed",
            "the ANA state doesn't allow the namespace to be attached";
        INSUFFICIENT_CAPACITY = 0x26, "Insufficient Capacity", "not enough capacity";
        NAMESPACE_ATTACHMENT_LIMIT = 0x27, "Namespace Attachment Limit Exceeded",
            "no more namespaces can be attached";
        PROHIBITION_NOT_SUPPORTED = 0x28, "Prohibition of Command Execution Not Supported",
            "this command or feature can't be locked down";
        COMMAND_SET_NOT_SUPPORTED = 0x29, "I/O Command Set Not Supported",
            "the controller doesn't have this command set";
        COMMAND_SET_NOT_ENABLED = 0x2a, "I/O Command Set Not Enabled", "the command set isn't enabled";
        COMMAND_SET_COMBINATION_REJECTED = 0x2b, "I/O Command Set Combination Rejected",
            "these command sets can't be enabled together";
        INVALID_COMMAND_SET = 0x2c, "Invalid I/O Command Set", "the namespace has another command set";
        IDENTIFIER_UNAVAILABLE = 0x2d, "Identifier Unavailable", "no more identifiers are left";
        INVALID_DATA_QUEUE = 0x37, "Invalid Controller Data Queue", "there is no such controller data queue";
        NOT_ENOUGH_RESOURCES = 0x38, "Not Enough Resources", "the controller has no resources left for this";
        CONTROLLER_SUSPENDED = 0x39, "Controller Suspended", "not allowed while the controller is suspended";
        CONTROLLER_NOT_SUSPENDED = 0x3a, "Controller Not Suspended", "the controller must be suspended first";
        CONTROLLER_DATA_QUEUE_FULL = 0x3b, "Controller Data Queue Full", "the queue had no room for an entry";
        CONFLICTING_ATTRIBUTES = 0x80, "Conflicting Attributes",
            "attributes of the command contradict each other";
        INVALID_PROTECTION_INFORMATION = 0x81, "Invalid Protection Information",
            "the protection fields don't match the namespace's format";
        READ_ONLY_RANGE = 0x82, "Attempted Write to Read Only Range", "the range is read-only";
        COMMAND_SIZE_LIMIT_EXCEEDED = 0x83, "Command Size Limit Exceeded",
            "more blocks than the controller takes in such a command";
        INVALID_COMMAND_ID = 0x84, "Invalid Command ID", "a Cancel can't end itself";
        INCOMPATIBLE_NAMESPACE_OR_FORMAT = 0x85, "Incompatible Namespace or Format",
            "the blocks of the source and of the target differ in their format";
        INVALID_ZONE_OPERATION = 0xb6, "Invalid Zone Operation Request",
            "the zone's random write area, or the lack of one, doesn't allow this";
        NO_RANDOM_WRITE_AREA = 0xb7, "ZRWA Resources Unavailable", "no random write area is left";
        ZONE_BOUNDARY_ERROR = 0xb8, "Zoned Boundary Error", "the range crosses a zone's boundary";
        ZONE_IS_FULL = 0xb9, "Zone Is Full", "the zone is full";
        ZONE_IS_READ_ONLY = 0xba, "Zone Is Read Only", "the zone is read-only";
        ZONE_IS_OFFLINE = 0xbb, "Zone Is Offline", "the zone is offline";
        ZONE_INVALID_WRITE = 0xbc, "Zone Invalid Write", "the write isn't at the zone's write pointer";
        TOO_MANY_ACTIVE_ZONES = 0xbd, "Too Many Active Zones", "no more zones can be active";
        TOO_MANY_OPEN_ZONES = 0xbe, "Too Many Open Zones", "no more zones can be open";
        ZONE_INVALID_TRANSITION = 0xbf, "Invalid Zone State Transition",
            "the zone's state doesn't allow this";
    }
    0x2 {
        WRITE_FAULT = 0x80, "Write Fault", "the data couldn't be written to the media";
        UNRECOVERED_READ_ERROR = 0x81, "Unrecovered Read Error", "the media lost the data";
        GUARD_CHECK_ERROR = 0x82, "End-to-end Guard Check Error", "the data's checksum is wrong";
        APPLICATION_TAG_CHECK_ERROR = 0x83, "End-to-end Application Tag Check Error",
            "the data's application tag isn't the expected one";
        REFERENCE_TAG_CHECK_ERROR = 0x84, "End-to-end Reference Tag Check Error",
            "the data belongs to another block";
        COMPARE_FAILURE = 0x85, "Compare Failure", "the data on the media is different";
        ACCESS_DENIED = 0x86, "Access Denied", "the range is locked";
        DEALLOCATED_BLOCK = 0x87, "Deallocated or Unwritten Logical Block",
            "a block was never written, or was deallocated";
        STORAGE_TAG_CHECK_ERROR = 0x88, "End-to-End Storage Tag Check Error",
            "the data's storage tag isn't the expected one";
    }
    0x3 {
        INTERNAL_PATH_ERROR = 0x00, "Internal Path Error", "this controller failed; another path may work";
        ANA_PERSISTENT_LOSS = 0x01, "Asymmetric Access Persistent Loss",
            "this controller won't reach the namespace again";
        ANA_INACCESSIBLE = 0x02, "Asymmetric Access Inaccessible",
            "this controller can't reach the namespace now";
        ANA_TRANSITION = 0x03, "Asymmetric Access Transition",
            "access to the namespace is moving between controllers; try again later";
        CONTROLLER_PATHING_ERROR = 0x60, "Controller Pathing Error", "the controller found the path broken";
        HOST_PATHING_ERROR = 0x70, "Host Pathing Error", "the host found the path broken";
        ABORTED_BY_HOST = 0x71, "Command Aborted By Host", "the host gave the command up";
    }
}
