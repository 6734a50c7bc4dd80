//! Reservations against the byte offsets and bits of the specification's figures.

use core::mem::offset_of;

use zerocopy::{FromBytes, IntoBytes};

use crate::spec::*;

#[test]
fn reservation_data_has_the_specified_layout() {
    assert_eq!(
        [
            offset_of!(ReservationStatus, generation),
            offset_of!(ReservationStatus, reservation_type),
            offset_of!(ReservationStatus, registered_controllers),
            offset_of!(ReservationStatus, persists),
            offset_of!(RegisteredController, controller_id),
            offset_of!(RegisteredController, status),
            offset_of!(RegisteredController, host_id),
            offset_of!(RegisteredController, key),
            offset_of!(ExtendedRegisteredController, key),
            offset_of!(ExtendedRegisteredController, host_id),
        ],
        [0, 4, 5, 9, 0, 2, 8, 16, 8, 16]
    );
    let mut bytes = [0; 24];
    (bytes[0], bytes[4], bytes[5], bytes[6], bytes[9]) = (7, 3, 0x34, 0x12, 1);
    let status = ReservationStatus::read_from_bytes(&bytes).unwrap();
    assert_eq!((status.generation, status.registered_controllers.get(), status.persists), (7, 0x1234, 1));
    assert_eq!(status.kind(), Some(ReservationType::WRITE_EXCLUSIVE_REGISTRANTS_ONLY));
    assert!(status.to_string().contains("Write Exclusive - Registrants Only"), "{status}");
    let none = ReservationStatus { reservation_type: 0, ..status };
    assert_eq!(none.kind(), None);
    let register = ReservationRegisterData { current_key: 1, new_key: 2 };
    assert_eq!(register.as_bytes()[8..], 2_u64.to_le_bytes());
}

#[test]
fn reservation_commands_have_their_fields_in_place() {
    for (action, ignore, persistence, expected) in [
        (ReservationRegisterAction::REGISTER, false, PersistenceChange::NONE, 0),
        (ReservationRegisterAction::UNREGISTER, true, PersistenceChange::CLEAR, 0x8000_0009),
        (ReservationRegisterAction::REPLACE, false, PersistenceChange::SET, 0xc000_0002),
    ] {
        let dword = ReservationRegisterDword10::new()
            .with_action(action)
            .with_ignore_existing_key(ignore)
            .with_persistence(persistence);
        let command = Command::reservation_register(7, dword);
        assert_eq!((command.opcode, command.nsid, command.cdw10), (0x0d, 7, expected), "{action}");
    }
    let acquire = ReservationAcquireDword10::new()
        .with_action(ReservationAcquireAction::PREEMPT_AND_ABORT)
        .with_reservation_type(ReservationType::EXCLUSIVE_ACCESS_ALL_REGISTRANTS);
    let command = Command::reservation_acquire(7, acquire);
    assert_eq!((command.opcode, command.cdw10), (0x11, 0x0602));
    let release = ReservationReleaseDword10::new()
        .with_action(ReservationReleaseAction::CLEAR)
        .with_ignore_existing_key(true)
        .with_reservation_type(ReservationType::EXCLUSIVE_ACCESS);
    let command = Command::reservation_release(7, release);
    assert_eq!((command.opcode, command.cdw10), (0x15, 0x0209));
    let report = Command::reservation_report(7, 4096, true);
    assert_eq!((report.opcode, report.cdw10, report.cdw11), (0x0e, 1023, 1));
    assert_eq!(Command::reservation_report(7, 4096, false).cdw11, 0);
}

#[test]
fn a_type_is_a_bit_of_the_capabilities() {
    let all = ReservationCapabilities::from_bits_retain(0xff);
    for (bit, kind) in (1..).zip(ReservationType::ALL) {
        assert_eq!(kind.0, bit);
        let one = ReservationCapabilities::from_bits_retain(1 << bit);
        assert!(all.has(kind) && one.has(kind) && !ReservationCapabilities::PERSISTENCE.has(kind), "{kind}");
    }
    assert!(!all.has(ReservationType(0)) && !all.has(ReservationType(7)) && !all.has(ReservationType(200)));
    let shared: Vec<u8> =
        ReservationType::ALL.iter().filter(|kind| kind.is_shared()).map(|kind| kind.0).collect();
    let registrants: Vec<u8> =
        ReservationType::ALL.iter().filter(|kind| kind.admits_registrants()).map(|kind| kind.0).collect();
    let exclusive: Vec<u8> =
        ReservationType::ALL.iter().filter(|kind| kind.excludes_reads()).map(|kind| kind.0).collect();
    assert_eq!((shared, registrants, exclusive), (vec![5, 6], vec![3, 4, 5, 6], vec![2, 4, 6]));
}
