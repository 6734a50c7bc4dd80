//! A host that breaks the rules, and queues at their limits.

use super::host::{Host, PAGE, exact};
use crate::{
    emu::layout::DSTRD,
    spec::{AsyncEvent, AsyncEventType, Command, LogPageId, QueuePriority, Status, doorbell_offset},
};
use std::time::{Duration, Instant};
use upcie_core::{
    memory::{Memory, PageSize},
    testing::Random,
};

#[test]
fn small_queues_wrap_around_and_a_full_one_waits() {
    for entries in [[2, 2], [3, 2], [64, 3], [3, 64], [5, 7]] {
        let mut host = Host::new("size=1M");
        let mut queue = host.queue(1, entries, None);
        let (mut sent, mut seen) = (0_u16, 0_u16);
        let mut heard = 0;
        while seen < 500 {
            // Fill the submission queue without a look at completions, so that theirs is full.
            while u32::from(sent - heard) < entries[0] - 1 && sent < 500 {
                queue.put(&Command { cid: sent, ..Command::flush(1) });
                sent += 1;
            }
            queue.ring();
            let done = queue.wait();
            assert_eq!((done.cid, done.status()), (seen, Status::SUCCESS), "{entries:?}");
            seen += 1;
            heard = seen;
        }
        queue.silent();
    }
}

#[test]
fn a_full_completion_queue_is_never_overrun() {
    let mut host = Host::new("size=1M");
    let mut queue = host.queue(1, [64, 4], None);
    for cid in 0..60 {
        queue.put(&Command { cid, ..Command::flush(1) });
    }
    queue.ring();
    let end = Instant::now() + Duration::from_secs(30);
    for cid in 0..3 {
        let done = loop {
            assert!(Instant::now() < end, "completion {cid} does not come");
            if let Some(done) = queue.next() {
                break done;
            }
        };
        assert_eq!(done.cid, cid);
    }
    // The controller has looked at its queues again by the end of another command.
    host.alive();
    assert_eq!(queue.next(), None, "one entry stays free");
    queue.acknowledge();
    for cid in 3..60 {
        assert_eq!(queue.wait().cid, cid);
    }
}

#[test]
fn submission_queues_may_share_a_completion_queue() {
    let mut host = Host::new("size=1M");
    let mut first = host.queue(1, [8, 8], None);
    let memory = host.device.dma().map(Memory::new(PAGE, PageSize::Small).unwrap()).unwrap();
    let create = Command::create_submission_queue(2, 8, memory.iova(0), 1, QueuePriority::LOW);
    assert_eq!(host.admin.status(create), Status::SUCCESS);
    // All zeros are a Flush of namespace 0.
    host.write_u32(0x1000 + 4 * 32, 3).unwrap();
    for _ in 0..3 {
        let done = first.wait();
        let expected = (2, (Status::INVALID_NAMESPACE_OR_FORMAT, true));
        assert_eq!((done.sqid, exact(done.status())), expected);
    }
    assert_eq!(first.status(Command::flush(1)), Status::SUCCESS);
    assert!(host.admin.status(Command::delete_submission_queue(1)).is_success());
    assert_eq!(host.admin.status(Command::delete_completion_queue(1)), Status::INVALID_QUEUE_DELETION);
    assert!(host.admin.status(Command::delete_submission_queue(2)).is_success());
    assert!(host.admin.status(Command::delete_completion_queue(1)).is_success());
}

#[test]
fn garbage_in_a_doorbell_is_ignored_and_reported() {
    let mut host = Host::new("size=1M");
    let mut queue = host.queue(1, [8, 8], None);
    assert_eq!(queue.status(Command::flush(1)), Status::SUCCESS);
    host.admin.put(&Command { cid: 9, ..Command::asynchronous_event_request() });
    host.admin.ring();
    for value in [8, 9, 0xffff, u32::MAX, 0x8000_0000] {
        queue.ring_value(value);
        queue.silent();
    }
    let done = host.admin.wait();
    let event = AsyncEvent::from_bits(done.dw0);
    assert_eq!((done.cid, event.kind(), event.information()), (9, AsyncEventType::ERROR, 1));
    assert_eq!(event.log_page(), LogPageId::ERROR_INFORMATION);
    queue.ring();
    assert_eq!(queue.status(Command::flush(1)), Status::SUCCESS);
    // A completion queue's head: only looked at when there seems to be no room.
    for value in [5, 8, u32::MAX] {
        queue.acknowledge_value(value);
    }
    queue.acknowledge();
    for _ in 0..20 {
        assert_eq!(queue.status(Command::flush(1)), Status::SUCCESS);
    }
    host.alive();
}

/// Stray writes to doorbells in the mapped page, which raise no message, are found by polling.
#[test]
fn a_doorbell_without_a_queue_is_reported() {
    let mut host = Host::new("size=1M,queues=8");
    let queue = host.queue(3, [8, 8], None);
    // A tail, a head, those of a queue that there can't be, and a deleted queue's.
    for (qid, completion) in [(2, false), (5, true), (9, false), (3, false)] {
        if qid == 3 {
            queue.ring_value(1);
            assert_eq!(host.admin.status(Command::delete_submission_queue(3)), Status::SUCCESS);
        }
        let entries = |page: &[u8]| u64::from_le_bytes(page[..8].try_into().unwrap());
        let get = || Command::get_log_page(LogPageId::ERROR_INFORMATION, 0, 64, 0);
        let before = entries(&host.page(get()));
        host.admin.put(&Command { cid: 9, ..Command::asynchronous_event_request() });
        host.admin.ring();
        // Nothing is there to be reported: a queue's deletion is no stray write.
        host.alive();
        let doorbell = host.bar.register::<u32>(doorbell_offset(qid, completion, DSTRD) as u64).unwrap();
        // SAFETY: this host drives the controller.
        unsafe { doorbell.write(7) };
        let done = host.admin.wait();
        let event = AsyncEvent::from_bits(done.dw0);
        assert_eq!(
            (done.cid, event.kind(), event.information()),
            (9, AsyncEventType::ERROR, 0),
            "queue {qid}"
        );
        assert_eq!(event.log_page(), LogPageId::ERROR_INFORMATION);
        let page = host.page(get());
        assert_eq!(entries(&page), before + 1);
        assert_eq!(page[8..12], [0xff; 4], "of no queue and no command in particular");
    }
}

