//! The bits of every bitfield, and the values computed from the registers.

use core::time::Duration;

use crate::spec::*;

/// A bit changes a field's value if and only if it is one of the field's.
macro_rules! fields {
    ($type:ident($bits:ty) { $($field:ident: $high:literal..$low:literal),* $(,)? }) => {
        for bit in 0..<$bits>::BITS {
            let value = $type::from_bits(1 << bit);
            $( assert_eq!(
                value.$field() != $type::new().$field(),
                ($low..=$high).contains(&bit),
                concat!(stringify!($type), ".", stringify!($field), " and bit {}"),
                bit,
            ); )*
        }
    };
}

#[test]
fn register_fields_are_in_their_bits() {
    fields!(Capabilities(u64) {
        mqes: 15..0, cqr: 16..16, ams: 18..17, to: 31..24, dstrd: 35..32, nssrs: 36..36, css: 44..37, bps: 45..45,
        cps: 47..46, mpsmin: 51..48, mpsmax: 55..52, pmrs: 56..56, cmbs: 57..57, nsss: 58..58, crms: 60..59,
        nsses: 61..61,
    });
    fields!(Version(u32) { major: 31..16, minor: 15..8, tertiary: 7..0 });
    fields!(Configuration(u32) {
        en: 0..0, css: 6..4, mps: 10..7, ams: 13..11, shn: 15..14, iosqes: 19..16, iocqes: 23..20, crime: 24..24,
    });
    fields!(ControllerStatus(u32) { rdy: 0..0, cfs: 1..1, shst: 3..2, nssro: 4..4, pp: 5..5, st: 6..6 });
    fields!(AdminQueueAttributes(u32) { asqs: 11..0, acqs: 27..16 });
    fields!(CmbLocation(u32) {
        bir: 2..0, cqmms: 3..3, cqpds: 4..4, cdpmls: 5..5, cdpcils: 6..6, cdmmms: 7..7, cqda: 8..8, ofst: 31..12,
    });
    fields!(CmbSize(u32) { sqs: 0..0, cqs: 1..1, lists: 2..2, rds: 3..3, wds: 4..4, szu: 11..8, sz: 31..12 });
    fields!(CmbMemorySpaceControl(u64) { cre: 0..0, cmse: 1..1, cba: 63..12 });
    fields!(BootPartitionProperty(u32) { bpsz: 14..0, brs: 25..24, abpid: 31..31 });
    fields!(BootPartitionSelect(u32) { bprsz: 9..0, bprof: 29..10, bpid: 31..31 });
    fields!(ReadyTimeouts(u32) { crwmt: 15..0, crimt: 31..16 });
    fields!(PmrCapabilities(u32) {
        rds: 3..3, wds: 4..4, bir: 7..5, pmrtu: 9..8, pmrwbm: 13..10, pmrto: 23..16, cmss: 24..24,
    });
}

#[test]
fn command_dword_fields_are_in_their_bits() {
    fields!(IdentifyDword10(u32) { cns: 7..0, cntid: 31..16 });
    fields!(IdentifyDword11(u32) { cnssi: 15..0, csi: 31..24 });
    fields!(CreateQueueDword10(u32) { qid: 15..0, qsize: 31..16 });
    fields!(CreateCqDword11(u32) { pc: 0..0, ien: 1..1, iv: 31..16 });
    fields!(CreateSqDword11(u32) { pc: 0..0, qprio: 2..1, cqid: 31..16 });
    fields!(FeaturesDword10(u32) { fid: 7..0, sel: 10..8, sv: 31..31 });
    fields!(LogPageDword10(u32) { lid: 7..0, lsp: 14..8, rae: 15..15, numdl: 31..16 });
    fields!(LogPageDword11(u32) { numdu: 15..0, lsi: 31..16 });
    fields!(AbortDword10(u32) { sqid: 15..0, cid: 31..16 });
    fields!(ReadWriteDword12(u32) {
        nlb: 15..0, dtype: 23..20, stc: 24..24, deac: 25..25, prinfo: 29..26, fua: 30..30, lr: 31..31,
    });
}

