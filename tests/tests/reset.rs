//! Controller resets while queues, blocking calls and other threads use the controller: every payload comes back once, and
//! everything works afterwards.

use std::{
    collections::BTreeMap,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use upcie_nvme::{
    Controller, DmaBuf, Failure, Namespace, QueuePair, ResetKind, Wait,
    queue::Returned,
    spec::{Command, FeatureId, FeatureSelect},
};
use upcie_tests::{
    deadline,
    device::namespaces,
    io::{create, finish, only, read, write},
    on_each_device, says,
};

const DEPTH: u32 = 64;

/// A queue, and its commands in flight: the address of the buffer by tag.
struct Lane {
    queue: QueuePair<u64>,
    flying: BTreeMap<u64, u64>,
    idle: Vec<DmaBuf>,
    next: u64,
}

impl Lane {
    fn new(controller: &Controller, block: usize) -> Self {
        let queue = create(controller.queue_pair().depth(DEPTH));
        let idle = (1..DEPTH).map(|_| controller.alloc(block).unwrap()).collect();
        Self { queue, flying: BTreeMap::new(), idle, next: 0 }
    }

    /// Reaps, and reads into every idle buffer.
    fn turn(&mut self, namespace: &Namespace) -> upcie_nvme::Result<usize> {
        let mut done = 0;
        let mut turn = self.queue.turn()?;
        for completion in turn.by_ref() {
            let (tag, result, buffer) = completion.into_parts();
            result.expect("a read");
            assert_eq!(self.flying.remove(&tag), Some(buffer.iova(0)), "each tag once, with its buffer");
            self.idle.push(buffer);
            done += 1;
        }
        while let Some(buffer) = self.idle.pop() {
            self.flying.insert(self.next, buffer.iova(0));
            if let Err(refused) = turn.read(namespace, self.next % namespace.blocks(), buffer, self.next) {
                // A turn that was open across the reset.
                self.flying.remove(&refused.tag);
                self.idle.push(refused.buffer);
                break;
            }
            self.next += 1;
        }
        Ok(done)
    }

    fn take_back(&mut self, all: Vec<Returned<u64>>) {
        for returned in all {
            let (tag, result, buffer) = returned.into_parts();
            assert!(result.is_none_or(|result| result.is_ok()), "a read");
            assert_eq!(self.flying.remove(&tag), Some(buffer.iova(0)), "each tag once, with its buffer");
            self.idle.push(buffer);
        }
        assert!(self.flying.is_empty(), "all that was in flight: {:?}", self.flying);
        assert_eq!(self.idle.len(), DEPTH as usize - 1);
    }
}

#[test]
fn every_kind_of_reset_gives_every_payload_back() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).remove(0);
        let vectors = controller.vectors().unwrap();
        let mut builder = controller.queue_pair().depth(DEPTH);
        if vectors > 0 {
            builder = builder.interrupt(vectors - 1);
        }
        let queue = create(builder);
        let idle = (1..DEPTH).map(|_| controller.alloc(namespace.block_size()).unwrap()).collect();
        let mut lane = Lane { queue, flying: BTreeMap::new(), idle, next: 0 };
        for kind in [ResetKind::Function, ResetKind::Subsystem, ResetKind::Controller] {
            lane.turn(&namespace).unwrap();
            let outcome = controller.reset_by(kind);
            if kind == ResetKind::Subsystem && !controller.capabilities().nssrs() {
                says(&outcome.unwrap_err(), &[controller.name(), "no NVM subsystem reset", "CAP.NSSRS"]);
                continue;
            }
            outcome.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            assert!(is_reset(&lane.queue.turn().unwrap_err()), "{kind:?}");
            let all = lane.queue.recover().unwrap();
            lane.take_back(all);
            // Interrupts come as before.
            lane.turn(&namespace).unwrap();
            let wait = if vectors > 0 { Wait::Interrupt } else { Wait::Poll };
            let mut done = 0;
            while !lane.flying.is_empty() {
                assert!(lane.queue.wait(wait, deadline()).unwrap(), "{kind:?}");
                for completion in lane.queue.turn().unwrap() {
                    let (tag, result, buffer) = completion.into_parts();
                    result.unwrap();
                    lane.flying.remove(&tag);
                    lane.idle.push(buffer);
                    done += 1;
                }
            }
            assert_eq!(done, DEPTH - 1, "{kind:?}");
            namespace.flush().unwrap();
        }
    });
}

