//! Waiting for completions, with each kind of interrupts that a device has: no wait misses a completion, and
//! no wait exceeds its deadline.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use std::time::{Duration, Instant};
use upcie_nvme::{Controller, ControllerBuilder, IrqKind, Namespace, QueuePair, Wait};
use upcie_tests::{
    deadline,
    device::namespaces,
    io::{create, reap_with},
    on_each_device, says, scaled, seeded,
};

const KINDS: [IrqKind; 3] = [IrqKind::Msix, IrqKind::Msi, IrqKind::Intx];

fn options(kind: IrqKind) -> ControllerBuilder {
    Controller::builder().irq(kind)
}

/// Returns true if completions can use this kind of interrupt.
fn completes(kind: IrqKind) -> bool {
    KINDS.contains(&kind)
}

/// Returns the interrupt kinds of the transport.
fn kinds(controller: &Controller) -> Vec<IrqKind> {
    KINDS.into_iter().filter(|&kind| controller.irq_count(kind).unwrap() > 0).collect()
}

/// Runs `test` on each device under test, with each of its interrupt kinds.
fn on_each_kind(test: impl Fn(&Controller)) {
    on_each_device(|device| {
        let controller = device.open();
        let kinds = kinds(&controller);
        // The harness notes in the matrix that a device has no vector, or one for all queues.
        assert_eq!(device.vectors(&controller) == 0, kinds.is_empty());
        drop(controller);
        for kind in kinds {
            println!("by {kind}");
            test(&device.open_with(options(kind)));
        }
    });
}

/// Returns the last vector. If there are several, it is not the admin queue's.
fn last_vector(controller: &Controller) -> u16 {
    controller.vectors().unwrap() - 1
}

fn submit(controller: &Controller, queue: &mut QueuePair<u64>, namespace: &Namespace, count: usize) {
    let mut turn = queue.turn().unwrap();
    for _ in 0..count {
        turn.read(namespace, 0, controller.alloc(namespace.block_size()).unwrap(), 0).unwrap();
    }
}

