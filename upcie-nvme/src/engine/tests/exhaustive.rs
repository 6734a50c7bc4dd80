//! Every order of events at a small ring, up to a bound: ids, phase tags, wraps, full and empty rings.

use super::*;

/// Events in a row, after which the ring is drained; the next row begins at another place of the ring.
const ROW: u32 = 5;
/// The kinds of events: a completion of the oldest or of the newest command, and turns that reap and submit so many.
const TURNS: [(usize, usize); 5] = [(1, 0), (0, 1), (1, 1), (0, 2), (2, 3)];
const KINDS: usize = 2 + TURNS.len();

impl Model {
    /// Completes the oldest command that is not completed, or the newest.
    fn complete_one(&mut self, newest: bool) {
        let told = self.flying.iter().filter(|(id, _)| !self.device.posted.contains(id));
        let told = told.map(|(id, flight)| (flight.slba, *id));
        if let Some((_, id)) = if newest { told.max() } else { told.min() } {
            self.device.post(id);
        }
    }

    /// Runs a turn that reaps and submits, at most so many.
    fn small_turn(&mut self, (reaps, submits): (usize, usize)) {
        let Self { queue, device, heap, flying, tail, next, tags } = self;
        let slots = device.entries - 1;
        let mut turn = queue.turn().unwrap();
        for _ in 0..reaps {
            match (device.posted.pop_front(), turn.next()) {
                (Some(id), Some(done)) => {
                    let flight = flying.remove(&id).expect("in flight");
                    let ((slba, _), status, buffer) = done.into_parts();
                    assert_eq!((slba, buffer.iova(0), status), (flight.slba, flight.address, Ok(())));
                }
                (None, None) => {}
                (posted, done) => panic!("{done:?} was reaped, and {posted:?} completed"),
            }
        }
        for _ in 0..submits {
            let buffer = page(heap);
            let flight = Flight { slba: *next, address: buffer.iova(0), listed: false };
            match turn.read(&EXTENT, *next, buffer, (*next, tags.clone())) {
                Ok(()) => {
                    assert!(flying.len() < slots);
                    let (id, address, slba) = device.entry(*tail);
                    assert_eq!((address, slba), (flight.address, flight.slba));
                    assert!(flying.insert(id, flight).is_none(), "an id of its own");
                    (*tail, *next) = ((*tail + 1) % device.entries, *next + 1);
                }
                Err(refused) => assert_eq!((refused.reason, flying.len()), (Refusal::Full, slots)),
            }
        }
        assert_eq!((turn.len(), turn.room()), (flying.len(), slots - flying.len()));
        drop(turn);
        device.check_doorbells(*tail);
        assert_eq!(queue.in_flight() as usize, flying.len());
        assert_eq!(queue.is_ready(), !device.posted.is_empty());
        assert_eq!(Arc::strong_count(tags), flying.len() + 1);
    }
}

#[test]
fn every_order_of_events_at_a_small_ring_keeps_its_commands() {
    for entries in 2..=4 {
        let mut model = Model::new(entries);
        for row in 0..KINDS.pow(ROW) {
            let mut rest = row;
            for _ in 0..ROW {
                match rest % KINDS {
                    kind @ 0..2 => model.complete_one(kind == 1),
                    kind => model.small_turn(TURNS[kind - 2]),
                }
                rest /= KINDS;
            }
            while !model.flying.is_empty() {
                model.complete_one(row % 2 == 1);
                model.small_turn((1, 0));
            }
        }
        model.end();
    }
}
