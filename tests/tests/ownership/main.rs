//! Ownership and lifetimes: resources of another device are refused, nothing is freed under a device, and a
//! refused payload comes back.

mod refusals;

use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::Pid,
};
use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use upcie_nvme::{Controller, Failure, Refusal, Wait};
use upcie_tests::{
    data::Bytes,
    deadline,
    device::namespaces,
    io::{create, finish, only, read},
    on_each_device, process, says, scaled,
};

#[test]
fn every_handle_keeps_the_controller_open() {
    on_each_device(|device| {
        let (mut queue, namespace, buffer) = {
            let controller = device.open();
            let queue = create::<u64>(controller.queue_pair().depth(4));
            (queue, controller.namespace(1).unwrap(), controller.alloc(4096).unwrap())
        };
        queue.turn().unwrap().read(&namespace, 0, buffer, 3).unwrap();
        let (tag, mut buffer) = only(&mut queue);
        assert_eq!(tag, 3);
        drop(queue);
        namespace.read(0, &mut buffer).unwrap();
        drop(namespace);
        // A buffer alone keeps its memory mapped and usable.
        buffer.fill(1);
        assert!(buffer.bytes().iter().all(|&byte| byte == 1));
        drop(buffer);
        device.open();
    });
}

#[test]
fn a_leaked_turn_closes_its_queue_and_nothing_else() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).remove(0);
        let before = {
            read(&controller, &namespace, 0, 1);
            controller.heap().in_use()
        };
        for _ in 0..scaled(20) {
            let mut queue = create::<u64>(controller.queue_pair().depth(8));
            let mut turn = queue.turn().unwrap();
            for _ in 0..3 {
                turn.read(&namespace, 0, controller.alloc(4096).unwrap(), 0).unwrap();
            }
            drop(turn);
            let mut turn = queue.turn().unwrap();
            // Commands that the controller has been told of, and some whose doorbell is never rung.
            for _ in 0..3 {
                turn.read(&namespace, 0, controller.alloc(4096).unwrap(), 0).unwrap();
            }
            let reaped = turn.next();
            mem::forget(turn);
            drop(reaped);
            for _ in 0..2 {
                let error = queue.turn().unwrap_err();
                assert!(matches!(error.failure(), Failure::LeakedTurn { .. }), "{error}");
                says(&error, &[controller.name(), "leaked", "make another"]);
            }
            assert!((5..=6).contains(&queue.in_flight()), "decided by the slots: {}", queue.in_flight());
            drop(queue);
            assert_eq!(controller.heap().in_use(), before, "all buffers came back");
            let mut queue = create::<u64>(controller.queue_pair().depth(8));
            queue.turn().unwrap().read(&namespace, 0, controller.alloc(4096).unwrap(), 0).unwrap();
            only(&mut queue);
        }
        drop((namespace, controller));
        device.open();
    });
}

#[test]
fn a_forked_childs_drops_leave_the_device_alone() {
    on_each_device(|device| {
        let controller = device.open();
        let target = namespaces(&controller).remove(0);
        let mut queue = create::<u64>(device.queue_pair(&controller, 1).depth(16));
        // The blocking calls have a queue as well.
        read(&controller, &target.0, 0, 1);
        let spare = controller.alloc(64 << 10).unwrap();
        for round in 1..=3 {
            let mut turn = queue.turn().unwrap();
            for block in 0..8 {
                let mut buffer = controller.alloc(target.0.block_size()).unwrap();
                target.1.fill(&mut buffer, block, round);
                turn.write(&target.0, block, buffer, block).unwrap();
            }
            drop(turn);
            // SAFETY: the child drops handles and ends by `_exit`; it takes no lock that another thread may
            // hold but the allocator's, which fork handles.
            match unsafe { libc::fork() } {
                0 => {
                    // SAFETY: a bitwise copy of a handle that the child owns; the original is never dropped
                    // here, since the child ends first.
                    let queue = unsafe { std::ptr::read(&raw const queue) };
                    // The controller has not let go of anything, and a child that closes the queue gets no
                    // error.
                    let told = if round == 2 {
                        queue.close().is_ok()
                    } else {
                        drop(queue);
                        false
                    };
                    // SAFETY: a bitwise copy of a handle whose original is never dropped in the child.
                    let spare = unsafe { std::ptr::read(&raw const spare) };
                    drop(spare);
                    // SAFETY: a bitwise copy of a handle whose original is never dropped in the child.
                    let target = unsafe { std::ptr::read(&raw const target) };
                    drop(target);
                    // SAFETY: a bitwise copy of a handle whose original is never dropped in the child.
                    let controller = unsafe { std::ptr::read(&raw const controller) };
                    drop(controller);
                    // SAFETY: the process ends at once.
                    unsafe { libc::_exit(told.into()) }
                }
                child => {
                    assert!(child > 0, "fork");
                    let ended = process::within(deadline(), move || waitpid(Pid::from_raw(child), None));
                    assert_eq!(ended, Ok(WaitStatus::Exited(Pid::from_raw(child), 0)), "the child");
                }
            }
            let done = finish(&mut queue);
            assert_eq!(done.len(), 8);
            assert!(done.iter().all(|done| done.status().is_success()));
            target.1.verify(&read(&controller, &target.0, 0, 8), 0, round);
            // Admin commands and new queues work as well.
            let mut another = create::<u64>(controller.queue_pair().depth(4));
            another.turn().unwrap().flush(&target.0, 1).unwrap();
            only(&mut another);
        }
        drop(spare);
    });
}

