//! The lists that Identify returns: namespaces, controllers, NVM sets, domains, endurance groups, UUIDs, command sets.
//! Base, "Identify command".

use core::fmt;

use super::super::fields::{Field, Structure, Value, debug, show};
use super::super::macros::{bits, printed, structure};
use super::data::{IdentifyData, identify_data};
use super::{Cns, NamespaceDescriptors, NamespaceList};

impl Structure for NamespaceList {
    const TITLE: &'static str = "Namespace list";

    fn fields(&self) -> Vec<Field> {
        let used = self.nsids.iter().position(|&nsid| nsid == 0).unwrap_or(self.nsids.len());
        vec![Field::new("namespaces", show::numbers(&self.nsids[..used]))]
    }
}
printed!(NamespaceList);

/// Namespace lists with different codes.
macro_rules! namespace_lists {
    ($($(#[$meta:meta])* $type:ident: $cns:ident, $title:literal;)*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, PartialEq, Eq)]
            pub struct $type(
                /// The list.
                pub NamespaceList,
            );

            impl Structure for $type {
                const TITLE: &'static str = $title;

                fn fields(&self) -> Vec<Field> {
                    self.0.fields()
                }
            }
            printed!($type);

            impl fmt::Debug for $type {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    debug(f, stringify!($type), &self.fields())
                }
            }

            impl IdentifyData for $type {
                const CNS: Cns = Cns::$cns;

                fn from_page(page: &[u8; 4096]) -> Self {
                    Self(zerocopy::transmute!(*page))
                }
            }
        )*
    };
}

namespace_lists! {
    /// Active Namespace ID list (CNS 02h): the active namespaces above the one that Identify names.
    ActiveNamespaces: ACTIVE_NAMESPACES, "Active Namespace ID list";
    /// I/O Command Set specific Active Namespace ID list (CNS 07h).
    CommandSetActiveNamespaces: COMMAND_SET_ACTIVE_NAMESPACES, "I/O Command Set specific Active Namespace ID list";
    /// Allocated Namespace ID list (CNS 10h).
    AllocatedNamespaces: ALLOCATED_NAMESPACES, "Allocated Namespace ID list";
    /// I/O Command Set specific Allocated Namespace ID list (CNS 1Ah).
    CommandSetAllocatedNamespaces: COMMAND_SET_ALLOCATED_NAMESPACES,
        "I/O Command Set specific Allocated Namespace ID list";
}

/// Namespace Identification Descriptor list (CNS 03h).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NamespaceDescriptorList {
    bytes: [u8; 4096],
}

impl NamespaceDescriptorList {
    /// Walks the descriptors.
    #[must_use]
    pub const fn descriptors(&self) -> NamespaceDescriptors<'_> {
        NamespaceDescriptors::new(&self.bytes)
    }
}

impl Structure for NamespaceDescriptorList {
    const TITLE: &'static str = "Namespace Identification Descriptor list";

    fn fields(&self) -> Vec<Field> {
        let all = self.descriptors().map(|descriptor| Value::Text(descriptor.to_string()));
        vec![Field::new("descriptors", Value::List(all.collect()))]
    }
}
printed!(NamespaceDescriptorList);

impl fmt::Debug for NamespaceDescriptorList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.descriptors()).finish()
    }
}

impl IdentifyData for NamespaceDescriptorList {
    const CNS: Cns = Cns::NAMESPACE_DESCRIPTORS;
    const OF_NAMESPACE: bool = true;

    fn from_page(page: &[u8; 4096]) -> Self {
        Self { bytes: *page }
    }
}

