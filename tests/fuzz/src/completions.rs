//! The driver's queues, against a device that writes any completion entries: no command is lost, and none comes back twice.
//!
//! The first byte is the depth of the queue. Each four bytes after it are an event: an entry that the forger writes, a step of
//! the honest controller, or a turn.

use crate::forger::{Forger, Simulated};
use std::{cell::RefCell, collections::BTreeMap, sync::Arc, time::Duration};
use upcie_nvme::{Controller, Failure, Namespace, QueuePair};

struct Setup {
    forger: Arc<Forger>,
    controller: Controller,
    namespace: Namespace,
}

thread_local! {
    static SETUP: RefCell<Option<Setup>> = const { RefCell::new(None) };
}

impl Setup {
    fn new() -> Self {
        let forger = Forger::new("size=64K,queues=1,depth=16,vectors=0");
        let clock = Arc::new(Simulated(forger.clone()));
        let builder = Controller::builder().clock(clock).timeout(Duration::from_secs(1));
        let controller = builder.from_device(forger.clone()).expect("a driver");
        let namespace = controller.namespace(1).expect("a namespace");
        Self { forger, controller, namespace }
    }
}

pub fn target(data: &[u8]) {
    play(data);
}

/// Plays the events; returns the number of commands that came back before the end.
fn play(data: &[u8]) -> usize {
    let Some((&first, events)) = data.split_first() else { return 0 };
    let setup = SETUP.take().unwrap_or_else(Setup::new);
    let depth = 2 + u32::from(first % 8);
    let queue =
        setup.controller.queue_pair().depth(depth).create::<u64>().expect("an honest controller so far");
    let mut lane = Lane { queue, flying: BTreeMap::new(), next: 0 };
    let (mut reaped, mut forged_admin) = (0, false);
    for event in events.chunks_exact(4) {
        let [kind, place, low, high] = [0, 1, 2, 3].map(|at| event[at]);
        // Phase tag and status, then the submission queue's identifier and head.
        let upper = |id: u16| {
            u64::from(id) << 32
                | u64::from(high) << 48
                | u64::from(kind & 0x80 == 0) << 16
                | u64::from(place & 0xf)
        };
        match kind % 8 {
            0 => setup.forger.step(),
            // The id of a command in flight, or near to it.
            1 | 2 => {
                let near = if kind % 8 == 1 { 0 } else { u16::from(low) << 3 };
                let id = setup.forger.fetched(usize::from(place >> 4)).wrapping_add(near);
                setup.forger.forge(false, place.into(), low.into(), upper(id));
            }
            3 => setup.forger.forge(false, place.into(), 0, upper(u16::from_le_bytes([low, high]))),
            // Entries of the admin queue, and a command there.
            4 if kind & 0x40 != 0 => {
                forged_admin = true;
                setup.forger.forge(true, place.into(), low.into(), upper(low.into()));
                let _ = setup.controller.namespace_ids();
            }
            _ => match lane.turn(&setup, usize::from(place % 8), usize::from(low % 8)) {
                Some(count) => reaped += count,
                None => break,
            },
        }
    }
    let is_well = lane.end();
    if is_well && !forged_admin {
        SETUP.set(Some(setup));
    }
    reaped
}

/// A queue, and its commands in flight: the address of the buffer by tag.
struct Lane {
    queue: QueuePair<u64>,
    flying: BTreeMap<u64, u64>,
    next: u64,
}

impl Lane {
    /// Runs a turn; returns the number of commands that came back, `None` if the queue is closed.
    fn turn(&mut self, setup: &Setup, reaps: usize, submits: usize) -> Option<usize> {
        let mut turn = match self.queue.turn() {
            Ok(turn) => turn,
            Err(error) => {
                let is_known = matches!(
                    error.failure(),
                    Failure::ForgedCompletion { .. } | Failure::Reset { .. } | Failure::Down { .. }
                );
                assert!(is_known, "{error}");
                return None;
            }
        };
        let mut count = 0;
        for done in turn.by_ref().take(reaps) {
            let (tag, _, buffer) = done.into_parts();
            assert_eq!(self.flying.remove(&tag), Some(buffer.iova(0)), "each tag once, with its buffer");
            count += 1;
        }
        for index in 0..submits {
            // Every third command has a list: more than two pages.
            let pages = if (self.next + index as u64).is_multiple_of(3) { 3 } else { 1 };
            let Ok(buffer) = setup.controller.heap().alloc_aligned(pages * 4096, 4096) else { break };
            let address = buffer.iova(0);
            if turn.read(&setup.namespace, 0, buffer, self.next).is_err() {
                break;
            }
            assert!(self.flying.insert(self.next, address).is_none());
            self.next += 1;
        }
        Some(count)
    }

    /// Closes the queue; returns `true` if it was deleted.
    fn end(mut self) -> bool {
        match self.queue.close() {
            Ok(all) => {
                for (tag, _, buffer) in all.into_iter().map(upcie_nvme::Returned::into_parts) {
                    assert_eq!(
                        self.flying.remove(&tag),
                        Some(buffer.iova(0)),
                        "each tag once, with its buffer"
                    );
                }
                assert!(self.flying.is_empty(), "{:?}", self.flying);
                true
            }
            // The admin queue was forged, too.
            Err(_) => false,
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let honest = [[5, 0, 3, 0], [0, 0, 0, 0], [5, 3, 2, 0], [0, 0, 0, 0], [5, 4, 0, 0]].concat();
    // The first entry with the id of a command in flight, and the phase tag of the first lap.
    let early = [[5, 0, 2, 0], [0, 0, 0, 0], [1, 0, 0, 1], [5, 2, 0, 0]].concat();
    let wrong = [[5, 0, 2, 0], [3, 0, 9, 1], [5, 1, 1, 0]].concat();
    let admin = [[5, 0, 2, 0], [0x44, 1, 7, 1], [5, 1, 1, 0]].concat();
    [
        honest.clone(),
        [honest.clone(), early].concat(),
        [honest, wrong.clone()].concat(),
        [wrong, admin].concat(),
    ]
    .map(|events| [vec![6], events].concat())
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_honest_seed_is_reaped() {
        assert_eq!(play(&seeds()[0]), 5);
        assert!(play(&seeds()[1]) >= 5);
    }
}