/// A tag that counts its drops.
struct Tag(Arc<AtomicUsize>);

impl Drop for Tag {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn tags_are_dropped_once_each() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = &namespaces(&controller)[0];
        for leak in [false, true] {
            let drops = Arc::new(AtomicUsize::new(0));
            let mut queue = create::<Tag>(controller.queue_pair().depth(16));
            let mut turn = queue.turn().unwrap();
            for _ in 0..15 {
                turn.read(namespace, 0, controller.alloc(4096).unwrap(), Tag(drops.clone())).unwrap();
            }
            let full = turn.read(namespace, 0, controller.alloc(4096).unwrap(), Tag(drops.clone()));
            assert_eq!(full.unwrap_err().reason, Refusal::Full);
            assert_eq!(drops.swap(0, Ordering::Relaxed), 1, "the refused one");
            drop(turn);
            // One tag is reaped; the queue still owns the others, completed or not.
            assert!(queue.wait(Wait::Poll, deadline()).unwrap());
            drop(queue.turn().unwrap().next().expect("a completion"));
            assert_eq!(drops.load(Ordering::Relaxed), 1, "the reaped one");
            if leak {
                mem::forget(queue.turn().unwrap());
            }
            drop(queue);
            assert_eq!(drops.load(Ordering::Relaxed), 15, "in flight when the queue was dropped, or reaped");
        }
    });
}

#[test]
fn a_queue_moves_to_another_thread_with_its_commands() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, pattern) = namespaces(&controller).remove(0);
        let mut queue = create::<String>(device.queue_pair(&controller, 1).depth(4));
        let mut buffer = controller.alloc(4096).unwrap();
        pattern.fill(&mut buffer, 0, 1);
        queue.turn().unwrap().write(&namespace, 0, buffer, "moved".into()).unwrap();
        drop(controller);
        let (tag, buffer) = thread::spawn(move || only(&mut queue)).join().unwrap();
        assert_eq!(tag, "moved");
        pattern.verify(&buffer, 0, 1);
    });
}

#[test]
fn the_last_handle_shuts_the_controller_down() {
    on_each_device(|device| {
        let controller: Controller = device.open();
        let queues: Vec<_> = (0..2).map(|_| create::<u64>(controller.queue_pair().depth(4))).collect();
        let namespace = controller.namespace(1).unwrap();
        drop(controller);
        let threads: Vec<_> = queues.into_iter().map(|queue| thread::spawn(move || drop(queue))).collect();
        process::within(deadline() + Duration::from_secs(10), move || {
            threads.into_iter().for_each(|thread| thread.join().unwrap())
        });
        drop(namespace);
        device.open();
    });
}

#[test]
fn a_timed_out_blocking_call_frees_its_buffer() {
    let address = "emu:size=1M,latency=60s";
    // Admin commands have the same deadline: it must be enough for them in the guest and on a busy machine.
    let timeout = Duration::from_secs(2);
    let options = Controller::builder().timeout(timeout).queues(1);
    let controller = options.open(address).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut buffer = controller.alloc(4096).unwrap();
    // More rounds than queue pairs: each round's queue pair comes back, too.
    for _ in 0..controller.max_queue_pairs() + 1 {
        let error = namespace.read(0, &mut buffer).unwrap_err();
        match error.failure() {
            Failure::Timeout { kept: false, after, .. } => assert_eq!(*after, timeout),
            _ => panic!("{error:?}"),
        }
        assert_eq!(buffer.len(), 4096);
    }
}

/// Regression: through the file of its own buffer, safe code could change another buffer's PRP list.
#[test]
fn no_buffer_leads_to_rings_lists_or_a_file() {
    on_each_device(|device| {
        let controller = device.open();
        let lens = [512, 4096, 64 << 10, 1 << 20];
        let buffers = lens.map(|len| controller.alloc(len).unwrap());
        // The halves of ASQ and ACQ.
        let half = |at: usize| u64::from(controller.register(at).unwrap());
        let rings = [0x28, 0x30].map(|at| half(at) | half(at + 4) << 32);
        let lists = buffers.iter().filter(|buffer| buffer.len() > 2 * controller.page_size());
        let lists = lists.map(|buffer| buffer.prepared().second);
        for address in lists.chain(rings) {
            for region in buffers.iter().map(|buffer| buffer.region().unwrap()) {
                let mut pages = (0..region.len()).step_by(4096).map(|page| region.iova(page));
                assert!(pages.all(|page| page != address & !4095), "{address:#x} is in {region:?}");
                assert!(region.memory().unwrap().shared_file().is_none());
            }
        }
    });
}

#[test]
fn rings_and_lists_take_little_memory() {
    on_each_device(|device| {
        let controller = device.open();
        let heap = controller.heap();
        // One region for buffers, and one for rings and lists.
        let private = if heap.space().is_physical() { 2 << 20 } else { 512 << 10 };
        assert!(heap.footprint() <= (2 << 20) + private, "{heap:?} after opening");
        let before = heap.in_use();
        let queue = create::<u64>(controller.queue_pair().depth(1024.min(controller.max_depth())));
        assert!(heap.in_use() - before <= 256 << 10, "{} bytes for {queue:?}", heap.in_use() - before);
    });
}
