//! Base 2.1, "Get Underlying Namespace List" and "Get Ports List": what a controller of fabrics may export. Controllers of
//! PCIe do not have them.

use super::super::fields::{Value, show};
use super::super::macros::structure;
use super::super::transports::{ADDRESS_FAMILIES, TRANSPORTS};
use super::Cns;
use super::data::identify_data;

structure! {
    /// A namespace that can be exported, 320 bytes.
    UnderlyingNamespace[320], "Underlying Namespace Entry" {
        /// Qualified name of the subsystem that has the namespace, UTF-8 ended by a zero (UNSNQN).
        0 subsystem_name: [u8; 256] => utf8;
        /// The namespace there (NSID).
        256 nsid: u32 => number;
        /// The controller there (CNTLID).
        260 controller_id: u16 => number;
        262 reserved262: [u8; 58];
    }
}

structure! {
    /// Underlying Namespace List (CNS 1Dh).
    UnderlyingNamespaceList[4096], "Underlying Namespace List" {
        /// Generation of the list (GENCTR).
        0 generation: u64 => number;
        /// Namespaces in the list (NUMENT).
        8 count: u64 => number;
        /// The namespaces; see [`Self::used`].
        16 namespaces: [UnderlyingNamespace; 12] = shown;
        3856 reserved3856: [u8; 240];
    }
}

impl UnderlyingNamespaceList {
    /// Returns the namespaces in the list.
    #[must_use]
    pub fn used(&self) -> &[UnderlyingNamespace] {
        first(&self.namespaces, self.count)
    }

    fn shown(&self) -> Value {
        show::each(self.used())
    }
}

structure! {
    /// A port by which subsystems can be exported, 576 bytes.
    UnderlyingPort[576], "Underlying Fabrics Transport Entry" {
        /// Address, ASCII (TRADDR).
        0 transport_address: [u8; 256] => text;
        /// Transport-specific (TSAS).
        256 transport_specific: [u8; 256] => bytes;
        /// The port (PIDUP).
        512 port_id: u16 => number;
        /// Transport (TRTYPE).
        514 transport_type: u8 => names(TRANSPORTS);
        /// Address family (ADRFAM).
        515 address_family: u8 => names(ADDRESS_FAMILIES);
        /// Requirements of the transport (TREQ).
        516 transport_requirements: u8 => hex;
        517 reserved517: [u8; 59];
    }
}

structure! {
    /// Ports List (CNS 1Eh).
    PortsList[4096], "Ports List" {
        /// Generation of the list (GENCTR).
        0 generation: u64 => number;
        /// Ports in the list (NUMENT).
        8 count: u64 => number;
        /// The ports; see [`Self::used`].
        16 ports: [UnderlyingPort; 7] = shown;
        4048 reserved4048: [u8; 48];
    }
}

impl PortsList {
    /// Returns the ports in the list.
    #[must_use]
    pub fn used(&self) -> &[UnderlyingPort] {
        first(&self.ports, self.count)
    }

    fn shown(&self) -> Value {
        show::each(self.used())
    }
}

/// Returns the first `count` entries, as far as there are so many.
fn first<T>(all: &[T], count: u64) -> &[T] {
    &all[..all.len().min(usize::try_from(count).unwrap_or(usize::MAX))]
}

identify_data! {
    UnderlyingNamespaceList: UNDERLYING_NAMESPACES;
    PortsList: PORTS;
}

#[cfg(test)]
mod tests {
    use super::super::IdentifyData;
    use super::*;

    #[test]
    fn lists_have_as_many_entries_as_a_page_holds() {
        let mut page = [0; 4096];
        page[8] = 2;
        page[16..20].copy_from_slice(b"nqn.");
        page[16 + 320 + 256] = 9;
        page[16 + 320 + 260] = 3;
        let list = <UnderlyingNamespaceList as IdentifyData>::from_page(&page);
        let ids: Vec<_> = list.used().iter().map(|one| (one.nsid, one.controller_id)).collect();
        assert_eq!(ids, [(0, 0), (9, 3)]);
        assert!(list.to_string().contains("subsystem name nqn."), "{list}");

        page[8..16].fill(0xff);
        page[16 + 6 * 576 + 512] = 7;
        page[16 + 6 * 576 + 514] = 3;
        let list = <PortsList as IdentifyData>::from_page(&page);
        assert_eq!((list.used().len(), list.used()[6].port_id), (7, 7));
        assert!(list.to_string().contains("transport type: TCP (3h)"), "{list}");
    }
}
