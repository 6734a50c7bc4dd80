//! Zones, and a host that changes its memory while the controller looks at it.

use super::stepped::{Changing, DATA, Stepped};
use crate::spec::{Command, CopyRange, NvmOpcode, Status};

/// Blocks of a zone.
const ZONE: u64 = 256;
/// The place of ranges in the host's memory.
const RANGES: usize = DATA + (64 << 10);

fn pointed(stepped: &Stepped, command: Command, at: usize) -> Command {
    let mut command = command;
    command.set_data_pointer(stepped.memory.iova(at), 0);
    command
}

/// Returns the bytes of 8 blocks.
fn blocks(stepped: &mut Stepped, slba: u64) -> Vec<u8> {
    let read = pointed(stepped, Command::read(1, slba, 8), DATA);
    assert_eq!(stepped.status(1, read), Status::SUCCESS);
    stepped.memory.bytes(DATA, 4096).to_vec()
}

/// Returns the write pointer of a zone.
fn pointer(stepped: &mut Stepped, zone: u64) -> u64 {
    let report = Command::io(NvmOpcode::ZONE_MANAGEMENT_RECEIVE, 1);
    let report = Command { cdw10: (zone * ZONE) as u32, cdw12: 128 / 4 - 1, ..report };
    let report = pointed(stepped, report, DATA);
    assert_eq!(stepped.status(1, report), Status::SUCCESS);
    // The write pointer of the first descriptor, behind the report's header.
    u64::from_le_bytes(stepped.memory.bytes(DATA + 64 + 24, 8).try_into().unwrap())
}

/// The zone was checked for the ranges of one answer, and written by those of another.
#[test]
fn a_copy_asks_for_its_ranges_once() {
    let mut stepped = Stepped::new("size=1M,zoned=true,zone-size=128K");
    stepped.queue(1, 16);
    stepped.memory.set(DATA, &[7; 4096]);
    let write = pointed(&stepped, Command::write(1, 3 * ZONE, 8), DATA);
    assert_eq!(stepped.status(1, write), Status::SUCCESS);
    // The second answer has the blocks of a zone and more: the copy would run into the zone behind.
    stepped.memory.set(RANGES, &CopyRange::new(3 * ZONE, 8).to_bytes());
    let longer = CopyRange::new(0, ZONE as u32 + 8).to_bytes().to_vec();
    let iova = stepped.memory.iova(RANGES);
    stepped.memory.changing = Some(Changing { iova, reads: 0, after: 1, bytes: longer });
    let copy = Command { cdw10: 2 * ZONE as u32, ..Command::io(NvmOpcode::COPY, 1) };
    let copy = pointed(&stepped, copy, RANGES);
    assert_eq!(stepped.status(1, copy), Status::SUCCESS);
    assert_eq!(stepped.memory.changing.as_ref().map(|changing| changing.reads), Some(1));
    assert_eq!(blocks(&mut stepped, 2 * ZONE), [7; 4096]);
    assert_eq!(blocks(&mut stepped, 3 * ZONE), [7; 4096], "the zone behind");
    assert_eq!((pointer(&mut stepped, 2), pointer(&mut stepped, 3)), (2 * ZONE + 8, 3 * ZONE + 8));
}
