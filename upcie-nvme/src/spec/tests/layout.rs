//! Field positions against the byte offsets of the specification's figures.

use core::mem::offset_of;

use zerocopy::{FromBytes, IntoBytes};

use crate::spec::*;

macro_rules! positions {
    ($type:ident { $($field:ident: $byte:literal),* $(,)? }) => {
        $( assert_eq!(offset_of!($type, $field), $byte, concat!(stringify!($type), "::", stringify!($field))); )*
    };
}

#[test]
fn queue_entries() {
    positions!(Command {
        opcode: 0,
        flags: 1,
        cid: 2,
        nsid: 4,
        cdw2: 8,
        cdw3: 12,
        mptr: 16,
        prp1: 24,
        prp2: 32,
        cdw10: 40,
        cdw11: 44,
        cdw12: 48,
        cdw13: 52,
        cdw14: 56,
        cdw15: 60,
    });
    positions!(CompletionEntry { dw0: 0, dw1: 4, sqhd: 8, sqid: 10, cid: 12, status_phase: 14 });
}

#[test]
fn identify_controller() {
    positions!(IdentifyController {
        vid: 0,
        ssvid: 2,
        sn: 4,
        mn: 24,
        fr: 64,
        rab: 72,
        ieee: 73,
        cmic: 76,
        mdts: 77,
        cntlid: 78,
        ver: 80,
        rtd3r: 84,
        rtd3e: 88,
        oaes: 92,
        ctratt: 96,
        rrls: 100,
        bpcap: 102,
        nssl: 104,
        plsi: 110,
        cntrltype: 111,
        fguid: 112,
        crdt: 128,
        crcap: 134,
        nvmsr: 253,
        vwci: 254,
        mec: 255,
        oacs: 256,
        acl: 258,
        aerl: 259,
        frmw: 260,
        lpa: 261,
        elpe: 262,
        npss: 263,
        avscc: 264,
        apsta: 265,
        wctemp: 266,
        cctemp: 268,
        mtfa: 270,
        hmpre: 272,
        hmmin: 276,
        tnvmcap: 280,
        unvmcap: 296,
        rpmbs: 312,
        edstt: 316,
        dsto: 318,
        fwug: 319,
        kas: 320,
        hctma: 322,
        mntmt: 324,
        mxtmt: 326,
        sanicap: 328,
        hmminds: 332,
        hmmaxd: 336,
        nsetidmax: 338,
        endgidmax: 340,
        anatt: 342,
        anacap: 343,
        anagrpmax: 344,
        nanagrpid: 348,
        pels: 352,
        domain_id: 356,
        kpioc: 358,
        mptfawr: 360,
        megcap: 368,
        tmpthha: 384,
        cqt: 386,
        sqes: 512,
        cqes: 513,
        maxcmd: 514,
        nn: 516,
        oncs: 520,
        fuses: 522,
        fna: 524,
        vwc: 525,
        awun: 526,
        awupf: 528,
        icsvscc: 530,
        nwpc: 531,
        acwu: 532,
        cdfs: 534,
        sgls: 536,
        mnan: 540,
        maxdna: 544,
        maxcna: 560,
        oaqd: 564,
        rhiri: 568,
        hirt: 569,
        cmmrtd: 570,
        nmmrtd: 572,
        minmrtg: 574,
        maxmrtg: 575,
        trattr: 576,
        mcudmq: 578,
        mnsudmq: 580,
        mcmr: 582,
        nmcmr: 584,
        mcdqpc: 586,
        subnqn: 768,
        ioccsz: 1792,
        iorcsz: 1796,
        icdoff: 1800,
        fcatt: 1802,
        msdbd: 1803,
        ofcs: 1804,
        dctype: 1806,
        psd: 2048,
        vendor: 3072,
    });
    positions!(PowerState {
        mp: 0,
        flags: 3,
        enlat: 4,
        exlat: 8,
        rrt: 12,
        rrl: 13,
        rwt: 14,
        rwl: 15,
        idlp: 16,
        ips: 18,
        actp: 20,
        apws: 22,
        epfrt: 23,
        fqvt: 24,
        epfvt: 25,
        epfrts_fqvts: 26,
        epfvts: 27,
    });
}

#[test]
fn identify_namespace() {
    positions!(IdentifyNamespace {
        nsze: 0,
        ncap: 8,
        nuse: 16,
        nsfeat: 24,
        nlbaf: 25,
        flbas: 26,
        mc: 27,
        dpc: 28,
        dps: 29,
        nmic: 30,
        rescap: 31,
        fpi: 32,
        dlfeat: 33,
        nawun: 34,
        nawupf: 36,
        nacwu: 38,
        nabsn: 40,
        nabo: 42,
        nabspf: 44,
        noiob: 46,
        nvmcap: 48,
        npwg: 64,
        npwa: 66,
        npdg: 68,
        npda: 70,
        nows: 72,
        mssrl: 74,
        mcl: 76,
        msrc: 80,
        kpios: 81,
        nulbaf: 82,
        kpiodaag: 84,
        anagrpid: 92,
        nsattr: 99,
        nvmsetid: 100,
        endgid: 102,
        nguid: 104,
        eui64: 120,
        lbaf: 128,
        vendor: 384,
    });
    positions!(DescriptorHeader { nidt: 0, nidl: 1, reserved2: 2 });
}

