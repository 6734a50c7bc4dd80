//! Queues of any depth and number: filled, wrapped around, deleted with commands in flight.

use std::collections::BTreeSet;
use upcie_nvme::{Controller, DmaBuf, Namespace, QueuePair, Refusal, Refused};
use upcie_tests::{
    data::Pattern,
    device::namespaces,
    io::{create, finish, only, read, reap, write},
    on_each_device, says, scaled, seeded,
};

/// Submits a write or read of one block for each of `buffers`; block and tag count up from `first`.
fn submit(
    queue: &mut QueuePair<u64>,
    (namespace, pattern): &(Namespace, Pattern),
    buffers: impl IntoIterator<Item = DmaBuf>,
    first: u64,
    write: bool,
) {
    let mut turn = queue.turn().unwrap();
    for (block, mut buffer) in (first..).zip(buffers) {
        if write {
            pattern.fill(&mut buffer, block, 1);
            turn.write(namespace, block, buffer, block).unwrap();
        } else {
            turn.read(namespace, block, buffer, block).unwrap();
        }
    }
}

fn blocks(controller: &Controller, namespace: &Namespace, count: usize) -> Vec<DmaBuf> {
    (0..count).map(|_| controller.alloc(namespace.block_size()).unwrap()).collect()
}

#[test]
fn every_depth_fills_wraps_and_refuses_more() {
    on_each_device(|device| {
        let controller = device.open();
        let all = namespaces(&controller);
        let target = &all[0];
        let most = controller.max_depth();
        for depth in [2, 3, 17, 64, 1000, most].into_iter().filter(|&depth| depth <= most) {
            let mut queue = create::<u64>(controller.queue_pair().depth(depth));
            let capacity = depth as usize - 1;
            assert_eq!(queue.capacity(), capacity);
            let mut idle = blocks(&controller, &target.0, capacity + 1);
            // Filled to the last entry, so that the next lap begins at the ring's last entry.
            for write in [true, false] {
                let extra = idle.pop().unwrap();
                let at = extra.as_ptr();
                submit(&mut queue, target, idle.drain(..), 0, write);
                assert_eq!(queue.in_flight(), capacity);
                let mut turn = queue.turn().unwrap();
                if turn.room() == 0 {
                    let Err(Refused { reason, buffer, tag }) = turn.read(&target.0, 0, extra, 99) else {
                        panic!("depth {depth}: taken by a full queue")
                    };
                    assert_eq!((reason, tag, buffer.as_ptr()), (Refusal::Full, 99, at));
                    idle.push(buffer);
                } else {
                    idle.push(extra);
                }
                drop(turn);
                for done in finish(&mut queue) {
                    let (block, result, buffer) = done.into_parts();
                    result.unwrap();
                    target.1.verify(&buffer, block, 1);
                    idle.push(buffer);
                }
                assert_eq!(idle.len(), capacity + 1, "every buffer came back");
            }
            // Several laps in steps that meet the end of the rings at each offset.
            let mut random = seeded(depth.into());
            let mut left = scaled(4 * depth as usize + 500).max(2 * depth as usize + 10);
            while left > 0 {
                let step = (1 + random.below(capacity)).min(left);
                let first = random.below(capacity - step + 1) as u64;
                let batch: Vec<_> = idle.drain(..step).collect();
                submit(&mut queue, target, batch, first, false);
                let mut seen = BTreeSet::new();
                for done in finish(&mut queue) {
                    let (block, result, buffer) = done.into_parts();
                    result.unwrap();
                    target.1.verify(&buffer, block, 1);
                    assert!(seen.insert(block), "one completion each");
                    idle.push(buffer);
                }
                assert_eq!(seen, (first..first + step as u64).collect());
                left -= step;
            }
        }
    });
}

#[test]
fn a_turn_reaps_and_submits_in_one_pass_over_many_laps() {
    on_each_device(|device| {
        let controller = device.open();
        for target in &namespaces(&controller) {
            let mut queue = create::<u64>(controller.queue_pair().depth(33));
            let mut whole = controller.alloc(1024 * target.0.block_size()).unwrap();
            target.1.fill(&mut whole, 0, 1);
            write(&target.0, 0, &mut whole);
            let buffers = blocks(&controller, &target.0, 32);
            submit(&mut queue, target, buffers, 0, false);
            let mut left = scaled(30_000);
            let mut next = seeded(3);
            while left > 0 {
                assert!(queue.wait(upcie_nvme::Wait::Poll, upcie_tests::deadline()).unwrap());
                let mut turn = queue.turn().unwrap();
                while let Some(done) = turn.next() {
                    let (block, result, buffer) = done.into_parts();
                    result.unwrap();
                    target.1.verify(&buffer, block, 1);
                    let block = next.within(0..1024);
                    turn.read(&target.0, block, buffer, block).unwrap();
                    left = left.saturating_sub(1);
                }
                assert_eq!(turn.room(), 0, "as many go in as come out");
            }
            assert_eq!(finish(&mut queue).len(), 32);
        }
    });
}

