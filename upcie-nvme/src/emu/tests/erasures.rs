//! Format NVM, Namespace Management and Sanitize erase a part in each step: other commands are served beside them, and a reset in
//! the middle leaves nothing half done that looks whole.

use super::{
    host::{admin, exact},
    recorder::{Kind, Operation, Recorder},
    stepped::{DATA, ENABLED, Stepped},
};
use crate::{
    emu::{Fault, FaultPlan, FaultRule, Region},
    spec::{
        ALL_NAMESPACES, AdminOpcode, Cns, Command, FromBytes, IdentifyController, IdentifyNamespace, Key,
        LogPageId, NamespaceList, NvmOpcode, SanitizeAction, SanitizeStatusLog, Status,
    },
};
use std::time::Duration;

/// The most bytes of a step.
const STEP: u64 = 4 << 20;
/// Bytes of each namespace: many pieces.
const SIZE: u64 = 256 << 20;
/// The identifier of the command that erases.
const CID: u16 = 77;

fn two() -> Stepped<Recorder> {
    let mut stepped = Stepped::recorded("namespaces=2", SIZE);
    stepped.queue(1, 16);
    stepped
}

fn format(nsid: u32) -> Command {
    Command { cid: CID, ..admin(AdminOpcode::FORMAT_NVM.0, nsid, 1, 0) }
}

fn delete(nsid: u32) -> Command {
    Command { cid: CID, ..admin(AdminOpcode::NAMESPACE_MANAGEMENT.0, nsid, 1, 0) }
}

fn sanitize() -> Command {
    let action = u32::from(SanitizeAction::BLOCK_ERASE.0);
    Command { cid: CID, ..admin(AdminOpcode::SANITIZE.0, 0, action, 0) }
}

/// Sends an admin command, and does not wait for its end.
fn send(stepped: &mut Stepped<Recorder>, command: Command) {
    stepped.put(0, &command);
    stepped.ring(0);
}

/// Takes a step, and checks its bound; returns what was done to the medium.
fn step(stepped: &mut Stepped<Recorder>) -> Vec<Operation> {
    stepped.recorder().done.clear();
    stepped.step();
    let done = std::mem::take(&mut stepped.recorder().done);
    let bytes: u64 = done.iter().map(|done| done.2).sum();
    assert!(bytes <= STEP, "{bytes} bytes");
    done
}

fn read(stepped: &mut Stepped<Recorder>, nsid: u32) -> Status {
    let mut read = Command::read(nsid, 0, 1);
    read.set_data_pointer(stepped.memory.iova(DATA), 0);
    stepped.status(1, read)
}

/// Runs an admin command that returns data.
fn page(stepped: &mut Stepped<Recorder>, mut command: Command) -> Vec<u8> {
    command.set_data_pointer(stepped.memory.iova(DATA), 0);
    assert_eq!(stepped.status(0, command), Status::SUCCESS);
    stepped.memory.bytes(DATA, 4096).to_vec()
}

fn identify(stepped: &mut Stepped<Recorder>, nsid: u32) -> IdentifyNamespace {
    let page = page(stepped, Command::identify(Cns::NAMESPACE, nsid, 0));
    IdentifyNamespace::read_from_bytes(&page).unwrap()
}

fn list(stepped: &mut Stepped<Recorder>, cns: Cns) -> Vec<u32> {
    let page = page(stepped, Command::identify(cns, 0, 0));
    let list = NamespaceList::read_from_bytes(&page).unwrap();
    list.nsids.into_iter().take_while(|&nsid| nsid != 0).collect()
}

fn log(stepped: &mut Stepped<Recorder>) -> SanitizeStatusLog {
    let get = Command::get_log_page(LogPageId::SANITIZE_STATUS, ALL_NAMESPACES, 512, 0);
    SanitizeStatusLog::read_from_prefix(&page(stepped, get)).unwrap().0
}

/// Asserts that the medium was zeroed from `start` to `end`, in order, and returns the number of pieces.
fn zeroed(all: &[Operation], start: u64, end: u64) -> usize {
    let mut at = start;
    let pieces = all.iter().filter(|done| done.0 == Kind::Zero && (start..end).contains(&done.1));
    let pieces: Vec<_> = pieces.collect();
    for &&(_, offset, len) in &pieces {
        assert_eq!(offset, at, "in order, and once");
        at += len;
    }
    assert_eq!(at, end, "all of it");
    pieces.len()
}

