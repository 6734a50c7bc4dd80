//! The builders, word by word.

use zerocopy::{FromBytes, IntoBytes};

use crate::spec::*;

fn dwords(command: Command) -> [u32; 16] {
    <[u32; 16]>::read_from_bytes(command.as_bytes()).unwrap()
}

/// Returns the words of a command: 0 except these.
fn words(set: &[(usize, u32)]) -> [u32; 16] {
    let mut words = [0; 16];
    set.iter().for_each(|&(index, value)| words[index] = value);
    words
}

#[test]
fn admin_commands() {
    assert_eq!(dwords(Command::identify(Cns::CONTROLLER, 0, 0)), words(&[(0, 6), (10, 1)]));
    assert_eq!(
        dwords(Command::identify(Cns::NAMESPACE_CONTROLLERS, 7, 2)),
        words(&[(0, 6), (1, 7), (10, 0x0002_0012)])
    );
    assert_eq!(
        dwords(Command::identify_command_set(Cns::COMMAND_SET_NAMESPACE, 1, Csi::ZONED)),
        words(&[(0, 6), (1, 1), (10, 5), (11, 0x0200_0000)])
    );
    assert_eq!(
        dwords(Command::create_completion_queue(3, 65536, 0x1_2345_6000, Some(4))),
        words(&[(0, 5), (6, 0x2345_6000), (7, 1), (10, 0xffff_0003), (11, 0x0004_0003)])
    );
    assert_eq!(
        dwords(Command::create_completion_queue(3, 2, 0x1000, None)),
        words(&[(0, 5), (6, 0x1000), (10, 0x0001_0003), (11, 1)])
    );
    assert_eq!(
        dwords(Command::create_submission_queue(3, 1024, 0x1000, 9, QueuePriority::MEDIUM)),
        words(&[(0, 1), (6, 0x1000), (10, 0x03ff_0003), (11, 0x0009_0005)])
    );
    assert_eq!(dwords(Command::delete_submission_queue(5)), words(&[(0, 0), (10, 5)]));
    assert_eq!(dwords(Command::delete_completion_queue(5)), words(&[(0, 4), (10, 5)]));
    assert_eq!(
        dwords(Command::set_features(FeatureId::NUMBER_OF_QUEUES, NumberOfQueues::of(2, 2).into_bits())),
        words(&[(0, 9), (10, 7), (11, 0x0001_0001)])
    );
    assert_eq!(
        dwords(Command::get_features(FeatureId::VOLATILE_WRITE_CACHE, FeatureSelect::SUPPORTED)),
        words(&[(0, 0xa), (10, 0x306)])
    );
    assert_eq!(dwords(Command::abort(2, 0x1234)), words(&[(0, 8), (10, 0x1234_0002)]));
    assert_eq!(dwords(Command::asynchronous_event_request()), words(&[(0, 0xc)]));
}

#[test]
fn log_page_lengths_span_both_dwords() {
    let command = Command::get_log_page(LogPageId::SMART, ALL_NAMESPACES, 512, 0);
    assert_eq!(dwords(command), words(&[(0, 2), (1, u32::MAX), (10, 0x007f_0002)]));
    let command = Command::get_log_page(LogPageId::PERSISTENT_EVENTS, 0, 0x10_0000, 0x1_2345_6788);
    assert_eq!(dwords(command), words(&[(0, 2), (10, 0xffff_000d), (11, 3), (12, 0x2345_6788), (13, 1)]));
    assert_eq!((command.log_page_bytes(), command.log_page_offset()), (0x10_0000, 0x1_2345_6788));
    let all = Command { cdw10: u32::MAX, cdw11: u32::MAX, ..command };
    assert_eq!(all.log_page_bytes(), 1 << 34);
}

#[test]
fn block_commands() {
    assert_eq!(dwords(Command::read(1, 0x1_0000_0002, 1)), words(&[(0, 2), (1, 1), (10, 2), (11, 1)]));
    assert_eq!(dwords(Command::write(1, 0, 65536)), words(&[(0, 1), (1, 1), (12, 0xffff)]));
    assert_eq!(dwords(Command::flush(1)), words(&[(0, 0), (1, 1)]));
    assert_eq!(
        dwords(Command::write_zeroes(1, 0x1_0000_0002, 65536)),
        words(&[(0, 8), (1, 1), (10, 2), (11, 1), (12, 0xffff)])
    );
    assert_eq!(dwords(Command::deallocate(1, 256)), words(&[(0, 9), (1, 1), (10, 0xff), (11, 4)]));
    assert_eq!(
        DatasetRange::new(0x1_0000_0002, 3).to_bytes(),
        [0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]
    );
    let flags = [(IoFlags::FUA, 1 << 30), (IoFlags::LIMITED_RETRY, 1 << 31), (IoFlags::DEALLOCATE, 1 << 25)];
    for (flag, dword12) in flags {
        assert_eq!(flag.word(), dword12);
    }
    assert!(ReadWriteDword12::from_bits(1 << 30).fua() && ReadWriteDword12::from_bits(1 << 31).lr());
    let command = Command::write(1, u64::MAX, 65536);
    assert_eq!((command.slba(), command.block_count()), (u64::MAX, 65536));
}

