//! A queue's thread and a thread that resets the controller, in every order of their steps.
//!
//! The reset has four steps: the end of the epoch, the stop of the controller, the note that it has let go of all memory, and
//! the begin of the next epoch. The queue's thread opens turns, submits, rings, reaps and recovers. Each step is one look at or
//! one change of what the threads share, so the orders of steps are all that can happen, on a memory that shows each step to
//! both threads. The controller completes a command between two steps, or does not.

use super::*;

/// The steps of a reset.
const STEPS: usize = 4;
/// The places in the queue's thread where steps of the reset, and of the controller, may come.
const POINTS: usize = 8;

/// The other thread and the controller: when each acts.
struct World<'m> {
    live: &'m Live,
    device: &'m mut Device,
    /// The point before which each step of the reset comes.
    reset: [usize; STEPS],
    /// The points at which the controller completes a command, as bits.
    completes: usize,
    /// The controller acts before the reset at the same point.
    is_quick: bool,
    done: usize,
    ended: Option<Arc<Epoch>>,
    /// The doorbells when the epoch ended.
    frozen: Option<[u32; 2]>,
    fetched: usize,
}

impl World<'_> {
    /// Lets both act at a point of the queue's thread.
    fn at(&mut self, point: usize) {
        if self.is_quick {
            self.complete(point);
        }
        while self.done < STEPS && self.reset[self.done] <= point {
            self.go_on();
        }
        if !self.is_quick {
            self.complete(point);
        }
    }

    /// Takes the next step of the reset.
    fn go_on(&mut self) {
        match self.done {
            0 => {
                self.ended = Some(self.live.end());
                self.frozen = Some(self.doorbells());
            }
            // The controller acts no more.
            1 => {}
            2 => self.ended.as_ref().expect("it has ended").set_let_go(),
            _ => drop(self.live.begin().unwrap()),
        }
        self.done += 1;
    }

    /// Lets the controller fetch a command whose doorbell was rung, and complete it.
    fn complete(&mut self, point: usize) {
        let has_stopped = self.done >= 2;
        let tail = self.device.doorbells[0].read() as usize;
        if !has_stopped && self.completes & 1 << point != 0 && self.fetched != tail {
            let (id, ..) = self.device.entry(self.fetched);
            self.fetched = (self.fetched + 1) % self.device.entries;
            self.device.post(id);
        }
    }

    fn doorbells(&self) -> [u32; 2] {
        self.device.doorbells.each_ref().map(Register::read)
    }

    fn has_ended(&self) -> bool {
        self.done > 0
    }

    /// Asserts that no doorbell was rung after the end of the epoch.
    fn check(&self) {
        if let Some(frozen) = self.frozen {
            assert_eq!(self.doorbells(), frozen, "a doorbell of an epoch that is over");
        }
    }
}

/// Runs the queue's thread; returns the tags that came back, each as often as it came.
fn run(model: &mut Model, world: &mut World<'_>) -> Vec<u64> {
    let Model { queue, heap, next, tags, .. } = model;
    let mut reaped = Vec::new();
    world.at(0);
    for second in [false, true] {
        let mut turn = match queue.turn() {
            Ok(turn) => {
                assert!(!world.has_ended(), "a turn of an epoch that is over");
                turn
            }
            Err(error) => {
                assert!(world.has_ended() && matches!(error.failure(), Failure::Reset { .. }), "{error}");
                break;
            }
        };
        let point = if second { 5 } else { 1 };
        world.at(point);
        if !second {
            for _ in 0..2 {
                turn.read(&EXTENT, *next, page(heap), (*next, tags.clone())).unwrap();
                *next += 1;
            }
            world.at(2);
            let is_over = world.has_ended();
            turn.ring();
            world.check();
            world.at(3);
            match turn.read(&EXTENT, *next, page(heap), (*next, tags.clone())) {
                Ok(()) => *next += 1,
                Err(refused) => assert!(is_over && refused.reason == Refusal::Closed),
            }
        }
        reaped.extend(turn.by_ref().map(|done| done.into_parts().0.0));
        world.at(if second { 6 } else { 4 });
        drop(turn);
        world.check();
    }
    world.at(7);
    world.check();
    // Recovery waits for the reset.
    while world.done < STEPS {
        let has_let_go = world.done > 2;
        assert_eq!(queue.epoch().has_let_go(), has_let_go);
        assert_eq!(queue.is_over(), world.has_ended());
        world.go_on();
    }
    assert!(queue.is_over() && queue.epoch().has_let_go());
    let error = queue.turn().unwrap_err();
    assert!(matches!(error.failure(), Failure::Reset { .. }), "the next epoch is not its own: {error}");
    let all = queue.take_all();
    let with_status = all.iter().filter(|returned| returned.result().is_some()).count();
    assert_eq!(with_status + reaped.len(), world.device.posted.len(), "what was completed is known");
    reaped.extend(all.into_iter().map(|returned| returned.into_parts().0.0));
    reaped
}

/// Calls `with` for every ascending choice of points for the steps of a reset; `POINTS` is after the thread's last point.
fn every_reset(mut with: impl FnMut([usize; STEPS])) {
    for code in 0..(POINTS + 1).pow(STEPS as u32) {
        let steps = [0, 1, 2, 3].map(|step| code / (POINTS + 1).pow(step) % (POINTS + 1));
        if steps.is_sorted() {
            with(steps);
        }
    }
}

#[test]
fn a_reset_at_any_step_of_a_queue_loses_and_doubles_nothing() {
    let mut model = Model::new(4);
    let live = model.queue.live.clone();
    let mut runs = 0;
    every_reset(|reset| {
        for choice in 0..1 << 7 {
            let (completes, is_quick) = (choice >> 1 << 1, choice & 1 == 1);
            let Device { entries, sq, cq, ref doorbells, .. } = model.device;
            let (doorbells, posted) = (doorbells.clone(), VecDeque::new());
            let mut device = Device { entries, sq, cq, doorbells, tail: 0, phase: 1, posted };
            let mut world = World {
                live: &live,
                device: &mut device,
                reset,
                completes,
                is_quick,
                done: 0,
                ended: None,
                frozen: None,
                fetched: 0,
            };
            let first = model.next;
            let mut tags = run(&mut model, &mut world);
            tags.sort_unstable();
            assert_eq!(tags, (first..model.next).collect::<Vec<_>>(), "{reset:?} {choice:b}");
            assert_eq!(Arc::strong_count(&model.tags), 1);
            model.queue.renew();
            model.queue.join(live.epoch());
            for doorbell in &model.device.doorbells {
                // SAFETY: memory of this test.
                unsafe { doorbell.write(0) };
            }
            runs += 1;
        }
    });
    assert_eq!(runs, 495 * 128);
    model.end();
}
