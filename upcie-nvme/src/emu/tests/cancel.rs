//! Cancel, as a host with rings made by hand sees it.

use super::{
    host::{Host, exact},
    stepped::Stepped,
};
use crate::{
    emu::{Fault, FaultPlan, FaultRule},
    spec::{
        ALL_NAMESPACES, CancelResult, Command, CommandsSupportedLog, FromBytes, LogPageId, NvmOpcode, Status,
    },
};
use std::time::Duration;

/// The id of each Cancel.
const OWN: u16 = 99;
/// The id that names no single command.
const ALL: u16 = u16::MAX;

/// Returns a Cancel for queue 1: of one command, or with [`ALL`] of several.
fn cancel(nsid: u32, id: u16) -> Command {
    let cdw10 = 1 | u32::from(id) << 16;
    Command { cid: OWN, cdw10, cdw11: (id == ALL).into(), ..Command::io(NvmOpcode::CANCEL, nsid) }
}

fn counts(aborted: u16, deferred: u16) -> u32 {
    CancelResult::new().with_aborted(aborted).with_deferred(deferred).into_bits()
}

#[test]
fn a_cancel_that_finds_nothing_succeeds_and_a_wrong_one_is_refused() {
    for options in
        ["size=1M", "size=1M,latency=1ms", "size=1M,ms=8", "size=32M,zoned=true", "size=1M,kv=true"]
    {
        let mut host = Host::new(options);
        let log = host.page(Command::get_log_page(LogPageId::COMMANDS_SUPPORTED, 0, 4096, 0));
        assert!(CommandsSupportedLog::read_from_bytes(&log).unwrap().io_commands[0x18].supported());
        let mut queue = host.queue(1, [8, 8], None);
        for (nsid, id) in [(1, 5), (1, ALL), (ALL_NAMESPACES, 5), (ALL_NAMESPACES, ALL)] {
            let done = queue.run(cancel(nsid, id));
            assert_eq!((done.status(), done.dw0), (Status::SUCCESS, 0), "{options}: {nsid:x}h, {id}");
        }
        let of_other_queue = Command { cdw10: 2 | 5 << 16, ..cancel(1, 5) };
        let unknown_action = Command { cdw11: 2, ..cancel(1, ALL) };
        let several_with_id = Command { cdw11: 1, ..cancel(1, 5) };
        for (command, wanted) in [
            (of_other_queue, Status::INVALID_FIELD),
            (unknown_action, Status::INVALID_FIELD),
            (several_with_id, Status::INVALID_FIELD),
            (cancel(1, OWN), Status::INVALID_COMMAND_ID),
            (cancel(9, 5), Status::INVALID_NAMESPACE_OR_FORMAT),
        ] {
            let done = queue.run(command);
            assert_eq!((exact(done.status()), done.dw0), (exact(wanted.with_do_not_retry()), 0), "{options}");
        }
    }
}

#[test]
fn completions_that_are_held_back_are_cancelled() {
    let mut host = Host::new("size=1M,namespaces=2,latency=60s");
    let mut queue = host.queue(1, [16, 16], None);
    for (cid, nsid) in [(1, 1), (2, 2), (3, 1), (4, 2), (5, 1)] {
        queue.put(&Command { cid, ..Command::flush(nsid) });
    }
    // Each Cancel is held back itself: the ids of those that were ended come first.
    queue.put(&cancel(2, ALL));
    queue.ring();
    let ended = |queue: &mut super::host::Queue, wanted: &[u16]| {
        for &cid in wanted {
            let done = queue.wait();
            assert_eq!((done.cid, done.status(), done.dw0), (cid, Status::ABORT_REQUESTED, 0));
        }
        queue.silent();
    };
    ended(&mut queue, &[2, 4]);
    queue.put(&cancel(1, 3));
    // Command 1 is of another namespace.
    queue.put(&Command { cid: 98, ..cancel(2, 1) });
    queue.ring();
    ended(&mut queue, &[3]);
    queue.put(&Command { cid: 97, ..cancel(ALL_NAMESPACES, ALL) });
    queue.ring();
    // These are of the commands, and of the Cancels before.
    ended(&mut queue, &[1, 5, OWN, OWN, 98]);
}

#[test]
fn a_hung_command_is_cancelled_and_counted() {
    let drop = FaultRule::new(Fault::Drop).opcode(NvmOpcode::FLUSH.0);
    let lose = FaultRule::new(Fault::LoseCompletion).opcode(NvmOpcode::WRITE_ZEROES.0);
    let mut host = Host::with_faults("size=1M,namespaces=2", &FaultPlan::new(1).rule(drop).rule(lose));
    let mut queue = host.queue(1, [16, 16], None);
    for (cid, nsid) in [(1, 1), (2, 2), (3, 1)] {
        queue.put(&Command { cid, ..Command::flush(nsid) });
    }
    queue.put(&Command { cid: 4, ..Command::io(NvmOpcode::WRITE_ZEROES, 1) });
    queue.ring();
    queue.silent();
    let done = queue.run(cancel(2, 1));
    assert_eq!((done.cid, exact(done.status())), (OWN, exact(Status::INVALID_FIELD.with_do_not_retry())));
    queue.put(&cancel(1, 3));
    queue.ring();
    let done = queue.wait();
    assert_eq!((done.cid, done.status()), (3, Status::ABORT_REQUESTED));
    let done = queue.wait();
    assert_eq!((done.cid, done.status(), done.dw0), (OWN, Status::SUCCESS, counts(1, 0)));
    queue.put(&cancel(ALL_NAMESPACES, ALL));
    queue.ring();
    let ids = [(); 2].map(|()| queue.wait()).map(|done| (done.cid, done.status()));
    assert_eq!(ids, [(1, Status::ABORT_REQUESTED), (2, Status::ABORT_REQUESTED)]);
    let done = queue.wait();
    assert_eq!(
        (done.cid, done.dw0),
        (OWN, counts(2, 1)),
        "the Write Zeroes was carried out, its completion is lost"
    );
}

/// The commands of two namespaces by turns, as many as a queue can have: both keep their order, and none is lost.
#[test]
fn a_cancel_keeps_the_order_of_a_full_queue() {
    const COMMANDS: u16 = 600;
    let mut stepped = Stepped::new("size=1M,namespaces=2,latency=60s");
    stepped.queue(1, 1024);
    for cid in 0..COMMANDS {
        stepped.put(1, &Command { cid, ..Command::flush(u32::from(cid % 2) + 1) });
    }
    stepped.put(1, &Command { cid: 1000, ..cancel(2, ALL) });
    stepped.ring(1);
    let ids = |stepped: &mut Stepped| -> Vec<u16> {
        for _ in 0..20 {
            stepped.step();
        }
        std::iter::from_fn(|| stepped.next(1)).map(|done| done.cid).collect()
    };
    let odd: Vec<u16> = (0..COMMANDS).filter(|cid| cid % 2 == 1).collect();
    assert_eq!(ids(&mut stepped), odd);
    // The others are due after their latency, and before the Cancel.
    stepped.now += Duration::from_secs(60);
    let even: Vec<u16> = (0..COMMANDS).filter(|cid| cid % 2 == 0).chain([1000]).collect();
    assert_eq!(ids(&mut stepped), even);
}
