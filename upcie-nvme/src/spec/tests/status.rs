//! Status codes: bits, names and texts.

use std::collections::HashSet;

use crate::spec::*;

#[test]
fn status_bits_are_the_completions() {
    let status = Status::from_bits(0b110_1101_1000_0101);
    assert_eq!((status.code_type(), status.code()), (StatusType(5), 0x85));
    assert_eq!((status.do_not_retry(), status.more(), status.retry_delay()), (true, true, 1));
    assert_eq!(Status::from_bits(0xffff).into_bits(), 0x7fff);
    assert_eq!(Status::new(StatusType::MEDIA, 0x85), Status::COMPARE_FAILURE);
    assert_eq!(Status::COMPARE_FAILURE.into_bits(), 0x285);
    assert_eq!(Status::COMPARE_FAILURE.with_do_not_retry().with_phase(true), 0x850b);
}

#[test]
fn equality_is_about_type_and_code() {
    let status = Status::LBA_OUT_OF_RANGE.with_do_not_retry();
    assert_eq!(status, Status::LBA_OUT_OF_RANGE);
    assert_ne!(status, Status::CAPACITY_EXCEEDED);
    assert_ne!(Status::new(StatusType::GENERIC, 0x82), Status::new(StatusType::MEDIA, 0x82));
    assert!(HashSet::from([status]).contains(&Status::LBA_OUT_OF_RANGE));
    assert_ne!(status.into_bits(), Status::LBA_OUT_OF_RANGE.into_bits());
    assert_eq!(status.name(), Some("LBA Out of Range"));
}

#[test]
fn results_follow_the_status() {
    assert_eq!(Status::SUCCESS.result(), Ok(()));
    assert_eq!(Status::SUCCESS.with_do_not_retry().result(), Ok(()));
    assert_eq!(Status::WRITE_FAULT.result(), Err(Status::WRITE_FAULT));
    assert_eq!(Status::new(StatusType::VENDOR, 0).result(), Err(Status::new(StatusType::VENDOR, 0)));
}

#[test]
fn a_status_prints_its_name_and_meaning() {
    assert_eq!(
        Status::LBA_OUT_OF_RANGE.to_string(),
        "LBA Out of Range (00/80h): the range goes past the end of the namespace"
    );
    assert_eq!(
        Status::new(StatusType::VENDOR, 0x12).to_string(),
        "unknown status (07/12h): only the vendor's documentation says what this means"
    );
    assert_eq!(
        format!("{:?}", Status::INVALID_FIELD.with_do_not_retry()),
        format!("{}, do not retry", Status::INVALID_FIELD)
    );
}

#[test]
fn every_code_has_a_name_of_its_own() {
    assert_eq!(
        Status::ALL.iter().map(|status| status.into_bits()).collect::<HashSet<_>>().len(),
        Status::ALL.len()
    );
    assert_eq!(
        Status::ALL.iter().map(|status| status.name()).collect::<HashSet<_>>().len(),
        Status::ALL.len()
    );
    for status in Status::ALL {
        assert!(!status.meaning().ends_with('.'), "{status}");
    }
}

#[test]
fn all_bits_have_a_text() {
    for bits in 0..=u16::MAX {
        let status = Status::from_bits(bits);
        assert!(!status.meaning().is_empty());
        assert_eq!(status.is_success(), (status == Status::SUCCESS));
        assert!(status.to_string().contains("h)"));
        assert!(format!("{status:?}").starts_with(&status.to_string()));
    }
}
