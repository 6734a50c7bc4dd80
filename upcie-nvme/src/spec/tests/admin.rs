//! Admin commands as structures: each word, the direction of the data, and what controllers lack.

use zerocopy::{FromZeros, IntoBytes};

use crate::spec::*;

/// A row of the table: what a command turns into.
struct Row {
    opcode: AdminOpcode,
    /// NSID, and command dwords 10 to 15.
    words: [u32; 7],
    sends: usize,
    returns: usize,
    /// The reason why a controller without any optional command can't run it.
    lacking: Option<String>,
}

fn row<C: AdminCommand>(command: &C) -> Row {
    let made = command.command();
    assert_eq!(made.opcode, C::OPCODE.0);
    let words = [made.nsid, made.cdw10, made.cdw11, made.cdw12, made.cdw13, made.cdw14, made.cdw15];
    let bare = IdentifyController { nn: 16, ..IdentifyController::new_zeroed() };
    let all = IdentifyController {
        nn: 16,
        oacs: u16::MAX,
        sanicap: 7,
        ctratt: u32::MAX,
        fna: 1 << 2,
        frmw: 0x1e,
        ..IdentifyController::new_zeroed()
    };
    assert_eq!(command.refusal(&all), None, "{}", C::OPCODE);
    Row {
        opcode: C::OPCODE,
        words,
        sends: command.data().len(),
        returns: command.returns(),
        lacking: command.refusal(&bare),
    }
}

