//! The controller memory buffer (CMB) for data and submission queues, and the persistent memory region (PMR).

use std::sync::Arc;
use upcie_nvme::{
    Address, Controller, DmaBuf, Refusal, Wait, controller::Cmb, queue::QueuePairBuilder,
    upcie_core::mmio::Caching,
};
use upcie_tests::{
    device::{another, namespaces},
    in_guest,
    io::{create, finish, only, read, reap_with, write},
    on_each_device,
    process::faults,
    says, scaled,
};

/// Runs `test` on each device that has a CMB; checks that the others report that they have none.
fn on_each_buffer(test: impl Fn(&Controller, &Arc<Cmb>)) {
    on_each_device(|device| {
        let controller = device.open();
        let there = controller.cmb().expect("registers that can be");
        assert_eq!(there.is_some(), controller.capabilities().cmbs());
        match there {
            Some(buffer) => test(&controller, &buffer),
            None => {
                let refused = create_in_controller(&controller).create::<()>().unwrap_err();
                says(&refused, &[controller.name(), "it has no memory buffer", "CAP.CMBS"]);
            }
        }
    });
}

fn create_in_controller(controller: &Controller) -> QueuePairBuilder<'_> {
    controller.queue_pair().submission_in_controller(true)
}

/// Copies the bytes out of a buffer in device memory.
fn bytes(buffer: &DmaBuf) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    buffer.read_at(0, &mut bytes);
    bytes
}

#[test]
fn the_cmbs_uses_match_its_registers() {
    on_each_buffer(|controller, buffer| {
        let size = buffer.properties();
        assert_eq!(Some(buffer.size() as u64), size.bytes());
        assert!(buffer.size() >= 4096 && buffer.iova() % 4096 == 0);
        assert_eq!((buffer.reads(), buffer.writes()), (size.rds(), size.wds()));
        assert!(size.rds() && size.wds() && size.sqs() && buffer.location().cdpcils());
        // QEMU's CMB takes no completion queues.
        assert!(!(in_guest() && size.cqs()));
        assert!(matches!(buffer.caching(), Caching::Uncached | Caching::WriteCombining));
        let again = controller.cmb().unwrap().expect("it is still there");
        assert!(Arc::ptr_eq(buffer, &again), "one buffer, however often it is asked for");
    });
}

#[test]
fn data_goes_to_and_from_the_cmb() {
    on_each_buffer(|controller, memory| {
        for (namespace, pattern) in namespaces(controller) {
            // One page, two pages, and a length that needs a list.
            for len in [4096, 8192, 128 << 10] {
                let blocks = len / namespace.block_size();
                let mut buffer = memory.alloc(len).expect("room");
                assert!(buffer.is_device_memory());
                assert!(bytes(&buffer).iter().all(|&byte| byte == 0), "it is zeroed");
                buffer.write_at(0, &pattern.bytes(64, blocks, 1));
                write(&namespace, 64, &mut buffer);
                pattern.verify(&read(controller, &namespace, 64, blocks), 64, 1);

                let mut other = controller.alloc(len).unwrap();
                pattern.fill(&mut other, 64, 2);
                write(&namespace, 64, &mut other);
                buffer.fill(0);
                namespace.read(64, &mut buffer).unwrap();
                pattern.verify(&bytes(&buffer), 64, 2);
            }
        }
    });
}

#[test]
fn parts_and_chains_of_cmb_buffers_are_transferred() {
    on_each_buffer(|controller, memory| {
        let (namespace, pattern) = namespaces(controller).remove(0);
        let block = namespace.block_size();
        let mut queue = create::<u32>(controller.queue_pair());
        let blocks = 32 << 10 >> block.ilog2();
        let mut part = memory.alloc(64 << 10).unwrap().slice(4096..36 << 10);
        part.write_at(0, &pattern.bytes(0, blocks, 3));
        // Pages that are not adjacent.
        let (mut first, second) = (memory.alloc(4096).unwrap(), memory.alloc(12288).unwrap());
        let rest = (4096 + 12288) / block;
        let mut data = pattern.bytes(1000, rest, 3);
        first.write_at(0, &data[..4096]);
        let mut second = second;
        second.write_at(0, &data.split_off(4096));
        first.chain(second);
        let mut turn = queue.turn().unwrap();
        turn.write(&namespace, 0, part, 1).unwrap();
        turn.write(&namespace, 1000, first, 2).unwrap();
        drop(turn);
        finish(&mut queue).into_iter().for_each(|done| done.into_parts().1.unwrap());
        pattern.verify(&read(controller, &namespace, 0, blocks), 0, 3);
        pattern.verify(&read(controller, &namespace, 1000, rest), 1000, 3);
    });
}

