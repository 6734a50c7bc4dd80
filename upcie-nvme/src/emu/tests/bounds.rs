//! A step does a bounded amount of work, whatever the commands are, and each queue has its turn.

use super::{
    recorder::{Kind, Operation, Recorder},
    stepped::{DATA, ENABLED, Stepped},
};
use crate::{
    emu::{Machine, formats::Layout, namespace::Namespace},
    spec::{
        Arbitration, Command, CopyRange, DatasetRange, FeatureId, IntoBytes, NvmOpcode, QueuePriority,
        SglDescriptor, Status,
    },
};

/// The most bytes of a step: 4 MiB, and the command or the piece of one that exceeds them.
const STEP: u64 = 5 << 20;
/// Bytes of a namespace.
const SIZE: u64 = 1 << 30;
const QUEUES: u16 = 7;
/// The places of PRP lists, of metadata and of ranges in the host's memory.
const LIST: usize = DATA + (1 << 20);
const METADATA: usize = LIST + (64 << 10);
const RANGES: usize = METADATA + (64 << 10);

/// Returns controllers that serve commands in each of their ways, with queues.
fn each(options: &str) -> impl Iterator<Item = (String, Stepped<Recorder>)> {
    let ways = [("", false), ("latency=1us", false), ("", true), ("fdp=true", false), ("ms=8,pi=1", false)];
    let ways = ways.map(|(more, staged)| {
        let options: Vec<&str> = [options, more].into_iter().filter(|part| !part.is_empty()).collect();
        let options = options.join(",");
        let stepped = Stepped::recorded(&options, SIZE);
        let mut stepped = if staged { stepped.in_stages() } else { stepped };
        for qid in 1..=QUEUES {
            stepped.queue(qid, 64);
        }
        (format!("{options}, in stages: {staged}"), stepped)
    });
    ways.into_iter()
}

/// Points a command to a megabyte of data, and to metadata.
fn pointed(stepped: &mut Stepped<Recorder>, mut command: Command) -> Command {
    let pages = (1..256).map(|page| stepped.memory.iova(DATA + page * 4096));
    let list: Vec<u8> = pages.flat_map(u64::to_le_bytes).collect();
    stepped.memory.set(LIST, &list);
    command.set_data_pointer(stepped.memory.iova(DATA), stepped.memory.iova(LIST));
    command.set_metadata_pointer(stepped.memory.iova(METADATA));
    command
}

fn bytes(done: &[Operation]) -> u64 {
    done.iter().map(|done| done.2).sum()
}

/// Sends `count` times a command on each queue, and takes steps until all have completed. Calls `check` after each step with
/// what it has done to the medium, and asserts that no queue is ahead of another one.
fn serve(
    stepped: &mut Stepped<Recorder>,
    command: Command,
    count: u16,
    status: Status,
    check: impl Fn(&[Operation]),
) {
    stepped.recorder().done.clear();
    for qid in 1..=QUEUES {
        for cid in 0..count {
            stepped.put(qid, &Command { cid, ..command });
        }
        stepped.ring(qid);
    }
    let mut served = [0_u16; QUEUES as usize];
    for _ in 0..1000 {
        stepped.step();
        check(&std::mem::take(&mut stepped.recorder().done));
        for (qid, served) in (1..).zip(&mut served) {
            while let Some(done) = stepped.next(qid) {
                assert_eq!(done.status(), status);
                *served += 1;
            }
        }
        let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
        // Two turns of 16 commands of 64 KiB.
        assert!(most - least <= 32, "{served:?}");
        if *least == count {
            return;
        }
    }
    panic!("{served:?} of {count} commands");
}

#[test]
fn queues_share_the_bytes_of_a_step() {
    for (way, mut stepped) in each("") {
        let read = pointed(&mut stepped, Command::read(1, 0, 2048));
        serve(&mut stepped, read, 8, Status::SUCCESS, |done| {
            assert!(bytes(done) <= STEP, "{way}: {} bytes", bytes(done));
        });
    }
}

/// A Compare that finds a difference has read as much as any other.
#[test]
fn failed_commands_count_too() {
    for (way, mut stepped) in each("") {
        stepped.memory.set(DATA, &[1]);
        let compare = Command { opcode: NvmOpcode::COMPARE.0, ..Command::read(1, 0, 2048) };
        let compare = pointed(&mut stepped, compare);
        serve(&mut stepped, compare, 8, Status::COMPARE_FAILURE, |done| {
            assert!(bytes(done) <= STEP, "{way}: {} bytes", bytes(done));
        });
    }
}

