//! Log pages, identify data and features as typed structures: their sizes, their tables, and any bytes.

use std::fmt::Write;

use zerocopy::{FromBytes, FromZeros};

use crate::spec::*;
use upcie_core::testing::Random;

/// Sizes in bytes of the specification's figures.
#[test]
fn pages_have_the_specified_sizes() {
    let identify = IdentifyController { elpe: 63, ..FromZeros::new_zeroed() };
    let sizes: Vec<_> = LogPageInfo::ALL.iter().map(|page| (page.id.0, (page.len)(&[], &identify))).collect();
    let expected = [
        (0x00, 1024),
        (0x01, 64 * 64),
        (0x02, 512),
        (0x03, 512),
        (0x04, 4096),
        (0x05, 4096),
        (0x06, 564),
        (0x07, 512),
        (0x08, 512),
        (0x09, 512),
        (0x0a, 512),
        (0x0b, 8),
        (0x0c, 16),
        (0x0d, 512),
        (0x0e, 16),
        (0x0f, 8),
        (0x10, 16),
        (0x11, 16),
        (0x12, 1024),
        (0x13, 4096),
        (0x14, 512),
        (0x15, 16),
        (0x16, 512),
        (0x17, 256),
        (0x18, 4096),
        (0x19, 64),
        (0x1a, 16),
        (0x1b, 16),
        (0x1c, 4096),
        (0x20, 16),
        (0x21, 8),
        (0x22, 64),
        (0x23, 4096),
        (0x25, 64),
        (0x70, 1024),
        (0x71, 1024),
        (0x72, 1024),
        (0x73, 8),
        (0x80, 64),
        (0x81, 512),
        (0xbf, 4096),
    ];
    assert_eq!(sizes, expected);
    let data: Vec<_> =
        FeatureInfo::ALL.iter().filter(|info| info.data > 0).map(|info| (info.id.0, info.data)).collect();
    let expected = [
        (0x03, 4096),
        (0x0c, 256),
        (0x0d, 4096),
        (0x0e, 8),
        (0x13, 512),
        (0x16, 512),
        // The standard attribute, the identifiers, the vendor's.
        (0x1c, 4096),
        (0x1c, 4096),
        (0x1c, 4096),
        (0x1f, 256),
        (0x21, 512),
        (0x78, 512),
        (0x79, 512),
        (0x7d, 4096),
        (0x7e, 4096),
        (0x7f, 4096),
        (0x81, 8),
        (0x81, 16),
    ];
    assert_eq!(data, expected);
}

/// The lengths of variable pages follow from their headers, up to any length that a controller claims.
#[test]
fn variable_pages_say_how_long_they_are() {
    let identify = IdentifyController::new_zeroed();
    let len = |id, header: &[u8]| (LogPageInfo::of(id).unwrap().len)(header, &identify);
    let with = |size: usize, at: usize, bytes: &[u8]| {
        let mut header = vec![0; size];
        header[at..at + bytes.len()].copy_from_slice(bytes);
        header
    };
    assert_eq!(len(LogPageId::TELEMETRY_HOST, &with(512, 12, &[9, 0])), 10 * 512);
    assert_eq!(len(LogPageId::TELEMETRY_HOST, &with(512, 16, &[0xff; 4])), 512 << 32);
    assert_eq!(len(LogPageId::PERSISTENT_EVENTS, &with(512, 8, &[0, 8])), 2048);
    assert_eq!(len(LogPageId::PERSISTENT_EVENTS, &with(512, 8, &[1])), 512);
    assert_eq!(len(LogPageId::LBA_STATUS, &with(16, 0, &[0x30])), 0x30);
    assert_eq!(len(LogPageId::BOOT_PARTITION, &with(16, 4, &[2])), 16 + (256 << 10));
    assert_eq!(len(LogPageId::DISCOVERY, &with(1024, 8, &[3])), 4096);
    assert_eq!(len(LogPageId::DISCOVERY, &with(1024, 8, &[0xff; 8])), u64::MAX);
    assert_eq!(len(LogPageId::FDP_CONFIGURATIONS, &with(16, 4, &[100])), 100);
    assert_eq!(len(LogPageId::RECLAIM_UNIT_HANDLE_USAGE, &with(8, 0, &[4])), 40);
    assert_eq!(len(LogPageId::ENDURANCE_GROUP_AGGREGATE, &with(8, 0, &[3])), 14);
}

