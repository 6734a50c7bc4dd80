//! Write Zeroes, deallocation, FUA, and transfers of parts of buffers and of held memory.

mod held;

use upcie_nvme::{
    Controller, DmaBuf, Failure, Io, IoFlags, Namespace, Refusal, Zeroes,
    queue::SglUse,
    spec::{DatasetRange, OptionalCommands, Status},
};
use upcie_tests::{
    Device,
    data::Pattern,
    device::{another, namespaces},
    io::{create, only, read, write},
    on_each_device, says,
};

/// Writes a pattern to `blocks` blocks from `slba` on.
fn prepare(controller: &Controller, namespace: &Namespace, pattern: Pattern, slba: u64, blocks: usize) {
    let mut buffer = controller.alloc(blocks * namespace.block_size()).unwrap();
    pattern.fill(&mut buffer, slba, 1);
    write(namespace, slba, &mut buffer);
}

/// Opens the controller without scatter gather lists, which take data that PRPs don't.
fn by_prps(device: &Device) -> Controller {
    device.open_with(Controller::builder().sgl(SglUse::Never))
}

#[track_caller]
fn is_zero(bytes: &[u8]) {
    assert_eq!(bytes.iter().position(|&byte| byte != 0), None, "a byte that is not 0");
}

/// Returns true if the namespace supports Write Zeroes; otherwise checks that the command is refused.
fn has_write_zeroes(device: &Device, controller: &Controller, namespace: &Namespace) -> bool {
    let has = controller.identify().optional_commands().contains(OptionalCommands::WRITE_ZEROES);
    assert_eq!(namespace.max_write_zeroes() > 0, has);
    if !has {
        let error = namespace.write_zeroes(0, 1).unwrap_err();
        assert!(matches!(error.failure(), Failure::Refused { reason: Refusal::NoCommand, .. }), "{error}");
        device.lacks("Write Zeroes", &error);
    }
    has
}

/// Returns true if the namespace supports Dataset Management; otherwise checks that the command is refused.
fn has_deallocate(device: &Device, controller: &Controller, namespace: &Namespace) -> bool {
    let has = controller.identify().optional_commands().contains(OptionalCommands::DATASET_MANAGEMENT);
    assert_eq!(namespace.can_deallocate(), has);
    if !has {
        let error = namespace.deallocate(&[DatasetRange::new(0, 1)]).unwrap_err();
        assert!(matches!(error.failure(), Failure::Refused { reason: Refusal::NoCommand, .. }), "{error}");
        device.lacks("Dataset Management", &error);
    }
    has
}

#[test]
fn write_zeroes_changes_only_its_blocks() {
    on_each_device(|device| {
        let controller = device.open();
        for (namespace, pattern) in namespaces(&controller) {
            if !has_write_zeroes(device, &controller, &namespace) {
                continue;
            }
            let (size, first) = (namespace.block_size(), 40);
            let mut queue = create::<u64>(controller.queue_pair());
            for (blocks, flags) in
                [(1, IoFlags::empty()), (9, IoFlags::FUA), (61, IoFlags::FUA | IoFlags::DEALLOCATE)]
            {
                for blocking in [false, true] {
                    prepare(&controller, &namespace, pattern, first - 1, blocks + 2);
                    if blocking {
                        namespace.write_zeroes(first, blocks as u64).unwrap();
                    } else {
                        let mut turn = queue.turn().unwrap();
                        turn.write_zeroes(Zeroes::new(&namespace, first, blocks as u32).flags(flags), 3)
                            .unwrap();
                        drop(turn);
                        assert_eq!(only(&mut queue).0, 3);
                    }
                    let back = read(&controller, &namespace, first - 1, blocks + 2);
                    pattern.verify(&back[..size], first - 1, 1);
                    is_zero(&back[size..(blocks + 1) * size]);
                    pattern.verify(&back[(blocks + 1) * size..], first + blocks as u64, 1);
                }
            }
            // More than one command takes, up to the end of the namespace.
            let end = namespace.blocks();
            let blocks = (end - 1).min(u64::from(namespace.max_write_zeroes()) + 3);
            for slba in [end - blocks - 1, end - blocks, end - blocks / 2, end - 1] {
                prepare(&controller, &namespace, pattern, slba, 1);
            }
            namespace.write_zeroes(end - blocks, blocks).unwrap();
            for slba in [end - blocks, end - blocks / 2, end - 1] {
                is_zero(&read(&controller, &namespace, slba, 1));
            }
            pattern.verify(&read(&controller, &namespace, end - blocks - 1, 1), end - blocks - 1, 1);
        }
    });
}

