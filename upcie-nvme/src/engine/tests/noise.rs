//! A device that writes any completion entries: nothing is lost, and nothing comes back twice.

use super::*;
use upcie_core::testing::fuzz;

/// Plays four bytes as an event: an entry that the device writes, or a turn. Returns the number of commands that came back.
fn play(heap: &Arc<Heap>, data: &[u8]) -> usize {
    let [first, events @ ..] = data else { return 0 };
    let (mut model, mut reaped) = (Model::over(heap.clone(), 2 + usize::from(*first % 4)), 0);
    for event in events.chunks_exact(4) {
        let [kind, place, low, high] = [0, 1, 2, 3].map(|at| event[at]);
        match kind % 4 {
            0 => model.write(place, u16::from_le_bytes([low, high]), high & 1 != 0),
            1 => {
                // The id of a command in flight, or near to it.
                let id = model.flying.keys().nth(usize::from(low) % model.flying.len().max(1)).copied();
                model.write(place, id.unwrap_or(0).wrapping_add(u16::from(high >> 1 & 0x18)), high & 1 != 0);
            }
            _ => match model.noisy_turn(usize::from(place % 4), usize::from(low % 4)) {
                Some(count) => reaped += count,
                None => break,
            },
        }
    }
    model.end();
    reaped
}

impl Model {
    /// Writes an entry of the completion ring: the dword with the id, the phase tag and a status.
    fn write(&self, place: u8, id: u16, phase: bool) {
        let index = usize::from(place) % self.device.entries;
        // SAFETY: the second word of an entry of the ring, which outlives the device.
        let entry = unsafe { self.device.cq.add(index * 2 + 1) };
        // SAFETY: an aligned word of the ring, which outlives the device.
        unsafe { entry.write_volatile(u64::from(id) << 32 | u64::from(phase) << 48) };
    }

    /// Runs a turn; returns the number of commands that came back, `None` if the queue is closed.
    fn noisy_turn(&mut self, reaps: usize, submits: usize) -> Option<usize> {
        let Self { queue, device, heap, flying, tail, next, tags } = self;
        let mut turn = match queue.turn() {
            Ok(turn) => turn,
            Err(error) => {
                assert!(matches!(error.failure(), Failure::ForgedCompletion { .. }), "{error}");
                return None;
            }
        };
        let before = flying.len();
        for done in turn.by_ref().take(reaps) {
            let ((slba, _), _, buffer) = done.into_parts();
            let id = flying.iter().find(|(_, flight)| flight.slba == slba).map(|(id, _)| *id);
            let flight = id.and_then(|id| flying.remove(&id)).expect("a command that is in flight");
            assert_eq!(buffer.iova(0), flight.address, "its own buffer");
        }
        let reaped = before - flying.len();
        for _ in 0..submits {
            let listed = *next % 3 == 0;
            let buffer =
                heap.alloc_aligned(4 * PAGE, PAGE).unwrap().slice(0..if listed { 3 * PAGE } else { PAGE });
            let flight = Flight { slba: *next, address: buffer.iova(0), listed };
            if turn.read(&EXTENT, *next, buffer, (*next, tags.clone())).is_ok() {
                let (id, address, slba) = device.entry(*tail);
                assert_eq!((address, slba), (flight.address, flight.slba));
                assert!(flying.insert(id, flight).is_none(), "an id of its own");
                (*tail, *next) = ((*tail + 1) % device.entries, *next + 1);
            }
        }
        Some(reaped)
    }
}

#[test]
fn fuzz_any_completion_entries_lose_and_double_nothing() {
    // Turns of submissions, honest completions in order, then entries with other ids and phase tags.
    let honest =
        [[2, 0, 3, 0], [1, 0, 0, 1], [1, 1, 1, 1], [2, 2, 1, 0], [1, 2, 0, 1], [2, 3, 3, 0]].concat();
    let forged = [[2, 0, 2, 0], [0, 0, 9, 1], [2, 1, 1, 0]].concat();
    let heap = heap();
    assert_eq!(play(&heap, &[&[2][..], &honest].concat()), 3, "honest completions are reaped");
    let seeds =
        [vec![2], vec![0]].map(|first| [first, honest.clone(), honest.clone(), forged.clone()].concat());
    fuzz("completion_entries", 3000, &seeds, |data| {
        play(&heap, data);
    });
}
