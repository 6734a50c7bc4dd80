//! Reservation commands, as a host with rings made by hand sends them.

use super::host::{Host, Queue, exact};
use crate::spec::{
    ALL_NAMESPACES, Cns, Command, FeatureId, FeatureSelect, FromBytes, IdentifyController, IdentifyNamespace,
    NvmOpcode, OptionalCommands, RegisteredController, ReservationCapabilities, ReservationStatus,
    ReservationType, Status,
};

const CONFLICT: Status = Status::RESERVATION_CONFLICT;

/// Sends a reservation command with its keys.
fn reserve(host: &Host, queue: &mut Queue, opcode: NvmOpcode, cdw10: u32, keys: [u64; 2]) -> Status {
    host.set(0, &keys.map(u64::to_le_bytes).concat());
    let command = host.with_page(Command { cdw10, ..Command::io(opcode, 1) });
    queue.status(command)
}

fn register(host: &Host, queue: &mut Queue, key: u64) -> Status {
    reserve(host, queue, NvmOpcode::RESERVATION_REGISTER, 0, [0, key])
}

fn acquire(host: &Host, queue: &mut Queue, key: u64, kind: ReservationType) -> Status {
    reserve(host, queue, NvmOpcode::RESERVATION_ACQUIRE, u32::from(kind.0) << 8, [key, 0])
}

/// Sets the host's identifier, of 64 bits.
fn name(host: &mut Host, id: u64) -> Status {
    host.set(0, &id.to_le_bytes());
    let command = host.with_page(Command::set_features(FeatureId::HOST_IDENTIFIER, 0));
    host.admin.status(command)
}

fn report(host: &Host, queue: &mut Queue) -> (ReservationStatus, Vec<RegisteredController>) {
    host.set(0, &[0xee; 4096]);
    assert_eq!(queue.status(host.with_page(Command::reservation_report(1, 4096, false))), Status::SUCCESS);
    let bytes = host.bytes(0, 4096);
    let (status, rest) = ReservationStatus::read_from_prefix(&bytes).unwrap();
    let all = rest.chunks_exact(24).take(status.registered_controllers.get().into());
    (status, all.map(|bytes| RegisteredController::read_from_bytes(bytes).unwrap()).collect())
}

#[test]
fn reservations_are_announced() {
    for (options, rescap) in [("size=1M", 0xff), ("null=true,size=1M", 0xff)] {
        let mut host = Host::new(options);
        let page = host.page(Command::identify(Cns::CONTROLLER, 0, 0));
        let id = IdentifyController::read_from_bytes(&page);
        let id = id.unwrap();
        assert!(id.optional_commands().contains(OptionalCommands::RESERVATIONS));
        assert!(id.has_extended_host_identifiers());
        let page = host.page(Command::identify(Cns::NAMESPACE, 1, 0));
        let id = IdentifyNamespace::read_from_bytes(&page);
        assert_eq!(id.unwrap().reservation_capabilities(), ReservationCapabilities::from_bits_retain(rescap));
    }
}

#[test]
fn wrong_reservation_commands_have_their_status() {
    let mut host = Host::new("size=1M");
    let mut queue = host.queue(1, [16, 16], None);
    let (registering, acquiring, releasing) =
        (NvmOpcode::RESERVATION_REGISTER, NvmOpcode::RESERVATION_ACQUIRE, NvmOpcode::RESERVATION_RELEASE);
    assert_eq!(register(&host, &mut queue, 5), Status::SUCCESS);
    let refused = exact(Status::INVALID_FIELD.with_do_not_retry());
    for (opcode, cdw10, keys) in [
        // The action 3, the key 0, and CPTPL 1.
        (registering, 3, [5, 6]),
        (registering, 2, [5, 0]),
        (registering, 1 << 30, [0, 5]),
        // The action 3, IEKEY, the types 0 and 7.
        (acquiring, 3 | 1 << 8, [5, 0]),
        (acquiring, 8 | 1 << 8, [5, 0]),
        (acquiring, 0, [5, 0]),
        (acquiring, 7 << 8, [5, 0]),
        (releasing, 2, [5, 0]),
        (releasing, 8, [5, 0]),
    ] {
        let status = reserve(&host, &mut queue, opcode, cdw10, keys);
        assert_eq!(exact(status), refused, "{opcode} {cdw10:#x} {keys:?}");
    }
    assert_eq!(
        exact(acquire(&host, &mut queue, 6, ReservationType::WRITE_EXCLUSIVE)),
        exact(CONFLICT.with_do_not_retry())
    );
    let elsewhere = host.with_page(Command::reservation_report(2, 64, false));
    assert_eq!(queue.status(elsewhere), Status::INVALID_NAMESPACE_OR_FORMAT);
    let long = host.with_page(Command::reservation_report(1, 2 << 20, false));
    assert_eq!(queue.status(long), Status::INVALID_FIELD);
    let (status, all) = report(&host, &mut queue);
    assert_eq!((status.generation, status.kind(), all.len()), (1, None, 1), "nothing has changed");
    assert_eq!((all[0].controller_id, all[0].status, all[0].host_id, all[0].key), (1, 0, 0, 5));
}

