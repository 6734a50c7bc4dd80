//! Flexible data placement against the byte offsets and bits of the specification's figures.

use super::super::*;
use core::mem::offset_of;
use upcie_core::testing::Random;
use zerocopy::FromZeros;

#[test]
fn structures_have_the_figures_offsets() {
    assert_eq!((offset_of!(HandleStatusHeader, count), size_of::<HandleStatusHeader>()), (14, 16));
    assert_eq!(
        [
            offset_of!(HandleStatus, placement_identifier),
            offset_of!(HandleStatus, reclaim_unit_handle),
            offset_of!(HandleStatus, estimated_time_remaining),
            offset_of!(HandleStatus, available_media_writes),
            size_of::<HandleStatus>(),
        ],
        [0, 2, 4, 8, 32]
    );
    let setting = PlacementEventSetting::read_from_bytes(&[0x81, 1]).unwrap();
    assert_eq!(setting.kind(), PlacementEventType::IMPLICITLY_MODIFIED_HANDLE);
    assert!(setting.attributes.enabled());
}

#[test]
fn commands_have_their_fields() {
    let status = Command::reclaim_unit_handle_status(7, 4096);
    assert_eq!((status.opcode, status.nsid, status.cdw10, status.cdw11), (0x12, 7, 1, 1023));
    let update = Command::reclaim_unit_handle_update(7, 3);
    assert_eq!((update.opcode, update.nsid, update.cdw10, update.cdw11), (0x1d, 7, 2 << 16 | 1, 0));
}

/// A placement identifier has the reclaim group in its upper bits, as many as the configuration says.
#[test]
fn an_identifier_has_a_group_and_a_handle() {
    let with = |bits| PlacementConfiguration {
        attributes: PlacementAttributes::new().with_reclaim_group_identifier_format(bits),
        ..PlacementConfiguration::new_zeroed()
    };
    assert_eq!(with(0).identifier(0, 0x1234), 0x1234);
    assert_eq!(with(0).identifier(1, 5), 5, "no group");
    assert_eq!(with(1).identifier(1, 5), 0x8005);
    assert_eq!(with(2).identifier(1, 5), 0x4005, "as QEMU with two groups");
    assert_eq!(with(15).identifier(0x1234, 3), 0x2469, "what has no place is cut off");
    for bits in 0..16 {
        for identifier in [0, 1, 0x7fff, 0x8001, u16::MAX] {
            let (group, handle) = with(bits).parts_of(identifier);
            assert_eq!(with(bits).identifier(group, handle), identifier, "{bits} bits");
        }
    }
}

#[test]
fn any_bytes_are_a_status_of_bounded_length() {
    const HEADER: usize = size_of::<HandleStatusHeader>();
    let mut random = Random(5);
    for _ in 0..1000 {
        let mut bytes = vec![0; random.below(1024)];
        bytes.iter_mut().for_each(|byte| *byte = random.next() as u8);
        let (count, handles) = HandleStatus::list(&bytes);
        assert!(handles.len() <= count && handles.len() * 32 <= bytes.len().saturating_sub(HEADER));
    }
}
