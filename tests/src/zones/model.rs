//! A namespace's zones as the ZNS specification has them, and random operations that compare them with a controller's.

use super::Zoned;
use crate::io::finish;
use upcie_core::testing::Random;
use upcie_nvme::{
    ZoneSelect,
    spec::{Status, ZoneAction, ZoneState},
};

/// A zone of a [`Model`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    state: ZoneState,
    /// Blocks written.
    written: u64,
    /// The number of the operation that opened it implicitly.
    opened: u64,
}

/// A namespace's zones as they should be.
#[derive(Debug)]
pub struct Model<'z> {
    zoned: &'z Zoned,
    zones: Vec<Known>,
    now: u64,
}

/// An operation on a zone.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Blocks, and the distance from the write pointer.
    Write(u64, i64),
    Append(u64),
    Change(ZoneAction),
    ChangeAll(ZoneAction),
}

impl<'z> Model<'z> {
    /// Makes the model of an empty namespace.
    pub fn new(zoned: &'z Zoned) -> Self {
        let empty = Known { state: ZoneState::EMPTY, written: 0, opened: 0 };
        Self { zoned, zones: vec![empty; zoned.zones.count() as usize], now: 0 }
    }

    /// Does `steps` random operations; after each the controller's report must be the model's.
    ///
    /// # Panics
    /// Panics if the status or the report differs.
    pub fn run(&mut self, random: &mut Random, steps: usize) {
        // Few zones, so that the limits are met.
        let count = self.zones.len().min(8);
        for number in 0..steps {
            let zone = random.below(count);
            let step = self.choose(random);
            let before = self.zones.clone();
            let expected = self.expect(zone, step);
            let status = self.perform(zone, step);
            assert_eq!(status, expected, "step {number}: {step:?} of zone {zone}, zones before: {before:?}");
            self.compare(&format!("step {number}: {step:?} of zone {zone}, zones before: {before:?}"));
        }
    }

    fn choose(&self, random: &mut Random) -> Step {
        let limit = self.zoned.zones.max_append() / self.zoned.namespace.block_size();
        let most = (self.zoned.capacity as usize / 2).min(limit);
        let blocks = |random: &mut Random| 1 + random.below(most) as u64;
        let actions =
            [ZoneAction::OPEN, ZoneAction::CLOSE, ZoneAction::FINISH, ZoneAction::RESET, ZoneAction::OFFLINE];
        match random.below(20) {
            0..8 => Step::Write(blocks(random), 0),
            8 => Step::Write(blocks(random), [-1, 1, 7][random.below(3)]),
            9..13 => Step::Append(blocks(random)),
            13..19 => Step::Change(actions[random.below(5)]),
            // Some controllers open closed zones until one is too many; this model opens all or none.
            _ if self.zoned.strict => Step::ChangeAll(actions[random.below(4)]),
            _ => Step::ChangeAll(actions[1 + random.below(3)]),
        }
    }

    fn open(&self) -> usize {
        self.zones.iter().filter(|zone| zone.state.is_open()).count()
    }

    fn active(&self) -> usize {
        self.zones.iter().filter(|zone| zone.state.is_active()).count()
    }

    /// Opens a zone in the model.
    fn activate(&mut self, zone: usize, state: ZoneState) -> Result<(), Status> {
        let (most_open, most_active) = (self.zoned.zones.max_open(), self.zoned.zones.max_active());
        let before = self.zones[zone].state;
        if !before.is_active() && most_active.is_some_and(|most| self.active() >= most as usize) {
            return Err(Status::TOO_MANY_ACTIVE_ZONES);
        }
        if !before.is_open() && most_open.is_some_and(|most| self.open() >= most as usize) {
            let implicit = self.zones.iter_mut().filter(|zone| zone.state == ZoneState::IMPLICITLY_OPENED);
            let oldest = implicit.min_by_key(|zone| zone.opened).ok_or(Status::TOO_MANY_OPEN_ZONES)?;
            oldest.state = ZoneState::CLOSED;
        }
        self.now += 1;
        self.zones[zone].state = state;
        self.zones[zone].opened = self.now;
        Ok(())
    }

    /// Carries out a step in the model; returns the status that the controller should return.
    fn expect(&mut self, zone: usize, step: Step) -> Status {
        let result = match step {
            Step::Write(blocks, distance) => self.write(zone, blocks, distance),
            Step::Append(blocks) => self.write(zone, blocks, 0),
            Step::Change(action) => self.change(zone, action),
            Step::ChangeAll(action) => self.change_all(action),
        };
        result.err().unwrap_or(Status::SUCCESS)
    }

    fn write(&mut self, zone: usize, blocks: u64, distance: i64) -> Result<(), Status> {
        let Known { state, written, .. } = self.zones[zone];
        match state {
            ZoneState::FULL => return Err(Status::ZONE_IS_FULL),
            ZoneState::READ_ONLY => return Err(Status::ZONE_IS_READ_ONLY),
            ZoneState::OFFLINE => return Err(Status::ZONE_IS_OFFLINE),
            _ => {}
        }
        // The step before the first block of a zone is not made.
        if distance != 0 && !(written == 0 && distance < 0) {
            return Err(Status::ZONE_INVALID_WRITE);
        }
        if written + blocks > self.zoned.capacity {
            return Err(Status::ZONE_BOUNDARY_ERROR);
        }
        if !state.is_open() {
            self.activate(zone, ZoneState::IMPLICITLY_OPENED)?;
        }
        self.zones[zone].written += blocks;
        if self.zones[zone].written == self.zoned.capacity {
            self.zones[zone].state = ZoneState::FULL;
        }
        Ok(())
    }