/// A host that comes back after a reset has its registration; until it says who it is, it is kept out.
#[test]
fn a_reservation_outlasts_a_reset() {
    for options in
        ["size=1M", "size=1M,ms=8,extended=true", "size=1M,latency=50us", "size=1M,zoned=true,zone-size=64K"]
    {
        let mut host = Host::new(options);
        let mut queue = host.queue(1, [16, 16], None);
        assert_eq!(name(&mut host, 7), Status::SUCCESS);
        assert_eq!(register(&host, &mut queue, 5), Status::SUCCESS);
        assert_eq!(acquire(&host, &mut queue, 5, ReservationType::WRITE_EXCLUSIVE), Status::SUCCESS);
        let write = |host: &Host, queue: &mut Queue| {
            let mut command = Command::write(1, 0, 1);
            command.set_data_pointer(host.iova(4096), 0);
            queue.status(command)
        };
        assert_eq!(write(&host, &mut queue), Status::SUCCESS, "{options}");
        assert_eq!(name(&mut host, 8), Status::COMMAND_SEQUENCE_ERROR);

        host.write_u32(0x14, 0).unwrap();
        host.enable();
        let mut queue = host.queue(1, [16, 16], None);
        assert_eq!(write(&host, &mut queue), CONFLICT, "{options}");
        assert_eq!(queue.status(Command::flush(1)), CONFLICT, "{options}");
        assert_eq!(queue.status(Command::flush(ALL_NAMESPACES)), CONFLICT, "{options}");
        let read = {
            let mut read = Command::read(1, 0, 1);
            read.set_data_pointer(host.iova(4096), 0);
            read
        };
        assert_eq!(queue.status(read), Status::SUCCESS, "{options}");
        let format = Command { cdw10: 0, ..super::host::admin(0x80, 1, 0, 0) };
        assert_eq!(host.admin.status(format), CONFLICT, "{options}");
        assert_eq!(name(&mut host, 7), Status::SUCCESS);
        assert_ne!(write(&host, &mut queue), CONFLICT, "{options}");
        let (status, all) = report(&host, &mut queue);
        assert_eq!(status.kind(), Some(ReservationType::WRITE_EXCLUSIVE));
        assert_eq!((all[0].controller_id, all[0].status, all[0].host_id, all[0].key), (1, 1, 7, 5));
        assert_eq!(
            queue.status(host.with_page(Command::reservation_report(1, 64, true))),
            Status::HOST_ID_INCONSISTENT
        );
    }
}

/// The features have their values, and the log has no page.
#[test]
fn features_of_reservations_are_set_and_read() {
    let mut host = Host::new("size=1M,namespaces=2");
    let get = |host: &mut Host, feature, nsid| {
        let command = Command { nsid, ..Command::get_features(feature, FeatureSelect::CURRENT) };
        let command = host.with_page(command);
        host.admin.run(command).result()
    };
    let set = |host: &mut Host, feature, nsid, value| {
        host.admin.status(Command { nsid, ..Command::set_features(feature, value) })
    };
    let mask = FeatureId::RESERVATION_NOTIFICATION_MASK;
    assert_eq!(set(&mut host, mask, 1, 0b1010), Status::SUCCESS);
    assert_eq!((get(&mut host, mask, 1), get(&mut host, mask, 2)), (Ok(0b1010), Ok(0)));
    assert_eq!(set(&mut host, mask, ALL_NAMESPACES, 0b100), Status::SUCCESS);
    assert_eq!((get(&mut host, mask, 1), get(&mut host, mask, 2)), (Ok(0b100), Ok(0b100)));
    assert_eq!(set(&mut host, mask, 1, 1), Status::INVALID_FIELD);
    assert_eq!(set(&mut host, mask, 3, 0), Status::INVALID_NAMESPACE_OR_FORMAT);
    let persistence = FeatureId::RESERVATION_PERSISTENCE;
    assert_eq!(set(&mut host, persistence, 2, 1), Status::SUCCESS);
    assert_eq!((get(&mut host, persistence, 1), get(&mut host, persistence, 2)), (Ok(0), Ok(1)));
    let supported = Command::get_features(persistence, FeatureSelect::SUPPORTED);
    assert_eq!(host.admin.run(supported).result(), Ok(0b110), "changeable, of a namespace");
    host.set(0, &[0x11; 16]);
    let long = host.with_page(Command::set_features(FeatureId::HOST_IDENTIFIER, 1));
    assert_eq!(host.admin.status(long), Status::SUCCESS);
    let page = {
        let command = Command::get_features(FeatureId::HOST_IDENTIFIER, FeatureSelect::CURRENT);
        host.page(Command { cdw11: 1, ..command })
    };
    assert_eq!((&page[..16], page[16]), (&[0x11; 16][..], 0xee));
    assert_eq!(get(&mut host, FeatureId::HOST_IDENTIFIER, 0), Err(Status::HOST_ID_INCONSISTENT));
    let log = host.page(Command::get_log_page(crate::spec::LogPageId::RESERVATION_NOTIFICATION, 0, 64, 0));
    assert_eq!(log[..64], [0; 64]);
}
