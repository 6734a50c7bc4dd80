//! Fields of protection information in commands and statuses.

use crate::spec::{
    ApplicationTagDword15, BlockTagDwords, ProtectionControl, ProtectionField, ReadWriteDword12, Status,
};

#[test]
fn protection_control_is_where_dword_12_has_it() {
    for (flags, bits) in [
        (ProtectionControl::STORAGE_TAG, 1 << 24),
        (ProtectionControl::REFERENCE_TAG, 1 << 26),
        (ProtectionControl::APPLICATION_TAG, 1 << 27),
        (ProtectionControl::GUARD, 1 << 28),
        (ProtectionControl::ACTION, 1 << 29),
    ] {
        assert_eq!(flags.dword12(), bits);
        // DEAC, FUA and LR, which stand beside and between them, are no part of it.
        assert_eq!(ProtectionControl::of_dword12(bits | 1 << 25 | 3 << 30 | 0xff_ffff), flags);
    }
    let dword = ReadWriteDword12::from_bits(ProtectionControl::all().dword12());
    assert_eq!((dword.prinfo(), dword.stc(), dword.deac(), dword.fua()), (0xf, true, false, false));
}

#[test]
fn tags_are_one_number_of_80_bits() {
    let dwords = BlockTagDwords::new(0xffff_1234_5678_9abc_def0_1122);
    assert_eq!((dwords.dword2, dwords.dword3, dwords.dword14), (0x1234, 0x5678_9abc, 0xdef0_1122));
    assert_eq!(dwords.tags(), 0x1234_5678_9abc_def0_1122, "bits above are cut off");
    let dword = ApplicationTagDword15::new().with_lbat(0x1234).with_lbatm(0xff00);
    assert_eq!(dword.into_bits(), 0xff00_1234);
}

#[test]
fn statuses_name_the_field_that_is_wrong() {
    for (code, field) in [
        (0x282, Some(ProtectionField::GUARD)),
        (0x283, Some(ProtectionField::APPLICATION_TAG)),
        (0x284, Some(ProtectionField::REFERENCE_TAG)),
        (0x288, Some(ProtectionField::STORAGE_TAG)),
        (0x285, None),
        (0x082, None),
        (0x182, None),
    ] {
        let status = Status::from_bits(code);
        assert_eq!(status.protection_field(), field, "{status}");
        assert_eq!(status.with_do_not_retry().protection_field(), field);
    }
}