    fn change(&mut self, zone: usize, action: ZoneAction) -> Result<(), Status> {
        let known = &mut self.zones[zone];
        let state = known.state;
        match (action, state) {
            (ZoneAction::OPEN, state) if state.has_write_pointer() => {
                if state != ZoneState::EXPLICITLY_OPENED {
                    self.activate(zone, ZoneState::EXPLICITLY_OPENED)?;
                }
            }
            (ZoneAction::CLOSE, state) if state.is_active() => known.state = ZoneState::CLOSED,
            (ZoneAction::FINISH, state) if state.has_write_pointer() => known.state = ZoneState::FULL,
            (ZoneAction::FINISH, ZoneState::FULL) | (ZoneAction::OFFLINE, ZoneState::OFFLINE) => {}
            (ZoneAction::RESET, state) if state.has_write_pointer() || state == ZoneState::FULL => {
                (known.state, known.written) = (ZoneState::EMPTY, 0);
            }
            (ZoneAction::OFFLINE, ZoneState::READ_ONLY) => known.state = ZoneState::OFFLINE,
            _ => return Err(Status::ZONE_INVALID_TRANSITION),
        }
        Ok(())
    }

    fn change_all(&mut self, action: ZoneAction) -> Result<(), Status> {
        let applies = |state: ZoneState| match action {
            ZoneAction::OPEN => state == ZoneState::CLOSED,
            ZoneAction::CLOSE => state.is_open(),
            ZoneAction::FINISH => state.is_active(),
            _ => state.is_active() || state == ZoneState::FULL,
        };
        let named: Vec<_> = (0..self.zones.len()).filter(|&zone| applies(self.zones[zone].state)).collect();
        if action == ZoneAction::OPEN {
            let explicit = |zone: &&Known| zone.state == ZoneState::EXPLICITLY_OPENED;
            let stay = self.zones.iter().filter(explicit).count();
            if self.zoned.zones.max_open().is_some_and(|most| stay + named.len() > most as usize) {
                return Err(Status::TOO_MANY_OPEN_ZONES);
            }
        }
        named.into_iter().try_for_each(|zone| self.change(zone, action))
    }

    /// Carries out a step on the controller; returns its status.
    fn perform(&self, zone: usize, step: Step) -> Status {
        let Zoned { zones, namespace, controller, .. } = self.zoned;
        let start = zones.start_of(zone as u64);
        match step {
            Step::Write(blocks, distance) => {
                // The model has moved already: ask the controller for the pointer.
                let found = zones.report(start, 1).unwrap()[0];
                let written = found.written().unwrap_or(0);
                let place = written.checked_add_signed(distance).unwrap_or(written);
                let place = if found.state().has_write_pointer() { place } else { 0 };
                let mut buffer = controller.alloc(blocks as usize * namespace.block_size()).unwrap();
                let mut queue = controller.queue_pair().depth(2).create::<()>().unwrap();
                let limit = namespace.max_transfer() / namespace.block_size();
                if blocks as usize > limit {
                    drop(queue);
                    return Zoned::status(namespace.write(start + place, &mut buffer));
                }
                queue.turn().unwrap().write(namespace, start + place, buffer, ()).unwrap();
                finish(&mut queue).remove(0).status()
            }
            Step::Append(blocks) => {
                let mut buffer = controller.alloc(blocks as usize * namespace.block_size()).unwrap();
                let result = zones.append(start, &mut buffer);
                if let Ok(block) = result {
                    assert_eq!(block + blocks - start, self.zones[zone].written, "the place of the append");
                }
                Zoned::status(result.map(drop))
            }
            Step::Change(action) => self.manage(action, ZoneSelect::At(start)),
            Step::ChangeAll(action) => self.manage(action, ZoneSelect::All),
        }
    }

    fn manage(&self, action: ZoneAction, which: ZoneSelect) -> Status {
        let zones = &self.zoned.zones;
        Zoned::status(match action {
            ZoneAction::OPEN => zones.open(which),
            ZoneAction::CLOSE => zones.close(which),
            ZoneAction::FINISH => zones.finish(which),
            ZoneAction::RESET => zones.reset(which),
            _ => zones.offline(which),
        })
    }

    /// Compares the controller's report with the model.
    fn compare(&mut self, what: &str) {
        let report = self.zoned.zones.report(0, usize::MAX).unwrap();
        assert_eq!(report.len(), self.zones.len(), "{what}");
        for (number, (found, known)) in report.iter().zip(&mut self.zones).enumerate() {
            let state = found.state();
            let may_close = !self.zoned.strict && known.state == ZoneState::IMPLICITLY_OPENED;
            if may_close && state == ZoneState::CLOSED {
                known.state = state;
            }
            assert_eq!(state, known.state, "{what}: zone {number}");
            if state.has_write_pointer() {
                assert_eq!(found.written(), Some(known.written), "{what}: zone {number}");
            }
        }
    }
}