#[test]
fn flushes_count_as_transfers() {
    for (way, mut stepped) in each("") {
        stepped.recorder().is_volatile = true;
        let write = pointed(&mut stepped, Command::write(1, 0, 1));
        let durable = Command { cdw12: write.cdw12 | 1 << 30, ..write };
        for command in [Command::flush(1), durable] {
            serve(&mut stepped, command, 60, Status::SUCCESS, |done| {
                let flushes = done.iter().filter(|done| done.0 == Kind::Flush).count();
                assert!(flushes <= 65, "{way}: {flushes} flushes for {command:?}");
            });
        }
    }
}

/// Blocks of the long commands: 64 MiB of data.
const LONG: u32 = 16384;

/// Carries out a long command on queue 1, and a read on queue 2, which does not wait for it. Returns what was done to the medium.
fn carry_out(stepped: &mut Stepped<Recorder>, command: Command, way: &str) -> Vec<Operation> {
    stepped.recorder().done.clear();
    let mut read = Command::read(1, 0, 1);
    read.set_data_pointer(stepped.memory.iova(DATA), 0);
    read.set_metadata_pointer(stepped.memory.iova(METADATA));
    stepped.put(1, &Command { cid: 77, ..command });
    stepped.put(2, &read);
    stepped.ring(1);
    stepped.ring(2);
    let (mut all, mut is_read) = (Vec::new(), false);
    for _ in 0..1000 {
        stepped.step();
        let done = std::mem::take(&mut stepped.recorder().done);
        assert!(bytes(&done) <= STEP, "{way}: {} bytes of {command:?}", bytes(&done));
        all.extend(done);
        is_read |= stepped.next(2).is_some();
        if let Some(done) = stepped.next(1) {
            assert_eq!((done.cid, done.status()), (77, Status::SUCCESS), "{way}: {command:?}");
            assert!(is_read, "{way}: the read waited for {command:?}");
            return all;
        }
    }
    panic!("{way}: {command:?} does not end");
}

/// Asserts that the blocks of a range were zeroed or written once each, in order.
fn changed(all: &[Operation], kind: Kind, (start, len): (u64, u64), way: &str) {
    let mut end = start;
    for &(_, offset, len) in all.iter().filter(|done| done.0 == kind) {
        if offset == end {
            end += len;
        }
    }
    assert_eq!(end, start + len, "{way}");
}

/// Returns the bytes that were read of the medium.
fn read(all: &[Operation]) -> u64 {
    all.iter().filter(|done| done.0 == Kind::Read).map(|done| done.2).sum()
}

#[test]
fn long_commands_are_carried_out_in_pieces() {
    let len = u64::from(LONG) * 4096;
    for (way, mut stepped) in each("lba=4096") {
        let zeroes = Command::write_zeroes(1, 0, LONG);
        let all = carry_out(&mut stepped, zeroes, &way);
        changed(&all, Kind::Zero, (0, len), &way);
        if let Some(placement) = &stepped.machine.core.io.placement {
            assert_eq!(placement.counted().0, u128::from(len), "{way}: counted once");
        }
        let verify = Command { opcode: NvmOpcode::VERIFY.0, ..zeroes };
        let all = carry_out(&mut stepped, verify, &way);
        assert!(read(&all) >= len, "{way}: {} bytes", read(&all));
        // A range of whole pieces, a small one, and one that is parted elsewhere.
        let ranges = [(0, LONG / 2), (100_000, 1), (200_000, LONG / 2)];
        let list = ranges.map(|(slba, blocks)| DatasetRange::new(slba, blocks).to_bytes());
        stepped.memory.set(RANGES, list.as_flattened());
        let mut deallocate = Command::deallocate(1, 3);
        deallocate.set_data_pointer(stepped.memory.iova(RANGES), 0);
        let all = carry_out(&mut stepped, deallocate, &way);
        for (slba, blocks) in ranges {
            changed(&all, Kind::Zero, (slba * 4096, u64::from(blocks) * 4096), &way);
        }
    }
}

