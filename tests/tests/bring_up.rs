//! Bring-up of a controller, repeated, in any state that its last user left.

use std::time::Instant;
use upcie_nvme::{Address, Controller, ResetKind};
use upcie_tests::{
    Device, deadline,
    device::namespaces,
    io::{self, create},
    on_each_device,
    process::{Process, again, role},
    scaled, seeded,
};

#[test]
fn identify_data_is_plausible() {
    on_each_device(|device| {
        let controller = device.open();
        let identify = controller.identify();
        assert!(!identify.model().is_empty() && !identify.serial().is_empty(), "{identify:?}");
        assert!(controller.version().major() >= 1);
        assert!(controller.page_size().is_power_of_two() && controller.page_size() >= 4096);
        assert!(controller.max_transfer() >= 2 * controller.page_size());
        assert!(controller.max_queue_pairs() >= 2);
        assert!(controller.max_depth() >= 2);
        let ids = controller.namespace_ids().unwrap();
        assert!(ids.is_sorted() && ids.iter().all(|id| (1..=identify.nn).contains(id)), "{ids:?}");
        for (namespace, _) in namespaces(&controller) {
            assert!(matches!(namespace.block_size(), 512 | 4096));
            assert!(namespace.blocks() > 0);
            assert_eq!(namespace.max_transfer() % namespace.block_size(), 0);
            assert!(namespace.max_transfer() <= controller.max_transfer());
            assert_eq!(namespace.identify().nsze, namespace.blocks());
        }
    });
}

#[test]
fn a_controller_opens_and_closes_twenty_times() {
    on_each_device(|device| {
        for round in 0..scaled(20).max(5) as u32 {
            use_it(device.address(), round);
        }
    });
}

#[test]
fn a_controller_comes_back_from_a_reset_of_its_function() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).remove(0);
        // The blocking calls' queue is created again.
        for _ in 0..2 {
            namespace.flush().unwrap();
            controller.reset_by(ResetKind::Function).unwrap();
            namespace.flush().unwrap();
        }
    });
}

#[test]
fn a_controller_opens_after_a_user_killed_under_load() {
    if let Some(address) = role() {
        load(&address.parse().unwrap());
    }
    on_each_device(|device| {
        for round in 0..3 {
            let name = "a_controller_opens_after_a_user_killed_under_load";
            let mut user = Process::start(again(name, &device.address().to_string()));
            user.wait_for("under load").unwrap_or_else(|error| panic!("{error}"));
            user.kill();
            use_it(device.address(), round);
        }
    });
}

#[test]
fn a_queue_left_full_does_not_hinder_the_next_user() {
    on_each_device(|device: &mut Device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).remove(0);
        let mut queue = create::<u64>(controller.queue_pair().depth(controller.max_depth().min(64)));
        let mut turn = queue.turn().unwrap();
        while turn.room() > 0 {
            let buffer = controller.alloc(namespace.block_size()).unwrap();
            turn.read(&namespace, 0, buffer, 0).unwrap();
        }
        drop(turn);
        // The completions are not reaped, and the controller's handle is dropped before the queue.
        drop((controller, namespace));
        drop(queue);
        let (address, start) = (device.address().clone(), Instant::now());
        use_it(&address, 9);
        assert!(start.elapsed() < deadline());
    });
}

/// Opens the controller and checks that I/O works.
fn use_it(address: &Address, version: u32) {
    let controller = Controller::open(address).unwrap();
    let (namespace, pattern) = &namespaces(&controller)[0];
    let mut buffer = controller.alloc(4096).unwrap();
    pattern.fill(&mut buffer, 8, version);
    io::write(namespace, 8, &mut buffer);
    let back = io::read(&controller, namespace, 8, 4096 / namespace.block_size());
    pattern.verify(&back, 8, version);
}

/// Keeps two queues busy until killed.
fn load(address: &Address) -> ! {
    let controller = Controller::open(address).unwrap();
    let (namespace, _) = &namespaces(&controller)[0];
    let mut queues: Vec<_> = (0..2).map(|_| create::<u64>(controller.queue_pair().depth(64))).collect();
    for queue in &mut queues {
        let mut turn = queue.turn().unwrap();
        while turn.room() > 0 {
            turn.write(namespace, 64, controller.alloc(8192).unwrap(), 0).unwrap();
        }
    }
    let mut random = seeded(1);
    for round in 0_u64.. {
        for queue in &mut queues {
            let mut turn = queue.turn().unwrap();
            while let Some(done) = turn.next() {
                let (tag, result, buffer) = done.into_parts();
                result.unwrap();
                let block = random.within(64..1024);
                if random.one_in(2) {
                    turn.read(namespace, block, buffer, tag).unwrap();
                } else {
                    turn.write(namespace, block, buffer, tag).unwrap();
                }
            }
        }
        if round == 1000 {
            println!("under load");
        }
    }
    unreachable!()
}
