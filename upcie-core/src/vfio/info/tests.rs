use super::*;
use crate::testing::fuzz;
use zerocopy::IntoBytes;

/// Makes a capability: its header, then 32-bit words.
fn capability(id: u16, next: u32, words: &[u32]) -> Vec<u8> {
    let mut bytes = abi::CapHeader { id, version: 1, next }.as_bytes().to_vec();
    bytes.extend_from_slice(words.as_bytes());
    bytes
}

fn region(size: u64, caps: &[u8]) -> (abi::RegionInfo, Vec<u8>) {
    let flags = abi::REGION_MMAP | if caps.is_empty() { 0 } else { abi::REGION_CAPS };
    let info = abi::RegionInfo { flags, cap_offset: 32, size, ..abi::RegionInfo::default() };
    let bytes = [info.as_bytes(), caps].concat();
    (info, bytes)
}

fn spans(areas: Vec<Range<u64>>) -> Vec<(u64, u64)> {
    areas.into_iter().map(|area| (area.start, area.end)).collect()
}

fn iommu(caps: &[u8]) -> (abi::IommuInfo, Vec<u8>) {
    let flags = abi::IOMMU_PAGE_SIZES | abi::IOMMU_CAPS;
    let info = abi::IommuInfo { flags, page_sizes: 0x4020_1000, cap_offset: 24, ..abi::IommuInfo::default() };
    let bytes = [info.as_bytes(), caps].concat();
    (info, bytes)
}

#[test]
fn sparse_areas_are_the_only_mappable_ones() {
    let sparse = capability(1, 0, &[1, 0, 0x1000, 0, 0x2000, 0]);
    let (info, bytes) = region(0x4000, &sparse);
    let caps = RegionCaps::parse(&info, &bytes).unwrap();
    assert_eq!(spans(caps.areas(&info, Some(0..16), 4096)), [(0x1000, 0x3000)]);
}

#[test]
fn the_msix_table_is_excluded_unless_mappable() {
    let (info, bytes) = region(0x4000, &[]);
    let caps = RegionCaps::parse(&info, &bytes).unwrap();
    assert_eq!(spans(caps.areas(&info, None, 4096)), [(0, 0x4000)]);
    assert_eq!(spans(caps.areas(&info, Some(0x2010..0x20a0), 4096)), [(0, 0x2000), (0x3000, 0x4000)]);
    assert_eq!(spans(caps.areas(&info, Some(0..16), 4096)), [(0x1000, 0x4000)]);
    assert_eq!(
        spans(caps.areas(&info, Some(0x3000..0x3090), 0x10000)),
        [],
        "one page of 64 KiB holds it all"
    );
    assert_eq!(
        spans(caps.areas(&info, Some(u64::MAX - 1..u64::MAX), 4096)),
        [(0, 0x4000)],
        "out of the region"
    );

    let (info, bytes) = region(0x4000, &capability(3, 0, &[]));
    let caps = RegionCaps::parse(&info, &bytes).unwrap();
    assert_eq!(spans(caps.areas(&info, Some(0x2000..0x2090), 4096)), [(0, 0x4000)]);

    let unmappable = abi::RegionInfo { flags: 0, ..info };
    assert_eq!(spans(caps.areas(&unmappable, None, 4096)), []);
}

#[test]
fn broken_region_chains_are_refused() {
    for (what, caps) in [
        ("a loop", capability(3, 32, &[])),
        ("into the fixed part", capability(3, 8, &[])),
        ("beyond the end", capability(3, 4096, &[])),
        ("cut short", capability(3, 36, &[])),
        ("more areas than bytes", capability(1, 0, &[2, 0, 0, 0, 0x1000, 0])),
        ("as many as overflow", capability(1, 0, &[u32::MAX, 0])),
        ("no count", capability(1, 0, &[1])),
        ("an area beyond the region", capability(1, 0, &[1, 0, 0x4000, 0, 0x1000, 0])),
        ("an area that overflows", capability(1, 0, &[1, 0, !0, !0, 0x1000, 0])),
    ] {
        let (info, bytes) = region(0x4000, &caps);
        assert!(RegionCaps::parse(&info, &bytes).is_err(), "{what}");
    }
}

#[test]
fn unknown_capabilities_and_versions_are_skipped() {
    let mut caps = capability(1, 48, &[9, 9]);
    caps[2] = 2;
    caps.extend(capability(99, 56, &[]));
    caps.extend(capability(3, 0, &[]));
    let (info, bytes) = region(0x4000, &caps);
    assert_eq!(RegionCaps::parse(&info, &bytes).unwrap(), RegionCaps { sparse: None, msix_mappable: true });
}

