//! Base 2.1, "Reachability Groups", "Reachability Associations", "Management Address List" and "Dispersed Namespace
//! Participating NVM Subsystems": how namespaces and subsystems are reached.

use zerocopy::FromBytes;

use super::super::fields::{Field, Structure, Value, show, utf8};
use super::super::identify::IdentifyController;
use super::super::macros::structure;
use super::id::LogPageId;
use super::page::{LogHeader, VariableLog, fixed_pages};

/// The two pages have the same form: descriptors with identifiers behind each.
macro_rules! reachability {
    ($($(#[$meta:meta])* $header:ident, $log:ident: $id:ident, $title:literal, $descriptor:ident, $list:literal;)*) => {
        $(
            structure! {
                $(#[$meta])*
                $header[16], $title {
                    /// Changes of the page since power-on; 0 not reported.
                    0 change_count: u64 => number;
                    /// Descriptors in the page.
                    8 descriptors: u16 => number;
                    10 reserved10: [u8; 6];
                }
            }

            #[doc = concat!("The ", $title, " page with its descriptors.")]
            pub type $log = VariableLog<$header>;

            impl VariableLog<$header> {
                /// Returns each descriptor with its identifiers, as far as the page has them.
                pub fn descriptors(&self) -> impl Iterator<Item = ($descriptor, Vec<u32>)> + '_ {
                    descriptors(self.header.descriptors, |one: &$descriptor| one.count, &self.rest)
                }
            }

            impl LogHeader for $header {
                const ID: LogPageId = LogPageId::$id;

                fn rest_len(&self, read: &[u8]) -> u64 {
                    needed(self.descriptors, |one: &$descriptor| one.count, read)
                }

                fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
                    let all = descriptors(self.descriptors, |one: &$descriptor| one.count, rest);
                    let shown = all.map(|(one, identifiers)| {
                        let mut fields = one.fields();
                        fields.push(Field::new($list, show::numbers(&identifiers)));
                        Value::Fields(fields)
                    });
                    vec![Field::new("descriptor_list", Value::List(shown.collect()))]
                }
            }
        )*
    };
}

reachability! {
    /// The header of the Reachability Groups page (1Ah).
    ReachabilityGroupsHeader, ReachabilityGroupsLog: REACHABILITY_GROUPS, "Reachability Groups",
        ReachabilityGroup, "namespaces";
    /// The header of the Reachability Associations page (1Bh).
    ReachabilityAssociationsHeader, ReachabilityAssociationsLog: REACHABILITY_ASSOCIATIONS, "Reachability Associations",
        ReachabilityAssociation, "groups";
}

structure! {
    /// A reachability group, before its namespaces, 32 bytes.
    ReachabilityGroup[32], "Reachability Group Descriptor" {
        /// The group (RGID).
        0 group_id: u32 => number;
        /// Namespaces in the group (NNID).
        4 count: u32 => number;
        /// Changes of the group.
        8 change_count: u64 => number;
        16 reserved16: [u8; 16];
    }
}

structure! {
    /// A reachability association, before its groups, 32 bytes.
    ReachabilityAssociation[32], "Reachability Association Descriptor" {
        /// The association (RASID).
        0 association_id: u32 => number;
        /// Groups in the association (NRID).
        4 count: u32 => number;
        /// Changes of the association.
        8 change_count: u64 => number;
        /// Characteristics of the association (RAC).
        16 characteristics: u8 => hex;
        17 reserved17: [u8; 15];
    }
}

/// Walks descriptors of 32 bytes, each with 32-bit identifiers behind it.
fn descriptors<'a, T: FromBytes + 'a>(
    count: u16,
    identifiers: fn(&T) -> u32,
    mut rest: &'a [u8],
) -> impl Iterator<Item = (T, Vec<u32>)> + 'a {
    (0..count).map_while(move |_| {
        let (one, after) = T::read_from_prefix(rest).ok()?;
        let (ids, after) = after.split_at_checked((identifiers(&one) as usize).checked_mul(4)?)?;
        rest = after;
        Some((one, ids.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]])).collect()))
    })
}

/// Returns the bytes up to the end of the last descriptor, or of the first that was not `read` yet.
fn needed<T: FromBytes>(count: u16, identifiers: fn(&T) -> u32, read: &[u8]) -> u64 {
    let mut end = 0_u64;
    for _ in 0..count {
        let at = usize::try_from(end).unwrap_or(usize::MAX);
        end = end.saturating_add(size_of::<T>() as u64);
        match read.get(at..).and_then(|bytes| T::read_from_prefix(bytes).ok()) {
            Some((one, _)) => end = end.saturating_add(u64::from(identifiers(&one)) * 4),
            None => break,
        }
    }
    end
}

structure! {
    /// A management address, 512 bytes.
    ManagementAddress[512], "Management Address Descriptor" {
        /// Type of the address; FFh ends the list (MAT).
        0 address_type: u8 => names(&[(1, "NVM subsystem management agent"), (2, "fabric interface manager")]);
        1 reserved1: [u8; 3];
        /// The address, UTF-8 ended by a zero (MADRS).
        4 address: [u8; 508] => utf8;
    }
}

structure! {
    /// Management Address List (18h).
    ManagementAddressLog[4096], "Management Address List" {
        /// The addresses; see [`Self::used`].
        0 addresses: [ManagementAddress; 8] = shown;
    }
}

impl ManagementAddressLog {
    /// Returns the addresses in the list.
    pub fn used(&self) -> impl Iterator<Item = &ManagementAddress> {
        let listed = self.addresses.iter().take_while(|address| address.address_type != 0xff);
        listed.filter(|address| address.address_type != 0)
    }

    fn shown(&self) -> Value {
        Value::List(self.used().map(show::fields).collect())
    }
}

fixed_pages! { ManagementAddressLog: MANAGEMENT_ADDRESSES; }

structure! {
    /// The header of the Dispersed Namespace Participating NVM Subsystems page (17h) of a namespace.
    DispersedNamespaceHeader[256], "Dispersed Namespace Participating NVM Subsystems" {
        /// Generation of the page (GENCTR).
        0 generation: u64 => number;
        /// Subsystems in the page (NUMPSUB).
        8 subsystem_count: u64 => number;
        16 reserved16: [u8; 240];
    }
}

/// The Dispersed Namespace Participating NVM Subsystems page with the subsystems' names.
pub type DispersedNamespaceLog = VariableLog<DispersedNamespaceHeader>;

/// Bytes of a qualified name.
const NAME: usize = 256;

impl VariableLog<DispersedNamespaceHeader> {
    /// Returns the qualified names of the subsystems, safe to print.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        names(self.header.subsystem_count, &self.rest)
    }
}

fn names(count: u64, rest: &[u8]) -> impl Iterator<Item = String> + '_ {
    rest.chunks_exact(NAME).take(usize::try_from(count).unwrap_or(usize::MAX)).map(utf8)
}

impl LogHeader for DispersedNamespaceHeader {
    const ID: LogPageId = LogPageId::DISPERSED_NAMESPACES;

    fn rest_len(&self, _: &[u8]) -> u64 {
        self.subsystem_count.saturating_mul(NAME as u64)
    }

    fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
        vec![Field::new(
            "subsystems",
            Value::List(names(self.subsystem_count, rest).map(Value::Text).collect()),
        )]
    }
}