#[test]
fn as_many_queue_pairs_as_are_granted_work_in_one_thread() {
    on_each_device(|device| {
        let controller = device.open();
        let target = &namespaces(&controller)[0];
        let granted = controller.max_queue_pairs();
        for _ in 0..2 {
            let mut queues: Vec<_> =
                (0..granted).map(|_| create::<u64>(controller.queue_pair().depth(8))).collect();
            let ids: BTreeSet<_> = queues.iter().map(QueuePair::id).collect();
            assert_eq!(ids, (1..=granted).collect());
            let error = controller.queue_pair().create::<u64>().unwrap_err();
            says(&error, &[controller.name(), &granted.to_string()]);
            for round in 0..scaled(20) as u64 {
                for (at, queue) in (0..).zip(&mut queues) {
                    submit(queue, target, blocks(&controller, &target.0, 7), at * 7, round % 2 == 0);
                }
                for queue in &mut queues {
                    for done in finish(queue) {
                        let (block, result, buffer) = done.into_parts();
                        result.unwrap();
                        target.1.verify(&buffer, block, 1);
                    }
                }
            }
            // A new queue gets the freed queue id.
            let at = queues.len() / 2;
            let id = queues.remove(at).id();
            let again = create::<u64>(controller.queue_pair().depth(8));
            assert_eq!(again.id(), id);
        }
    });
}

#[test]
fn each_thread_has_a_queue_pair_of_its_own() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, pattern) = &namespaces(&controller)[0];
        // One queue pair is left for the blocking calls.
        let threads = u64::from(controller.max_queue_pairs() - 1).min(6);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let controller = controller.clone();
                scope.spawn(move || {
                    let (first, mut random) = (thread * 256, seeded(thread));
                    let mut queue = create::<u64>(controller.queue_pair().depth(16));
                    let mut versions = [0_u32; 256];
                    for round in 1..=scaled(3000) as u32 {
                        let block = random.below(256);
                        let mut buffer = controller.alloc(namespace.block_size()).unwrap();
                        let write = versions[block] == 0 || random.one_in(2);
                        let mut turn = queue.turn().unwrap();
                        if write {
                            versions[block] = round;
                            pattern.fill(&mut buffer, first + block as u64, round);
                            turn.write(namespace, first + block as u64, buffer, 0).unwrap();
                        } else {
                            turn.read(namespace, first + block as u64, buffer, 0).unwrap();
                        }
                        drop(turn);
                        let (_, buffer) = only(&mut queue);
                        pattern.verify(&buffer, first + block as u64, versions[block]);
                        // Blocking calls of all threads share one queue pair.
                        if round % 64 == 0 {
                            let back = read(&controller, namespace, first + block as u64, 1);
                            pattern.verify(&back, first + block as u64, versions[block]);
                        }
                    }
                });
            }
        });
    });
}

#[test]
fn a_queue_dropped_with_commands_frees_everything() {
    on_each_device(|device| {
        let controller = device.open();
        let target = &namespaces(&controller)[0];
        // The blocking calls' queue exists from here on.
        read(&controller, &target.0, 0, 1);
        let before = controller.heap().in_use();
        for round in 0..scaled(200).max(20) {
            let depth = [2, 8, 64, 256][round % 4].min(controller.max_depth());
            let mut queue = create::<u64>(controller.queue_pair().depth(depth));
            let len = target.0.max_transfer() / 2;
            for buffer in (0..depth as usize - 1).map(|_| controller.alloc(len).unwrap()).take(32) {
                queue.turn().unwrap().read(&target.0, 0, buffer, 0).unwrap();
            }
            drop(queue);
            assert_eq!(controller.heap().in_use(), before, "round {round}: the controller has let go of all");
        }
        // No late completion of the dropped queue arrives.
        let mut queue = create::<u64>(controller.queue_pair().depth(64));
        assert_eq!(queue.turn().unwrap().count(), 0);
        submit(&mut queue, target, blocks(&controller, &target.0, 63), 0, true);
        assert_eq!(finish(&mut queue).len(), 63);
    });
}

#[test]
fn a_queue_without_list_memory_left_refuses_and_goes_on() {
    on_each_device(|device| {
        let controller = device.open();
        for (namespace, pattern) in &namespaces(&controller) {
            let mut queue = create::<usize>(controller.queue_pair().depth(64).list_memory(1));
            // Three pages that begin in the middle of one: a part has no list of its own.
            let part = |version| {
                let len = (3 * controller.page_size()).min(namespace.max_transfer());
                let mut part = controller.alloc(len + 4096).unwrap().slice(2048..2048 + len);
                pattern.fill(&mut part, 0, version);
                part
            };
            for round in 1..=3 {
                let (mut taken, mut refused) = (0, None);
                let mut turn = queue.turn().unwrap();
                while refused.is_none() && turn.room() > 0 {
                    let buffer = part(round);
                    let at = buffer.as_ptr();
                    match turn.write(namespace, 0, buffer, taken) {
                        Ok(()) => taken += 1,
                        Err(Refused { reason, buffer, tag }) => {
                            assert_eq!((reason, tag, buffer.as_ptr()), (Refusal::ListsInUse, taken, at));
                            pattern.verify(&buffer, 0, round);
                            refused = Some(buffer);
                        }
                    }
                }
                let refused = refused.expect("a refusal before the queue is full");
                assert!(taken >= 1, "one list at least");
                // Buffers with a list of their own, or without need for one, are still accepted.
                turn.read(namespace, 500, controller.alloc(namespace.block_size()).unwrap(), 90).unwrap();
                turn.read(namespace, 500, controller.alloc(namespace.max_transfer()).unwrap(), 91).unwrap();
                drop(turn);
                let mut left = taken + 2;
                while left == taken + 2 {
                    left -= reap(&mut queue)
                        .into_iter()
                        .inspect(|done| assert!(done.status().is_success()))
                        .count();
                }
                finish(&mut queue);
                queue.turn().unwrap().write(namespace, 0, refused, 7).unwrap();
                assert_eq!(only(&mut queue).0, 7);
            }
        }
    });
}
