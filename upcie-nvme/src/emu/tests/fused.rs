//! Fused operations, as a host with rings made by hand sends them.

use super::host::{Host, PAGE, Queue, exact};
use crate::{
    emu::{Fault, FaultPlan, FaultRule},
    spec::{Cns, Command, CompletionEntry, FromBytes, IdentifyController, NvmOpcode, Status},
};
use std::time::Duration;

const FIRST: u8 = 1;
const SECOND: u8 = 2;
/// The offsets of the data that is expected, written, and read back.
const EXPECTED: usize = 0;
const NEW: usize = PAGE;
const BACK: usize = 2 * PAGE;

fn half(host: &Host, opcode: NvmOpcode, cid: u16, fuse: u8, lba: u64) -> Command {
    let mut command = match opcode {
        NvmOpcode::READ => Command::read(1, lba, 1),
        _ => Command { opcode: opcode.0, ..Command::write(1, lba, 1) },
    };
    let data = match opcode {
        NvmOpcode::COMPARE => EXPECTED,
        NvmOpcode::READ => BACK,
        _ => NEW,
    };
    (command.cid, command.flags) = (cid, fuse);
    command.set_data_pointer(host.iova(data), 0);
    command
}

fn compare(host: &Host, cid: u16, lba: u64) -> Command {
    half(host, NvmOpcode::COMPARE, cid, FIRST, lba)
}

fn write(host: &Host, cid: u16, lba: u64) -> Command {
    half(host, NvmOpcode::WRITE, cid, SECOND, lba)
}

/// Sends commands by one doorbell; returns their statuses in the order of their identifiers.
fn send(queue: &mut Queue, commands: &[Command]) -> Vec<Status> {
    commands.iter().for_each(|command| queue.put(command));
    queue.ring();
    let mut done: Vec<CompletionEntry> = commands.iter().map(|_| queue.wait()).collect();
    done.sort_by_key(|done| done.cid);
    assert!(done.iter().zip(commands).all(|(done, command)| done.cid == command.cid), "{done:?}");
    done.iter().map(|done| done.status()).collect()
}

/// Returns the first byte of a block.
fn byte(host: &Host, queue: &mut Queue, lba: u64) -> u8 {
    assert_eq!(send(queue, &[half(host, NvmOpcode::READ, 99, 0, lba)]), [Status::SUCCESS]);
    host.bytes(BACK, 512)[0]
}

fn pairs_are_one(host: &mut Host, queue: &mut Queue) {
    host.set(EXPECTED, &[0; 512]);
    host.set(NEW, &[7; 512]);
    // More pairs than the ring has entries: some lie at its end.
    for lba in 0..20 {
        let pair = [compare(host, 1, lba), write(host, 2, lba)];
        assert_eq!(send(queue, &pair), [Status::SUCCESS; 2]);
        assert_eq!(byte(host, queue, lba), 7);
    }
    host.set(NEW, &[8; 512]);
    let statuses = send(queue, &[compare(host, 1, 5), write(host, 2, 5)]);
    assert_eq!(exact(statuses[0]), exact(Status::COMPARE_FAILURE));
    assert_eq!(exact(statuses[1]), exact(Status::ABORTED_FAILED_FUSED.with_do_not_retry()));
    assert_eq!(byte(host, queue, 5), 7, "nothing was written");
    // Several pairs, and other commands between them.
    host.set(EXPECTED, &[7; 512]);
    let all = [
        compare(host, 1, 5),
        write(host, 2, 5),
        compare(host, 3, 5),
        write(host, 4, 5),
        half(host, NvmOpcode::READ, 5, 0, 1),
        compare(host, 6, 6),
        write(host, 7, 6),
    ];
    let statuses = send(queue, &all);
    let failed = [Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED];
    assert_eq!(statuses[..2], [Status::SUCCESS; 2]);
    assert_eq!((&statuses[2..4], &statuses[4..]), (&failed[..], &[Status::SUCCESS; 3][..]));
}