#[test]
fn each_way_of_waiting_wakes_up() {
    on_each_kind(|controller| {
        let (namespace, _) = &namespaces(controller)[0];
        for vector in 0..controller.vectors().unwrap() {
            let mut queue = create::<u64>(controller.queue_pair().depth(8).interrupt(vector));
            let ways = [
                Wait::Interrupt,
                Wait::Adaptive(Duration::ZERO),
                Wait::Adaptive(Duration::from_micros(50)),
                Wait::Poll,
            ];
            for how in ways {
                for round in 0..scaled(100) {
                    let mut left = 1 + round % 7;
                    submit(controller, &mut queue, namespace, left);
                    while left > 0 {
                        for done in reap_with(&mut queue, how) {
                            assert!(done.status().is_success());
                            left -= 1;
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn a_completion_as_a_wait_begins_ends_it() {
    on_each_kind(|controller| {
        let (namespace, _) = &namespaces(controller)[0];
        let mut queue = create::<u64>(controller.queue_pair().depth(2).interrupt(last_vector(controller)));
        // Measure the time of a command, so that waits begin just before and just after its end.
        let mut times: Vec<_> = (0..51)
            .map(|_| {
                let start = Instant::now();
                submit(controller, &mut queue, namespace, 1);
                reap_with(&mut queue, Wait::Poll);
                start.elapsed()
            })
            .collect();
        times.sort();
        let usual = times[25].as_nanos() as u64;
        let mut random = seeded(0);
        for _ in 0..scaled(20_000) {
            let start = Instant::now();
            submit(controller, &mut queue, namespace, 1);
            let begin = Duration::from_nanos(random.within(0..usual * 3 / 2));
            while start.elapsed() < begin {
                std::hint::spin_loop();
            }
            assert_eq!(reap_with(&mut queue, Wait::Interrupt).len(), 1);
        }
    });
}

#[test]
fn queues_that_share_a_vector_lose_no_wake_up() {
    on_each_kind(|controller| {
        let (namespace, _) = &namespaces(controller)[0];
        let threads = u64::from(controller.max_queue_pairs()).min(5);
        let last = last_vector(controller);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    let mut random = seeded(thread);
                    let mut queue = create::<u64>(controller.queue_pair().depth(9).interrupt(last));
                    let mut flying = 0;
                    for _ in 0..scaled(3000) {
                        let more = random.below(9 - flying);
                        submit(controller, &mut queue, namespace, more);
                        flying += more;
                        // Not all: some commands complete while the next ones are submitted.
                        if flying > 0 && !random.one_in(4) {
                            let how = if random.one_in(3) {
                                Wait::Adaptive(Duration::from_micros(random.within(0..30)))
                            } else {
                                Wait::Interrupt
                            };
                            flying -= reap_with(&mut queue, how).len();
                        }
                    }
                    while flying > 0 {
                        flying -= reap_with(&mut queue, Wait::Interrupt).len();
                    }
                });
            }
        });
    });
}

#[test]
fn one_thread_waits_for_queues_of_one_vector_in_turn() {
    on_each_kind(|controller| {
        let (namespace, _) = &namespaces(controller)[0];
        let count = usize::from(controller.max_queue_pairs()).min(4);
        let mut queues: Vec<_> = (0..count)
            .map(|_| create::<u64>(controller.queue_pair().depth(4).interrupt(last_vector(controller))))
            .collect();
        let mut random = seeded(0);
        for _ in 0..scaled(500) {
            for queue in &mut queues {
                submit(controller, queue, namespace, 1);
            }
            // Waits in any order, so that interrupts of a later queue in the order come first.
            let start = random.below(count);
            for at in 0..count {
                assert_eq!(reap_with(&mut queues[(start + at) % count], Wait::Interrupt).len(), 1);
            }
        }
    });
}

#[test]
fn a_programs_event_loop_is_woken() {
    on_each_kind(|controller| {
        let (namespace, _) = &namespaces(controller)[0];
        let (count, vectors) = (controller.max_queue_pairs().min(3), controller.vectors().unwrap());
        let mut queues: Vec<_> = (0..count)
            .map(|at| create::<u64>(controller.queue_pair().depth(5).interrupt(at % vectors)))
            .collect();
        // With MSI-X, checking the queue is enough.
        let rearms = controller.irq_kind() != Some(IrqKind::Msix);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        for (at, queue) in (0..).zip(&queues) {
            let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, at);
            epoll.add(queue.completion_fd().expect("a queue with an interrupt"), event).unwrap();
        }
        let mut left = scaled(500) * queues.len() * 4;
        for queue in &mut queues {
            submit(controller, queue, namespace, 4);
        }
        let end = Instant::now() + deadline();
        let mut events = vec![EpollEvent::empty(); queues.len()];
        // Arm each queue before the first wait, and then each queue that woke the loop.
        let mut ready: Vec<usize> = (0..queues.len()).collect();
        let mut flying = queues.len() * 4;
        while flying > 0 {
            for at in ready.drain(..) {
                if rearms {
                    queues[at].arm().unwrap();
                }
                let mut turn = queues[at].turn().unwrap();
                while let Some(done) = turn.next() {
                    let (_, result, buffer) = done.into_parts();
                    result.unwrap();
                    flying -= 1;
                    if left > 0 {
                        left -= 1;
                        flying += 1;
                        turn.read(namespace, 1, buffer, 0).unwrap();
                    }
                }
            }
            if flying > 0 {
                let count = epoll.wait(&mut events, 5000_u16).unwrap();
                assert!(count > 0 && Instant::now() < end, "no event with {flying} commands in flight");
                ready.extend(events[..count].iter().map(|event| event.data() as usize));
            }
        }
    });
}

#[test]
fn waiting_ends_at_its_deadline() {
    on_each_kind(|controller| {
        let mut queue = create::<u64>(controller.queue_pair().depth(4).interrupt(last_vector(controller)));
        for how in [Wait::Interrupt, Wait::Adaptive(Duration::from_millis(5)), Wait::Poll] {
            for limit in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(60)] {
                let start = Instant::now();
                assert!(!queue.wait(how, limit).unwrap(), "nothing was submitted");
                let took = start.elapsed();
                assert!(took >= limit, "{how:?} for {limit:?} took {took:?}");
                assert!(took < limit + deadline() / 4, "{how:?} for {limit:?} took {took:?}");
            }
        }
    });
}

#[test]
fn a_wait_without_an_interrupt_is_refused() {
    on_each_device(|device| {
        let controller = device.open();
        let mut queue = create::<u64>(controller.queue_pair().depth(4));
        assert!(queue.completion_fd().is_none());
        for how in [Wait::Interrupt, Wait::Adaptive(Duration::ZERO)] {
            let error = queue.wait(how, deadline()).unwrap_err();
            says(&error, &[controller.name(), "interrupt"]);
        }
        says(&queue.arm().unwrap_err(), &[controller.name(), "interrupt"]);
    });
}

#[test]
fn the_best_interrupt_kind_is_the_default() {
    on_each_device(|device| {
        let controller = device.open();
        let kinds = kinds(&controller);
        assert_eq!(controller.irq_kind(), kinds.first().copied());
        let name = controller.name().to_owned();
        drop(controller);
        for kind in KINDS.into_iter().chain([IrqKind::Error, IrqKind::Request]) {
            if kinds.contains(&kind) {
                let controller = device.open_with(options(kind));
                assert_eq!(controller.irq_kind(), Some(kind));
                let (count, there) = (controller.vectors().unwrap(), controller.irq_count(kind).unwrap());
                assert!(count >= 1 && u32::from(count) <= there, "{count} of {there}");
                let error = controller.queue_pair().interrupt(count).create::<u64>().unwrap_err();
                says(&error, &[controller.name(), &kind.to_string(), &format!("has {count}")]);
            } else {
                let error = options(kind).open(device.address()).unwrap_err();
                // The error names the kinds that the device has.
                let instead = kinds.last().map_or("poll".into(), IrqKind::to_string);
                says(&error, &[&name, &kind.to_string(), if completes(kind) { &instead } else { "INTx" }]);
            }
        }
    });
}

#[test]
fn a_controller_without_interrupts_is_polled() {
    let address = "emu:size=1M,vectors=0";
    for kind in KINDS {
        let error = options(kind).open(address).unwrap_err();
        says(&error, &["emu:size=1M,vectors=0", &kind.to_string(), "nor any other", "poll"]);
    }
    let controller = Controller::open(address).unwrap();
    assert_eq!((controller.irq_kind(), controller.vectors().unwrap()), (None, 0));
    let error = controller.queue_pair().interrupt(0).create::<u64>().unwrap_err();
    says(&error, &[controller.name(), "no interrupt vector 0"]);
    let mut queue = create::<u64>(controller.queue_pair().depth(4));
    submit(&controller, &mut queue, &namespaces(&controller)[0].0, 3);
    assert_eq!(upcie_tests::io::finish(&mut queue).len(), 3);
}

#[test]
fn an_unreaped_queue_of_the_vector_delays_no_wait() {
    on_each_kind(|controller| {
        let (namespace, _) = &namespaces(controller)[0];
        let last = last_vector(controller);
        let mut other = create::<u64>(controller.queue_pair().depth(8).interrupt(last));
        let mut queue = create::<u64>(controller.queue_pair().depth(8).interrupt(last));
        submit(controller, &mut other, namespace, 1);
        assert!(other.wait(Wait::Poll, deadline()).unwrap());
        // The completion of `other` is not reaped: a pin stays driven, and arming fires at once.
        for limit in [Duration::ZERO, Duration::from_millis(30)] {
            let start = Instant::now();
            assert!(!queue.wait(Wait::Interrupt, limit).unwrap());
            assert!(start.elapsed() >= limit && start.elapsed() < deadline());
        }
        submit(controller, &mut queue, namespace, 1);
        assert_eq!(reap_with(&mut queue, Wait::Interrupt).len(), 1);
        assert_eq!(reap_with(&mut other, Wait::Interrupt).len(), 1);
    });
}
