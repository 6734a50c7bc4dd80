//! Feature 84h: namespaces that hosts have write protected.

use super::{
    host::{Host, admin, exact},
    stepped::{ENABLED, Stepped},
};
use crate::emu::Region;
use crate::spec::{
    ALL_NAMESPACES, Cns, Command, DatasetDword11, FeatureId, FeatureSelect, FromBytes, IdentifyNamespace,
    NvmOpcode, Status,
};

const SUCCESS: (Status, bool) = (Status::SUCCESS, false);
const PROTECTED: (Status, bool) = (Status::WRITE_PROTECTED, true);

fn set(nsid: u32, state: u32) -> Command {
    Command { nsid, ..Command::set_features(FeatureId::NAMESPACE_WRITE_PROTECTION, state) }
}

fn get(nsid: u32) -> Command {
    let id = FeatureId::NAMESPACE_WRITE_PROTECTION;
    Command { nsid, ..Command::get_features(id, FeatureSelect::CURRENT) }
}

#[test]
fn a_protected_namespace_can_be_read_alone() {
    let mut host = Host::new("size=1M,namespaces=2");
    let mut queue = host.queue(1, [16, 16], None);
    let deallocate = DatasetDword11::new().with_ad(true).into_bits();
    let changes = [
        Command::write(1, 0, 8),
        Command::write_zeroes(1, 0, 8),
        Command::io(NvmOpcode::WRITE_UNCORRECTABLE, 1),
        Command { cdw11: deallocate, ..Command::io(NvmOpcode::DATASET_MANAGEMENT, 1) },
        Command::io(NvmOpcode::COPY, 1),
    ];
    let others = [
        Command::read(1, 0, 8),
        Command::flush(1),
        Command::io(NvmOpcode::VERIFY, 1),
        // A hint.
        Command::io(NvmOpcode::DATASET_MANAGEMENT, 1),
        Command::write(2, 0, 8),
    ];
    let mut io = |host: &Host, command| exact(queue.status(host.with_page(command)));
    host.set(0, &[0; 4096]);
    assert_eq!(exact(host.admin.status(set(1, 1))), SUCCESS);
    assert_eq!([get(1), get(2)].map(|get| host.admin.run(get).result()), [Ok(1), Ok(0)]);
    for command in changes {
        assert_eq!(io(&host, command), PROTECTED, "{command:?}");
    }
    for command in others {
        assert_eq!(io(&host, command), SUCCESS, "{command:?}");
    }
    // Format NVM, Namespace Management (Delete), and a Sanitize (block erase) of all namespaces.
    for command in [admin(0x80, 1, 0, 0), admin(0x0d, 1, 1, 0), admin(0x84, 0, 2, 0)] {
        assert_eq!(exact(host.admin.status(command)), PROTECTED, "{command:?}");
    }
    let mut attributes = |nsid| {
        let page = host.page(Command::identify(Cns::NAMESPACE, nsid, 0));
        IdentifyNamespace::read_from_bytes(&page).unwrap().nsattr
    };
    assert_eq!([attributes(1), attributes(2)], [1, 0]);
    assert_eq!(exact(host.admin.status(set(1, 0))), SUCCESS);
    host.set(0, &[0; 4096]);
    assert_eq!(io(&host, Command::write(1, 0, 8)), SUCCESS);
}

#[test]
fn zones_and_keys_are_protected_too() {
    let mut host = Host::new("size=1M,zoned=true,zone-size=64K");
    let mut queue = host.queue(1, [16, 16], None);
    assert_eq!(exact(host.admin.status(set(1, 1))), SUCCESS);
    let reset = Command { cdw13: 4, ..Command::io(NvmOpcode::ZONE_MANAGEMENT_SEND, 1) };
    for command in [Command::write(1, 0, 8), Command { opcode: 0x7d, ..Command::write(1, 0, 8) }, reset] {
        assert_eq!(exact(queue.status(host.with_page(command))), PROTECTED, "{command:?}");
    }
    assert_eq!(exact(queue.status(host.with_page(Command::read(1, 0, 8)))), SUCCESS);

    let mut host = Host::new("size=1M,kv=true");
    let mut queue = host.queue(1, [16, 16], None);
    assert_eq!(exact(host.admin.status(set(1, 1))), SUCCESS);
    // Store and Delete of a key of one byte.
    for opcode in [0x01, 0x10] {
        let command = Command { opcode, cdw11: 1, cdw2: 7, ..Command::flush(1) };
        assert_eq!(exact(queue.status(host.with_page(command))), PROTECTED, "{opcode:#x}");
    }
}

#[test]
fn a_state_lasts_as_long_as_it_says() {
    let mut stepped = Stepped::new("size=1M,namespaces=2");
    for (nsid, state) in [(1, 2), (2, 3)] {
        assert_eq!(exact(stepped.status(0, set(nsid, state))), SUCCESS);
        assert_eq!(exact(stepped.status(0, set(nsid, 0))), (Status::FEATURE_NOT_CHANGEABLE, true));
    }
    stepped.enable(ENABLED);
    assert_eq!([get(1), get(2)].map(|get| stepped.run(0, get).result()), [Ok(2), Ok(3)], "after a reset");
    stepped.machine.lose_power(&mut || 0);
    // Memory and bus master.
    stepped.machine.write(&mut stepped.memory, Region::Config, 4, &[6, 0]);
    stepped.enable(ENABLED);
    assert_eq!([get(1), get(2)].map(|get| stepped.run(0, get).result()), [Ok(0), Ok(3)]);
}

#[test]
fn wrong_states_and_namespaces_are_refused() {
    let mut host = Host::new("size=1M,nn=2");
    for (command, status) in [
        (set(1, 4), Status::INVALID_FIELD),
        (set(0, 1), Status::INVALID_FIELD),
        (set(ALL_NAMESPACES, 1), Status::INVALID_FIELD),
        (get(ALL_NAMESPACES), Status::INVALID_FIELD),
        // Inactive, and beyond the last.
        (set(2, 1), Status::INVALID_FIELD),
        (set(3, 1), Status::INVALID_NAMESPACE_OR_FORMAT),
    ] {
        assert_eq!(exact(host.admin.status(command)), (status, true), "{command:?}");
    }
    let mut host = Host::new("size=1M,ro=true");
    assert_eq!(host.admin.run(get(1)).result(), Ok(1));
    assert_eq!(exact(host.admin.status(set(1, 0))), (Status::FEATURE_NOT_CHANGEABLE, true));
}