fn lone_halves_are_missing_the_other(host: &mut Host, queue: &mut Queue) {
    host.set(EXPECTED, &[0; 512]);
    host.set(NEW, &[9; 512]);
    let missing = Status::ABORTED_MISSING_FUSED;
    assert_eq!(send(queue, &[compare(host, 1, 0)]), [missing]);
    assert_eq!(send(queue, &[write(host, 1, 0)]), [missing]);
    assert_eq!(send(queue, &[write(host, 1, 0), compare(host, 2, 0)]), [missing; 2], "in the wrong order");
    let parted = [compare(host, 1, 0), half(host, NvmOpcode::READ, 2, 0, 0), write(host, 3, 0)];
    assert_eq!(send(queue, &parted), [missing, Status::SUCCESS, missing]);
    assert_eq!(send(queue, &[compare(host, 1, 0), compare(host, 2, 0), write(host, 3, 0)])[0], missing);
    let third = Command { flags: 3, ..compare(host, 1, 0) };
    assert_eq!(send(queue, &[third]), [Status::INVALID_FIELD]);
    // Pairs of other commands or of other blocks.
    for (first, second) in [
        (half(host, NvmOpcode::WRITE, 1, FIRST, 0), half(host, NvmOpcode::COMPARE, 2, SECOND, 0)),
        (half(host, NvmOpcode::READ, 1, FIRST, 0), write(host, 2, 0)),
        (compare(host, 1, 0), write(host, 2, 1)),
        (compare(host, 1, 0), Command { cdw12: 1, ..write(host, 2, 0) }),
    ] {
        assert_eq!(send(queue, &[first, second]), [Status::INVALID_FIELD; 2]);
    }
    let beyond = [compare(host, 1, 1 << 40), write(host, 2, 1 << 40)];
    assert_eq!(send(queue, &beyond), [Status::LBA_OUT_OF_RANGE, Status::ABORTED_FAILED_FUSED]);
}

#[test]
fn a_pair_is_carried_out_as_one() {
    for options in ["size=1M", "size=1M,latency=100us", "size=1M,ms=0+8,namespaces=2"] {
        let mut host = Host::new(options);
        let page = host.page(Command::identify(Cns::CONTROLLER, 0, 0));
        let id = IdentifyController::read_from_bytes(&page);
        assert!(id.unwrap().has_compare_and_write());
        let mut queue = host.queue(1, [16, 16], None);
        pairs_are_one(&mut host, &mut queue);
    }
}

#[test]
fn a_half_without_the_other_is_aborted() {
    for options in ["size=1M", "size=1M,latency=100us"] {
        let mut host = Host::new(options);
        let mut queue = host.queue(1, [16, 16], None);
        lone_halves_are_missing_the_other(&mut host, &mut queue);
    }
}

/// With a fault plan each half is a command of its own, and either may be late.
#[test]
fn a_late_half_finds_the_other() {
    for opcode in [NvmOpcode::COMPARE, NvmOpcode::WRITE, NvmOpcode::FLUSH] {
        let rule = FaultRule::new(Fault::Delay(Duration::from_millis(5))).opcode(opcode.0);
        let mut host = Host::with_faults("size=1M", &FaultPlan::new(7).rule(rule));
        let mut queue = host.queue(1, [16, 16], None);
        pairs_are_one(&mut host, &mut queue);
        lone_halves_are_missing_the_other(&mut host, &mut queue);
    }
}

/// A status that a fault plan gives a half leaves the other one alone.
#[test]
fn a_failed_half_takes_the_other_along() {
    let rule = FaultRule::new(Fault::Status(Status::INTERNAL_ERROR)).opcode(NvmOpcode::COMPARE.0).count(1);
    let mut host = Host::with_faults("size=1M", &FaultPlan::new(7).rule(rule));
    let mut queue = host.queue(1, [16, 16], None);
    host.set(NEW, &[7; 512]);
    let statuses = send(&mut queue, &[compare(&host, 1, 0), write(&host, 2, 0)]);
    assert_eq!(statuses, [Status::INTERNAL_ERROR, Status::ABORTED_MISSING_FUSED]);
    assert_eq!(byte(&host, &mut queue, 0), 0, "nothing was written");
}
