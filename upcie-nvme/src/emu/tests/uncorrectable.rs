//! Blocks that Write Uncorrectable has marked stay marked until a command has written them for certain.

use super::recorder::Recorder;
use super::stepped::{DATA, Stepped};
use crate::spec::{Command, CopyRange, DatasetRange, NvmOpcode, Status};

/// The blocks that are marked and written, and one of them that can't be written.
const SLBA: u64 = 8;
const BLOCKS: u32 = 16;
const BROKEN: u64 = 20;
/// Dword 12: force unit access.
const FUA: u32 = 1 << 30;

/// The places of metadata and of ranges in the host's memory.
const METADATA: usize = DATA + (64 << 10);
const RANGES: usize = DATA + (68 << 10);

/// Returns the commands that write all blocks.
fn writes(stepped: &mut Stepped<Recorder>) -> Vec<Command> {
    stepped.memory.set(RANGES, &CopyRange::new(100, BLOCKS).to_bytes());
    stepped.memory.set(RANGES + 64, &DatasetRange::new(SLBA, BLOCKS).to_bytes());
    let memory = &stepped.memory;
    let mut write = Command::write(1, SLBA, BLOCKS);
    write.set_data_pointer(memory.iova(DATA), memory.iova(DATA + 4096));
    write.set_metadata_pointer(memory.iova(METADATA));
    let mut copy = Command { cdw10: SLBA as u32, ..Command::io(NvmOpcode::COPY, 1) };
    copy.set_data_pointer(memory.iova(RANGES), 0);
    let mut deallocate = Command::deallocate(1, 1);
    deallocate.set_data_pointer(memory.iova(RANGES + 64), 0);
    vec![write, Command::write_zeroes(1, SLBA, BLOCKS), copy, deallocate]
}

fn mark(stepped: &mut Stepped<Recorder>) {
    let mark = Command { opcode: NvmOpcode::WRITE_UNCORRECTABLE.0, ..Command::write(1, SLBA, BLOCKS) };
    assert_eq!(stepped.status(1, mark), Status::SUCCESS);
}

/// Reads the first block, the one that can't be written, and the last one.
fn reads(stepped: &mut Stepped<Recorder>) -> [Status; 3] {
    [SLBA, BROKEN, SLBA + u64::from(BLOCKS) - 1].map(|block| {
        let mut read = Command::read(1, block, 1);
        read.set_data_pointer(stepped.memory.iova(DATA), 0);
        read.set_metadata_pointer(stepped.memory.iova(METADATA));
        stepped.status(1, read)
    })
}

/// Calls `test` with controllers that serve commands in each of their ways.
fn each(test: impl Fn(&mut Stepped<Recorder>, &str)) {
    for options in ["", "latency=1us", "ms=8", "fdp=true"] {
        let stepped = || Stepped::recorded(options, 1 << 20);
        for mut stepped in [stepped(), stepped().in_stages()] {
            stepped.queue(1, 16);
            test(&mut stepped, options);
        }
    }
}

#[test]
fn a_failed_write_leaves_blocks_uncorrectable() {
    each(|stepped, options| {
        for command in writes(stepped) {
            mark(stepped);
            stepped.recorder().broken = Some(BROKEN * 512);
            assert_eq!(stepped.status(1, command), Status::WRITE_FAULT, "{options}: {command:?}");
            let unreadable = [Status::UNRECOVERED_READ_ERROR; 3];
            assert_eq!(reads(stepped), unreadable, "{options}: {command:?}");
            stepped.recorder().broken = None;
            assert_eq!(stepped.status(1, command), Status::SUCCESS, "{options}: {command:?}");
            assert_eq!(reads(stepped), [Status::SUCCESS; 3], "{options}: {command:?}");
        }
    });
}

/// The first page was written, the second one is not the host's.
#[test]
fn a_partial_transfer_leaves_blocks_uncorrectable() {
    each(|stepped, options| {
        mark(stepped);
        let mut write = writes(stepped).remove(0);
        write.set_data_pointer(write.prp1(), 0x7fff_ffff_f000);
        assert_eq!(stepped.status(1, write), Status::DATA_TRANSFER_ERROR, "{options}");
        assert_eq!(reads(stepped), [Status::UNRECOVERED_READ_ERROR; 3], "{options}");
    });
}

#[test]
fn a_write_that_is_not_durable_leaves_blocks_uncorrectable() {
    each(|stepped, options| {
        stepped.recorder().is_volatile = true;
        // Dataset Management is never written through.
        for command in writes(stepped).into_iter().take(3) {
            mark(stepped);
            stepped.recorder().flushes_fail = true;
            let durable = Command { cdw12: command.cdw12 | FUA, ..command };
            assert_eq!(stepped.status(1, durable), Status::WRITE_FAULT, "{options}: {command:?}");
            assert_eq!(reads(stepped), [Status::UNRECOVERED_READ_ERROR; 3], "{options}: {command:?}");
            stepped.recorder().flushes_fail = false;
            assert_eq!(stepped.status(1, durable), Status::SUCCESS, "{options}: {command:?}");
            assert_eq!(reads(stepped), [Status::SUCCESS; 3], "{options}: {command:?}");
        }
    });
}
