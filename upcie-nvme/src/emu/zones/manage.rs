//! Zone Management Send: the changes that a host makes to one zone or to all.
//!
//! A zone is reset in pieces, since its data may be long: it is empty once all is erased. A reset that ends early, with its queue,
//! leaves the zone in the state before, and zeros in a part of it; the next one goes on there.

use super::state::{INVALID_FIELD, INVALID_TRANSITION, Zone, Zones};
use crate::spec::{Status, ZoneAction, ZoneSendDword13, ZoneState};
use std::ops::Range;

impl Zones {
    /// Begins a Zone Management Send; returns the zones that are to be [changed](Self::change), of which those of all zones have to
    /// be [selected](Self::is_selected) first. None are if the command is done.
    pub fn begin(&mut self, slba: u64, dword: ZoneSendDword13) -> Result<Range<usize>, Status> {
        let action = dword.action();
        if !dword.select_all() {
            if action == ZoneAction::FLUSH_RANDOM_WRITE_AREA {
                return self.flush_area(slba).map(|()| 0..0);
            }
            let (index, zone) = self.beginning(slba)?;
            return match action {
                ZoneAction::OPEN => self.open_by_command(index, zone, dword).map(|()| 0..0),
                _ => Ok(index..index + 1),
            };
        }
        if dword.allocate_random_write_area() {
            return Err(INVALID_FIELD);
        }
        match action {
            ZoneAction::OPEN => self.open_all().map(|()| 0..0),
            ZoneAction::CLOSE | ZoneAction::FINISH | ZoneAction::RESET | ZoneAction::OFFLINE => {
                Ok(0..self.count())
            }
            _ => Err(INVALID_FIELD),
        }
    }

    /// Returns `true` for a zone that an action on all zones changes.
    pub fn is_selected(&self, index: usize, action: ZoneAction) -> bool {
        self.state(index).is_some_and(|state| match action {
            ZoneAction::CLOSE => state.is_open(),
            ZoneAction::FINISH => state.is_active(),
            ZoneAction::RESET => state.is_active() || state == ZoneState::FULL,
            ZoneAction::OFFLINE => state == ZoneState::READ_ONLY,
            _ => false,
        })
    }

    /// Returns the blocks to erase before an action changes a zone, if there are some left.
    pub fn lost(&self, index: usize, action: ZoneAction) -> Option<Range<u64>> {
        let zone = self.zones.get(index)?;
        let start = index as u64 * self.size;
        let lost = start + zone.erased..start + zone.touched;
        let loses = action == ZoneAction::RESET && self.is_selected(index, action);
        Some(lost).filter(|lost| loses && !lost.is_empty())
    }

    /// Notes that so many more blocks of a zone are erased.
    pub fn note_erased(&mut self, index: usize, blocks: u64) {
        if let Some(zone) = self.zones.get_mut(index) {
            zone.erased += blocks;
        }
    }

    /// Closes, finishes, resets or takes offline a zone; one to reset has no data any more.
    pub fn change(&mut self, index: usize, action: ZoneAction) -> Result<(), Status> {
        let Some(zone) = self.zones.get_mut(index) else { return Err(INVALID_FIELD) };
        let state = zone.state;
        match action {
            ZoneAction::CLOSE if state.is_open() => self.set(index, ZoneState::CLOSED),
            ZoneAction::CLOSE if state == ZoneState::CLOSED => {}
            ZoneAction::FINISH if state.has_write_pointer() => {
                zone.pointer = self.capacity;
                self.set(index, ZoneState::FULL);
            }
            ZoneAction::FINISH if state == ZoneState::FULL => {}
            ZoneAction::RESET if state.is_active() || state == ZoneState::FULL => {
                (zone.pointer, zone.touched, zone.erased) = (0, 0, 0);
                self.set(index, ZoneState::EMPTY);
            }
            ZoneAction::RESET if state == ZoneState::EMPTY => {}
            ZoneAction::OFFLINE if state == ZoneState::READ_ONLY => self.set(index, ZoneState::OFFLINE),
            ZoneAction::OFFLINE if state == ZoneState::OFFLINE => {}
            ZoneAction::CLOSE | ZoneAction::FINISH | ZoneAction::RESET | ZoneAction::OFFLINE => {
                return Err(INVALID_TRANSITION);
            }
            _ => return Err(INVALID_FIELD),
        }
        Ok(())
    }

    /// Opens all closed zones, or none of them if they are more than the limit allows. Zones that were opened implicitly make room.
    fn open_all(&mut self) -> Result<(), Status> {
        let zones = self.zones.iter().enumerate().filter(|(_, zone)| zone.state == ZoneState::CLOSED);
        let closed: Vec<usize> = zones.map(|(index, _)| index).collect();
        let stay = self.open as usize - self.implicit.len();
        if self.options.max_open.is_some_and(|most| stay + closed.len() > most as usize) {
            return Err(Status::TOO_MANY_OPEN_ZONES);
        }
        closed.into_iter().try_for_each(|index| self.open(index, ZoneState::EXPLICITLY_OPENED, false))
    }

    fn open_by_command(&mut self, index: usize, zone: Zone, dword: ZoneSendDword13) -> Result<(), Status> {
        let area = dword.allocate_random_write_area();
        if area && (self.area == 0 || !zone.area && zone.state != ZoneState::EMPTY) {
            return Err(Status::INVALID_ZONE_OPERATION.with_do_not_retry());
        }
        if !zone.state.has_write_pointer() {
            return Err(INVALID_TRANSITION);
        }
        self.open(index, ZoneState::EXPLICITLY_OPENED, area)
    }

    /// Makes a zone read-only or offline, as a controller does whose medium fails there; returns its first block. `None` if there
    /// is no such zone, or it is so already: one that is offline stays so.
    pub fn fail(&mut self, index: usize, state: ZoneState) -> Option<u64> {
        let before = self.state(index)?;
        if before == state || before == ZoneState::OFFLINE {
            return None;
        }
        self.set(index, state);
        Some(index as u64 * self.size)
    }
}
