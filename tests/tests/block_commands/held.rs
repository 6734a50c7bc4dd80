//! Transfers of parts of memory that stays with the program.

use super::by_prps;
use nix::sys::signal::Signal;
use upcie_nvme::{Direction, DmaBuf, Io, Namespace, QueuePair, Refusal};
use upcie_tests::{
    data::Bytes,
    device::{another, namespaces},
    io::{create, finish, only, read},
    on_each_device, says, scaled, seeded,
};

/// Transfers a part of `held` and waits for it.
fn part(
    queue: &mut QueuePair<u64>,
    direction: Direction,
    namespace: &Namespace,
    slba: u64,
    held: &DmaBuf,
    (start, len): (usize, usize),
) -> Result<(), Refusal> {
    let mut turn = queue.turn().unwrap();
    // SAFETY: the function waits for the command, and `held` is borrowed until then.
    let sent = unsafe {
        turn.submit_held(Io::new(direction, namespace, slba).fua(), held, start..start.wrapping_add(len), 11)
    };
    drop(turn);
    sent.map_err(|refused| refused.reason)?;
    assert_eq!(only(queue).0, 11);
    Ok(())
}

#[test]
fn parts_of_held_memory_are_transferred_at_any_offset() {
    on_each_device(|device| {
        let controller = device.open();
        for (namespace, pattern) in namespaces(&controller) {
            let (size, most) = (namespace.block_size(), namespace.max_transfer());
            let mut queue = create::<u64>(controller.queue_pair());
            let len = (most + 8192).next_power_of_two();
            let mut held = controller.alloc(len).unwrap();
            let mut random = seeded(7);
            let lengths = [1, 2, 4096 / size, 8192 / size, 8192 / size + 1, 20, most / size];
            for round in 0..scaled(200).max(lengths.len()) {
                let blocks = lengths[round % lengths.len()].max(1);
                let part_len = blocks * size;
                // The part begins at any dword, and in one of 8 cases ends at the end of the memory.
                let start = if random.one_in(8) {
                    len - part_len
                } else {
                    random.below((len - part_len) / 4 + 1) * 4
                };
                // PRPs describe whole pages after the first one: a list whose pages don't meet at page
                // boundaries has none.
                let slba = random.within(0..4096);
                let version = 100 + round as u32;
                held.fill(0xee);
                pattern.fill(&mut held.bytes_mut()[start..start + part_len], slba, version);
                part(&mut queue, Direction::Write, &namespace, slba, &held, (start, part_len)).unwrap();
                pattern.verify(&read(&controller, &namespace, slba, blocks), slba, version);
                held.fill(0xee);
                part(&mut queue, Direction::Read, &namespace, slba, &held, (start, part_len)).unwrap();
                pattern.verify(&held.bytes()[start..start + part_len], slba, version);
                let outside = held.bytes()[..start].iter().chain(&held.bytes()[start + part_len..]);
                assert!(outside.into_iter().all(|&byte| byte == 0xee), "only the part was written to");
            }
            queue.close().unwrap();
            drop(held);
        }
    });
}

#[test]
fn impossible_parts_of_held_memory_are_refused() {
    on_each_device(|device| {
        let controller = by_prps(device);
        let foreign = another();
        let (namespace, _) = namespaces(&controller).remove(0);
        let (size, end, most) = (namespace.block_size(), namespace.blocks(), namespace.max_transfer());
        let mut queue = create::<u64>(controller.queue_pair().depth(4));
        let held = controller.alloc(4 * most).unwrap();
        let (len, strange) = (held.len(), foreign.alloc(65536).unwrap());
        for direction in [Direction::Read, Direction::Write] {
            for (slba, at, wanted) in [
                (0, (0, 0), Refusal::Length),
                (0, (0, size - 4), Refusal::Length),
                (0, (0, size + 4), Refusal::Length),
                (0, (len, size), Refusal::Length),
                (0, (len - size + 4, size), Refusal::Length),
                (0, (usize::MAX, size), Refusal::Length),
                (0, (usize::MAX - size + 1, size), Refusal::Length),
                (0, (2, size), Refusal::Unaligned),
                (0, (0, most + size), Refusal::TooLong),
                (0, (0, usize::MAX & !(size - 1)), Refusal::OutOfRange),
                (end, (0, size), Refusal::OutOfRange),
                (end - 1, (0, 2 * size), Refusal::OutOfRange),
                (u64::MAX, (0, size), Refusal::OutOfRange),
                (u64::MAX, (0, 2 * size), Refusal::OutOfRange),
            ] {
                let refused = part(&mut queue, direction, &namespace, slba, &held, at);
                assert_eq!(refused, Err(wanted), "{direction:?} of {at:?} at block {slba}");
            }
            let refused = part(&mut queue, direction, &namespace, 0, &strange, (0, size));
            assert_eq!(refused, Err(Refusal::ForeignBuffer));
            let refused = part(&mut queue, direction, &foreign.namespace(1).unwrap(), 0, &held, (0, size));
            assert_eq!(refused, Err(Refusal::ForeignNamespace));
        }
        // Fill the queue, then submit one command more.
        let mut turn = queue.turn().unwrap();
        let mut send = || {
            // SAFETY: waited for below.
            unsafe { turn.submit_held(Io::read(&namespace, 0), &held, 0..size, 1) }
        };
        for _ in 0..3 {
            send().unwrap();
        }
        assert_eq!(send().unwrap_err().reason, Refusal::Full);
        drop(turn);
        assert_eq!(finish(&mut queue).len(), 3);
        controller.invalidate_namespaces();
        let refused = part(&mut queue, Direction::Read, &namespace, 0, &held, (0, size));
        assert_eq!(refused, Err(Refusal::StaleNamespace));
    });
}

#[test]
fn an_undeletable_queue_keeps_its_held_memory() {
    on_each_device(|device| {
        let controller = device.open();
        let (namespace, _) = namespaces(&controller).remove(0);
        let mut queue = create::<u64>(controller.queue_pair());
        let held = controller.alloc(4096).unwrap();
        let mut turn = queue.turn().unwrap();
        // SAFETY: `keep` below holds the memory while the queue can't be deleted; otherwise it is freed after
        // the queue.
        unsafe { turn.submit_held(Io::read(&namespace, 0), &held, 0..4096, 1) }.unwrap();
        drop(turn);
        let Some(server) = device.server() else {
            return drop(queue.close().unwrap());
        };
        // A server that was killed has released the memory; a stopped one may go on.
        server.process().signal(Signal::SIGSTOP);
        let error = queue.close().unwrap_err();
        server.process().signal(Signal::SIGCONT);
        says(&error, &[controller.name(), "deletion", "keep"]);
        controller.keep(held);
    });
}