#[test]
fn feature_fields_are_in_their_bits() {
    fields!(Arbitration(u32) { ab: 2..0, lpw: 15..8, mpw: 23..16, hpw: 31..24 });
    fields!(PowerManagement(u32) { ps: 4..0, wh: 7..5 });
    fields!(TemperatureThreshold(u32) { tmpth: 15..0, tmpsel: 19..16, thsel: 21..20 });
    fields!(ErrorRecovery(u32) { tler: 15..0, dulbe: 16..16 });
    fields!(VolatileWriteCache(u32) { wce: 0..0 });
    fields!(NumberOfQueues(u32) { nsq: 15..0, ncq: 31..16 });
    fields!(InterruptCoalescing(u32) { thr: 7..0, time: 15..8 });
    fields!(InterruptVectorConfiguration(u32) { iv: 15..0, cd: 16..16 });
    fields!(WriteAtomicity(u32) { dn: 0..0 });
    fields!(AsyncEventConfiguration(u32) {
        smart: 7..0, namespace_attribute: 8..8, firmware_activation: 9..9, telemetry: 10..10, ana_change: 11..11,
        predictable_latency: 12..12, lba_status: 13..13, endurance_group: 14..14, subsystem_shutdown: 15..15,
        temperature_hysteresis: 16..16, reachability_association: 17..17, reachability_group: 18..18,
        allocated_namespace_attribute: 19..19, zone_descriptor: 27..27, pull_model_request: 28..28,
        ave_discovery: 29..29, host_discovery: 30..30, discovery: 31..31,
    });
    fields!(ControllerDataQueueTrigger(u32) { queue: 15..0, tail_event: 31..31 });
    fields!(MetadataAction(u32) { element_action: 14..13 });
    fields!(AsyncEvent(u32) { kind: 2..0, information: 15..8, log_page: 23..16 });
    fields!(LbaFormat(u32) { ms: 15..0, lbads: 23..16, rp: 25..24 });
}

#[test]
fn capabilities_of_a_common_controller() {
    // 2048 entries, 7.5 s, stride 4, 4 KiB to 64 KiB.
    let cap = Capabilities::from_bits(0x0040_0020_0f01_07ff | 1 << 43);
    assert_eq!(cap.max_queue_entries(), 2048);
    assert_eq!(cap.timeout(), Duration::from_millis(7500));
    assert_eq!((cap.page_size_min(), cap.page_size_max()), (4096, 65536));
    assert_eq!(cap.doorbell_stride(), 4);
    assert!(cap.supports_nvm() && cap.supports_command_set_profiles() && !cap.is_gone());
}

#[test]
fn page_sizes_for_all_mps() {
    for mps in 0..16_u8 {
        let size = 4096_u64 << mps;
        let cap = Capabilities::new().with_mpsmin(mps).with_mpsmax(15 - mps);
        assert_eq!((cap.page_size_min(), cap.page_size_max()), (size, 4096 << (15 - mps)));
        assert_eq!(Configuration::new().with_mps(mps).page_size(), size);
    }
}

#[test]
fn doorbells_follow_the_stride() {
    assert_eq!(doorbell_offset(0, false, 0), 0x1000);
    assert_eq!(doorbell_offset(0, true, 0), 0x1004);
    assert_eq!(doorbell_offset(3, false, 0), 0x1018);
    assert_eq!(doorbell_offset(3, true, 2), 0x1000 + 7 * 16);
    assert_eq!(doorbell_offset(u16::MAX, true, u8::MAX), 0x1000 + 131_071 * (128 << 10));
    for dstrd in 0..16 {
        let stride = Capabilities::new().with_dstrd(dstrd).doorbell_stride();
        assert_eq!(doorbell_offset(0, true, dstrd) - doorbell_offset(0, false, dstrd), stride);
    }
}

#[test]
fn versions_are_ordered_and_shown() {
    let versions =
        [(1, 0, 0), (1, 2, 1), (1, 4, 0), (2, 0, 0), (2, 1, 0)].map(|(a, b, c)| Version::of(a, b, c));
    assert!(versions.is_sorted());
    assert_eq!(versions.map(|version| version.to_string()), ["1.0", "1.2.1", "1.4", "2.0", "2.1"]);
    assert_eq!(Version::from_bits(0x0001_0400), Version::of(1, 4, 0));
}

#[test]
fn controller_memory_buffer_sizes() {
    let units: Vec<_> = (0..16).map(|szu| CmbSize::new().with_szu(szu).with_sz(3).bytes()).collect();
    let expected = (0..16_u32).map(|szu| (szu <= 6).then(|| 3 * 4096 * 16_u64.pow(szu)));
    assert_eq!(units, expected.collect::<Vec<_>>());
}

#[test]
fn ready_timeouts_are_durations() {
    let crto = ReadyTimeouts::from_bits(0x0002_000a);
    assert_eq!(crto.with_media(), Duration::from_secs(5));
    assert_eq!(crto.independent_of_media(), Duration::from_secs(1));
}

#[test]
fn all_ones_are_a_missing_device() {
    assert!(Capabilities::from_bits(u64::MAX).is_gone());
    assert!(ControllerStatus::from_bits(u32::MAX).is_gone());
    assert!(!ControllerStatus::from_bits(0x7f).is_gone());
}

#[test]
fn numbers_of_queues() {
    assert_eq!(NumberOfQueues::of(1, 4).into_bits(), 0x0003_0000);
    assert_eq!(NumberOfQueues::of(0, 65535).into_bits(), 0xfffe_0000);
    assert_eq!(NumberOfQueues::of(65536, u32::MAX).into_bits(), 0xfffe_fffe);
    let granted = NumberOfQueues::from_bits(0xffff_0007);
    assert_eq!((granted.submission_queues(), granted.completion_queues()), (8, 65536));
}