#[test]
fn each_command_has_its_words_and_its_direction() {
    let create = CreateNamespace { csi: Csi::ZONED, ..CreateNamespace::new(8, 0) };
    let attach = AttachNamespace { nsid: 3, controllers: vec![1] };
    let detach = DetachNamespace { nsid: 3, controllers: vec![1] };
    let format = FormatNvm {
        nsid: 2,
        format: 0x25,
        extended_metadata: true,
        protection: 2,
        protection_first: true,
        erase: SecureErase::CRYPTOGRAPHIC,
    };
    let overwrite = Sanitize {
        unrestricted: true,
        passes: 5,
        invert: true,
        no_deallocate: true,
        verify_media: true,
        pattern: 0xdead_beef,
        ..Sanitize::new(SanitizeAction::OVERWRITE)
    };
    let commit = FirmwareCommit { slot: 2, action: CommitAction::ACTIVATE_NOW, boot_partition: 1 };
    let enable = EnableDirective { nsid: 1, kind: DirectiveType::STREAMS, enable: true };
    let status = DirectiveReceive {
        nsid: 1,
        kind: DirectiveType::STREAMS,
        operation: 2,
        specific: 7,
        dword12: 9,
        len: 128,
    };
    let lockdown = Lockdown {
        subject: LockdownSubject::FEATURE,
        code: 0x07,
        prohibit: true,
        interface: LockdownInterface::ADMIN_QUEUE_AND_OUT_OF_BAND,
        uuid_index: 3,
    };
    let send =
        SecuritySend { nsid: 1, protocol: 0xea, specific: 0x1234, nvme_specific: 5, data: vec![1; 512] };
    let receive = SecurityReceive { nsid: 1, protocol: 1, specific: 0x1234, nvme_specific: 5, len: 512 };
    let assign = VirtualizationManagement {
        action: VirtualizationAction::SECONDARY_ASSIGN,
        controller: 0x1234,
        resource: VirtualResource::INTERRUPTS,
        number: 9,
    };
    let blocks = GetLbaStatus {
        nsid: 1,
        slba: 0x1_0000_0002,
        blocks: 8,
        action: LbaStatusAction::TRACKED,
        descriptors: 2,
    };
    let group = CapacityManagement {
        operation: CapacityOperation::CREATE_ENDURANCE_GROUP,
        element: 4,
        capacity: 0x1_0000_0002,
    };
    let part = FirmwareDownload { offset: 8192, data: &[0; 512] };
    let mi = ManagementReceive { dwords: [1, 2, 3, 4, 5, 6], len: 64 };
    let rows = [
        (row(&create), [0, 0, 2 << 24, 0, 0, 0, 0]),
        (row(&DeleteNamespace { nsid: ALL_NAMESPACES }), [u32::MAX, 1, 0, 0, 0, 0, 0]),
        (row(&attach), [3, 0, 0, 0, 0, 0, 0]),
        (row(&detach), [3, 1, 0, 0, 0, 0, 0]),
        (row(&format), [2, 5 | 1 << 4 | 2 << 5 | 1 << 8 | 2 << 9 | 2 << 12, 0, 0, 0, 0, 0]),
        (row(&overwrite), [0, 3 | 1 << 3 | 5 << 4 | 7 << 8, 0xdead_beef, 0, 0, 0, 0]),
        (row(&part), [0, 127, 2048, 0, 0, 0, 0]),
        (row(&commit), [0, 2 | 3 << 3 | 1 << 31, 0, 0, 0, 0, 0]),
        (row(&SelfTest { nsid: 1, code: SelfTestCode::ABORT }), [1, 0xf, 0, 0, 0, 0, 0]),
        (row(&DirectiveSend::from(enable)), [1, 0, 1, 0x101, 0, 0, 0]),
        (row(&status), [1, 31, 2 | 1 << 8 | 7 << 16, 9, 0, 0, 0]),
        (row(&lockdown), [0, 2 | 1 << 4 | 1 << 5 | 7 << 8, 0, 0, 0, 3, 0]),
        (row(&send), [1, 0xea12_3405, 512, 0, 0, 0, 0]),
        (row(&receive), [1, 0x0112_3405, 512, 0, 0, 0, 0]),
        (row(&assign), [0, 8 | 1 << 8 | 0x1234 << 16, 9, 0, 0, 0, 0]),
        (row(&blocks), [1, 2, 1, 9, 8 | 0x11 << 24, 0, 0]),
        (row(&group), [0, 1 | 4 << 16, 2, 1, 0, 0, 0]),
        (row(&ManagementSend { dwords: mi.dwords, data: vec![0; 8] }), [0, 1, 2, 3, 4, 5, 6]),
        (row(&mi), [0, 1, 2, 3, 4, 5, 6]),
    ];
    for (row, words) in &rows {
        assert_eq!(row.words, *words, "{}", row.opcode);
        // The rule of opcodes: which way data goes, if there is any.
        let ways = match row.opcode.direction() {
            DataDirection::None => (true, true),
            DataDirection::ToController => (false, true),
            DataDirection::FromController => (true, false),
            DataDirection::Bidirectional => (false, false),
        };
        assert!(!ways.0 || row.sends == 0, "{} sends data", row.opcode);
        assert!(!ways.1 || row.returns == 0, "{} returns data", row.opcode);
        let reason = row.lacking.as_deref().unwrap_or_else(|| panic!("{} is always there", row.opcode));
        let register = ["OACS", "SANICAP", "CTRATT", "FNA", "FRMW"];
        assert!(register.iter().any(|name| reason.contains(name)), "{}: {reason}", row.opcode);
    }
    let lens: Vec<_> =
        rows.iter().map(|(row, _)| row.sends.max(row.returns)).filter(|len| *len != 0).collect();
    assert_eq!(lens, [4096, 4096, 4096, 512, 128, 512, 512, 40, 8, 64]);
}

#[test]
fn the_data_of_namespace_management_is_at_its_bytes() {
    let create = CreateNamespace {
        size: 0x1122,
        capacity: 0x1121,
        format: 0x25,
        extended_metadata: true,
        protection: 9,
        shared: true,
        ana_group: 0xa,
        nvm_set: 0xb,
        endurance_group: 0xc,
        storage_tag_mask: 0xd,
        placement_handles: vec![5, 6],
        csi: Csi::NVM,
    };
    let data = create.data();
    let at = |at: usize| u16::from_le_bytes([data[at], data[at + 1]]);
    let words = [0, 8, 92, 100, 102, 384, 392, 512, 514].map(at);
    assert_eq!(words, [0x1122, 0x1121, 0xa, 0xb, 0xc, 0xd, 2, 5, 6]);
    assert_eq!((data[26], data[29], data[30]), (0x55, 9, 1));
    assert_eq!(data.iter().filter(|&&byte| byte != 0).count(), 14);
    let list = AttachNamespace { nsid: 1, controllers: vec![9, 3, 9] };
    assert_eq!(list.data()[..8], [2, 0, 3, 0, 9, 0, 0, 0]);
}