#[test]
fn a_chain_of_host_and_cmb_memory_is_refused() {
    on_each_buffer(|controller, memory| {
        if memory.location().cdmmms() {
            return println!("{}: it takes that", controller.name());
        }
        let (namespace, _) = namespaces(controller).remove(0);
        let mut queue = create::<()>(controller.queue_pair());
        let mut chain = memory.alloc(4096).unwrap();
        chain.chain(controller.alloc(4096).unwrap());
        let refused = queue.turn().unwrap().read(&namespace, 0, chain, ()).unwrap_err();
        assert_eq!(refused.reason, Refusal::Mixed);
        let mut chain = refused.buffer;
        let error = namespace.read(0, &mut chain).unwrap_err();
        says(&error, &[controller.name(), "partly in its own memory"]);
        assert_eq!(chain.total_len(), 8192);
    });
}

#[test]
fn a_submission_queue_in_the_cmb_works() {
    on_each_buffer(|controller, memory| {
        let (namespace, pattern) = namespaces(controller).remove(0);
        let before = memory.heap().in_use();
        // An odd depth moves the wrap of the ring against the batches in each lap.
        let mut queue = create::<u64>(create_in_controller(controller).depth(37));
        assert!(memory.heap().in_use() > before, "the ring is in the controller");
        let (blocks, rounds) = (128, scaled(1600) as u32);
        let mut idle: Vec<_> =
            (0..queue.capacity()).map(|_| controller.alloc(namespace.block_size()).unwrap()).collect();
        // At least 10^4 commands.
        for round in 0..rounds.max(80) {
            let mut block = 0;
            while block < blocks {
                while block < blocks {
                    let Some(mut buffer) = idle.pop() else { break };
                    pattern.fill(&mut buffer, block, round);
                    queue.turn().unwrap().write(&namespace, block, buffer, block).unwrap();
                    block += 1;
                }
                for completion in finish(&mut queue) {
                    let (_, result, buffer) = completion.into_parts();
                    result.unwrap();
                    idle.push(buffer);
                }
            }
        }
        let last = rounds.max(80) - 1;
        pattern.verify(&read(controller, &namespace, 0, blocks as usize), 0, last);
        // A part of a buffer: the queue makes the list for the command.
        let part = controller.alloc(64 << 10).unwrap().slice(4096..36 << 10);
        queue.turn().unwrap().read(&namespace, 0, part, 0).unwrap();
        assert_eq!(only(&mut queue).1.len(), 32 << 10);
        drop(queue);
        assert_eq!(memory.heap().in_use(), before, "the ring's memory came back");
    });
}

#[test]
fn interrupts_arrive_for_queues_in_the_cmb() {
    on_each_buffer(|controller, memory| {
        if controller.irq_kind().is_none() {
            return println!("{}: without interrupts", controller.name());
        }
        let (namespace, pattern) = namespaces(controller).remove(0);
        let vector = controller.vectors().unwrap() - 1;
        let mut queue = create::<()>(create_in_controller(controller).interrupt(vector));
        for round in 0..scaled(200) as u32 {
            let mut buffer = memory.alloc(namespace.block_size()).unwrap();
            buffer.write_at(0, &pattern.bytes(5, 1, round));
            queue.turn().unwrap().write(&namespace, 5, buffer, ()).unwrap();
            let done = reap_with(&mut queue, Wait::Interrupt);
            assert_eq!(done.len(), 1);
            pattern.verify(&read(controller, &namespace, 5, 1), 5, round);
        }
    });
}

#[test]
fn a_full_cmb_refuses_and_reuses_freed_memory() {
    on_each_buffer(|controller, memory| {
        let piece = memory.size() / 4;
        let all: Vec<_> =
            (0..4).map(|_| memory.heap().alloc_unzeroed(piece).expect("room for four")).collect();
        let error = memory.alloc(512).unwrap_err();
        says(&error, &["the memory in the device has no room"]);
        let error = create_in_controller(controller).create::<()>().unwrap_err();
        says(&error, &["the memory in the device has no room"]);
        drop(all);
        drop(memory.alloc(512).unwrap());
        create::<()>(create_in_controller(controller));
        assert_eq!(memory.heap().in_use(), 0);
    });
}