#[test]
fn log_pages() {
    positions!(ErrorLogEntry {
        error_count: 0,
        sqid: 8,
        cid: 10,
        status_field: 12,
        parameter_location: 14,
        lba: 16,
        nsid: 24,
        vendor_log_page: 28,
        trtype: 29,
        command_specific: 32,
        transport_specific: 40,
    });
    positions!(SmartLog {
        critical_warning: 0,
        composite_temperature: 1,
        available_spare: 3,
        available_spare_threshold: 4,
        percentage_used: 5,
        endurance_group_warning: 6,
        data_units_read: 32,
        data_units_written: 48,
        host_read_commands: 64,
        host_write_commands: 80,
        controller_busy_time: 96,
        power_cycles: 112,
        power_on_hours: 128,
        unsafe_shutdowns: 144,
        media_errors: 160,
        error_log_entries: 176,
        warning_temperature_time: 192,
        critical_temperature_time: 196,
        temperature_sensors: 200,
        thermal_transitions_1: 216,
        thermal_transitions_2: 220,
        thermal_time_1: 224,
        thermal_time_2: 228,
    });
    positions!(FirmwareSlotLog { afi: 0, frs: 8, reserved64: 64 });
}

#[test]
fn raw_bytes_of_a_controller() {
    let mut bytes = [0_u8; 4096];
    bytes[4..24].copy_from_slice(b"S\x1b[31m\xff123          ");
    bytes[24..64].copy_from_slice(b"  A Model                               ");
    bytes[64..72].copy_from_slice(b"1.0\0\0\0\0\0");
    bytes[77] = 5;
    bytes[80..84].copy_from_slice(&0x0001_0400_u32.to_le_bytes());
    bytes[263] = 1;
    bytes[516..520].copy_from_slice(&256_u32.to_le_bytes());
    bytes[525] = 1;
    bytes[768..780].copy_from_slice(b"nqn.2014-08\n");
    bytes[2048..2050].copy_from_slice(&900_u16.to_le_bytes());
    bytes[2080..2084].copy_from_slice(&[50, 0, 0, 3]);
    let id = IdentifyController::read_from_bytes(&bytes).unwrap();
    assert_eq!(id.serial(), "S\u{fffd}[31m\u{fffd}123");
    assert_eq!(id.model(), "A Model");
    assert_eq!(id.firmware(), "1.0");
    assert_eq!(id.subsystem_name(), "nqn.2014-08");
    assert_eq!(id.version(), Version::of(1, 4, 0));
    assert_eq!(id.max_transfer(4096), Some(128 << 10));
    assert_eq!(id.nn, 256);
    assert!(id.has_volatile_cache() && !id.supports_sgls());
    let [full, low] = id.power_states() else { panic!("NPSS 1 is two states") };
    assert_eq!((full.max_power(), full.is_non_operational()), (9_000_000, false));
    assert_eq!((low.max_power(), low.is_non_operational()), (5_000, true));
}

#[test]
fn raw_bytes_of_a_namespace() {
    let mut bytes = [0_u8; 4096];
    bytes[0..8].copy_from_slice(&0x1_0000_0000_u64.to_le_bytes());
    bytes[25] = 1;
    bytes[26] = 0x11;
    bytes[130] = 9;
    bytes[132..136].copy_from_slice(&[8, 0, 12, 1]);
    let ns = IdentifyNamespace::read_from_bytes(&bytes).unwrap();
    assert_eq!(ns.nsze, 1 << 32);
    assert_eq!(ns.lba_format().unwrap(), LbaFormat::new().with_ms(8).with_lbads(12).with_rp(1));
    assert_eq!(ns.block_size(), Some(4096));
    assert!(ns.metadata_is_extended());
    assert_eq!(ns.as_bytes(), bytes);
}

#[test]
fn raw_bytes_of_logs() {
    let mut bytes = [0_u8; 512];
    bytes[0] = 0b1001;
    bytes[1..3].copy_from_slice(&310_u16.to_le_bytes());
    bytes[32] = 7;
    bytes[47] = 1;
    let log = SmartLog::read_from_bytes(&bytes).unwrap();
    assert_eq!(log.warnings(), CriticalWarning::SPARE | CriticalWarning::READ_ONLY);
    assert_eq!(log.temperature(), 310);
    assert_eq!(log.data_units_read(), (1 << 120) + 7);
    assert_eq!(log.data_units_written(), 0);

    let mut bytes = [0_u8; 512];
    bytes[0] = 0x21;
    bytes[8..16].copy_from_slice(b"FW 1.2  ");
    let log = FirmwareSlotLog::read_from_bytes(&bytes).unwrap();
    assert_eq!((log.active_slot(), log.next_slot()), (1, Some(2)));
    assert_eq!(log.revision(1).as_deref(), Some("FW 1.2"));
    assert_eq!([0, 2, 7, 8, 255].map(|slot| log.revision(slot)), [const { None }; 5]);
}

#[test]
fn limits_of_the_nvm_command_set() {
    let mut bytes = [0; 4096];
    bytes[..16].copy_from_slice(&[1, 5, 3, 64, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    let mut id = IdentifyNvmController::read_from_bytes(&bytes[..]).unwrap();
    assert_eq!((id.vsl, id.wzsl, id.wusl, id.dmrl), (1, 5, 3, 64));
    assert_eq!((id.dmrsl, id.dmsl), (0x0706_0504, 0x0f0e_0d0c_0b0a_0908));
    assert_eq!(id.max_write_zeroes(4096), Some(128 << 10));
    assert_eq!((id.max_verify(4096), id.max_write_uncorrectable(4096)), (Some(8 << 10), Some(32 << 10)));
    for none in [0, 52, 64, 255] {
        id.wzsl = none;
        assert_eq!(id.max_write_zeroes(4096), None, "not reported, or more than 64 bits have");
    }
}
