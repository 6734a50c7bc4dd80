//! Zones against the byte offsets and bits of the specification's figures.

use core::mem::offset_of;

use zerocopy::{FromBytes, IntoBytes};

use crate::spec::*;
use upcie_core::testing::Random;

#[test]
fn a_zone_descriptor_has_the_specified_layout() {
    assert_eq!(
        [
            offset_of!(ZoneDescriptor, zone_type),
            offset_of!(ZoneDescriptor, zone_state),
            offset_of!(ZoneDescriptor, attributes),
            offset_of!(ZoneDescriptor, attribute_information),
            offset_of!(ZoneDescriptor, capacity),
            offset_of!(ZoneDescriptor, start),
            offset_of!(ZoneDescriptor, write_pointer),
        ],
        [0, 1, 2, 3, 8, 16, 24]
    );
    let mut bytes = [0; 64];
    (bytes[0], bytes[1], bytes[2], bytes[8], bytes[16], bytes[24]) = (0xf2, 0x3f, 0x89, 100, 128, 130);
    let zone = ZoneDescriptor::read_from_bytes(&bytes).unwrap();
    assert_eq!(zone.kind(), ZoneType::SEQUENTIAL_WRITE_REQUIRED);
    assert_eq!(zone.state(), ZoneState::EXPLICITLY_OPENED);
    let attributes = zone.attributes;
    assert!(attributes.finished_by_controller() && attributes.random_write_area());
    assert!(attributes.extension_valid() && !attributes.reset_recommended());
    assert_eq!((zone.start, zone.capacity, zone.written()), (128, 100, Some(2)));
    let full = ZoneDescriptor { zone_state: 0xe0, write_pointer: u64::MAX, ..zone };
    assert_eq!(full.written(), Some(100), "the write pointer of a full zone means nothing");
    assert_eq!(ZoneDescriptor { zone_state: 0xd0, ..zone }.written(), None);
}

#[test]
fn zone_commands_have_their_fields_in_place() {
    let first = 0x12_3456_789a;
    let append = Command::zone_append(7, first, 16);
    assert_eq!((append.opcode, append.nsid, append.slba(), append.block_count()), (0x7d, 7, first, 16));
    for (action, dword, expected) in [
        (ZoneAction::CLOSE, ZoneSendDword13::new(), 0x01),
        (ZoneAction::FINISH, ZoneSendDword13::new(), 0x02),
        (ZoneAction::OPEN, ZoneSendDword13::new().with_allocate_random_write_area(true), 0x203),
        (ZoneAction::RESET, ZoneSendDword13::new().with_select_all(true), 0x104),
        (ZoneAction::OFFLINE, ZoneSendDword13::new(), 0x05),
        (ZoneAction::SET_DESCRIPTOR_EXTENSION, ZoneSendDword13::new(), 0x10),
        (ZoneAction::FLUSH_RANDOM_WRITE_AREA, ZoneSendDword13::new(), 0x11),
    ] {
        let command = Command::zone_management_send(7, first, dword.with_action(action));
        assert_eq!((command.opcode, command.slba(), command.cdw13), (0x79, first, expected), "{action}");
    }
    let dword = ZoneReceiveDword13::new().with_action(1).with_filter(ZoneFilter::FULL).with_partial(true);
    let report = Command::zone_management_receive(7, first, 4096, dword);
    assert_eq!((report.opcode, report.slba(), report.cdw12, report.cdw13), (0x7a, first, 1023, 0x1_0501));
}

#[test]
fn every_filter_lists_a_state_of_its_own() {
    let states: Vec<_> = (1..8).map(|filter| ZoneFilter(filter).state().unwrap().0).collect();
    assert_eq!(states, [1, 2, 3, 4, 0xe, 0xd, 0xf]);
    assert_eq!((ZoneFilter::ALL.state(), ZoneFilter(8).state()), (None, None));
}

#[test]
fn any_bytes_are_a_zone() {
    let mut random = Random(9);
    for _ in 0..1000 {
        let mut zone = ZoneDescriptor::read_from_bytes(&[0; 64]).unwrap();
        zone.as_mut_bytes().iter_mut().for_each(|byte| *byte = random.next() as u8);
        assert!(zone.to_string().contains("pointer") && zone.written() != Some(u64::MAX));
    }
}

#[test]
fn any_bytes_are_a_report_of_bounded_length() {
    const HEADER: usize = size_of::<ZoneReportHeader>();
    let mut random = Random(3);
    for _ in 0..1000 {
        let mut bytes = vec![0; random.below(1024)];
        bytes.iter_mut().for_each(|byte| *byte = random.next() as u8);
        let extension = random.below(3) * 64;
        let found = ZoneDescriptor::list(&bytes, extension);
        assert!(found.len() * (64 + extension) <= bytes.len().saturating_sub(HEADER));
        assert!(found.iter().all(|(_, found)| found.len() == extension));
    }
    let mut bytes = 1_u64.to_le_bytes().to_vec();
    bytes.resize(HEADER, 0);
    let zones = [8_u64, 16].map(|start| {
        let mut zone = [0; 64];
        zone[16..24].copy_from_slice(&start.to_le_bytes());
        ZoneDescriptor::read_from_bytes(&zone).unwrap()
    });
    zones.iter().for_each(|zone| bytes.extend(zone.as_bytes()));
    assert_eq!(ZoneDescriptor::list(&bytes, 0), [(zones[0], Vec::new())], "as many as the header counts");
    assert!(ZoneDescriptor::list(&bytes[..HEADER + 63], 0).is_empty(), "no whole one");
}
