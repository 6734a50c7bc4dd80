//! Identify structures: Base, "Identify command"; NVM, "Identify Namespace Data Structure".

mod command_sets;
mod controller;
mod data;
mod descriptors;
mod fabrics;
mod key_value;
mod lists;
mod namespace;
mod nvm_controller;
mod power_state;
mod shown;
mod state_formats;
mod table;
mod virtualization;

pub use command_sets::{
    ExtendedLbaFormat, IndependentNamespace, NvmNamespace, ZonedController, ZonedLbaFormat, ZonedNamespace,
};
pub use controller::IdentifyController;
pub use data::IdentifyData;
pub use descriptors::{DescriptorHeader, NamespaceDescriptor, NamespaceDescriptors, NamespaceIdType};
pub use fabrics::{PortsList, UnderlyingNamespace, UnderlyingNamespaceList, UnderlyingPort};
pub use key_value::{KeyValueFormat, KeyValueFormatOptions, KeyValueNamespace};
pub use lists::{
    ActiveNamespaces, AllocatedNamespaces, CommandSetActiveNamespaces, CommandSetAllocatedNamespaces,
    CommandSetCombination, CommandSetCombinations, ControllerList, Domain, DomainList, EnduranceGroupList,
    NamespaceControllers, NamespaceDescriptorList, NamespaceGranularity, NamespaceGranularityList, NvmSet,
    NvmSetList, UuidEntry, UuidList,
};
pub use namespace::{IdentifyNamespace, LbaFormat, NamespaceList};
pub use nvm_controller::{IdentifyNvmController, OptionalCommands};
pub use power_state::PowerState;
pub use state_formats::ControllerStateFormats;
pub use table::IdentifyInfo;
pub use virtualization::{PrimaryController, SecondaryController, SecondaryControllerList};

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
        FORMAT_NAMESPACE = 0x09, "Identify Namespace by format index";
        COMMAND_SET_FORMAT_NAMESPACE = 0x0a, "I/O Command Set specific Identify Namespace by format index";
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
        COMMAND_SET_ALLOCATED_NAMESPACES = 0x1a, "I/O Command Set specific Allocated Namespace ID list";
        COMMAND_SET_ALLOCATED_NAMESPACE = 0x1b, "I/O Command Set specific Identify Namespace of an allocated namespace";
        COMMAND_SETS = 0x1c, "Identify I/O Command Set";
        UNDERLYING_NAMESPACES = 0x1d, "Underlying Namespace List";
        PORTS = 0x1e, "Ports List";
        INDEPENDENT_ALLOCATED_NAMESPACE = 0x1f, "I/O Command Set Independent Identify Namespace of an allocated namespace";
        STATE_FORMATS = 0x20, "Supported Controller State Formats";
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