/// No bytes of a controller make a structure fail to be shown, and no name of a field stands twice.
#[test]
fn any_bytes_are_shown() {
    let mut random = Random(0x7175);
    for round in 0..40 {
        let mut page = vec![0_u8; 8192];
        match round {
            0 => {}
            1 => page.fill(0xff),
            _ => page.fill_with(|| random.next() as u8),
        }
        for info in LogPageInfo::ALL {
            for len in [8192, 4096, 600, 512, 64, 17, 4, 0] {
                show((info.fields)(&page[..len]).unwrap_or_default());
            }
            let _ = (info.len)(&page, &IdentifyController::new_zeroed());
        }
        let whole: &[u8; 4096] = page[..4096].try_into().unwrap();
        for info in IdentifyInfo::ALL {
            show((info.fields)(whole));
        }
        for info in FeatureInfo::ALL {
            show((info.fields)(random.next() as u32, &page).expect("enough data"));
            assert!(info.data == 0 || (info.fields)(0, &page[..info.data - 1]).is_none(), "{}", info.title);
        }
    }
}

#[track_caller]
fn show(fields: Vec<Field>) {
    let mut names: Vec<_> = fields.iter().map(|field| field.name).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    let mut text = String::new();
    write!(text, "{} {:?}", Value::Fields(fields.clone()), Value::Fields(fields)).unwrap();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "a control character");
}

/// The tables are in order, so that a code is found once; a feature may have several structures, by dword 11.
#[test]
fn tables_are_sorted() {
    assert!(LogPageInfo::ALL.is_sorted_by(|one, next| one.id < next.id));
    assert!(IdentifyInfo::ALL.is_sorted_by(|one, next| (one.cns, one.csi) < (next.cns, next.csi)));
    assert!(FeatureInfo::ALL.is_sorted_by(|one, next| (one.id, one.dword11) < (next.id, next.dword11)));
    assert!(IdentifyInfo::of(Cns::COMMAND_SET_NAMESPACE, Csi::ZONED).unwrap().title.contains("Zoned"));
    assert!(
        IdentifyInfo::of(Cns::COMMAND_SET_NAMESPACE, Csi::KEY_VALUE).unwrap().title.contains("Key Value")
    );
    for cns in [Cns::COMMAND_SET_FORMAT_NAMESPACE, Cns::COMMAND_SET_ALLOCATED_NAMESPACE] {
        for (csi, name) in [(Csi::NVM, "(NVM)"), (Csi::KEY_VALUE, "(Key Value)"), (Csi::ZONED, "(Zoned)")] {
            assert!(IdentifyInfo::of(cns, csi).unwrap().title.ends_with(name), "{cns}, {csi}");
        }
        assert!(IdentifyInfo::of(cns, Csi(3)).is_none(), "{cns}");
    }
    // A format index stands in place of a namespace.
    assert!(!IdentifyInfo::of(Cns::FORMAT_NAMESPACE, Csi::NVM).unwrap().of_namespace);
    assert!(IdentifyInfo::of(Cns::COMMAND_SET_CONTROLLER, Csi::KEY_VALUE).is_none());
    assert!(IdentifyInfo::of(Cns::CONTROLLER, Csi::ZONED).is_some());
}

#[test]
fn structures_are_printed_in_plain_words() {
    let mut log = SelfTestLog::new_zeroed();
    log.current_operation = 1;
    log.all_results[0].status = SelfTestStatus::new().with_test(2).with_result(7);
    log.all_results[0].power_on_hours = 12.into();
    log.all_results[1].status = SelfTestStatus::new().with_result(15);
    assert_eq!(log.results().len(), 1);
    let text = log.to_string();
    let lines = [
        "current operation: short test (1h)",
        "current completion: 0 %",
        "all results:",
        "  0:",
        "    status:",
        "      result: segments failed; the first is in the segment number (7h)",
        "      test: extended test (2h)",
        "    segment number: 0",
        "    valid: none",
        "    power on hours: 12 h",
    ];
    assert!(text.lines().take(lines.len()).eq(lines), "{text}");
    let sanitize = SanitizeStatusLog::read_from_bytes(&[0xff; 512]).unwrap();
    assert!(sanitize.to_string().contains("operation: unknown (7h)"), "{sanitize}");
    // Units of 512,000 bytes.
    for (units, bytes) in [(0, "0.00 kB"), (3, "1.54 MB"), (1_171_875_000, "600.00 TB"), (u128::MAX, " EB")] {
        let smart = SmartLog { data_units_written: units.to_le_bytes(), ..FromZeros::new_zeroed() };
        let text = smart.to_string();
        let line = text.lines().find(|line| line.starts_with("data units written: ")).unwrap();
        assert!(line.contains(&format!("{units} × 512,000 bytes (")) && line.contains(bytes), "{line}");
    }
    let threshold = TemperatureThreshold::from_bits(0x0010_0000 | 300);
    assert_eq!(threshold.to_string().lines().next(), Some("threshold: 300 K (27 °C)"));
}