/// Takes steps until the command that erases completes, and calls `between` after each of them; returns its status, and what the
/// steps have done to the medium.
fn run(
    stepped: &mut Stepped<Recorder>,
    mut between: impl FnMut(&mut Stepped<Recorder>),
) -> (Status, Vec<Operation>) {
    let mut all = Vec::new();
    for _ in 0..10_000 {
        all.extend(step(stepped));
        if let Some(done) = stepped.next(0) {
            assert_eq!(done.cid, CID);
            return (done.status(), all);
        }
        between(stepped);
        all.append(&mut stepped.recorder().done);
    }
    panic!("no completion");
}

#[test]
fn a_format_goes_on_beside_other_commands() {
    let mut stepped = two();
    send(&mut stepped, format(1));
    let mut left = 101;
    let (status, all) = run(&mut stepped, |stepped| {
        let percent = stepped.machine.core.io.unformatted(1);
        assert!(percent <= left, "it only shrinks");
        if percent < left && percent > 10 {
            left = percent;
            assert_eq!(read(stepped, 2), Status::SUCCESS);
            assert_eq!(read(stepped, 1), Status::FORMAT_IN_PROGRESS);
            let id = identify(stepped, 1);
            assert!((0x81..=0x80 + percent).contains(&id.fpi), "{:#x} at {percent} %", id.fpi);
            assert_eq!(id.block_size(), Some(512), "not formatted yet");
            assert_eq!(identify(stepped, 2).fpi, 0x80);
            for command in [format(1), delete(1), sanitize()] {
                let command = Command { cid: 1, ..command };
                assert_eq!(stepped.status(0, command), Status::FORMAT_IN_PROGRESS);
            }
        }
    });
    assert_eq!(status, Status::SUCCESS);
    assert!(left < 20, "progress was seen until {left} %");
    assert!(zeroed(&all, 0, SIZE) > 100, "pieces");
    assert_eq!(all.last().map(|done| done.0), Some(Kind::Flush));
    let id = identify(&mut stepped, 1);
    assert_eq!((id.fpi, id.block_size()), (0x80, Some(4096)));
    assert_eq!(read(&mut stepped, 1), Status::SUCCESS);
}

/// Namespaces that are formatted together take commands together: no command comes with the old block size in between.
#[test]
fn namespaces_are_formatted_one_after_another() {
    let mut stepped = two();
    send(&mut stepped, format(ALL_NAMESPACES));
    let mut seen = [false; 2];
    let (status, all) = run(&mut stepped, |stepped| {
        let left = [1, 2].map(|nsid| stepped.machine.core.io.unformatted(nsid));
        match left {
            [2..=u8::MAX, 100] => seen[0] = true,
            [1, 2..=u8::MAX] => {
                seen[1] = true;
                assert_eq!(read(stepped, 1), Status::FORMAT_IN_PROGRESS);
            }
            _ => {}
        }
    });
    assert_eq!((status, seen), (Status::SUCCESS, [true; 2]));
    zeroed(&all, 0, 2 * SIZE);
    for nsid in [1, 2] {
        assert_eq!(identify(&mut stepped, nsid).block_size(), Some(4096));
        assert_eq!(read(&mut stepped, nsid), Status::SUCCESS);
    }
}

#[test]
fn a_deletion_goes_on_beside_other_commands() {
    let mut stepped = two();
    send(&mut stepped, delete(1));
    let mut looks = 0;
    let (status, all) = run(&mut stepped, |stepped| {
        looks += 1;
        // Each command takes a step, too: none of them meets the deletion's end.
        if looks % 16 == 1 && looks < 64 {
            assert_eq!(read(stepped, 2), Status::SUCCESS);
            assert_eq!(read(stepped, 1), Status::INVALID_FIELD, "its identifier is inactive");
            assert_eq!(list(stepped, Cns::ACTIVE_NAMESPACES), [2]);
            assert_eq!(list(stepped, Cns::ALLOCATED_NAMESPACES), [1, 2]);
            assert_eq!(stepped.status(0, Command { cid: 1, ..delete(1) }), Status::INVALID_FIELD);
        }
    });
    assert_eq!(status, Status::SUCCESS);
    zeroed(&all, 0, SIZE);
    assert_eq!(list(&mut stepped, Cns::ALLOCATED_NAMESPACES), [2]);
    let page = page(&mut stepped, Command::identify(Cns::CONTROLLER, 0, 0));
    let id = IdentifyController::read_from_bytes(&page).unwrap();
    assert_eq!(id.unallocated_capacity(), u128::from(SIZE));
}

