//! Long commands on a zoned namespace.

use super::{
    recorder::{Kind, Operation, Recorder},
    stepped::{DATA, Stepped},
};
use crate::spec::{Command, NvmOpcode, Status};

/// Blocks from a zone to the next one.
const ZONE: u64 = 131_072;
/// Blocks of a long command, 32 MiB, and of a piece.
const LONG: u32 = 65_536;
const PIECE: u64 = 8192;

fn zoned() -> Stepped<Recorder> {
    let mut stepped = Stepped::recorded("zoned=true,zone-size=64M,zone-capacity=40M", 1 << 30);
    stepped.queue(1, 16);
    stepped.queue(2, 16);
    stepped
}

/// Returns the write pointer of a zone.
fn pointer(stepped: &Stepped<Recorder>, zone: usize) -> u64 {
    let zones = stepped.machine.core.io.zones[0].as_ref().unwrap();
    zones.describe(zone).unwrap().write_pointer
}

/// Takes steps until queue 1 has a completion; returns its status.
fn end(stepped: &mut Stepped<Recorder>) -> Status {
    for _ in 0..1000 {
        stepped.step();
        if let Some(done) = stepped.next(1) {
            return done.status();
        }
    }
    panic!("no completion");
}

#[test]
fn the_write_pointer_moves_with_the_pieces() {
    let mut stepped = zoned();
    stepped.put(1, &Command::write_zeroes(1, 0, LONG));
    stepped.ring(1);
    stepped.step();
    assert_eq!(pointer(&stepped, 0), PIECE);
    stepped.step();
    assert_eq!(pointer(&stepped, 0), 2 * PIECE);
    assert_eq!(end(&mut stepped), Status::SUCCESS);
    assert_eq!(pointer(&stepped, 0), u64::from(LONG));
    assert_eq!(stepped.recorder().take(Kind::Zero).1, u64::from(LONG) * 512);
    // The whole is checked before the first piece is written.
    let beyond = Command::write_zeroes(1, LONG.into(), LONG);
    assert_eq!(stepped.status(1, beyond), Status::ZONE_BOUNDARY_ERROR);
    assert_eq!(stepped.recorder().take(Kind::Zero).1, 0);
    let verify = Command { opcode: NvmOpcode::VERIFY.0, ..Command::read(1, 0, LONG) };
    assert_eq!(stepped.status(1, verify), Status::SUCCESS);
    assert_eq!(stepped.recorder().take(Kind::Read).1, u64::from(LONG) * 512);
}

/// A write that comes between two pieces keeps its data.
#[test]
fn a_write_between_pieces_ends_them() {
    let mut stepped = zoned();
    stepped.put(1, &Command::write_zeroes(1, ZONE, LONG));
    stepped.ring(1);
    stepped.step();
    let at = ZONE + PIECE;
    let mut write = Command::write(1, at, 1);
    write.set_data_pointer(stepped.memory.iova(DATA), 0);
    stepped.put(2, &write);
    stepped.ring(2);
    // The last step ended in the first queue, so this one begins with the second.
    stepped.step();
    assert_eq!(stepped.next(2).map(|done| done.status()), Some(Status::SUCCESS));
    let status = stepped.next(1).map_or_else(|| end(&mut stepped), |done| done.status());
    assert_eq!(status, Status::ZONE_INVALID_WRITE);
    let zeroed =
        |&(kind, offset, len): &Operation| kind == Kind::Zero && (offset..offset + len).contains(&(at * 512));
    assert!(!stepped.recorder().done.iter().any(zeroed));
    assert_eq!(pointer(&stepped, 1), at + 1);
}