/// Lists of 16-bit identifiers with their number before them.
macro_rules! identifier_lists {
    ($($(#[$meta:meta])* $type:ident: $cns:ident, $title:literal $([$namespace:ident])?;)*) => {
        $(
            structure! {
                $(#[$meta])*
                $type[4096], $title {
                    /// Identifiers in the list.
                    0 count: u16 => number;
                    /// The identifiers, ascending; see [`Self::used`].
                    2 identifiers: [u16; 2047] = shown;
                }
            }

            impl $type {
                /// Returns the identifiers in the list.
                #[must_use]
                pub fn used(&self) -> &[u16] {
                    &self.identifiers[..self.identifiers.len().min(self.count.into())]
                }

                fn shown(&self) -> Value {
                    show::numbers(self.used())
                }
            }

            identify_data! { $type: $cns $([$namespace])?; }
        )*
    };
}

identifier_lists! {
    /// Controllers that a namespace is attached to (CNS 12h), from the one that Identify names on.
    NamespaceControllers: NAMESPACE_CONTROLLERS, "Controller list of a namespace" [namespace];
    /// Controllers of the NVM subsystem (CNS 13h), from the one that Identify names on.
    ControllerList: CONTROLLERS, "Controller list of the NVM subsystem";
    /// Endurance Group List (CNS 19h), from the one that Identify names on.
    EnduranceGroupList: ENDURANCE_GROUPS, "Endurance Group List";
}

structure! {
    /// An NVM set, 128 bytes.
    NvmSet[128], "NVM Set Attributes Entry" {
        /// The identifier.
        0 nvm_set_id: u16 => number;
        /// The endurance group of the set (ENDGID).
        2 endurance_group_id: u16 => number;
        4 reserved4: [u8; 4];
        /// Typical time of a random 4 KiB read, in 100 ns units; 0 not reported (R4KRT).
        8 random_4k_read_typical: u32 => unit("× 100 ns");
        /// Optimal write size, in bytes; 0 not reported (OWS).
        12 optimal_write_size: u32 => unit("bytes");
        /// Capacity, bytes, little endian (TNVMSETCAP).
        16 total_capacity: [u8; 16] => unit("bytes");
        /// Unallocated capacity, bytes, little endian (UNVMSETCAP).
        32 unallocated_capacity: [u8; 16] => unit("bytes");
        48 reserved48: [u8; 80];
    }
}

structure! {
    /// NVM Set List (CNS 04h), from the set that Identify names on.
    NvmSetList[4096], "NVM Set List" {
        /// Sets in the list.
        0 count: u8 => number;
        1 reserved1: [u8; 127];
        /// The sets; see [`Self::used`].
        128 sets: [NvmSet; 31] = shown;
    }
}

impl NvmSetList {
    /// Returns the sets in the list.
    #[must_use]
    pub fn used(&self) -> &[NvmSet] {
        &self.sets[..self.sets.len().min(self.count.into())]
    }

    fn shown(&self) -> Value {
        show::each(self.used())
    }
}

structure! {
    /// A domain, 128 bytes.
    Domain[128], "Domain Attributes Entry" {
        /// The identifier.
        0 domain_id: u16 => number;
        2 reserved2: [u8; 14];
        /// Capacity, bytes, little endian.
        16 total_capacity: [u8; 16] => unit("bytes");
        /// Unallocated capacity, bytes, little endian.
        32 unallocated_capacity: [u8; 16] => unit("bytes");
        /// Largest capacity of an endurance group, bytes, little endian.
        48 max_endurance_group_capacity: [u8; 16] => unit("bytes");
        64 reserved64: [u8; 64];
    }
}

structure! {
    /// Domain List (CNS 18h), from the domain that Identify names on.
    DomainList[4096], "Domain List" {
        /// Domains in the list.
        0 count: u8 => number;
        1 reserved1: [u8; 127];
        /// The domains; see [`Self::used`].
        128 domains: [Domain; 31] = shown;
    }
}

impl DomainList {
    /// Returns the domains in the list.
    #[must_use]
    pub fn used(&self) -> &[Domain] {
        &self.domains[..self.domains.len().min(self.count.into())]
    }

    fn shown(&self) -> Value {
        show::each(self.used())
    }
}

structure! {
    /// A namespace granularity, 16 bytes.
    NamespaceGranularity[16], "Namespace Granularity Descriptor" {
        /// Granularity of a namespace's size, in bytes (NSG).
        0 size_granularity: u64 => unit("bytes");
        /// Granularity of a namespace's capacity, in bytes (NCG).
        8 capacity_granularity: u64 => unit("bytes");
    }
}

structure! {
    /// Namespace Granularity List (CNS 16h).
    NamespaceGranularityList[4096], "Namespace Granularity List" {
        /// Bit 0: each block format has a descriptor of its own.
        0 attributes: u32 => hex;
        /// Descriptors, 0's based.
        4 count: u8 => zeros_based;
        5 reserved5: [u8; 27];
        /// The descriptors; see [`Self::used`].
        32 descriptors: [NamespaceGranularity; 16] = shown;
        288 reserved288: [u8; 3808];
    }
}

impl NamespaceGranularityList {
    /// Returns the descriptors in the list.
    #[must_use]
    pub fn used(&self) -> &[NamespaceGranularity] {
        &self.descriptors[..self.descriptors.len().min(usize::from(self.count) + 1)]
    }

    fn shown(&self) -> Value {
        show::each(self.used())
    }
}

structure! {
    /// A UUID of a vendor, 32 bytes.
    UuidEntry[32], "UUID List Entry" {
        /// Bits 1:0: 0 no association, 1 the PCI vendor, 2 the PCI subsystem vendor.
        0 association: u8 => names(&[(0, "none"), (1, "PCI vendor ID"), (2, "PCI subsystem vendor ID")]);
        1 reserved1: [u8; 15];
        /// The UUID, big endian; zeros end the list.
        16 uuid: [u8; 16] => bytes;
    }
}

structure! {
    /// UUID List (CNS 17h): what a UUID index, 1 to 127, stands for.
    UuidList[4096], "UUID List" {
        0 reserved0: [u8; 32];
        /// The entries; see [`Self::used`].
        32 entries: [UuidEntry; 127] = shown;
    }
}

impl UuidList {
    /// Returns the entries in the list: the first is that of UUID index 1.
    #[must_use]
    pub fn used(&self) -> &[UuidEntry] {
        let count = self.entries.iter().position(|entry| entry.uuid == [0; 16]);
        &self.entries[..count.unwrap_or(self.entries.len())]
    }

    fn shown(&self) -> Value {
        show::each(self.used())
    }
}

bits! {
    /// Command sets that a controller can have together.
    CommandSetCombination(u64), "I/O Command Set Combination" {
        /// NVM.
        nvm: bool[1] => flag;
        /// Key value.
        key_value: bool[1] => flag;
        /// Zoned namespaces.
        zoned: bool[1] => flag;
        /// Subsystem local memory.
        subsystem_local_memory: bool[1] => flag;
        /// Computational programs.
        computational_programs: bool[1] => flag;
        __: u64[59];
    }
}

structure! {
    /// Identify I/O Command Set (CNS 1Ch).
    CommandSetCombinations[4096], "Identify I/O Command Set" {
        /// The combinations, by the index that feature 19h takes; see [`Self::used`].
        0 combinations: [CommandSetCombination; 512] = shown;
    }
}

impl CommandSetCombinations {
    /// Returns the combinations up to the first empty one.
    #[must_use]
    pub fn used(&self) -> &[CommandSetCombination] {
        let count = self.combinations.iter().position(|combination| combination.into_bits() == 0);
        &self.combinations[..count.unwrap_or(self.combinations.len())]
    }

    fn shown(&self) -> Value {
        show::each(self.used())
    }
}

identify_data! {
    NvmSetList: NVM_SETS;
    DomainList: DOMAINS;
    NamespaceGranularityList: NAMESPACE_GRANULARITY;
    UuidList: UUIDS;
    CommandSetCombinations: COMMAND_SETS;
}
