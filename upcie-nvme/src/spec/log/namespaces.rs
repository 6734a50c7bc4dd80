//! The log pages that list what changed: namespaces (Base), zones (ZNS).

use super::super::command::ALL_NAMESPACES;
use super::super::fields::{Value, show};
use super::super::identify::IdentifyController;
use super::super::macros::structure;
use super::id::LogPageId;
use super::page::fixed_pages;

/// The two pages have the same form.
macro_rules! changed {
    ($($(#[$meta:meta])* $type:ident: $id:ident, $title:literal;)*) => {
        $(
            structure! {
                $(#[$meta])*
                $type[4096], $title {
                    /// The identifiers, ascending, ended by 0 if there are fewer than 1024; see [`Self::changed`].
                    0 namespace_ids: [u32; 1024] = shown;
                }
            }

            impl $type {
                /// Returns the namespaces that changed; `None` if they are more than the page holds: any may have.
                #[must_use]
                pub fn changed(&self) -> Option<Vec<u32>> {
                    let ids = self.namespace_ids.iter().copied().take_while(|&id| id != 0);
                    (self.namespace_ids[0] != ALL_NAMESPACES).then(|| ids.collect())
                }

                fn shown(&self) -> Value {
                    match self.changed() {
                        Some(ids) => show::numbers(&ids),
                        None => Value::Text("more than 1024".into()),
                    }
                }
            }
        )*

        fixed_pages! { $($type: $id;)* }
    };
}

changed! {
    /// Changed Attached Namespace List (04h), which older revisions call Changed Namespace List.
    ChangedNamespacesLog: CHANGED_NAMESPACES, "Changed Attached Namespace List";
    /// Changed Allocated Namespace List (1Ch).
    ChangedAllocatedNamespacesLog: CHANGED_ALLOCATED_NAMESPACES, "Changed Allocated Namespace List";
}

structure! {
    /// Changed Zone List (BFh) of the zoned command set.
    ChangedZonesLog[4096], "Changed Zone List" {
        /// Zones in the list; FFFFh if more changed than it holds (NRZID).
        0 count: u16 => number;
        2 reserved2: [u8; 6];
        /// The first block of each zone; see [`Self::changed`].
        8 zones: [u64; 511] = shown;
    }
}

impl ChangedZonesLog {
    /// Returns the first block of each zone that changed; `None` if they are more than the page holds: any may have.
    #[must_use]
    pub fn changed(&self) -> Option<&[u64]> {
        self.zones.get(..self.count.into())
    }

    fn shown(&self) -> Value {
        self.changed().map_or_else(|| Value::Text("more than 511".into()), show::numbers)
    }
}

fixed_pages! { ChangedZonesLog: CHANGED_ZONES; }