#[test]
fn copies_are_carried_out_in_pieces() {
    const TARGET: u64 = 100_000;
    for (way, mut stepped) in each("lba=4096") {
        // The most blocks of a range, and of a command.
        let ranges = [0, 20_000, 40_000, 60_000].map(|slba| CopyRange::new(slba, 2048));
        stepped.memory.set(RANGES, ranges.as_bytes());
        let mut copy = Command { cdw10: TARGET as u32, cdw12: 3, ..Command::io(NvmOpcode::COPY, 1) };
        copy.set_data_pointer(stepped.memory.iova(RANGES), 0);
        let all = carry_out(&mut stepped, copy, &way);
        let len = 8192 * 4096;
        changed(&all, Kind::Write, (TARGET * 4096, len), &way);
        assert!(read(&all) >= len, "{way}: {} bytes", read(&all));
        if let Some(placement) = &stepped.machine.core.io.placement {
            assert_eq!(placement.counted().0, u128::from(len), "{way}: counted once");
        }
    }
}

/// Points a command to a megabyte of data, over and over.
fn pointed_often(stepped: &mut Stepped<Recorder>, mut command: Command, by_sgl: bool) -> Command {
    command.set_metadata_pointer(stepped.memory.iova(METADATA));
    if by_sgl {
        let block = SglDescriptor::new(SglDescriptor::DATA_BLOCK, stepped.memory.iova(DATA), 1 << 20);
        let blocks = [block; (MOVED >> 20) as usize];
        stepped.memory.set(LIST, blocks.as_bytes());
        let (list, len) = (stepped.memory.iova(LIST), size_of_val(&blocks) as u32);
        command.set_sgl(SglDescriptor::new(SglDescriptor::LAST_SEGMENT, list, len));
        return command;
    }
    let pages: Vec<_> = (1..MOVED as usize / 4096).map(|page| DATA + page % 256 * 4096).collect();
    for (at, part) in (LIST..).step_by(4096).zip(pages.chunks(511)) {
        // The last entry of a list is the place of the next one.
        let entries = part.iter().copied().chain([at + 4096]).map(|at| stepped.memory.iova(at));
        let list: Vec<u8> = entries.flat_map(u64::to_le_bytes).collect();
        stepped.memory.set(at, &list);
    }
    command.set_data_pointer(stepped.memory.iova(DATA), stepped.memory.iova(LIST));
    command
}

/// Bytes of the long transfers, and their blocks.
const MOVED: u64 = 8 << 20;
const BLOCKS: u32 = (MOVED / 512) as u32;

#[test]
fn long_transfers_are_carried_out_in_pieces() {
    for (way, mut stepped) in each("mdts=8M") {
        for by_sgl in [false, true] {
            let way = format!("{way}, by an SGL: {by_sgl}");
            let write = pointed_often(&mut stepped, Command::write(1, 0, BLOCKS), by_sgl);
            let before = stepped.machine.core.io.counters.bytes_written;
            let all = carry_out(&mut stepped, write, &way);
            changed(&all, Kind::Write, (0, MOVED), &way);
            let counted = stepped.machine.core.io.counters.bytes_written - before;
            assert_eq!(counted, MOVED, "{way}: counted once");
            for opcode in [NvmOpcode::READ, NvmOpcode::COMPARE] {
                let command = Command { opcode: opcode.0, ..write };
                let all = carry_out(&mut stepped, command, &way);
                assert!(read(&all) >= MOVED, "{way}: {} bytes of {command:?}", read(&all));
            }
        }
    }
}

/// A command in pieces ends with its queue, and leaves nothing for the next one.
#[test]
fn a_command_in_pieces_ends_with_its_queue() {
    for (way, mut stepped) in each("lba=4096") {
        let zeroes = Command::write_zeroes(1, 0, LONG);
        for resets in [false, true] {
            stepped.put(1, &zeroes);
            stepped.ring(1);
            stepped.step();
            if resets {
                stepped.enable(ENABLED);
            } else {
                let delete = Command::delete_submission_queue(1);
                assert_eq!(stepped.status(0, delete), Status::SUCCESS, "{way}");
                let delete = Command::delete_completion_queue(1);
                assert_eq!(stepped.status(0, delete), Status::SUCCESS, "{way}");
            }
            stepped.queue(1, 64);
            let done = stepped.run(1, Command { cid: 5, ..Command::flush(1) });
            assert_eq!((done.cid, done.status()), (5, Status::SUCCESS), "{way}");
        }
    }
}