#[test]
fn deallocate_changes_only_its_blocks() {
    on_each_device(|device| {
        let controller = device.open();
        for (namespace, pattern) in namespaces(&controller) {
            if !has_deallocate(device, &controller, &namespace) {
                continue;
            }
            let (size, most) = (namespace.block_size(), DatasetRange::MOST);
            // Other controllers may leave the blocks as they are; the emulator does not.
            let ours = controller.identify().model().starts_with("uPCIe");
            assert!(!ours || namespace.identify().dlfeat & 7 == 1);
            let mut queue = create::<u64>(controller.queue_pair());
            for (count, blocking) in [(1, false), (3, false), (most, false), (1, true), (2 * most + 5, true)]
            {
                // Three ranges of `count` blocks, with `count` blocks between them.
                let blocks = 4 * count;
                prepare(&controller, &namespace, pattern, 16, blocks);
                let ranges: Vec<_> =
                    (0..count as u64).map(|range| DatasetRange::new(17 + 4 * range, 3)).collect();
                if blocking {
                    namespace.deallocate(&ranges).unwrap();
                } else {
                    let mut buffer = controller.alloc(4096).unwrap();
                    for (index, range) in ranges.iter().enumerate() {
                        buffer.write_at(index * 16, &range.to_bytes());
                    }
                    let mut turn = queue.turn().unwrap();
                    turn.deallocate(&namespace, buffer, count, 4).unwrap();
                    drop(turn);
                    let (tag, buffer) = only(&mut queue);
                    assert_eq!((tag, buffer.len()), (4, 4096), "given back");
                }
                let back = read(&controller, &namespace, 16, blocks);
                for (slba, block) in (16..).zip(back.chunks_exact(size)) {
                    let zero = block.iter().all(|&byte| byte == 0);
                    match slba % 4 {
                        0 => pattern.verify(block, slba, 1),
                        _ if zero => {}
                        _ => {
                            assert!(!ours, "block {slba} of {count} ranges is not deallocated");
                            pattern.verify(block, slba, 1);
                        }
                    }
                }
            }
            // Deallocated blocks can be written.
            prepare(&controller, &namespace, pattern, 16, 8);
            pattern.verify(&read(&controller, &namespace, 16, 8), 16, 1);
        }
    });
}

#[test]
fn a_range_beyond_the_end_deallocates_nothing() {
    on_each_device(|device| {
        let controller = device.open();
        for (namespace, pattern) in namespaces(&controller) {
            if !has_deallocate(device, &controller, &namespace) {
                continue;
            }
            // QEMU's controller accepts the command and ignores the range.
            let ours = controller.identify().model().starts_with("uPCIe");
            let end = namespace.blocks();
            prepare(&controller, &namespace, pattern, end - 8, 8);
            for bad in [
                DatasetRange::new(end, 1),
                DatasetRange::new(end - 8, 9),
                DatasetRange::new(end - 8, u32::MAX),
                DatasetRange::new(u64::MAX, 1),
                DatasetRange::new(u64::MAX, u32::MAX),
            ] {
                let error = match namespace.deallocate(&[bad]) {
                    Ok(()) => {
                        assert!(!ours, "{bad:?} is taken");
                        continue;
                    }
                    Err(error) => error,
                };
                assert_eq!(error.status(), Some(Status::LBA_OUT_OF_RANGE), "{bad:?}: {error:?}");
                says(&error, &[controller.name(), "Dataset Management", "LBA Out of Range"]);
            }
            pattern.verify(&read(&controller, &namespace, end - 8, 8), end - 8, 1);
        }
    });
}