#[test]
fn iommu_ranges_and_limits_are_parsed() {
    let mut caps = capability(3, 24 + 12, &[65535]);
    caps.extend(capability(1, 0, &[2, 0, 0xfef0_0000, 0, !0, 0xffff, 0, 0, 0xfedf_ffff, 0]));
    let (info, bytes) = iommu(&caps);
    let info = IommuInfo::parse(&info, &bytes).unwrap();
    assert_eq!(info.ranges, [0..=0xfedf_ffff, 0xfef0_0000..=0xffff_ffff_ffff], "in ascending order");
    assert_eq!((info.mappings_available, info.smallest_page()), (Some(65535), 4096));
}

#[test]
fn without_ranges_the_msi_window_is_excluded() {
    let (mut info, bytes) = iommu(&[]);
    info.flags = 0;
    let info = IommuInfo::parse(&info, &bytes).unwrap();
    assert!(info.ranges.iter().all(|range| !range.contains(&0xfee0_0000)), "{info:?}");
    assert!(info.ranges[0].contains(&0x1000));
    assert_eq!((info.page_sizes, info.mappings_available), (4096, None));
}

#[test]
fn broken_iommu_chains_are_refused() {
    for caps in [capability(1, 24, &[0, 0]), capability(1, 0, &[9, 0, 0, 0]), capability(3, 0, &[]), vec![]] {
        let (info, bytes) = iommu(&caps);
        assert!(IommuInfo::parse(&info, &bytes).is_err(), "{caps:?}");
    }
    let (mut info, bytes) = iommu(&capability(3, 0, &[1]));
    info.page_sizes = 0;
    assert!(IommuInfo::parse(&info, &bytes).is_err());
}

#[test]
fn a_device_that_reserves_addresses_is_detected() {
    let offer = |page_sizes, ranges: &[RangeInclusive<u64>]| IommuInfo {
        page_sizes,
        ranges: ranges.to_vec(),
        mappings_available: None,
    };
    let first = offer(0x20_1000, &[0..=0xfedf_ffff, 0xfef0_0000..=0xffff_ffff_ffff]);
    assert_eq!(first.still_in(&first), Ok(()));
    assert_eq!(first.still_in(&offer(0x1000, &[0..=u64::MAX])), Ok(()), "more is no loss");
    let less = offer(0x20_1000, &[0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff]);
    let error = first.still_in(&less).unwrap_err();
    assert!(error.contains("0xfef00000") && error.contains("reserved"), "{error}");
    let hole = offer(0x20_1000, &[0x1000..=0xfedf_ffff, 0xfef0_0000..=0xffff_ffff_ffff]);
    assert!(first.still_in(&hole).unwrap_err().contains("0x0 to 0xfedfffff"));
    let error = first.still_in(&offer(0x1_0000, &[0..=u64::MAX])).unwrap_err();
    assert!(error.contains("65536") && error.contains("4096"), "{error}");
}

#[test]
fn fuzz_any_capability_chain_is_areas_and_ranges_or_an_error() {
    let (_, sparse) = region(0x4000, &capability(1, 0, &[2, 0, 0x1000, 0, 0x1000, 0, 0x3000, 0, 0x1000, 0]));
    let mut chained = capability(9, 40, &[]);
    chained.extend(capability(3, 0, &[]));
    let (_, chained) = region(0x1_0000, &chained);
    let mut limits = capability(3, 24 + 12, &[65535]);
    limits.extend(capability(1, 0, &[2, 0, 0xfef0_0000, 0, !0, 0xffff, 0, 0, 0xfedf_ffff, 0]));
    let (_, limits) = iommu(&limits);
    fuzz("capability_chains", 30_000, &[sparse, chained, limits], |data| {
        if let Ok((info, _)) = abi::RegionInfo::read_from_prefix(data) {
            if let Ok(caps) = RegionCaps::parse(&info, data) {
                for (msix, page) in
                    [(None, 4096), (Some(0x2000..0x2090), 4096), (Some(u64::MAX - 1..u64::MAX), 0x1_0000)]
                {
                    for area in caps.areas(&info, msix, page) {
                        assert!(
                            area.start < area.end && area.end <= info.size && area.start % page == 0,
                            "{area:?}"
                        );
                    }
                }
            }
        }
        if let Ok((info, _)) = abi::IommuInfo::read_from_prefix(data) {
            if let Ok(info) = IommuInfo::parse(&info, data) {
                assert!(info.smallest_page().is_power_of_two() && !info.ranges.is_empty());
                assert!(info.ranges.is_sorted_by_key(|range| *range.start()));
                assert!(info.ranges.iter().all(|range| !range.is_empty()));
                assert_eq!(info.still_in(&info), Ok(()));
            }
        }
    });
}
