//! Commands of many pieces, whose lists are read a bounded number of times.

use super::{
    data::pattern,
    stepped::{DATA, Memory, Stepped},
};
use crate::spec::{Command, IntoBytes, NvmOpcode, Status};

const PAGE: usize = 4096;
/// The offset of two pages of data, to which all entries lead in turn, and of one behind them.
const PAGES: usize = DATA;
const OTHER: usize = DATA + 2 * PAGE;
const LISTS: usize = DATA + (1 << 20);
const METADATA: usize = DATA + (2 << 20);
/// Bytes of a command, and of its pieces.
const LEN: usize = 16 << 20;
const PIECE: usize = 1 << 20;

/// Writes a list of `count` pages, the second one and the first one in turn; returns its bytes.
fn put_list(memory: &mut Memory, count: usize) -> usize {
    let mut entries: Vec<u64> = Vec::new();
    for index in 0..count {
        // The last entry of a page of the list leads to the next one, unless it is the last of all.
        if entries.len() % 512 == 511 && index + 1 < count {
            entries.push(memory.iova(LISTS + (entries.len() + 1) * 8));
        }
        entries.push(memory.iova(PAGES + (index + 1) % 2 * PAGE));
    }
    memory.set(LISTS, entries.as_bytes());
    entries.len() * 8
}

fn with_pointers(stepped: &Stepped, mut command: Command, at: usize) -> Command {
    command.set_data_pointer(stepped.memory.iova(at), stepped.memory.iova(LISTS));
    command.set_metadata_pointer(stepped.memory.iova(METADATA));
    command
}

#[test]
fn the_pieces_of_a_command_read_its_list_twice() {
    for options in ["size=32M,mdts=16M", "size=32M,mdts=16M,ms=8"] {
        for offset in [0, 512] {
            check(Stepped::new(options), offset);
            check(Stepped::new(options).in_stages(), offset);
        }
    }
}

fn check(mut stepped: Stepped, offset: usize) {
    stepped.queue(1, 4);
    let pages = pattern(2 * PAGE, 7);
    stepped.memory.set(PAGES, &pages);
    let list = put_list(&mut stepped.memory, (offset + LEN).div_ceil(PAGE) - 1);
    stepped.memory.watched = stepped.memory.iova(LISTS)..stepped.memory.iova(METADATA);
    let count = (LEN / 512) as u32;
    let write = Command::write(1, 0, count);
    for command in [write, Command { opcode: NvmOpcode::COMPARE.0, ..write }, Command::read(1, 0, count)] {
        if command.opcode == NvmOpcode::READ.0 {
            stepped.memory.set(PAGES, &[0; 2 * PAGE]);
        }
        stepped.memory.watched_bytes = 0;
        let command = with_pointers(&stepped, command, PAGES + offset);
        assert_eq!(stepped.status(1, command), Status::SUCCESS, "{command:?}");
        // Twice, and some entries that a piece reads beyond its end.
        let read = stepped.memory.watched_bytes;
        assert!(read <= 3 * list, "{command:?}: {read} bytes of a list of {list}");
    }
    assert!(stepped.memory.bytes(PAGES, 2 * PAGE) == pages);
    // The blocks on both sides of each border of two pieces.
    for border in (PIECE..LEN).step_by(PIECE) {
        let first = border - 512;
        let read = with_pointers(&stepped, Command::read(1, (first / 512) as u64, 2), OTHER);
        assert_eq!(stepped.status(1, read), Status::SUCCESS);
        let wanted: Vec<_> = (first..first + 1024).map(|at| pages[(at + offset) % (2 * PAGE)]).collect();
        assert!(stepped.memory.bytes(OTHER, 1024) == wanted, "at {border}, from {offset}");
    }
}