#[test]
fn impossible_block_commands_return_the_buffer() {
    on_each_device(|device| {
        let controller = by_prps(device);
        let (namespace, pattern) = namespaces(&controller).remove(0);
        let (foreign, end) = (another(), namespace.blocks());
        prepare(&controller, &namespace, pattern, end - 1, 1);
        let mut queue = create::<u64>(controller.queue_pair().depth(8));
        if has_write_zeroes(device, &controller, &namespace) {
            let most = namespace.max_write_zeroes();
            for (slba, blocks, wanted) in [
                (0, 0, Refusal::Length),
                (end, 1, Refusal::OutOfRange),
                (end - 1, 2, Refusal::OutOfRange),
                (u64::MAX, 1, Refusal::OutOfRange),
                (u64::MAX, 2, Refusal::OutOfRange),
                (0, most + 1, if u64::from(most) == end { Refusal::OutOfRange } else { Refusal::TooLong }),
            ] {
                let mut turn = queue.turn().unwrap();
                let refused = turn.write_zeroes(Zeroes::new(&namespace, slba, blocks), 9).unwrap_err();
                assert_eq!((refused.reason, refused.tag), (wanted, 9), "{blocks} blocks at {slba}");
                drop(turn);
                if wanted != Refusal::TooLong {
                    let error = namespace.write_zeroes(slba, blocks.into()).unwrap_err();
                    assert!(
                        matches!(error.failure(), Failure::Refused { reason, .. } if *reason == wanted),
                        "{error}"
                    );
                    says(&error, &[controller.name(), "Write Zeroes", &slba.to_string()]);
                }
            }
            let mut turn = queue.turn().unwrap();
            let other = foreign.namespace(1).unwrap();
            let refused = turn.write_zeroes(Zeroes::new(&other, 0, 1), 9).unwrap_err();
            assert_eq!(refused.reason, Refusal::ForeignNamespace);
        }
        if has_deallocate(device, &controller, &namespace) {
            let other = foreign.namespace(1).unwrap();
            let short = || controller.alloc(16).unwrap();
            let whole = || controller.alloc(8192).unwrap();
            for (namespace, buffer, count, wanted) in [
                (&namespace, whole(), 0, Refusal::Length),
                (&namespace, whole(), 257, Refusal::Length),
                (&namespace, whole(), usize::MAX, Refusal::Length),
                (&namespace, short(), 2, Refusal::Length),
                (&namespace, DmaBuf::empty(), 1, Refusal::Length),
                (&namespace, foreign.alloc(4096).unwrap(), 1, Refusal::ForeignBuffer),
                (&namespace, short().slice(2..16), 1, Refusal::Length),
                (&namespace, whole().slice(2..4000), 1, Refusal::Unaligned),
                (&other, whole(), 1, Refusal::ForeignNamespace),
            ] {
                let len = buffer.len();
                let mut turn = queue.turn().unwrap();
                let refused = turn.deallocate(namespace, buffer, count, 9).unwrap_err();
                assert_eq!((refused.reason, refused.tag, refused.buffer.len()), (wanted, 9, len), "{count}");
            }
            let error = namespace.deallocate(&[]).unwrap_err();
            assert!(matches!(error.failure(), Failure::Refused { reason: Refusal::Length, .. }), "{error}");
        }
        // A handle from before the invalidation.
        controller.invalidate_namespaces();
        let mut turn = queue.turn().unwrap();
        for refused in [
            turn.write_zeroes(Zeroes::new(&namespace, 0, 1), 9).unwrap_err(),
            turn.deallocate(&namespace, controller.alloc(4096).unwrap(), 1, 9).unwrap_err(),
            turn.submit(Io::write(&namespace, 0).fua(), controller.alloc(4096).unwrap(), 9).unwrap_err(),
            turn.flush(&namespace, 9).unwrap_err(),
        ] {
            assert_eq!(refused.reason, Refusal::StaleNamespace);
        }
        drop(turn);
        assert!(namespace.deallocate(&[DatasetRange::new(0, 1)]).is_err());
        assert!(namespace.write_zeroes(0, 1).is_err());
        assert_eq!(queue.in_flight(), 0, "nothing was sent");
        let namespace = controller.namespace(namespace.nsid()).unwrap();
        pattern.verify(&read(&controller, &namespace, end - 1, 1), end - 1, 1);
    });
}

