//! Identifiers of namespaces and of the NVM subsystem, as hosts tell disks apart by them.

use super::host::Host;
use crate::{
    emu,
    spec::{
        Cns, Command, Csi, FromBytes, IdentifyController, IdentifyNamespace, KeyValueNamespace,
        NamespaceDescriptors, NamespaceIdType,
    },
};
use std::{collections::HashSet, fs, os::unix::fs::symlink};

/// The identifiers of a namespace: EUI64, NGUID and UUID.
type Ids = [Vec<u8>; 3];

fn name(host: &mut Host) -> String {
    let page = host.page(Command::identify(Cns::CONTROLLER, 0, 0));
    IdentifyController::read_from_bytes(&page).unwrap().subsystem_name()
}

/// Returns the identifiers that the descriptors have (CNS 03h), one of each type.
fn described(host: &mut Host, nsid: u32) -> Ids {
    let page = host.page(Command::identify(Cns::NAMESPACE_DESCRIPTORS, nsid, 0));
    let kinds = [(NamespaceIdType::EUI64, 8), (NamespaceIdType::NGUID, 16), (NamespaceIdType::UUID, 16)];
    kinds.map(|(kind, len)| {
        let found = NamespaceDescriptors::new(&page).filter(|descriptor| descriptor.nidt == kind);
        let all: Vec<Vec<u8>> = found.map(|descriptor| descriptor.nid.to_vec()).collect();
        assert!(all.len() == 1 && all[0].len() == len, "{kind:?}: {all:?}");
        all[0].clone()
    })
}

/// Checks that Identify Namespace (CNS 00h) has the identifiers of the descriptors; returns those of each namespace.
fn identifiers(host: &mut Host, count: u32) -> Vec<Ids> {
    (1..=count)
        .map(|nsid| {
            let ids = described(host, nsid);
            let page = host.page(Command::identify(Cns::NAMESPACE, nsid, 0));
            let id = IdentifyNamespace::read_from_bytes(&page).unwrap();
            assert_eq!((&id.eui64[..], &id.nguid[..]), (&ids[0][..], &ids[1][..]), "namespace {nsid}");
            ids
        })
        .collect()
}

fn of(options: &str) -> (String, Vec<Ids>) {
    let mut host = Host::new(options);
    (name(&mut host), identifiers(&mut host, 2))
}

#[test]
fn no_two_namespaces_have_an_identifier_in_common() {
    let mut all = HashSet::new();
    let controllers = ["size=64K,namespaces=64", "size=64K,namespaces=64", "size=64K,namespaces=64,serial=A"];
    for options in controllers {
        let mut host = Host::new(options);
        for id in identifiers(&mut host, 64).into_iter().flatten() {
            assert!(id.iter().any(|&byte| byte != 0));
            assert!(all.insert(id.clone()), "{options}: {id:02x?} twice");
        }
    }
    assert_eq!(all.len(), 3 * 64 * 3);
}

/// NGUID and EUI64 contain the OUI of Identify Controller. It is locally administered: it is no vendor's.
#[test]
fn identifiers_have_the_controllers_oui() {
    let mut host = Host::new("size=64K");
    let page = host.page(Command::identify(Cns::CONTROLLER, 0, 0));
    let mut oui = IdentifyController::read_from_bytes(&page).unwrap().ieee;
    oui.reverse();
    assert_eq!(oui[0] & 0b11, 0b10, "local, and not of a group: {oui:02x?}");
    let [eui64, nguid, uuid] = described(&mut host, 1);
    assert_eq!((&eui64[..3], &nguid[8..11]), (&oui[..], &oui[..]));
    assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (8, 0b10), "UUID: version and variant");
    // The data that all namespaces have in common has no identifier.
    let page = host.page(Command::identify(Cns::NAMESPACE, u32::MAX, 0));
    let common = IdentifyNamespace::read_from_bytes(&page).unwrap();
    assert_eq!((common.eui64, common.nguid), ([0; 8], [0; 16]));
}

#[test]
fn a_file_has_the_same_identifiers_each_time() {
    let directory = std::env::temp_dir().join(format!("upcie-identity-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    symlink(&directory, directory.join("link")).unwrap();
    let options = |file: &str| format!("file={}/{file},size=64K,namespaces=2", directory.display());
    let first = of(&options("a"));
    assert_eq!(of(&options("a")), first);
    assert_eq!(of(&options("link/a")), first, "the same file by another path");
    let others = [of(&options("b")), of(&(options("a") + ",serial=B")), of("size=64K,namespaces=2")];
    for other in others {
        assert!(other.0 != first.0 && other.1.iter().all(|ids| !first.1.contains(ids)), "{other:?}");
    }
    fs::remove_dir_all(&directory).unwrap();
}

/// Namespaces in memory are found again by the serial number, but the NVM subsystem is a new one each time.
#[test]
fn a_serial_number_has_the_same_identifiers_each_time() {
    let [first, again] = [(), ()].map(|()| of("size=64K,namespaces=2,serial=IDENTITY"));
    assert_eq!(first.1, again.1);
    assert_ne!(first.0, again.0);
    let [first, again] = [(), ()].map(|()| of("size=64K,namespaces=2"));
    assert!(first.0 != again.0 && first.1.iter().all(|ids| !again.1.contains(ids)), "no serial number");
}

#[test]
fn controllers_of_a_subsystem_have_the_same_identifiers() {
    let devices = emu::spawn_subsystem(&"size=64K,namespaces=2".parse().unwrap(), 2).unwrap();
    let mut hosts: Vec<_> = devices.into_iter().map(Host::over).collect();
    hosts.iter_mut().for_each(Host::enable);
    let all: Vec<_> = hosts.iter_mut().map(|host| (name(host), identifiers(host, 2))).collect();
    assert_eq!(all[0], all[1]);
}

#[test]
fn keys_have_the_identifiers_of_the_descriptors() {
    let mut host = Host::new("size=64K,kv=true");
    let [eui64, nguid, _] = described(&mut host, 1);
    let page = host.page(Command::identify_command_set(Cns::COMMAND_SET_NAMESPACE, 1, Csi::KEY_VALUE));
    let id = KeyValueNamespace::read_from_bytes(&page).unwrap();
    assert_eq!((&id.eui64[..], &id.nguid[..]), (&eui64[..], &nguid[..]));
}
