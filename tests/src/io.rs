//! Queue operations that most suites need.

use crate::{data::Pattern, deadline};
use std::time::Instant;
use upcie_nvme::{Completion, Controller, DmaBuf, Namespace, QueuePair, Wait, queue::QueuePairBuilder};

/// Reaps until nothing is in flight, and returns the completions in order.
///
/// # Panics
/// Panics if the queue is closed, or a command does not come back within the deadline.
#[track_caller]
pub fn finish<T>(queue: &mut QueuePair<T>) -> Vec<Completion<T>> {
    let mut done = Vec::new();
    while queue.in_flight() > 0 {
        done.extend(reap(queue));
    }
    done
}

/// Waits by polling for at least one completion, and reaps all that are there.
///
/// # Panics
/// Panics like [`finish`].
#[track_caller]
pub fn reap<T>(queue: &mut QueuePair<T>) -> Vec<Completion<T>> {
    reap_with(queue, Wait::Poll)
}

/// Like [`reap`], with another way of waiting. It must wake up before its deadline: a completion that is
/// found at the deadline does not count.
///
/// # Panics
/// Panics like [`finish`].
#[track_caller]
pub fn reap_with<T>(queue: &mut QueuePair<T>, how: Wait) -> Vec<Completion<T>> {
    let start = Instant::now();
    let woken = queue.wait(how, deadline()).expect("a controller that is well");
    assert!(
        woken && start.elapsed() < deadline(),
        "{how:?} on queue {} with {} in flight: not woken within {:?}{}",
        queue.id(),
        queue.in_flight(),
        deadline(),
        if woken { "; the completion was there, its wake-up was lost" } else { "" }
    );
    queue.turn().expect("an open queue").collect()
}

/// Reaps the completion of the only command in flight.
///
/// # Panics
/// Panics like [`finish`], and if the queue has not exactly one completion, or the command failed.
#[track_caller]
pub fn only<T>(queue: &mut QueuePair<T>) -> (T, DmaBuf) {
    let mut done = finish(queue);
    assert_eq!(done.len(), 1, "one command was in flight");
    let (tag, result, buffer) = done.remove(0).into_parts();
    result.expect("success");
    (tag, buffer)
}

/// Creates a queue.
///
/// # Panics
/// Panics with the reason if the controller refuses.
#[track_caller]
pub fn create<T>(builder: QueuePairBuilder<'_>) -> QueuePair<T> {
    builder.create().expect("no queue")
}

/// Reads `blocks` blocks from `slba` on, by a blocking call.
///
/// # Panics
/// Panics if the read fails.
#[track_caller]
pub fn read(controller: &Controller, namespace: &Namespace, slba: u64, blocks: usize) -> Vec<u8> {
    let mut buffer = controller.alloc(blocks * namespace.block_size()).expect("memory");
    namespace.read(slba, &mut buffer).unwrap();
    buffer.to_vec()
}

/// Writes a buffer by a blocking call.
///
/// # Panics
/// Panics if the write fails.
#[track_caller]
pub fn write(namespace: &Namespace, slba: u64, buffer: &mut DmaBuf) {
    namespace.write(slba, buffer).unwrap();
}

/// Writes and reads a namespace with several commands in flight, and leaves its first 64 blocks at version `last`.
///
/// # Panics
/// Panics if a command fails, or data comes back wrong.
#[track_caller]
pub fn drive(controller: &Controller, nsid: u32, last: u32) {
    const DEPTH: u64 = 8;
    let namespace = controller.namespace(nsid).unwrap();
    let pattern = Pattern::of(&namespace);
    let mut queue = create::<u64>(controller.queue_pair());
    for version in 1..=last {
        for base in (0..64).step_by(DEPTH as usize) {
            let mut turn = queue.turn().unwrap();
            for slba in base..base + DEPTH {
                let mut buffer = controller.heap().alloc(namespace.block_size()).unwrap();
                pattern.fill(&mut buffer, slba, version);
                turn.write(&namespace, slba, buffer, slba).unwrap();
            }
            drop(turn);
            for done in finish(&mut queue) {
                done.into_parts().1.unwrap();
            }
            let mut turn = queue.turn().unwrap();
            for slba in base..base + DEPTH {
                let buffer = controller.heap().alloc(namespace.block_size()).unwrap();
                turn.read(&namespace, slba, buffer, slba).unwrap();
            }
            drop(turn);
            for done in finish(&mut queue) {
                let (slba, result, buffer) = done.into_parts();
                result.unwrap();
                pattern.verify(&buffer, slba, version);
            }
        }
    }
}
