//! A host can leave only so much in the admin queue, and a step serves only so much of it.

use super::{
    host::admin,
    stepped::{DATA, ENABLED, Stepped},
};
use crate::{
    emu::{Fault, FaultPlan, FaultRule},
    spec::{
        ALL_NAMESPACES, AdminOpcode, AsyncEvent, AsyncEventType, Command, FeatureId, FeatureSelect,
        LogPageId, Status,
    },
};

/// Entries of the admin queue.
const ENTRIES: usize = 16;

fn get() -> Command {
    Command::get_features(FeatureId::NUMBER_OF_QUEUES, FeatureSelect::CURRENT)
}

/// Sends commands that do not complete, as long as there is room for them.
fn flood(stepped: &mut Stepped) {
    for cid in 0..100 {
        if stepped.is_full() {
            return;
        }
        stepped.put(0, &Command { cid, ..get() });
        stepped.ring(0);
        stepped.step();
        assert_eq!(stepped.next(0), None);
    }
}

#[test]
fn completions_held_back_are_bounded() {
    let mut stepped = Stepped::new("size=1M");
    let hold = |on| admin(0xc1, 0, AdminOpcode::GET_FEATURES.0.into(), on);
    assert_eq!(stepped.status(0, hold(1)), Status::SUCCESS);
    flood(&mut stepped);
    assert_eq!(stepped.machine.core.admin.held_count(), ENTRIES);
    stepped.enable(ENABLED);
    assert_eq!(stepped.status(0, get()), Status::SUCCESS, "after a reset");
    // With room, they are posted.
    assert_eq!(stepped.status(0, hold(1)), Status::SUCCESS);
    stepped.put(0, &get());
    assert_eq!(stepped.status(0, Command { cid: 7, ..hold(0) }), Status::SUCCESS);
    let done = stepped.next(0).or_else(|| {
        stepped.step();
        stepped.next(0)
    });
    assert_eq!(done.map(|done| done.status()), Some(Status::SUCCESS));
}

#[test]
fn admin_commands_that_a_plan_keeps_are_bounded() {
    for fault in [Fault::Drop, Fault::LoseCompletion] {
        let mut stepped = Stepped::new("size=1M");
        let rule = FaultRule::new(fault).queue(0).opcode(AdminOpcode::GET_FEATURES.0);
        stepped.inject(&FaultPlan::new(1).rule(rule));
        flood(&mut stepped);
        let queues = stepped.machine.queues.as_ref().unwrap();
        assert_eq!(queues.admin_sq.flights.len(), ENTRIES, "{fault:?}");
        stepped.enable(ENABLED);
        let other = Command::get_features(FeatureId::ARBITRATION, FeatureSelect::CURRENT);
        stepped.put(0, &other);
        stepped.ring(0);
        stepped.step();
        let queues = stepped.machine.queues.as_ref().unwrap();
        assert_eq!(queues.admin_sq.flights.len(), 1, "{fault:?}: after a reset");
    }
}

/// Deletions end one after another, also those that find no namespace any more.
#[test]
fn commands_that_wait_for_an_erasure_are_bounded() {
    let mut stepped = Stepped::new("size=1M");
    let delete = admin(AdminOpcode::NAMESPACE_MANAGEMENT.0, ALL_NAMESPACES, 1, 0);
    let (mut sent, mut done) = (0, 0);
    for _ in 0..100 {
        while sent < 200 && !stepped.is_full() {
            stepped.put(0, &Command { cid: sent, ..delete });
            sent += 1;
        }
        stepped.ring(0);
        stepped.step();
        assert!(stepped.machine.core.io.erasures.len() <= ENTRIES);
        done += std::iter::from_fn(|| stepped.next(0)).count();
    }
    assert!(done >= 50, "{done} of {sent} have ended");
}

/// Events of the type Immediate mask none of their type: each is reported by its own request.
#[test]
fn events_that_a_host_raises_are_bounded() {
    let mut stepped = Stepped::new("size=1M");
    for information in 0..200 {
        let event = AsyncEvent::new()
            .with_kind(AsyncEventType::IMMEDIATE)
            .with_information(information)
            .with_log_page(LogPageId::SMART);
        assert_eq!(stepped.status(0, admin(0xc0, 0, event.into_bits(), 0)), Status::SUCCESS);
    }
    let reported = (0..200).take_while(|_| {
        stepped.put(0, &Command::asynchronous_event_request());
        stepped.ring(0);
        stepped.step();
        stepped.next(0).is_some()
    });
    assert_eq!(reported.count(), 64);
}

/// A host that asks for more than a log page has gets zeros behind it, which take time, too.
#[test]
fn log_pages_count_as_transfers() {
    const LIST: usize = DATA + (1 << 20);
    let mut stepped = Stepped::new("size=1M");
    let pages = (1..256).map(|page| stepped.memory.iova(DATA + page * 4096));
    let list: Vec<u8> = pages.flat_map(u64::to_le_bytes).collect();
    stepped.memory.set(LIST, &list);
    let mut get = Command::get_log_page(LogPageId::SMART, ALL_NAMESPACES, 1 << 20, 0);
    get.set_data_pointer(stepped.memory.iova(DATA), stepped.memory.iova(LIST));
    for cid in 0..8 {
        stepped.put(0, &Command { cid, ..get });
    }
    stepped.ring(0);
    for cid in 0..8 {
        stepped.memory.set(DATA + 4096, &[7; 8]);
        stepped.step();
        let done = stepped.next(0).map(|done| (done.cid, done.status()));
        assert_eq!(done, Some((cid, Status::SUCCESS)));
        assert_eq!(stepped.next(0), None, "one in each step");
        assert_eq!(stepped.memory.bytes(DATA + 4096, 8), [0; 8]);
    }
}