#[test]
fn another_controllers_cmb_buffer_is_refused() {
    on_each_buffer(|_, memory| {
        let other = another();
        let (namespace, _) = namespaces(&other).remove(0);
        let mut queue = create::<()>(other.queue_pair());
        let buffer = memory.alloc(4096).unwrap();
        let refused = queue.turn().unwrap().read(&namespace, 0, buffer, ()).unwrap_err();
        assert_eq!(refused.reason, Refusal::ForeignBuffer);
        let mut buffer = refused.buffer;
        says(&namespace.read(0, &mut buffer).unwrap_err(), &["another device's address space"]);
    });
}

#[test]
fn the_cmb_is_there_after_a_reopen() {
    on_each_device(|device| {
        for round in 0..3 {
            let controller = device.open();
            let Some(memory) = controller.cmb().unwrap() else { return };
            let (namespace, pattern) = namespaces(&controller).remove(0);
            let mut buffer = memory.alloc(4096).unwrap();
            let blocks = 4096 / namespace.block_size();
            buffer.write_at(0, &pattern.bytes(9, blocks, round));
            write(&namespace, 9, &mut buffer);
            pattern.verify(&read(&controller, &namespace, 9, blocks), 9, round);
            drop(namespace);
            drop(controller);
            // The rest can be looked at, and stays this test's.
            if round == 1 {
                let _ = bytes(&buffer);
                buffer.fill(0);
            }
        }
    });
}

#[test]
fn the_cmb_faults_no_page_after_the_first_call() {
    on_each_buffer(|_, memory| {
        let len = memory.size() / 2;
        let buffer = memory.heap().alloc_unzeroed(len).unwrap();
        let mut word = [0; 8];
        faults();
        let before = faults();
        for offset in (0..len).step_by(4096) {
            buffer.read_at(offset, &mut word);
        }
        assert_eq!(faults() - before, 0);
    });
}

#[test]
fn a_caching_that_the_transport_lacks_is_refused() {
    on_each_device(|device| {
        let controller = device.open_with(Controller::builder().cmb_caching(Caching::WriteBack));
        if controller.capabilities().cmbs() {
            let error = controller.cmb().unwrap_err();
            says(&error, &["BAR 2", "write-back", "uncached"]);
        }
    });
}

#[test]
fn the_pmr_keeps_its_data_over_a_close() {
    on_each_device(|device| {
        let version = upcie_tests::seeded(7).next() as u32;
        // Each opening of an embedded controller makes another one.
        let is_another = matches!(device.address(), Address::Emulated(_));
        for round in 0..2 {
            let controller = device.open();
            let there = controller.pmr().expect("registers that can be");
            assert_eq!(there.is_some(), controller.capabilities().pmrs());
            let Some(region) = there else { return };
            // The whole region, cut in two: the parts are where they were before.
            let (first, second) = region.alloc_unzeroed(region.size()).expect("all of it").split_at(1 << 20);
            assert_eq!((region.offset_of(&first), region.offset_of(&second)), (Some(0), Some(1 << 20)));
            assert_eq!(region.offset_of(&controller.alloc(512).unwrap()), None);
            let mut part = second.slice(8192..16384);
            let (namespace, pattern) = namespaces(&controller).remove(0);
            let blocks = 8192 / namespace.block_size();
            if round == 0 || is_another {
                part.write_at(0, &pattern.bytes(20, blocks, version));
                region.flush().unwrap();
                assert_eq!((region.status().unwrap().err(), region.status().unwrap().hsts()), (0, 0));
            } else {
                pattern.verify(&bytes(&part), 20, version);
            }
            if region.takes_data() {
                write(&namespace, 20, &mut part);
                pattern.verify(&read(&controller, &namespace, 20, blocks), 20, version);
                namespace.read(20, &mut part).unwrap();
                pattern.verify(&bytes(&part), 20, version);
            }
            drop(first);
        }
    });
}

#[test]
fn data_partly_in_the_pmr_is_refused() {
    on_each_device(|device| {
        let controller = device.open();
        let Some(region) = controller.pmr().unwrap().filter(|region| region.takes_data()) else { return };
        let (namespace, _) = namespaces(&controller).remove(0);
        let mut others = vec![controller.alloc(4096).unwrap()];
        others.extend(controller.cmb().unwrap().map(|memory| memory.alloc(4096).unwrap()));
        let mut queue = create::<()>(controller.queue_pair());
        for other in others {
            let mut chain = region.alloc_unzeroed(4096).unwrap();
            chain.chain(other);
            let refused = queue.turn().unwrap().read(&namespace, 0, chain, ()).unwrap_err();
            assert_eq!(refused.reason, Refusal::Mixed);
        }
    });
}
