//! What a host can't have: values of no entry, pages that can't be used, buffers that are gone.

use super::{super::host::exact, Buffers, ON, Stepped, completion, configuration, word};
use crate::{
    emu::layout::fitting_queues,
    spec::{AsyncEvent, AsyncEventType, Command, FeatureId, FeatureSelect, NumberOfQueues, Status},
};
use std::sync::atomic::Ordering;

#[test]
fn values_of_no_entry_are_refused_and_reported() {
    let mut host = Stepped::new(ON);
    let mut queue = host.queue(1, [8, 8], None);
    host.configure();
    host.host.admin.put(&Command { cid: 9, ..Command::asynchronous_event_request() });
    host.host.admin.ring();
    for value in [8, 9, 0xffff, u32::MAX, 0x8000_0000] {
        host.buffers.set((1, false), value);
        host.steps(10);
        assert_eq!(queue.next(), None, "{value:#x}");
    }
    let done = completion(&host.device, &mut host.host.admin);
    host.host.admin.acknowledge();
    let event = AsyncEvent::from_bits(done.dw0);
    assert_eq!((done.cid, event.kind(), event.information()), (9, AsyncEventType::ERROR, 1));
    // A completion queue's head, which is looked at when there seems to be no room; the words of no queue.
    for (doorbell, value) in [((1, true), 5), ((1, true), 8), ((1, true), u32::MAX), ((5, false), 3)] {
        host.buffers.set(doorbell, value);
        host.steps(10);
    }
    for cid in 0..30 {
        host.flush(&mut queue, cid);
    }
    // The admin queue's own.
    host.buffers.set((0, false), u32::MAX);
    host.steps(10);
    host.buffers.set((0, false), host.host.admin.tail);
    host.steps(10);
    assert_eq!(host.host.csts(), 1);
    host.host.admin.put(&Command { cid: 10, ..Command::asynchronous_event_request() });
    host.host.admin.put(&Command { cid: 11, ..Command::abort(0, 10) });
    host.buffers.set((0, false), host.host.admin.tail);
    let done = [(); 2].map(|()| completion(&host.device, &mut host.host.admin).cid);
    assert!(done.contains(&11), "{done:?}");
}

#[test]
fn a_reset_drops_the_buffers() {
    for by_register in [true, false] {
        let mut host = Stepped::new(ON);
        let mut queue = host.queue(1, [8, 8], None);
        host.configure();
        host.flush(&mut queue, 0);
        if by_register {
            host.host.write_u32(0x14, 0).unwrap();
        } else {
            host.host.reset().unwrap();
        }
        host.host.enable();
        let mut queue = host.queue(1, [8, 8], None);
        let doorbells = [(0, false), (0, true), (1, false), (1, true)];
        for doorbell in doorbells {
            host.buffers.set(doorbell, 3);
            word(&host.buffers.events, doorbell).store(0xeeee, Ordering::Release);
        }
        for _ in 0..10 {
            assert_eq!(host.step(), 0);
        }
        assert_eq!(queue.next(), None);
        queue.put(&Command { cid: 1, ..Command::flush(1) });
        queue.ring();
        assert_eq!(completion(&host.device, &mut queue).cid, 1);
        assert_eq!(host.settle(), 0, "nothing to poll");
        assert!(doorbells.into_iter().all(|doorbell| host.buffers.event(doorbell) == 0xeeee));
    }
}

#[test]
fn pages_that_can_not_be_used_are_refused() {
    let mut host = Stepped::new(ON);
    let mut queue = host.queue(1, [8, 8], None);
    host.configure();
    host.flush(&mut queue, 0);
    let (shadows, events) = (host.buffers.shadows.iova(0), host.buffers.events.iova(0));
    let nowhere = 0x7fff_0000_0000;
    for (prp1, prp2) in [
        (shadows + 4, events),
        (shadows, events + 2048),
        (shadows, shadows),
        (nowhere, events),
        (shadows, nowhere),
        (0, 0),
    ] {
        let status = host.status(configuration(prp1, prp2));
        assert_eq!(exact(status), (Status::INVALID_FIELD, true), "{prp1:#x}, {prp2:#x}");
    }
    // The buffers from before are in use.
    assert!(!host.flush(&mut queue, 1));
}

#[test]
fn the_last_configuration_counts() {
    let mut host = Stepped::new(ON);
    let mut queue = host.queue(1, [8, 8], None);
    host.configure();
    host.flush(&mut queue, 0);
    let old = std::mem::replace(&mut host.buffers, Buffers::new(&host.host));
    host.configure();
    drop(old);
    host.flush(&mut queue, 1);
    assert!(!host.flush(&mut queue, 2));
    assert_eq!(host.host.csts(), 1, "memory of the buffers before is not touched");
}

#[test]
fn lost_buffers_are_a_fatal_status() {
    for is_armed in [false, true] {
        let mut host = Stepped::new(ON);
        let mut queue = host.queue(1, [8, 8], None);
        host.configure();
        host.flush(&mut queue, 0);
        if is_armed {
            host.settle();
        }
        // The memory is unmapped when the buffers are dropped.
        host.buffers = Buffers::new(&host.host);
        if is_armed {
            host.steps(10);
            assert_eq!(host.host.csts(), 1, "an armed controller does not look");
            queue.put(&Command::flush(1));
            queue.ring();
        }
        host.steps(1);
        assert_eq!(host.host.csts(), 3, "fatal status");
        host.host.write_u32(0x14, 0).unwrap();
        assert_eq!(host.host.csts(), 0);
        host.host.enable();
        host.configure();
    }
}

#[test]
fn the_command_is_there_on_request_alone() {
    let mut host = Stepped::new("size=1M");
    let status = host.status(host.buffers.command());
    assert_eq!(exact(status), (Status::INVALID_OPCODE, true));
    let granted = |options: &str| {
        let mut host = Stepped::new(options);
        let number = Command::get_features(FeatureId::NUMBER_OF_QUEUES, FeatureSelect::CURRENT);
        host.admin(number).result().unwrap()
    };
    // A page of 4096 bytes has the doorbells of 64 queue pairs, the admin queue's among them.
    for (options, queues) in [("size=1M", 64), (ON, 63), ("size=1M,dbbuf=true,queues=8", 8)] {
        assert_eq!(granted(options), NumberOfQueues::of(queues, queues).into_bits(), "{options}");
    }
    let larger_page = "dbbuf=true,mpsmin=64K,queues=100".parse().unwrap();
    assert_eq!(fitting_queues(&larger_page, 100), 100);
}
