//! Identify structures: Base, "Identify command"; NVM, "Identify Namespace Data Structure".

mod controller;
mod descriptors;
mod namespace;

pub use controller::{IdentifyController, IdentifyNvmController, OptionalCommands, PowerState};
pub use descriptors::{DescriptorHeader, NamespaceDescriptor, NamespaceDescriptors, NamespaceIdType};
pub use namespace::{IdentifyNamespace, LbaFormat, NamespaceList};

use super::macros::named_values;

named_values! {
    /// Controller or Namespace Structure: the structure that Identify returns.
    Cns(u8) {
        NAMESPACE = 0x00, "Identify Namespace";
        CONTROLLER = 0x01, "Identify Controller";
        ACTIVE_NAMESPACES = 0x02, "Active Namespace ID list";
        NAMESPACE_DESCRIPTORS = 0x03, "Namespace Identification Descriptor list";
        NVM_SETS = 0x04, "NVM Set List";
        COMMAND_SET_NAMESPACE = 0x05, "I/O Command Set specific Identify Namespace";
        COMMAND_SET_CONTROLLER = 0x06, "I/O Command Set specific Identify Controller";
        COMMAND_SET_ACTIVE_NAMESPACES = 0x07, "I/O Command Set specific Active Namespace ID list";
        INDEPENDENT_NAMESPACE = 0x08, "I/O Command Set Independent Identify Namespace";
        ALLOCATED_NAMESPACES = 0x10, "Allocated Namespace ID list";
        ALLOCATED_NAMESPACE = 0x11, "Identify Namespace of an allocated namespace";
        NAMESPACE_CONTROLLERS = 0x12, "Controller list of a namespace";
        CONTROLLERS = 0x13, "Controller list of the NVM subsystem";
        PRIMARY_CONTROLLER = 0x14, "Primary Controller Capabilities";
        SECONDARY_CONTROLLERS = 0x15, "Secondary Controller list";
        NAMESPACE_GRANULARITY = 0x16, "Namespace Granularity List";
        UUIDS = 0x17, "UUID List";
        DOMAINS = 0x18, "Domain List";
        ENDURANCE_GROUPS = 0x19, "Endurance Group List";
        COMMAND_SETS = 0x1c, "Identify I/O Command Set";
    }
}

named_values! {
    /// Command Set Identifier.
    Csi(u8) {
        NVM = 0x00, "NVM";
        KEY_VALUE = 0x01, "Key Value";
        ZONED = 0x02, "Zoned Namespace";
    }
}

/// Returns an ASCII field as text, safe to print: padding removed, anything but printable ASCII replaced by
/// U+FFFD.
pub(super) fn text(field: &[u8]) -> String {
    let printable = |&byte: &u8| match byte {
        b' '..=b'~' => char::from(byte),
        _ => char::REPLACEMENT_CHARACTER,
    };
    let end = field.iter().rposition(|&byte| byte != b' ' && byte != 0).map_or(0, |last| last + 1);
    let start = field[..end].iter().position(|&byte| byte != b' ').unwrap_or(end);
    field[start..end].iter().map(printable).collect()
}