#[test]
fn a_sanitize_goes_on_beside_other_commands() {
    let mut stepped = two();
    assert_eq!(stepped.status(0, sanitize()), Status::SUCCESS, "it has begun");
    let (mut before, mut all) = (0, Vec::new());
    for _ in 0..10_000 {
        all.append(&mut stepped.recorder().done);
        all.extend(step(&mut stepped));
        if stepped.now.as_millis() % 16 != 0 {
            continue;
        }
        let log = log(&mut stepped);
        if log.status.operation() == 1 {
            assert!(zeroed(&all, 0, 2 * SIZE) > 200, "pieces");
            assert_eq!(read(&mut stepped, 2), Status::SUCCESS);
            return;
        }
        assert_eq!(log.status.operation(), 2, "{log}");
        let erased: u64 = all.iter().filter(|done| done.0 == Kind::Zero).map(|done| done.2).sum();
        assert!(log.progress >= before, "{log}");
        assert!(u64::from(log.progress) <= (erased + 4 * STEP) * 65536 / (2 * SIZE), "{log}: {erased} bytes");
        before = log.progress;
        assert_eq!(read(&mut stepped, 1), Status::SANITIZE_IN_PROGRESS);
    }
    panic!("the operation does not end");
}

/// Takes some steps, and resets the controller, or cuts its power.
fn interrupt(stepped: &mut Stepped<Recorder>, steps: usize, is_power_cut: bool) {
    for _ in 0..steps {
        step(stepped);
        assert_eq!(stepped.next(0), None, "too late");
    }
    if is_power_cut {
        stepped.machine.lose_power(&mut || 0);
        // Memory and bus master.
        stepped.machine.write(&mut stepped.memory, Region::Config, 4, &[6, 0]);
    }
    stepped.enable(ENABLED);
    stepped.queue(1, 16);
}

#[test]
fn a_format_that_a_reset_stops_has_to_be_repeated() {
    for is_power_cut in [false, true] {
        let mut stepped = two();
        send(&mut stepped, format(ALL_NAMESPACES));
        // The first namespace is done, the second one is begun.
        interrupt(&mut stepped, 140, is_power_cut);
        assert_eq!(read(&mut stepped, 1), Status::SUCCESS);
        let mut command = Command::read(2, 0, 1);
        command.set_data_pointer(stepped.memory.iova(DATA), 0);
        let never = Status::NAMESPACE_NOT_READY.with_do_not_retry();
        assert_eq!(exact(stepped.status(1, command)), exact(never));
        let ids = [1, 2].map(|nsid| identify(&mut stepped, nsid));
        assert_eq!(ids.map(|id| id.block_size()), [Some(4096), Some(512)]);
        assert_eq!(ids.map(|id| id.fpi), [0x80, 0x80 + 100]);
        // Nothing goes on by itself.
        for _ in 0..20 {
            assert!(step(&mut stepped).is_empty());
        }
        // Detached and attached again it would take commands.
        stepped.memory.set(DATA, &[1, 0, 1, 0]);
        let detach = admin(AdminOpcode::NAMESPACE_ATTACHMENT.0, 2, 1, 0);
        let mut detach = Command { cid: 1, ..detach };
        detach.set_data_pointer(stepped.memory.iova(DATA), 0);
        assert_eq!(stepped.status(0, detach), Status::NAMESPACE_NOT_READY);
        send(&mut stepped, format(2));
        let (status, all) = run(&mut stepped, |_| {});
        assert_eq!(status, Status::SUCCESS);
        zeroed(&all, SIZE, 2 * SIZE);
        assert_eq!((read(&mut stepped, 2), identify(&mut stepped, 2).fpi), (Status::SUCCESS, 0x80));
    }
}

/// A Format NVM that has not begun with a namespace leaves it as it is.
#[test]
fn a_namespace_whose_format_has_not_begun_stays() {
    let mut stepped = two();
    send(&mut stepped, format(ALL_NAMESPACES));
    interrupt(&mut stepped, 10, false);
    assert_eq!(read(&mut stepped, 1), Status::NAMESPACE_NOT_READY);
    assert_eq!(read(&mut stepped, 2), Status::SUCCESS);
    assert_eq!(identify(&mut stepped, 2).block_size(), Some(512));
    // It can be deleted, too.
    assert_eq!(stepped.status(0, delete(1)), Status::SUCCESS);
    assert_eq!(list(&mut stepped, Cns::ALLOCATED_NAMESPACES), [2]);
}