#[test]
fn addresses_stay_where_they_are_put() {
    let mut command = Command::read(1, 0, 1);
    command.set_data_pointer(0x1_0000_1000, 0x2_0000_2000);
    command.set_metadata_pointer(0x3_0000_3000);
    assert_eq!(
        (command.prp1(), command.prp2(), command.mptr()),
        (0x1_0000_1000, 0x2_0000_2000, 0x3_0000_3000)
    );
    assert_eq!(dwords(command)[4..10], [0x3000, 3, 0x1000, 1, 0x2000, 2]);
}

#[test]
fn completions() {
    let bytes = [0x2a, 0, 0, 0, 0, 0, 0, 0, 5, 0, 1, 0, 9, 0, 1, 0];
    let completion = CompletionEntry::read_from_bytes(&bytes).unwrap();
    assert_eq!((completion.dw0, completion.sqhd, completion.sqid, completion.cid), (42, 5, 1, 9));
    assert!(completion.phase());
    assert_eq!(completion.result(), Ok(42));

    for status in Status::ALL {
        for phase in [false, true] {
            let completion = CompletionEntry { status_phase: status.with_phase(phase), ..completion };
            assert_eq!((completion.status(), completion.phase()), (*status, phase));
            assert_eq!(completion.is_success(), *status == Status::SUCCESS);
        }
    }
    // The retry bits alone are no failure.
    let completion = CompletionEntry { status_phase: 0xf000, ..completion };
    assert!(completion.is_success() && completion.status().is_success());
}

#[test]
fn opcodes_have_names_and_directions() {
    assert_eq!(AdminOpcode::IDENTIFY.to_string(), "Identify (06h)");
    assert_eq!(NvmOpcode(0x99).to_string(), "unknown (99h)");
    assert_eq!(AdminOpcode::IDENTIFY.direction(), DataDirection::FromController);
    assert_eq!(AdminOpcode::CREATE_CQ.direction(), DataDirection::ToController);
    assert_eq!(NvmOpcode::WRITE.direction(), DataDirection::ToController);
    assert_eq!(NvmOpcode::READ.direction(), DataDirection::FromController);
    assert_eq!(NvmOpcode::FLUSH.direction(), DataDirection::None);
    assert_eq!(AdminOpcode::FABRICS.direction(), DataDirection::Bidirectional);
}

#[test]
fn copies_have_checks_of_both_sides_and_tags_of_each_range() {
    let range = CopyRange::new(7, 9).expecting(0x0102_0304, 0x1234, 0xff00);
    let bytes = range.to_bytes();
    assert_eq!((&bytes[8..18], &bytes[24..28]), (&[7, 0, 0, 0, 0, 0, 0, 0, 8, 0][..], &[4, 3, 2, 1][..]));
    assert_eq!(bytes[28..], [0x34, 0x12, 0, 0xff]);
    let tags = 0x0a0b_0102_0304_0506_0708;
    let wide = WideCopyRange::new(range, tags);
    let bytes = wide.as_bytes();
    assert_eq!((&bytes[8..18], bytes.len()), (&[7, 0, 0, 0, 0, 0, 0, 0, 8, 0][..], 40));
    assert_eq!(bytes[26..], [0x0a, 0x0b, 1, 2, 3, 4, 5, 6, 7, 8, 0x34, 0x12, 0, 0xff]);
    assert_eq!(wide.tags(), tags);
    let control = ProtectionControl::GUARD | ProtectionControl::STORAGE_TAG;
    let dword = control.for_copy_source(CopyDword12::new().with_nr(2));
    assert_eq!(dword.into_bits(), 2 | 4 << 12 | 1 << 25);
    assert_eq!(ProtectionControl::of_copy_source(dword), control);
    // The written fields have the places of other commands.
    let target = CopyDword12::from_bits(control.dword12());
    assert_eq!((target.prinfow(), target.stcw(), target.prinfor(), target.stcr()), (4, true, 0, false));
}
