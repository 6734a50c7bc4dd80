//! Live migration and controller data queues: the words of the commands, their data, the answers, and what controllers lack.

use zerocopy::{FromZeros, IntoBytes};

use crate::spec::*;
use upcie_core::testing::Random;

/// Returns a controller that has everything.
fn able() -> IdentifyController {
    IdentifyController {
        oacs: u16::MAX,
        trattr: 7,
        cmmrtd: 4,
        minmrtg: 1,
        maxmrtg: 9,
        ..IdentifyController::new_zeroed()
    }
}

/// Returns NSID and command dwords 10 to 15, and why a controller without optional commands can't run the command.
fn row<C: AdminCommand>(command: &C) -> (AdminOpcode, [u32; 7], Option<String>) {
    let made = command.command();
    assert_eq!(made.opcode, C::OPCODE.0);
    assert_eq!(command.refusal(&able()), None, "{}", C::OPCODE);
    let words = [made.nsid, made.cdw10, made.cdw11, made.cdw12, made.cdw13, made.cdw14, made.cdw15];
    (C::OPCODE, words, command.refusal(&IdentifyController::new_zeroed()))
}

fn track() -> TrackMemoryChanges {
    let range = |address, units| TrackedRange { address, units };
    TrackMemoryChanges {
        controller: 7,
        granularity: 8,
        ranges: vec![range(0x10_0000, 4), range(0x1_0000_0000, 1)],
    }
}

fn set_state() -> SetControllerState {
    SetControllerState {
        controller: 0x1234,
        sequence: StateSequence::LAST,
        version_index: 2,
        vendor_index: 3,
        offset: 0x1_0000_0010,
        uuid_index: 0xff,
        data: vec![1; 12],
    }
}

fn get_state() -> GetControllerState {
    GetControllerState {
        controller: 0x1234,
        version_index: 2,
        vendor_index: 3,
        vendor_parameter: 4,
        offset: 0x1_0000_0010,
        uuid_index: 5,
        len: 12,
    }
}

#[test]
fn each_command_has_its_words() {
    let suspend = SuspendController { controller: 7, kind: SuspendType::SUSPEND, delete_queue: true };
    let create = CreateDataQueue { controller: 7, contiguous: true, dwords: 0x400, ..Default::default() };
    let vendor = CreateDataQueue { kind: DataQueueType(0xc0), ..create };
    let update = UpdateDataQueue { queue: 9, head: 3, tail_trigger: Some(8) };
    let stop = TrackMemoryChanges { ranges: vec![], ..track() };
    let rows = [
        (row(&LogUserDataChanges { queue: 9, start: true }), [0, 1 << 16, 9, 0, 0, 0, 0], "TRATTR bit 1"),
        (row(&track()), [0, 1 | 1 << 16, 7, 0, 0, 0, 0], "TRATTR bit 0"),
        (row(&stop), [0, 1, 7, 0, 0, 0, 0], "TRATTR bit 0"),
        (row(&GetMemoryChanges { controller: 7, changes: 2 }), [0, 0, 7, 11, 0, 0, 0], "TRATTR bit 0"),
        (row(&suspend), [0, 0, 7 | 1 << 16 | 1 << 31, 0, 0, 0, 0], "OACS bit 11"),
        (row(&ResumeController { controller: 7 }), [0, 1, 7, 0, 0, 0, 0], "OACS bit 11"),
        (row(&set_state()), [0, 2 | 2 << 16, 0x0302_1234, 0x10, 1, 0x7f, 3], "OACS bit 11"),
        (row(&get_state()), [0, 2 << 16, 0x0403_1234, 0x10, 1, 5, 2], "OACS bit 11"),
        (row(&create), [0, 0, 1 | 7 << 16, 0x400, 0, 0, 0], "TRATTR bit 1"),
        (row(&vendor), [0, 0xc0 << 16, 1 | 7 << 16, 0x400, 0, 0, 0], ""),
        (row(&DeleteDataQueue { queue: 9 }), [0, 1, 9, 0, 0, 0, 0], ""),
        (row(&update), [0, 0x21, 9 | 1 << 31, 3, 8, 0, 0], ""),
    ];
    for ((opcode, words, lacking), expected, reason) in rows {
        assert_eq!(words, expected, "{opcode}");
        assert_eq!(lacking.is_some(), !reason.is_empty(), "{opcode}");
        assert!(lacking.unwrap_or_default().contains(reason), "{opcode}: {reason}");
    }
    let calm = UpdateDataQueue { tail_trigger: None, ..update }.command();
    assert_eq!((calm.cdw11, calm.cdw13), (9, 0));
}