#[test]
fn limits_of_the_controller_are_told() {
    let controller = IdentifyController {
        nn: 4,
        oacs: u16::MAX,
        sanicap: 1 << 1,
        fna: 1 << 3,
        frmw: 0x05,
        fwug: 2,
        ..IdentifyController::new_zeroed()
    };
    let told = |reason: Option<String>, part: &str| {
        let reason = reason.unwrap_or_else(|| panic!("not refused: {part}"));
        assert!(reason.contains(part), "{reason}");
    };
    let format = |nsid| FormatNvm { nsid, ..FormatNvm::default() };
    told(format(5).refusal(&controller), "1 to 4");
    told(format(0).refusal(&controller), "not 0");
    told(format(ALL_NAMESPACES).refusal(&controller), "one namespace at a time");
    let crypto = FormatNvm { erase: SecureErase::CRYPTOGRAPHIC, ..format(1) };
    told(crypto.refusal(&controller), "no cryptographic erase");
    told(CreateNamespace::new(0, 0).refusal(&controller), "a block at least");
    told(Sanitize::new(SanitizeAction::OVERWRITE).refusal(&controller), "overwrite");
    assert_eq!(Sanitize::new(SanitizeAction::BLOCK_ERASE).refusal(&controller), None);
    let commit = |slot, action| FirmwareCommit { slot, action, boot_partition: 0 };
    told(commit(3, CommitAction::STORE).refusal(&controller), "slots 1 to 2");
    told(commit(1, CommitAction::STORE).refusal(&controller), "read-only");
    told(commit(2, CommitAction::ACTIVATE_NOW).refusal(&controller), "by a reset only");
    told(FirmwareDownload { offset: 4096, data: &[0; 4] }.refusal(&controller), "8192");
    told(FirmwareDownload { offset: 0, data: &[0; 3] }.refusal(&controller), "whole dwords");
    told(AttachNamespace { nsid: 1, controllers: vec![] }.refusal(&controller), "1 to 2047");
}

/// Fields that are put at their places show the numbers that were put.
#[test]
fn a_features_fields_are_put_at_their_places() {
    for info in FeatureInfo::ALL {
        let (dword, data) = (info.places)();
        for (places, bytes) in [(dword, 4), (data, info.data)] {
            let mut end = 0;
            for place in &places {
                assert!(place.bit >= end && place.width > 0, "{}: {place:?}", info.title);
                end = place.bit + place.width;
            }
            assert!(end as usize <= bytes * 8, "{}", info.title);
        }
    }
    let (places, _) = NumberOfQueues::places();
    let mut bytes = [0; 4];
    assert!(places[0].put(&mut bytes, 4) && places[1].put(&mut bytes, 65536));
    let value = NumberOfQueues::from_answer(u32::from_le_bytes(bytes), &[]).unwrap();
    assert_eq!((value.submission_queues(), value.completion_queues()), (4, 65536));
    assert!(!places[0].put(&mut bytes, 0) && !places[0].put(&mut bytes, 65537), "0's based");
    let threshold = TemperatureThreshold::new().with_tmpth(350).with_thsel(1).with_hysteresis(2);
    assert_eq!(threshold.to_command(), (350 | 1 << 20 | 2 << 22, vec![]));
    let (_, places) = HostBehaviorSupport::places();
    let mut data = [0; 512];
    let formats = places.iter().find(|place| place.name == "copy_descriptor_formats").unwrap();
    assert!(formats.put(&mut data, 0x1234));
    assert_eq!(data[4..6], [0x34, 0x12]);
    let value = HostBehaviorSupport::from_answer(0, &data).unwrap();
    assert_eq!(value.to_command().1, data);
    let id = ExtendedHostIdentifier { data: ExtendedHostIdentifierData::new_zeroed() };
    assert_eq!(id.to_command(), (1, id.data.as_bytes().to_vec()), "EXHID");
    assert!(!places[0].put(&mut [], 1), "the bytes end before the field");
}