#[test]
fn a_deletion_goes_on_after_a_reset() {
    for is_power_cut in [false, true] {
        let mut stepped = two();
        send(&mut stepped, delete(2));
        interrupt(&mut stepped, 20, is_power_cut);
        assert_eq!(list(&mut stepped, Cns::ACTIVE_NAMESPACES), [1]);
        for _ in 0..200 {
            step(&mut stepped);
            assert_eq!(stepped.next(0), None, "no command waits for it any more");
        }
        assert_eq!(list(&mut stepped, Cns::ALLOCATED_NAMESPACES), [1]);
        assert_eq!(read(&mut stepped, 1), Status::SUCCESS);
    }
}

#[test]
fn a_sanitize_goes_on_after_a_reset() {
    for is_power_cut in [false, true] {
        let mut stepped = two();
        assert_eq!(stepped.status(0, sanitize()), Status::SUCCESS);
        interrupt(&mut stepped, 20, is_power_cut);
        let progress = log(&mut stepped).progress;
        assert!((1..10_000).contains(&progress), "{progress} of 65536");
        assert_eq!(read(&mut stepped, 1), Status::SANITIZE_IN_PROGRESS);
        for _ in 0..1000 {
            step(&mut stepped);
        }
        assert_eq!(log(&mut stepped).status.operation(), 1);
        assert_eq!(read(&mut stepped, 1), Status::SUCCESS);
    }
}

/// A fault plan delays the completion of a Format NVM, which comes with the end of the erasure.
#[test]
fn a_plan_delays_the_end_of_a_format() {
    const DELAY: Duration = Duration::from_millis(500);
    let mut stepped = two();
    let late = FaultRule::new(Fault::Delay(DELAY)).queue(0).opcode(AdminOpcode::FORMAT_NVM.0);
    stepped.inject(&FaultPlan::new(1).rule(late));
    send(&mut stepped, format(1));
    let mut ended = None;
    let (status, _) = run(&mut stepped, |stepped| {
        if ended.is_none() && stepped.machine.core.io.erasures.is_empty() && stepped.now.as_millis() > 20 {
            ended = Some(stepped.now);
        }
    });
    let waited = stepped.now - ended.expect("the end of the erasure");
    assert_eq!(status, Status::SUCCESS);
    assert!(waited + Duration::from_millis(2) >= DELAY, "{waited:?}");
}

/// A host that reads the Identify data while a namespace is being reformatted has to wait for the end all the same.
#[test]
fn a_reformatted_namespace_is_erased_in_pieces() {
    let mut stepped = two();
    let reformat = Fault::ReformatNamespace { target: None, block_size: 4096 };
    stepped.inject(&FaultPlan::new(1).rule(FaultRule::new(reformat).opcode(NvmOpcode::FLUSH.0)));
    assert_eq!(stepped.status(1, Command::flush(1)), Status::FORMAT_IN_PROGRESS);
    let id = identify(&mut stepped, 1);
    assert_eq!(id.block_size(), Some(4096));
    assert!((0x81..0x80 + 101).contains(&id.fpi), "{:#x}", id.fpi);
    assert_eq!(read(&mut stepped, 1), Status::FORMAT_IN_PROGRESS);
    assert_eq!(read(&mut stepped, 2), Status::SUCCESS);
    for _ in 0..200 {
        step(&mut stepped);
    }
    assert_eq!(read(&mut stepped, 1), Status::SUCCESS, "it was identified");
}

#[test]
fn pairs_are_removed_in_pieces() {
    let mut stepped = Stepped::recorded("kv=true", SIZE);
    let io = &mut stepped.machine.core.io;
    for number in 0..200_000_u32 {
        let key = Key::new(&number.to_le_bytes()).unwrap();
        io.keys[0].as_mut().unwrap().store(key, Box::default());
    }
    let used = |stepped: &Stepped<Recorder>| stepped.machine.core.io.keys[0].as_ref().unwrap().bytes().1;
    let (mut before, mut most) = (used(&stepped), 0);
    assert!(before > 2 * STEP);
    send(&mut stepped, Command { cdw10: 0, ..format(1) });
    let (status, _) = run(&mut stepped, |stepped| {
        let now = used(stepped);
        most = most.max(before - now);
        before = now;
    });
    assert_eq!((status, used(&stepped)), (Status::SUCCESS, 0));
    assert!((1..=STEP).contains(&most), "{most} bytes of pairs at a time");
}
