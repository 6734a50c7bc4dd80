//! Public errors, as a program shows them whose `main` returns one.

use super::{Error, NoIo, Refusal, SegmentFault};
use crate::{
    engine::{Refused, RefusedPair},
    protection::ProtectionError,
    queue_pair::GroupError,
    spec::{Key, ProtectionField, Status},
};
use std::error::Error as AnyError;
use upcie_core::{Chain, ErrorKind, dma::DmaBuf};

/// Returns a value of each public error type.
fn all() -> Vec<Box<dyn AnyError>> {
    let failed = || Error::of_status("emu", "Read (02h)", Status::WRITE_FAULT);
    let refused = Refused { reason: Refusal::OutOfRange, buffer: DmaBuf::empty(), tag: 1 };
    let (expected, new) = (DmaBuf::empty(), DmaBuf::empty());
    let pair = RefusedPair { reason: Refusal::NoFused, expected, new, tags: [1, 2] };
    let protection =
        ProtectionError { block: 9, kind: ProtectionField::GUARD, expected: 0x1234, found: 0x4321 };
    #[allow(unused_mut, reason = "without the feature `emu` nothing is added")]
    let mut all: Vec<Box<dyn AnyError>> = vec![
        failed().into(),
        "nowhere".parse::<upcie_core::device::Address>().unwrap_err().into(),
        refused.into(),
        pair.into(),
        Refusal::Segment { number: 3, fault: SegmentFault::Foreign }.into(),
        NoIo::AdminOnly { css: 0x80 }.into(),
        GroupError { member: Some(1), error: failed() }.into(),
        protection.into(),
        Key::new(b"").unwrap_err().into(),
        Status::LBA_OUT_OF_RANGE.into(),
    ];
    #[cfg(feature = "emu")]
    all.push("colour=red".parse::<crate::emu::Options>().unwrap_err().into());
    all
}

/// `main` prints the error's Debug; the tools print its text and its causes.
#[test]
fn errors_print_in_main_as_in_the_tools() {
    for error in all() {
        assert_eq!(format!("{error:?}"), Chain(&*error).to_string());
    }
    let failed = all().remove(0);
    assert_eq!(
        format!("{failed:?}"),
        format!("emu: Read (02h) failed: {}", Status::WRITE_FAULT),
        "the causes are part of it"
    );
}

#[test]
fn errors_of_groups_and_options_tell_their_kind() {
    let error = Error::of_status("emu", "Read (02h)", Status::INTERNAL_ERROR);
    let group = GroupError { member: Some(1), error };
    assert_eq!((group.kind(), group.device(), group.is_retryable()), (ErrorKind::Status, Some("emu"), true));
    #[cfg(feature = "emu")]
    {
        let option = crate::emu::Error::option("colour=red", "no colours");
        assert_eq!(
            (option.kind(), option.device(), option.is_retryable()),
            (ErrorKind::Argument, None, false)
        );
        let below = crate::emu::Error::Core(upcie_core::Error::gone("vfio-user:/socket", "serving"));
        assert_eq!((below.kind(), below.device()), (ErrorKind::Gone, Some("vfio-user:/socket")));
    }
}