#[test]
fn blocking_calls_transfer_parts_of_a_buffer_with_flags() {
    on_each_device(|device| {
        let controller = by_prps(device);
        for (namespace, pattern) in namespaces(&controller) {
            let size = namespace.block_size();
            // Less than a page, several pages, and more than one command transfers.
            for blocks in [1, 3 * 4096 / size, namespace.max_transfer() / size + 3] {
                let (len, start) = (blocks * size, 512);
                let mut buffer = controller.alloc(start + len + 512).unwrap();
                let part = start..start + len;
                let mut data = vec![0; len];
                pattern.fill(&mut data, 7, 1);
                buffer.write_at(start, &data);
                namespace.write_with(7, &mut buffer, part.clone(), IoFlags::FUA).unwrap();
                buffer.fill(0xee);
                namespace.read_with(7, &mut buffer, part.clone(), IoFlags::FUA).unwrap();
                let bytes = buffer.to_vec();
                pattern.verify(&bytes[part.clone()], 7, 1);
                let around = bytes[..start].iter().chain(&bytes[part.end..]);
                assert!(around.copied().all(|byte| byte == 0xee), "only the part is written");
            }
            let mut buffer = controller.alloc(4 * size).unwrap();
            let backwards = 2 * size..size;
            for (part, wanted) in [
                (0..0, Refusal::Length),
                (0..size - 1, Refusal::Length),
                (backwards, Refusal::Length),
                (3 * size..5 * size, Refusal::Length),
                (usize::MAX - size..usize::MAX, Refusal::Length),
                (2..size + 2, Refusal::Unaligned),
            ] {
                let flags = IoFlags::empty();
                let error = namespace.read_with(0, &mut buffer, part.clone(), flags).unwrap_err();
                assert!(
                    matches!(error.failure(), Failure::Refused { reason, .. } if *reason == wanted),
                    "{part:?}: {error}"
                );
                assert_eq!(buffer.len(), 4 * size, "the buffer comes back");
            }
            // A part of a chain may lie in several segments.
            let mut buffer = controller.alloc(4096).unwrap();
            buffer.fill(1);
            let mut second = controller.alloc(4096).unwrap();
            second.fill(2);
            buffer.chain(second);
            let part = 4096 - size..4096 + size;
            namespace.write_with(7, &mut buffer, part, IoFlags::FUA).unwrap();
            let wanted: Vec<u8> = [1, 2].iter().flat_map(|&byte| vec![byte; size]).collect();
            assert_eq!(read(&controller, &namespace, 7, 2), wanted);
        }
    });
}

#[test]
fn fua_reads_return_fua_writes() {
    on_each_device(|device| {
        let controller = device.open();
        for (namespace, pattern) in namespaces(&controller) {
            let mut queue = create::<u64>(controller.queue_pair());
            // One page, and a list from the queue's pool.
            for (blocks, slba) in [(1, 5), (4096 / namespace.block_size() * 4, 9)] {
                for flags in [IoFlags::FUA, IoFlags::LIMITED_RETRY, IoFlags::all()] {
                    let len = blocks * namespace.block_size();
                    let mut buffer = controller.alloc(len + 4096).unwrap().slice(512..512 + len);
                    pattern.fill(&mut buffer, slba, flags.bits().into());
                    queue
                        .turn()
                        .unwrap()
                        .submit(Io::write(&namespace, slba).flags(flags), buffer, 1)
                        .unwrap();
                    let mut buffer = only(&mut queue).1;
                    buffer.fill(0);
                    queue.turn().unwrap().submit(Io::read(&namespace, slba).flags(flags), buffer, 2).unwrap();
                    pattern.verify(&only(&mut queue).1, slba, flags.bits().into());
                }
            }
        }
    });
}