#[test]
fn rings_in_two_mappings_work() {
    let mut host = Host::new("size=1M");
    // Two mappings, one address behind the other: no pointer covers both.
    let map = |len| host.device.dma().map(Memory::new(len, PageSize::Small).unwrap()).unwrap();
    let pieces = [map(4 * PAGE), map(4 * PAGE)];
    let (low, high) = if pieces[0].iova(0) < pieces[1].iova(0) { (0, 1) } else { (1, 0) };
    assert_eq!(
        pieces[low].iova(0) + 4 * PAGE as u64,
        pieces[high].iova(0),
        "no neighbours: the test needs other sizes"
    );
    let start = pieces[low].iova(3 * PAGE);
    // Its completion queue takes them all; its memory has to stay.
    let _completions = host.queue(1, [8, 256], None);
    let create = Command::create_submission_queue(2, 128, start, 1, QueuePriority::LOW);
    assert_eq!(host.admin.status(create), Status::SUCCESS);
    host.write_u32(0x1000 + 4 * 32, 120).unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let page = host.page(Command::get_log_page(LogPageId::SMART, 0, 512, 0));
        // 120 times a Flush of namespace 0: errors.
        if u64::from_le_bytes(page[176..184].try_into().unwrap()) == 120 {
            break;
        }
        assert!(Instant::now() < end, "{page:?}");
    }
}

#[test]
fn unmapped_memory_is_not_touched() {
    let mut host = Host::new("size=1M");
    let mut queue = host.queue(1, [8, 8], None);
    let memory = host.device.dma().map(Memory::new(PAGE, PageSize::Small).unwrap()).unwrap();
    let mut read = Command::read(1, 0, 8);
    read.set_data_pointer(memory.iova(0), 0);
    assert_eq!(queue.status(read), Status::SUCCESS);
    drop(memory);
    assert_eq!(queue.status(read), Status::DATA_TRANSFER_ERROR);
    // The queue's own memory goes: a doorbell later the controller says that it can't go on.
    queue.put(&read);
    let doorbell = host.bar.register::<u32>(0x1000 + 2 * 32).unwrap();
    drop(queue);
    // SAFETY: this host drives the controller.
    unsafe { doorbell.write(4) };
    let end = Instant::now() + Duration::from_secs(5);
    while host.csts() & 2 == 0 {
        assert!(Instant::now() < end, "no fatal status");
    }
    host.write_u32(0x14, 0).unwrap();
    host.enable();
    host.alive();
}

#[test]
fn a_latency_delays_completions() {
    let mut host = Host::new("size=1M,latency=30ms");
    let mut queue = host.queue(1, [64, 64], None);
    let start = Instant::now();
    for cid in 0..60 {
        queue.put(&Command { cid, ..Command::flush(1) });
    }
    queue.ring();
    for cid in 0..60 {
        assert_eq!(queue.wait().cid, cid);
    }
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(30)..Duration::from_secs(2)).contains(&took),
        "{took:?}: all at the same time"
    );
}

/// Returns mostly small values, often at an edge.
fn word(random: &mut Random) -> u32 {
    match random.next() % 6 {
        0 => 0,
        1 => u32::MAX,
        2 => random.next() as u32,
        3 => 1 << (random.next() % 32),
        _ => (random.next() % 9) as u32,
    }
}

#[test]
fn random_commands_do_no_harm() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for round in 0..30 {
        let mut host = Host::new("size=1M,queues=4,namespaces=2,mdts=64K");
        let mut queue = host.queue(1, [32, 32], None);
        for _ in 0..300 {
            let address = |random: &mut Random, host: &Host| match random.next() % 5 {
                0 => random.next(),
                1 => 0,
                2 => host.iova((random.next() % (8 << 20)) as usize & !3),
                _ => host.iova((random.next() % 2000) as usize * PAGE),
            };
            let mut command = Command {
                opcode: if random.next() % 4 == 0 { random.next() as u8 } else { (random.next() % 14) as u8 },
                flags: if random.next() % 8 == 0 { random.next() as u8 } else { 0 },
                cid: random.next() as u16,
                nsid: word(&mut random),
                cdw10: word(&mut random),
                cdw11: word(&mut random),
                cdw12: word(&mut random),
                cdw13: word(&mut random),
                ..Command::default()
            };
            let pointer = (address(&mut random, &host), address(&mut random, &host));
            command.set_data_pointer(pointer.0, pointer.1);
            // Through the queue that a random command may have deleted meanwhile: fire and forget.
            if random.next() % 2 == 0 {
                queue.put(&command);
                queue.ring();
                let end = Instant::now() + Duration::from_millis(2);
                while Instant::now() < end && queue.next().is_none() {}
                queue.acknowledge();
            } else {
                host.admin.put(&command);
                host.admin.ring();
                let end = Instant::now() + Duration::from_millis(2);
                while Instant::now() < end && host.admin.next().is_none() {}
                host.admin.acknowledge();
            }
        }
        // Random data may have been moved into the rings; but the controller is there, and a reset heals all.
        host.write_u32(0x14, 0).unwrap();
        assert_eq!(host.csts(), 0, "round {round}");
        host.enable();
        host.alive();
    }
}
