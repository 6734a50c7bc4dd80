//! Waits for several queue pairs of emulated controllers.

use super::{GroupMember, QueueGroup, tests::Jumping};
use crate::{Controller, Failure, Namespace, QueuePair, Wait, emu, spec::offset};
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use upcie_core::pci::{ConfigSpace, cap};

const LONG: Duration = Duration::from_secs(60);
const SPIN: Duration = Duration::from_micros(20);
const WAYS: [Wait; 3] = [Wait::Poll, Wait::Interrupt, Wait::Adaptive(SPIN)];

/// Makes a queue pair with the controller's last interrupt vector.
fn queue(controller: &Controller) -> QueuePair<u64> {
    let vector = controller.vectors().unwrap() - 1;
    controller.queue_pair().depth(4).interrupt(vector).create().unwrap()
}

fn flush(queue: &mut QueuePair<u64>, controller: &Controller) {
    let namespace: Namespace = controller.namespace(1).unwrap();
    queue.turn().unwrap().flush(&namespace, 0).unwrap();
}

/// Reaps all completions; returns their number.
fn reap(queue: &mut QueuePair<u64>) -> usize {
    queue.turn().unwrap().map(|done| done.result().unwrap()).count()
}

#[test]
fn a_group_wakes_for_any_member() {
    let controllers =
        ["emu:size=1M", "emu:size=1M,latency=1ms"].map(|address| Controller::open(address).unwrap());
    // Two queues share a controller, and its vector.
    let owners = [0, 0, 1].map(|index: usize| &controllers[index]);
    let mut queues = owners.map(queue);
    let mut group = QueueGroup::new();
    for round in 0..30 {
        let (how, index) = (WAYS[round % 3], round / 3 % 3);
        flush(&mut queues[index], owners[index]);
        assert!(group.wait(&mut queues, how, LONG).unwrap(), "{how:?}");
        assert_eq!(
            [0, 1, 2].map(|each| reap(&mut queues[each])),
            [0, 1, 2].map(|each| usize::from(each == index))
        );
    }
    // Members come and go: one is dropped, one is forgotten.
    let [first, second, mut third] = queues;
    drop(first);
    std::mem::forget(second);
    for how in WAYS {
        flush(&mut third, owners[2]);
        assert!(group.wait(&mut [None, Some(&mut third)], how, LONG).unwrap());
        assert_eq!(reap(&mut third), 1);
    }
}

#[test]
fn a_group_ends_at_its_deadline_or_when_told() {
    let clock = Arc::new(Jumping::default());
    let open = || Controller::builder().clock(clock.clone()).open("emu:size=1M,latency=60s").unwrap();
    let controllers = [open(), open()];
    let mut queues = controllers.each_ref().map(queue);
    (0..2).for_each(|index| flush(&mut queues[index], &controllers[index]));
    let mut group = QueueGroup::new();
    clock.jumps.store(true, Ordering::Relaxed);
    for how in WAYS {
        let before = clock.ahead.load(Ordering::Relaxed);
        assert!(!group.wait(&mut queues, how, LONG / 2).unwrap(), "{how:?}");
        let jumped = Duration::from_nanos(clock.ahead.load(Ordering::Relaxed) - before);
        assert!(jumped > LONG / 3, "{how:?}: {jumped:?}");
    }
    clock.jumps.store(false, Ordering::Relaxed);
    for how in WAYS {
        let mut calls = 0;
        let stop = || {
            calls += 1;
            calls == 3
        };
        assert!(!group.wait_unless(&mut queues, how, LONG, stop).unwrap(), "{how:?}");
        assert_eq!(calls, 3);
    }
}

