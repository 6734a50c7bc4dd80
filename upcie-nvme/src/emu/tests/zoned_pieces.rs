//! Long commands on a zoned namespace.

use super::{
    recorder::{Kind, Operation, Recorder},
    stepped::{DATA, Stepped},
};
use crate::{
    emu::{Fault, FaultPlan, FaultRule},
    spec::{Command, NvmOpcode, Status, ZoneAction, ZoneSendDword13, ZoneState},
};

/// The most bytes of a step: 4 MiB, and the command or the piece of one that exceeds them.
const STEP: u64 = 5 << 20;
/// Blocks from a zone to the next one, and blocks of a zone that can be written.
const ZONE: u64 = 131_072;
const CAPACITY: u32 = 81_920;
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

fn state(stepped: &Stepped<Recorder>, zone: usize) -> Option<ZoneState> {
    stepped.machine.core.io.zones[0].as_ref().unwrap().state(zone)
}

/// Makes a Zone Management Send to a zone, or to all zones.
fn send(action: ZoneAction, zone: Option<u64>) -> Command {
    let dword = ZoneSendDword13::new().with_action(action).with_select_all(zone.is_none());
    Command::zone_management_send(1, zone.unwrap_or(0) * ZONE, dword)
}

/// Writes the first blocks of a zone.
fn fill(stepped: &mut Stepped<Recorder>, zone: u64, blocks: u32) {
    let parts = [(0, blocks.min(LONG)), (LONG, blocks.saturating_sub(LONG))];
    for (first, blocks) in parts.into_iter().filter(|part| part.1 > 0) {
        let zeroes = Command::write_zeroes(1, zone * ZONE + u64::from(first), blocks);
        assert_eq!(stepped.status(1, zeroes), Status::SUCCESS);
    }
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

/// Carries out a command that changes zones on queue 1, while queue 2 has always a read; returns the number of steps that it takes,
/// and what they have done to the medium.
fn change(stepped: &mut Stepped<Recorder>, command: Command) -> (usize, Vec<Operation>) {
    let mut read = Command::read(1, 0, 1);
    read.set_data_pointer(stepped.memory.iova(DATA), 0);
    stepped.recorder().done.clear();
    stepped.put(1, &command);
    stepped.put(2, &read);
    stepped.ring(1);
    stepped.ring(2);
    let (mut all, mut reads) = (Vec::new(), 0);
    for steps in 1..1000 {
        stepped.step();
        let done = std::mem::take(&mut stepped.recorder().done);
        let bytes: u64 = done.iter().map(|done| done.2).sum();
        assert!(bytes <= STEP, "{bytes} bytes of {command:?}");
        all.extend(done);
        if let Some(done) = stepped.next(2) {
            assert_eq!(done.status(), Status::SUCCESS);
            reads += 1;
            stepped.put(2, &read);
            stepped.ring(2);
        }
        if let Some(done) = stepped.next(1) {
            assert_eq!(done.status(), Status::SUCCESS, "{command:?}");
            assert!(2 * reads + 2 >= steps, "{reads} reads in {steps} steps");
            return (steps, all);
        }
    }
    panic!("{command:?} does not end");
}

#[test]
fn all_zones_are_reset_in_pieces() {
    let mut stepped = zoned();
    let written = [(0, CAPACITY), (1, CAPACITY), (2, LONG), (5, 1), (6, CAPACITY)];
    for (zone, blocks) in written {
        fill(&mut stepped, zone, blocks);
    }
    let (steps, all) = change(&mut stepped, send(ZoneAction::RESET, None));
    assert!(steps >= 38, "{steps} steps for 152 MiB");
    let pieces: Vec<_> = all.iter().filter(|done| done.0 == Kind::Zero).collect();
    for (zone, blocks) in written {
        assert_eq!(
            (state(&stepped, zone as usize), pointer(&stepped, zone as usize)),
            (Some(ZoneState::EMPTY), zone * ZONE)
        );
        let (start, len) = (zone * ZONE * 512, u64::from(blocks) * 512);
        let of_zone = pieces.iter().filter(|done| (start..start + len).contains(&done.1));
        assert_eq!(of_zone.map(|done| done.2).sum::<u64>(), len, "zone {zone}");
    }
    let bytes: u64 = written.iter().map(|(_, blocks)| u64::from(*blocks) * 512).sum();
    assert_eq!(pieces.iter().map(|done| done.2).sum::<u64>(), bytes, "nothing else");
}

#[test]
fn a_zone_is_empty_once_all_of_it_is_erased() {
    let mut stepped = zoned();
    fill(&mut stepped, 0, CAPACITY);
    fill(&mut stepped, 1, LONG);
    for (zone, before) in [(0, ZoneState::FULL), (1, ZoneState::IMPLICITLY_OPENED)] {
        let at = pointer(&stepped, zone);
        stepped.put(1, &send(ZoneAction::RESET, Some(zone as u64)));
        stepped.ring(1);
        for _ in 0..4 {
            stepped.step();
            assert_eq!((state(&stepped, zone), pointer(&stepped, zone)), (Some(before), at));
            assert_eq!(stepped.next(1), None);
        }
        assert_eq!(end(&mut stepped), Status::SUCCESS);
        assert_eq!(state(&stepped, zone), Some(ZoneState::EMPTY));
    }
}

/// A reset that ends with its queue has erased a part, which the next one leaves out.
#[test]
fn a_reset_goes_on_where_one_before_has_ended() {
    let mut stepped = zoned();
    fill(&mut stepped, 1, LONG);
    let at = pointer(&stepped, 1);
    stepped.recorder().done.clear();
    let reset = send(ZoneAction::RESET, Some(1));
    stepped.put(1, &reset);
    stepped.ring(1);
    for _ in 0..3 {
        stepped.step();
    }
    for delete in [Command::delete_submission_queue(1), Command::delete_completion_queue(1)] {
        assert_eq!(stepped.status(0, delete), Status::SUCCESS);
    }
    let before = stepped.recorder().take(Kind::Zero).1;
    assert_eq!((state(&stepped, 1), pointer(&stepped, 1)), (Some(ZoneState::IMPLICITLY_OPENED), at));
    // Blocks that are written meanwhile are erased, too.
    stepped.queue(1, 16);
    assert_eq!(stepped.status(1, Command::write_zeroes(1, at, 8)), Status::SUCCESS);
    stepped.recorder().done.clear();
    assert_eq!(stepped.status(1, reset), Status::SUCCESS);
    let after = stepped.recorder().take(Kind::Zero).1;
    assert!(before >= 3 * PIECE * 512, "{before} bytes");
    assert_eq!(before + after, (u64::from(LONG) + 8) * 512);
    assert_eq!((state(&stepped, 1), pointer(&stepped, 1)), (Some(ZoneState::EMPTY), ZONE));
}

/// Zones that an action leaves as they are take time, too, if there are many.
#[test]
fn actions_on_many_zones_are_carried_out_in_pieces() {
    let mut stepped = Stepped::recorded("zoned=true,zone-size=4K", 1 << 30);
    stepped.queue(1, 16);
    stepped.queue(2, 16);
    let last: usize = (1 << 18) - 1;
    let actions = [(ZoneAction::CLOSE, ZoneState::CLOSED), (ZoneAction::FINISH, ZoneState::FULL)];
    assert_eq!(stepped.status(1, Command::write_zeroes(1, last as u64 * 8, 1)), Status::SUCCESS);
    for (action, after) in actions {
        let (steps, all) = change(&mut stepped, send(action, None));
        assert!(steps >= 16, "{steps} steps for {action:?}");
        assert!(all.iter().all(|done| done.0 == Kind::Read), "nothing is erased");
        assert_eq!(state(&stepped, last), Some(after));
    }
}

/// A zone whose medium fails takes no further piece of a command.
#[test]
fn a_zone_that_fails_ends_a_command_in_pieces() {
    for fault in [Fault::ReadOnlyZone { target: None, zone: 0 }, Fault::OfflineZone { target: None, zone: 0 }]
    {
        let offline = matches!(fault, Fault::OfflineZone { .. });
        let mut stepped = zoned();
        stepped.inject(&FaultPlan::new(1).rule(FaultRule::new(fault).queue(2)));
        stepped.put(1, &Command::write_zeroes(1, 0, LONG));
        stepped.ring(1);
        stepped.step();
        assert_eq!(stepped.status(2, Command::flush(1)), Status::SUCCESS);
        let wanted = if offline { Status::ZONE_IS_OFFLINE } else { Status::ZONE_IS_READ_ONLY };
        assert_eq!(end(&mut stepped), wanted);
        assert!(stepped.recorder().take(Kind::Zero).1 < u64::from(LONG) * 512, "it was not finished");
    }
}