fn is_reset(error: &upcie_nvme::Error) -> bool {
    matches!(error.failure(), Failure::Reset { .. })
}

#[test]
fn a_reset_gives_every_payload_back_once() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).remove(0);
        let count = controller.max_queue_pairs().min(4);
        for _ in 0..3 {
            let start = Barrier::new(usize::from(count) + 1);
            thread::scope(|scope| {
                for _ in 0..count {
                    scope.spawn(|| {
                        let mut lane = Lane::new(&controller, namespace.block_size());
                        lane.turn(&namespace).unwrap();
                        start.wait();
                        let error = loop {
                            if let Err(error) = lane.turn(&namespace) {
                                break error;
                            }
                        };
                        says(&error, &[controller.name(), "was reset", "recover"]);
                        assert!(is_reset(&error));
                        let id = lane.queue.id();
                        let all = lane.queue.recover().unwrap();
                        lane.take_back(all);
                        assert_eq!(lane.queue.id(), id);
                        // It works as before, and what is in flight comes back with the queue.
                        let mut done = 0;
                        while done < 1000 {
                            done += lane.turn(&namespace).unwrap();
                        }
                        let Lane { queue, .. } = lane;
                        let in_flight = queue.in_flight();
                        assert_eq!(queue.close().unwrap().len(), in_flight);
                    });
                }
                start.wait();
                controller.reset().unwrap();
            });
        }
        read(&controller, &namespace, 0, 1);
    });
}

#[test]
fn a_turn_open_across_a_reset_sends_nothing() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, pattern) = namespaces(&controller).remove(0);
        let mut old = controller.alloc(namespace.block_size()).unwrap();
        pattern.fill(&mut old, 5, 1);
        write(&namespace, 5, &mut old);
        let mut queue = create::<u64>(controller.queue_pair().depth(DEPTH));
        let mut turn = queue.turn().unwrap();
        let mut new = controller.alloc(namespace.block_size()).unwrap();
        pattern.fill(&mut new, 5, 2);
        turn.write(&namespace, 5, new, 1).unwrap();
        controller.reset().unwrap();
        turn.ring();
        let refused = turn.read(&namespace, 0, controller.alloc(512).unwrap(), 2).unwrap_err();
        says(&refused, &["closed during this turn"]);
        assert!(turn.next().is_none());
        drop(turn);
        assert!(is_reset(&queue.turn().unwrap_err()));
        assert!(is_reset(&queue.wait(Wait::Poll, deadline()).unwrap_err()), "a wait does not wait");
        let mut all = queue.recover().unwrap();
        let (tag, result, _) = all.pop().unwrap().into_parts();
        assert_eq!((tag, result, all.len()), (1, None, 0));
        let block = read(&controller, &namespace, 5, 1);
        pattern.verify(&block, 5, 1);
        assert!(queue.recover().unwrap().is_empty(), "nothing to recover");
        queue
            .turn()
            .unwrap()
            .read(&namespace, 5, controller.alloc(namespace.block_size()).unwrap(), 3)
            .unwrap();
        let (tag, buffer) = only(&mut queue);
        assert_eq!(tag, 3);
        pattern.verify(&buffer, 5, 1);
    });
}

#[test]
fn two_threads_can_reset_at_once() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).remove(0);
        let mut queue = create::<u64>(controller.queue_pair());
        for _ in 0..5 {
            let start = Barrier::new(2);
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        start.wait();
                        controller.reset().unwrap();
                    });
                }
            });
            read(&controller, &namespace, 0, 1);
            queue.recover().unwrap();
            queue.turn().unwrap().flush(&namespace, 1).unwrap();
            assert_eq!(finish(&mut queue).len(), 1);
        }
    });
}