#[test]
fn each_piece_is_checked_as_the_command_was() {
    for (way, mut stepped) in each("lba=4096") {
        stepped.put(1, &Command::write_zeroes(1, 0, LONG));
        stepped.ring(1);
        stepped.step();
        assert_eq!(stepped.next(1), None, "{way}");
        stepped.machine.core.io.protected = true;
        let done = (0..100).find_map(|_| {
            stepped.step();
            stepped.next(1)
        });
        assert_eq!(done.map(|done| done.status()), Some(Status::WRITE_PROTECTED), "{way}");
    }
}

/// The rest of a command went on with blocks of the new size, eight times as far away, and with as much more data.
#[test]
fn a_command_in_pieces_ends_with_the_format_of_its_blocks() {
    for (way, mut stepped) in each("mdts=16M") {
        let long = (2 << 20) / 512;
        let read = pointed_often(&mut stepped, Command::read(1, 0, long), false);
        let commands = [read, Command::write_zeroes(1, 0, 65_536)];
        let cases = commands.into_iter().flat_map(|command| [(command, false), (command, true)]);
        for (command, is_another) in cases {
            stepped.put(1, &command);
            stepped.ring(1);
            stepped.step();
            assert_eq!(stepped.next(1), None, "{way}: {command:?}");
            let io = &mut stepped.machine.core.io;
            let before = io.namespaces[0];
            io.namespaces[0] = match is_another {
                false => before.with_layout(Layout::plain(12)),
                true => Namespace { generation: before.generation + 1, ..before },
            };
            io.note_metadata();
            stepped.recorder().done.clear();
            let done = (0..100).find_map(|_| {
                stepped.step();
                stepped.next(1)
            });
            let status = done.map(|done| done.status());
            assert_eq!(status, Some(Status::FORMAT_IN_PROGRESS), "{way}: {command:?}");
            assert!(stepped.recorder().done.is_empty(), "{way}: {command:?}");
            let io = &mut stepped.machine.core.io;
            io.namespaces[0] = before;
            io.note_metadata();
        }
    }
}

#[test]
fn weights_hold_over_steps_that_end_early() {
    let options = "wrr=true".parse().unwrap();
    let machine = Machine::with_media(&options, Recorder::default(), SIZE).unwrap();
    let mut stepped = Stepped::over(machine, ENABLED | 1 << 11);
    let setting = Arbitration::new().with_ab(1).with_hpw(7).with_mpw(3).with_lpw(0);
    let set = Command::set_features(FeatureId::ARBITRATION, setting.into_bits());
    assert_eq!(stepped.status(0, set), Status::SUCCESS);
    stepped.queue(1, 64);
    let classes = [
        (2, QueuePriority::LOW, 20),
        (3, QueuePriority::MEDIUM, 20),
        (4, QueuePriority::HIGH, 20),
        (5, QueuePriority::HIGH, 20),
        (6, QueuePriority::URGENT, 6),
    ];
    let read = pointed(&mut stepped, Command::read(1, 0, 2048));
    for (qid, class, count) in classes {
        stepped.submission_queue(qid, 64, 1, class);
        for cid in 0..count {
            stepped.put(qid, &Command { cid, ..read });
        }
    }
    (2..=6).for_each(|qid| stepped.ring(qid));
    stepped.recorder().done.clear();
    let mut order = Vec::new();
    for _ in 0..100 {
        stepped.step();
        let done = std::mem::take(&mut stepped.recorder().done);
        assert!(bytes(&done) <= STEP, "{} bytes", bytes(&done));
        order.extend(std::iter::from_fn(|| stepped.next(1)).map(|done| done.sqid));
    }
    assert_eq!(order.len(), 86);
    assert_eq!(order[..6], [6; 6], "urgent queues are served alone");
    // A round has 13 MiB: more than three steps.
    for round in order[6..].chunks_exact(13).take(5) {
        let mut high = round[..8].to_vec();
        high.sort_unstable();
        assert_eq!(high, [4, 4, 4, 4, 5, 5, 5, 5], "{round:?}");
        assert_eq!(round[8..], [3, 3, 3, 3, 2], "{round:?}");
    }
}