#[test]
fn a_stop_of_the_process_is_no_timeout() {
    let clock = Arc::new(Jumping::default());
    let controller = Controller::builder().clock(clock.clone()).open("emu:size=1M,latency=60s").unwrap();
    let mut queue = queue(&controller);
    flush(&mut queue, &controller);
    for how in WAYS {
        let mut stops = 0;
        let stop = || {
            // A minute passes between two looks.
            clock.ahead.fetch_add(LONG.as_nanos() as u64, Ordering::Relaxed);
            stops += 1;
            false
        };
        let waited = QueueGroup::new().wait_unless(
            std::slice::from_mut(&mut queue),
            how,
            Duration::from_secs(1),
            stop,
        );
        assert!(!waited.unwrap());
        assert!(stops >= 4, "{how:?}: a stop counts as 250 ms: {stops}");
    }
}

#[test]
fn a_dead_member_is_named_and_the_others_are_served() {
    for how in WAYS {
        let device = emu::spawn(&"size=1M,latency=60s".parse().unwrap()).unwrap();
        let dead = Controller::builder().from_device(device.clone()).unwrap();
        let other = Controller::open("emu:size=1M").unwrap();
        let mut members = [Some(queue(&other)), Some(queue(&dead))];
        let mut group = QueueGroup::new();
        flush(members[1].as_mut().unwrap(), &dead);
        let mut serve = |members: &mut [Option<QueuePair<u64>>; 2]| {
            flush(members[0].as_mut().unwrap(), &other);
            assert!(group.wait(members, how, LONG)?, "{how:?}");
            assert_eq!(reap(members[0].as_mut().unwrap()), 1);
            Ok(())
        };
        serve(&mut members).unwrap();
        // SAFETY: clearing CC.EN stops the controller, which uses no memory then.
        unsafe { device.bar(0).unwrap().write_u32(offset::CC as u64, 0) }.unwrap();
        // Each wait is short, because one member is busy: the other is looked at all the same.
        let start = Instant::now();
        let failed: super::GroupError = loop {
            if let Err(failed) = serve(&mut members) {
                break failed;
            }
            assert!(start.elapsed() < LONG, "{how:?}: the dead member is not noticed");
        };
        assert_eq!(failed.member, Some(1));
        assert!(matches!(failed.error.failure(), Failure::Disabled { .. }), "{failed}");
        // The wait that failed left a completion of the other.
        members[1] = None;
        assert!(group.wait(&mut members, how, LONG).unwrap());
        assert_eq!(reap(members[0].as_mut().unwrap()), 1);
        let alone = members[0].as_mut().unwrap();
        flush(alone, &other);
        assert!(group.wait(&mut members, how, LONG).unwrap());
    }
}

#[test]
fn lost_interrupts_of_a_member_are_named_once() {
    let device = emu::spawn(&"size=1M,vectors=3".parse().unwrap()).unwrap();
    let controller = Controller::builder().from_device(device.clone()).unwrap();
    let mut queues = [queue(&controller), queue(&controller)];
    let mut group = QueueGroup::new();
    let control = device.find_capability(cap::MSIX).unwrap().unwrap() + 2;
    // SAFETY: messages go off, and nothing else changes.
    unsafe { device.set_config_u16(control, 0) }.unwrap();
    for _ in 0..8 {
        flush(&mut queues[1], &controller);
        assert!(group.wait(&mut queues, Wait::Interrupt, LONG).unwrap());
        assert_eq!(reap(&mut queues[1]), 1);
    }
    assert_eq!(controller.silent_vectors(), [2]);
}

#[test]
fn members_without_interrupts_are_refused_a_sleep() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let mut members = [None, Some(controller.queue_pair().create::<u64>().unwrap())];
    for how in [Wait::Interrupt, Wait::Adaptive(SPIN)] {
        let failed = QueueGroup::new().wait(&mut members, how, LONG).unwrap_err();
        assert!(matches!(failed.error.failure(), Failure::Argument { .. }), "{failed}");
        assert_eq!(failed.member, Some(1));
    }
    let mut nobody: [Option<QueuePair<u64>>; 1] = [None];
    assert!(nobody[0].queue_pair().is_none());
    assert!(!QueueGroup::new().wait(&mut nobody, Wait::Interrupt, Duration::from_millis(1)).unwrap());
}
