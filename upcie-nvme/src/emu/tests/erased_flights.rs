//! Format NVM, Namespace Management and Sanitize end the commands in flight to what they erase: none of them sees blocks of before
//! and of after.

use super::{
    host::admin,
    recorder::{Kind, Recorder},
    stepped::{DATA, Stepped},
};
use crate::{
    emu::{Fault, FaultPlan, FaultRule},
    spec::{AdminOpcode, Command, NvmOpcode, QueuePriority, SanitizeAction, Status},
};
use std::time::Duration;

/// Bytes of each namespace: more than a step erases.
const SIZE: u64 = 64 << 20;
/// Longer than an erasure takes.
const LATE: Duration = Duration::from_secs(60);
/// Completions that a queue has room for.
const ROOM: u16 = 1023;

fn format(index: u32) -> Command {
    admin(AdminOpcode::FORMAT_NVM.0, 1, index, 0)
}

/// Runs an admin command, and takes steps until all is erased.
fn erase(stepped: &mut Stepped<Recorder>, command: Command) {
    assert_eq!(stepped.status(0, command), Status::SUCCESS);
    for _ in 0..1000 {
        if stepped.machine.core.io.erasures.is_empty() {
            return;
        }
        stepped.step();
    }
    panic!("no end of {command:?}");
}

/// A read that was sent for blocks of 512 bytes moved as many of 4096 bytes, after the format.
#[test]
fn commands_in_flight_end_when_their_blocks_are_erased() {
    let sanitize = admin(AdminOpcode::SANITIZE.0, 0, SanitizeAction::BLOCK_ERASE.0.into(), 0);
    for (command, ended, other) in [
        (format(1), Status::FORMAT_IN_PROGRESS, Status::SUCCESS),
        (admin(AdminOpcode::NAMESPACE_MANAGEMENT.0, 1, 1, 0), Status::INVALID_FIELD, Status::SUCCESS),
        (sanitize, Status::SANITIZE_IN_PROGRESS, Status::SANITIZE_IN_PROGRESS),
    ] {
        let mut stepped = Stepped::recorded("namespaces=2", SIZE);
        stepped.queue(1, 16);
        stepped.inject(&FaultPlan::new(1).rule(FaultRule::new(Fault::Delay(LATE)).opcode(NvmOpcode::READ.0)));
        for (cid, nsid) in [(1, 1), (2, 2)] {
            let mut read = Command { cid, ..Command::read(nsid, 0, 1) };
            read.set_data_pointer(stepped.memory.iova(DATA), 0);
            stepped.put(1, &read);
        }
        stepped.ring(1);
        stepped.step();
        erase(&mut stepped, command);
        assert_eq!(stepped.next(1), None, "they are late");
        stepped.recorder().done.clear();
        stepped.now += LATE;
        let mut done = Vec::new();
        for _ in 0..10 {
            stepped.step();
            done.extend(stepped.next(1).map(|entry| (entry.cid, entry.status())));
        }
        assert_eq!(done, [(1, ended), (2, other)], "{command:?}");
        let read = if other == Status::SUCCESS { (1, 512) } else { (0, 0) };
        assert_eq!(stepped.recorder().take(Kind::Read), read, "{command:?}");
    }
}

/// A command in pieces that could not go on meanwhile went on after a format with the same layout.
#[test]
fn the_rest_of_a_command_is_not_for_the_blocks_after_a_format() {
    let mut stepped = Stepped::recorded("", SIZE);
    stepped.queue(1, 64);
    stepped.submission_queue(2, 64, 1, QueuePriority::MEDIUM);
    // One completion fits behind these, and it is another command's.
    for _ in 1..ROOM {
        stepped.put(1, &Command::flush(1));
        stepped.ring(1);
        stepped.step();
    }
    stepped.put(1, &Command { cid: 7, ..Command::write_zeroes(1, 0, 65_536) });
    stepped.ring(1);
    stepped.step();
    stepped.put(2, &Command::flush(1));
    stepped.ring(2);
    for _ in 0..4 {
        stepped.step();
    }
    erase(&mut stepped, format(0));
    let mut done = Vec::new();
    for _ in 0..2 * ROOM {
        done.extend(stepped.next(1).map(|entry| (entry.sqid, entry.cid, entry.status())));
        stepped.step();
    }
    assert_eq!(done.len(), usize::from(ROOM) + 1);
    assert_eq!(done.last(), Some(&(1, 7, Status::FORMAT_IN_PROGRESS)));
}