#[test]
fn blocking_calls_and_admin_commands_go_on() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).remove(0);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut buffer = controller.alloc(16 << 10).unwrap();
                let (mut done, mut resets) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    match namespace.read(0, &mut buffer) {
                        Ok(()) => done += 1,
                        Err(error) => {
                            assert!(is_reset(&error) && error.is_retryable(), "{error}");
                            says(&error, &["Read", "not known whether"]);
                            assert_eq!(buffer.len(), 16 << 10, "the buffer is back");
                            resets += 1;
                        }
                    }
                }
                (done, resets)
            });
            let asker = scope.spawn(|| {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    match controller.namespace_ids() {
                        Ok(_) => done += 1,
                        Err(error) => assert!(is_reset(&error), "{error}"),
                    }
                    let queue = controller.queue_pair().create::<u64>();
                    match queue.and_then(QueuePair::close) {
                        Ok(all) => assert!(all.is_empty()),
                        Err(error) => assert!(is_reset(&error), "{error}"),
                    }
                }
                done
            });
            for _ in 0..10 {
                controller.reset().unwrap();
                read(&controller, &namespace, 0, 1);
            }
            stop.store(true, Ordering::Relaxed);
            reader.join().unwrap();
            asker.join().unwrap();
        });
        // No id is lost.
        let all: Vec<QueuePair> =
            (0..controller.max_queue_pairs()).map(|_| create(controller.queue_pair())).collect();
        drop(all);
        read(&controller, &namespace, 0, 1);
    });
}

#[test]
fn features_are_set_again() {
    on_each_device(|device| {
        let controller = device.open();
        let get = |feature| {
            controller
                .admin(&Command::get_features(FeatureId(feature), FeatureSelect::CURRENT), &mut [])
                .unwrap()
        };
        // The temperature threshold, over and under; the last value of each counts.
        let set = |value| {
            let command = Command::set_features(FeatureId::TEMPERATURE_THRESHOLD, value);
            controller.admin(&command, &mut []).unwrap();
        };
        let feature = FeatureId::TEMPERATURE_THRESHOLD.0;
        let before = get(feature) & 0xffff;
        set(before + 2);
        set(before + 1);
        controller.reset().unwrap();
        assert_eq!(get(feature) & 0xffff, before + 1);
        controller.reset().unwrap();
        assert_eq!(get(feature) & 0xffff, before + 1, "after each reset");
    });
}

#[test]
fn interrupts_come_after_a_reset() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).remove(0);
        if device.vectors(&controller) == 0 {
            return;
        }
        let mut queue = create::<u64>(device.queue_pair(&controller, 1));
        for tag in 0..3 {
            queue.turn().unwrap().flush(&namespace, tag).unwrap();
            assert!(queue.wait(Wait::Interrupt, deadline()).unwrap());
            assert_eq!(*queue.turn().unwrap().next().unwrap().tag(), tag);
            controller.reset().unwrap();
            queue.recover().unwrap();
        }
    });
}

#[test]
fn a_queue_dropped_after_a_reset_frees_its_id_and_memory() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).remove(0);
        let before = controller.heap().in_use();
        for close in [false, true] {
            for _ in 0..controller.max_queue_pairs() + 2 {
                let mut queue = create::<u64>(controller.queue_pair());
                queue.turn().unwrap().flush(&namespace, 1).unwrap();
                controller.reset().unwrap();
                if close {
                    assert_eq!(queue.close().unwrap().len(), 1);
                }
            }
        }
        assert_eq!(controller.heap().in_use(), before);
    });
}

#[test]
fn a_silent_controller_is_down_in_time() {
    let timeout = Duration::from_millis(200);
    on_each_device(|device| {
        let Some(_) = device.server() else { return };
        let controller = device.open_with(Controller::builder().timeout(timeout));
        let (namespace, _) = namespaces(&controller).remove(0);
        let mut queue = create::<u64>(controller.queue_pair());
        queue.turn().unwrap().flush(&namespace, 1).unwrap();
        device.server().unwrap().process().kill();
        for error in [
            controller.reset().unwrap_err(),
            queue.turn().unwrap_err(),
            queue.recover().unwrap_err(),
            namespace.flush().unwrap_err(),
            controller.namespace_ids().unwrap_err(),
            controller.namespace(1).unwrap_err(),
            controller.queue_pair().create::<u64>().unwrap_err(),
        ] {
            assert!(matches!(error.failure(), Failure::Down { .. }), "{error}");
            says(&error, &[controller.name(), "is down", "did not come back from a reset", "open it again"]);
        }
        assert_eq!(queue.close().unwrap().len(), 1, "a process that is gone uses no memory");
    });
}