#[test]
fn data_goes_the_way_that_the_opcode_says() {
    let data = track().data().into_owned();
    let mut expected = vec![0_u8, 0, 0, 8, 2, 0, 0, 0];
    expected.extend([0, 0, 0x10, 0, 0, 0, 0, 0, 4, 0, 0, 0]);
    expected.extend([0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(data, expected);
    assert!(TrackMemoryChanges { ranges: vec![], ..track() }.data().is_empty());
    assert_eq!(set_state().data().len(), 12);
    assert_eq!((get_state().returns(), GetMemoryChanges { controller: 0, changes: 2 }.returns()), (12, 48));
    for opcode in [AdminOpcode::TRACK_SEND, AdminOpcode::MIGRATION_SEND] {
        assert_eq!(opcode.direction(), DataDirection::ToController);
    }
    for opcode in [AdminOpcode::TRACK_RECEIVE, AdminOpcode::MIGRATION_RECEIVE] {
        assert_eq!(opcode.direction(), DataDirection::FromController);
    }
}

#[test]
fn limits_of_the_controller_are_told() {
    let told = |reason: Option<String>, part: &str| {
        let reason = reason.unwrap_or_else(|| panic!("not refused: {part}"));
        assert!(reason.contains(part), "{reason}");
    };
    told(TrackMemoryChanges { granularity: 10, ..track() }.refusal(&able()), "1 to 9");
    told(
        TrackMemoryChanges { ranges: vec![TrackedRange::default(); 5], ..track() }.refusal(&able()),
        "4 ranges",
    );
    told(SetControllerState { offset: 2, ..set_state() }.refusal(&able()), "whole dwords");
    told(SetControllerState { data: vec![0; 3], ..set_state() }.refusal(&able()), "whole dwords");
    let first = SetControllerState { sequence: StateSequence::FIRST, data: vec![], ..set_state() };
    told(first.refusal(&able()), "only the last part");
    assert_eq!(SetControllerState { data: vec![], ..set_state() }.refusal(&able()), None);
    told(GetControllerState { len: 0, ..get_state() }.refusal(&able()), "a dword at least");
    told(GetControllerState { len: 6, ..get_state() }.refusal(&able()), "whole dwords");
}

#[test]
fn answers_are_read() {
    let query = GetMemoryChanges { controller: 7, changes: 3 };
    let header = MemoryChangesHeader {
        attributes: MemoryChangesAttributes::new().with_more(true),
        controller_id: 7,
        count: 2,
        granularity: 8,
        ..FromZeros::new_zeroed()
    };
    let mut data = header.as_bytes().to_vec();
    for units in 1..=3 {
        data.extend(MemoryChange { address: 0x10_0000, units, ..FromZeros::new_zeroed() }.as_bytes());
    }
    assert_eq!(data.len(), query.returns());
    let answer = query.answer(0, data.clone()).unwrap();
    assert_eq!(answer.changes.iter().map(|change| change.units).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((answer.header.attributes.more(), answer.unit()), (true, Some(1 << 20)));
    data[8..10].fill(0xff);
    data[4..8].fill(0xff);
    let answer = query.answer(0, data).unwrap();
    assert_eq!((answer.changes.len(), answer.unit()), (3, None), "more changes than were returned");
    assert_eq!(query.answer(0, vec![0; 15]), None);

    let part = get_state().answer(1, vec![1, 2, 3, 4]).unwrap();
    assert!(part.suspended && part.data == [1, 2, 3, 4]);
    assert!(!get_state().answer(2, vec![]).unwrap().suspended);
    assert_eq!(CreateDataQueue::default().answer(0xffff_0005, vec![]), Some(5));
}

#[test]
fn a_state_has_queues_and_what_the_vendor_adds() {
    let mut state = vec![0_u8; 48];
    (state[2], state[16], state[32]) = (1, 2 + 2 * 6, 1);
    let queues = NvmeStateHeader { submission_queues: 1, completion_queues: 1, ..FromZeros::new_zeroed() };
    state.extend(queues.as_bytes());
    let submission = SubmissionQueueState {
        address: 0x1000,
        size: 63,
        queue_id: 1,
        completion_queue_id: 2,
        attributes: SubmissionQueueAttributes::new().with_contiguous(true).with_priority(2),
        head: 3,
        tail: 4,
        ..FromZeros::new_zeroed()
    };
    state.extend(submission.as_bytes());
    let completion = CompletionQueueState {
        queue_id: 2,
        attributes: CompletionQueueAttributes::new().with_first_phase(true).with_interrupt_vector(7),
        ..FromZeros::new_zeroed()
    };
    state.extend(completion.as_bytes());
    state.extend(b"more");
    let whole = ControllerState::from_bytes(&state).unwrap();
    assert_eq!(whole.submission_queues, [submission]);
    assert_eq!(whole.completion_queues, [completion]);
    assert_eq!(whole.vendor_specific, b"more");
    assert_eq!((whole.header.total(), whole.header.attributes.suspended()), (Some(state.len()), true));
    let text = whole.to_string();
    for part in ["nvme state size: 14 dwords", "size: 64", "priority: medium (2h)", "interrupt vector: 7"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for len in 0..state.len() {
        assert_eq!(ControllerState::from_bytes(&state[..len]), None, "{len} bytes");
    }
    // A queue more than the size has room for; a size that no memory has.
    state[50] = 2;
    assert_eq!(ControllerState::from_bytes(&state), None);
    state[31] = 0xff;
    let header = ControllerStateHeader::read_from_bytes(&state[..48]).unwrap();
    assert_eq!((header.total(), ControllerState::from_bytes(&state)), (None, None));
    let empty = ControllerState::from_bytes(&[0; 48]).unwrap();
    assert!(empty.submission_queues.is_empty() && empty.vendor_specific.is_empty());
}

#[test]
fn any_bytes_are_a_state_or_none() {
    let mut random = Random(0x51a7e);
    for _ in 0..500 {
        let mut state: Vec<u8> = (0..200).map(|_| random.next() as u8).collect();
        // Sizes that the bytes may have room for.
        state[16..48].fill(0);
        (state[16], state[32]) = (random.below(32) as u8, random.below(8) as u8);
        (state[50], state[51]) = (state[50] & 3, 0);
        (state[52], state[53]) = (state[52] & 3, 0);
        if let Some(state) = ControllerState::from_bytes(&state) {
            let _ = (state.to_string(), format!("{state:?}"));
        }
    }
}
