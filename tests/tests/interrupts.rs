//! Waiting for completions by interrupts: nobody sleeps through one, and nobody waits longer than asked to.

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use std::time::{Duration, Instant};
use upcie_nvme::{Controller, Namespace, QueuePair, Wait};
use upcie_tests::{
    Device, Random, deadline,
    device::namespaces,
    io::{create, reap_with},
    on_each_device, says, scaled,
};

/// The last of the vectors that queues may use: not the admin queue's where there is another. `None` where there is
/// none, which is noted.
fn last_vector(device: &Device, controller: &Controller) -> Option<u16> {
    device.vectors(controller).checked_sub(1)
}

fn submit(controller: &Controller, queue: &mut QueuePair<u64>, namespace: &Namespace, count: usize) {
    let mut turn = queue.turn().unwrap();
    for _ in 0..count {
        turn.read(namespace, 0, controller.alloc(namespace.block_size()).unwrap(), 0).unwrap();
    }
}

#[test]
fn each_way_of_waiting_wakes_up() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = &namespaces(&controller)[0];
        for vector in 0..device.vectors(&controller) {
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
                    submit(&controller, &mut queue, namespace, left);
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
fn a_completion_that_comes_while_a_wait_begins_ends_it() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = &namespaces(&controller)[0];
        let Some(last) = last_vector(device, &controller) else { return };
        let mut queue = create::<u64>(controller.queue_pair().depth(2).interrupt(last.min(1)));
        // How long a command takes here, so that waits begin just before and just after its end.
        let mut times: Vec<_> = (0..51)
            .map(|_| {
                let start = Instant::now();
                submit(&controller, &mut queue, namespace, 1);
                reap_with(&mut queue, Wait::Poll);
                start.elapsed()
            })
            .collect();
        times.sort();
        let usual = times[25].as_nanos() as u64;
        let mut random = Random::new(0);
        for _ in 0..scaled(20_000) {
            let start = Instant::now();
            submit(&controller, &mut queue, namespace, 1);
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
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = &namespaces(&controller)[0];
        let threads = u64::from(controller.max_queue_pairs()).min(5);
        let Some(last) = last_vector(device, &controller) else { return };
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let controller = controller.clone();
                scope.spawn(move || {
                    let mut random = Random::new(thread);
                    let mut queue = create::<u64>(controller.queue_pair().depth(9).interrupt(last));
                    let mut flying = 0;
                    for _ in 0..scaled(3000) {
                        let more = random.below(9 - flying);
                        submit(&controller, &mut queue, namespace, more);
                        flying += more;
                        // Not all of them: some come while the next are submitted.
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
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = &namespaces(&controller)[0];
        let count = usize::from(controller.max_queue_pairs()).min(4);
        let Some(last) = last_vector(device, &controller) else { return };
        let builder = || controller.queue_pair().depth(4).interrupt(last.min(1));
        let mut queues: Vec<_> = (0..count).map(|_| create::<u64>(builder())).collect();
        let mut random = Random::new(0);
        for _ in 0..scaled(500) {
            for queue in &mut queues {
                submit(&controller, queue, namespace, 1);
            }
            // In any order: the interrupts of those that are waited for later come first.
            let start = random.below(count);
            for at in 0..count {
                assert_eq!(reap_with(&mut queues[(start + at) % count], Wait::Interrupt).len(), 1);
            }
        }
    });
}

#[test]
fn an_event_loop_of_ones_own_is_woken() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = &namespaces(&controller)[0];
        let Some(last) = last_vector(device, &controller) else { return };
        let count = controller.max_queue_pairs().min(last.max(1)).min(3);
        let mut queues: Vec<_> = (1..=count)
            .map(|vector| create::<u64>(controller.queue_pair().depth(5).interrupt(vector.min(last))))
            .collect();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        for (at, queue) in (0..).zip(&queues) {
            let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, at);
            epoll.add(queue.completion_fd().expect("a queue with an interrupt"), event).unwrap();
        }
        let mut left = scaled(500) * queues.len() * 4;
        for queue in &mut queues {
            submit(&controller, queue, namespace, 4);
        }
        let end = Instant::now() + deadline();
        let mut events = vec![EpollEvent::empty(); queues.len()];
        // Once before the first wait, then whenever one is woken.
        let mut ready: Vec<usize> = (0..queues.len()).collect();
        let mut flying = queues.len() * 4;
        while flying > 0 {
            for at in ready.drain(..) {
                queues[at].arm().unwrap();
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
fn waiting_ends_when_nothing_comes() {
    on_each_device(|device| {
        let controller = device.open();
        let mut queue = create::<u64>(device.queue_pair(&controller, 1).depth(4));
        let sleeping: &[Wait] = match queue.completion_fd() {
            Some(_) => &[Wait::Interrupt, Wait::Adaptive(Duration::from_millis(5))],
            None => &[],
        };
        for how in sleeping.iter().copied().chain([Wait::Poll]) {
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
fn a_queue_without_an_interrupt_says_so() {
    on_each_device(|device| {
        let controller = device.open();
        let mut queue = create::<u64>(controller.queue_pair().depth(4));
        assert!(queue.completion_fd().is_none());
        for how in [Wait::Interrupt, Wait::Adaptive(Duration::ZERO)] {
            let error = queue.wait(how, deadline()).unwrap_err();
            says(&error, &[controller.name(), "interrupt"]);
        }
    });
}
