//! The states of a namespace's zones: ZNS, "Zone State Machine".

use super::super::options::{GRANULARITY, ZoneOptions};
use crate::spec::{Status, ZoneAttributes, ZoneDescriptor, ZoneSendDword13, ZoneState, ZoneType};
use std::collections::BTreeMap;
use zerocopy::FromZeros;

pub(super) const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();
pub(super) const INVALID_TRANSITION: Status = Status::ZONE_INVALID_TRANSITION.with_do_not_retry();

/// A zone. Blocks are counted from its first one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Zone {
    pub(super) state: ZoneState,
    /// The write pointer.
    pub(super) pointer: u64,
    /// The end of the blocks that may hold data: behind the write pointer if there is a random write area.
    pub(super) touched: u64,
    /// The end of the blocks that a reset has erased, which has not emptied the zone yet.
    pub(super) erased: u64,
    /// Set if the zone has a random write area.
    pub(super) area: bool,
    /// The time at which it was opened implicitly, in openings.
    opened: u64,
}

/// The zones of a namespace.
#[derive(Debug)]
pub(in super::super) struct Zones {
    pub(super) options: ZoneOptions,
    /// Blocks from a zone to the next, blocks that can be written, and blocks of a random write area and its granularity.
    pub(super) size: u64,
    pub(super) capacity: u64,
    pub(super) area: u64,
    granularity: u64,
    pub(super) zones: Vec<Zone>,
    pub(super) open: u32,
    active: u32,
    areas: u32,
    /// The zones that were opened implicitly, the first one first: the controller closes them when others are to be opened.
    pub(super) implicit: BTreeMap<u64, usize>,
    openings: u64,
    /// The descriptor extensions that were set, by the index of their zone.
    extensions: BTreeMap<usize, Vec<u8>>,
}

/// The place of a write: the zone, and the first block behind it, counted from that of the zone.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Place {
    index: usize,
    end: u64,
}

impl Place {
    /// Returns the place without its last blocks.
    pub fn without_last(self, blocks: u64) -> Self {
        Self { end: self.end - blocks, ..self }
    }
}

impl Zones {
    /// Makes the empty zones of a namespace of `bytes` bytes in blocks of `1 << shift` bytes.
    pub fn new(options: &ZoneOptions, bytes: u64, shift: u8) -> Self {
        let state = ZoneState::EMPTY;
        let empty = Zone { state, pointer: 0, touched: 0, erased: 0, area: false, opened: 0 };
        let count = (bytes / options.size) as usize;
        let mut zones = vec![empty; count];
        for zone in zones.iter_mut().rev().take(options.read_only as usize) {
            zone.state = ZoneState::READ_ONLY;
        }
        Self {
            size: options.size >> shift,
            capacity: options.capacity() >> shift,
            area: options.random_write_area >> shift,
            granularity: GRANULARITY >> shift,
            zones,
            open: 0,
            active: 0,
            areas: 0,
            implicit: BTreeMap::new(),
            openings: 0,
            extensions: BTreeMap::new(),
            options: options.clone(),
        }
    }

    /// Makes the zones anew, empty, for blocks of another size.
    pub fn renewed(&self, bytes: u64, shift: u8) -> Self {
        Self::new(&self.options, bytes, shift)
    }

    /// Returns the number of zones.
    pub fn count(&self) -> usize {
        self.zones.len()
    }

    fn zone(&self, block: u64) -> Result<(usize, u64, Zone), Status> {
        let index = usize::try_from(block / self.size).unwrap_or(usize::MAX);
        match self.zones.get(index) {
            Some(&zone) => Ok((index, block % self.size, zone)),
            None => Err(Status::LBA_OUT_OF_RANGE.with_do_not_retry()),
        }
    }

    /// Returns the index of the zone that begins with a block.
    pub(super) fn beginning(&self, block: u64) -> Result<(usize, Zone), Status> {
        match self.zone(block)? {
            (index, 0, zone) => Ok((index, zone)),
            _ => Err(INVALID_FIELD),
        }
    }

    /// Returns the index of the zone that has a block.
    pub fn index_of(&self, block: u64) -> Result<usize, Status> {
        self.zone(block).map(|(index, ..)| index)
    }

    /// Checks a read of `count` blocks from `slba` on.
    pub fn check_read(&self, slba: u64, count: u64) -> Result<(), Status> {
        let (first, ..) = self.zone(slba)?;
        let (last, ..) = self.zone(slba.saturating_add(count.saturating_sub(1)))?;
        if last != first && !self.options.cross_reads {
            return Err(Status::ZONE_BOUNDARY_ERROR.with_do_not_retry());
        }
        let offline = |zone: &Zone| zone.state == ZoneState::OFFLINE;
        if self.zones.get(first..=last).is_some_and(|zones| zones.iter().any(offline)) {
            return Err(Status::ZONE_IS_OFFLINE.with_do_not_retry());
        }
        Ok(())
    }

    /// Begins a write of `count` blocks from `slba` on: opens the zone implicitly. [`written`](Self::written) ends it.
    pub fn begin_write(&mut self, slba: u64, count: u64) -> Result<Place, Status> {
        let (index, offset, zone) = self.zone(slba)?;
        writable(zone.state)?;
        let end = offset + count;
        let fits = match zone.area {
            true => offset >= zone.pointer && end <= zone.pointer + 2 * self.area,
            false => offset == zone.pointer,
        };
        if !fits {
            return Err(Status::ZONE_INVALID_WRITE.with_do_not_retry());
        }
        if end > self.capacity {
            return Err(Status::ZONE_BOUNDARY_ERROR.with_do_not_retry());
        }
        if !zone.state.is_open() {
            self.open(index, ZoneState::IMPLICITLY_OPENED, false)?;
        }
        Ok(Place { index, end })
    }

    /// Returns the block at which an append to the zone that begins with `zslba` writes.
    pub fn place_of_append(&self, zslba: u64) -> Result<u64, Status> {
        let (_, zone) = self.beginning(zslba)?;
        writable(zone.state)?;
        if zone.area {
            return Err(Status::INVALID_ZONE_OPERATION.with_do_not_retry());
        }
        Ok(zslba + zone.pointer)
    }

    /// Ends a write that has succeeded.
    pub fn written(&mut self, place: Place) {
        let Some(zone) = self.zones.get_mut(place.index) else { return };
        zone.touched = zone.touched.max(place.end);
        // A write begins at the write pointer, or behind it.
        zone.erased = zone.erased.min(zone.pointer);
        let to = match zone.area {
            false => place.end,
            // A write beyond the area moves it along, and with it the write pointer.
            true => {
                let beyond = place.end.saturating_sub(zone.pointer + self.area);
                zone.pointer + beyond.next_multiple_of(self.granularity)
            }
        };
        self.advance(place.index, to);
    }

    fn advance(&mut self, index: usize, to: u64) {
        let Some(zone) = self.zones.get_mut(index) else { return };
        zone.pointer = to.min(self.capacity);
        if zone.pointer == self.capacity {
            self.set(index, ZoneState::FULL);
        }
    }

    /// Opens a zone that is not open in this way, if the limits allow it.
    pub(super) fn open(&mut self, index: usize, state: ZoneState, area: bool) -> Result<(), Status> {
        let Some(&Zone { state: before, area: has, .. }) = self.zones.get(index) else {
            return Err(INVALID_FIELD);
        };
        let reached = |limit: Option<u32>, count: u32| limit.is_some_and(|limit| count >= limit);
        if area && !has && self.areas >= self.options.random_write_areas {
            return Err(Status::NO_RANDOM_WRITE_AREA);
        }
        if !before.is_active() && reached(self.options.max_active, self.active) {
            return Err(Status::TOO_MANY_ACTIVE_ZONES);
        }
        if !before.is_open() && reached(self.options.max_open, self.open) {
            let (_, oldest) = self.implicit.pop_first().ok_or(Status::TOO_MANY_OPEN_ZONES)?;
            self.set(oldest, ZoneState::CLOSED);
        }
        self.set(index, state);
        if let Some(zone) = self.zones.get_mut(index).filter(|zone| area && !zone.area) {
            zone.area = true;
            self.areas += 1;
        }
        Ok(())
    }

    /// Returns the bytes of a zone's descriptor extension; 0 if zones have none.
    pub fn extension_size(&self) -> usize {
        self.options.descriptor_extension as usize
    }

    /// Checks a Zone Management Send that sets the descriptor extension of the zone that begins with block `slba`; returns the
    /// zone's index.
    pub fn check_extension(&self, slba: u64, dword: ZoneSendDword13) -> Result<usize, Status> {
        if dword.select_all() || dword.allocate_random_write_area() || self.extension_size() == 0 {
            return Err(INVALID_FIELD);
        }
        let (index, zone) = self.beginning(slba)?;
        if zone.state != ZoneState::EMPTY {
            return Err(INVALID_TRANSITION);
        }
        match self.options.max_active {
            Some(most) if self.active >= most => Err(Status::TOO_MANY_ACTIVE_ZONES),
            _ => Ok(index),
        }
    }

    /// Sets the descriptor extension of an empty zone, which is closed then.
    pub fn set_extension(&mut self, index: usize, extension: Vec<u8>) {
        self.set(index, ZoneState::CLOSED);
        self.extensions.insert(index, extension);
    }

    /// Returns the bytes of a zone's descriptor extension, if they were set.
    pub fn extension(&self, index: usize) -> Option<&[u8]> {
        self.extensions.get(&index).map(Vec::as_slice)
    }

    /// Commits the random write area of a zone up to a block.
    pub(super) fn flush_area(&mut self, last: u64) -> Result<(), Status> {
        let (index, offset, zone) = self.zone(last)?;
        if self.area == 0 {
            return Err(Status::INVALID_ZONE_OPERATION.with_do_not_retry());
        }
        if !zone.area {
            return Err(INVALID_FIELD);
        }
        if offset < zone.pointer || offset >= zone.pointer + self.area || offset >= self.capacity {
            return Err(Status::ZONE_BOUNDARY_ERROR.with_do_not_retry());
        }
        if (offset + 1 - zone.pointer) % self.granularity != 0 {
            return Err(INVALID_FIELD);
        }
        if !zone.state.is_open() {
            self.open(index, ZoneState::IMPLICITLY_OPENED, false)?;
        }
        self.advance(index, offset + 1);
        Ok(())
    }

    /// Changes the state of a zone, and counts.
    pub(super) fn set(&mut self, index: usize, state: ZoneState) {
        let Some(zone) = self.zones.get_mut(index) else { return };
        let before = std::mem::replace(&mut zone.state, state);
        self.open = self.open + u32::from(state.is_open()) - u32::from(before.is_open());
        self.active = self.active + u32::from(state.is_active()) - u32::from(before.is_active());
        if before == ZoneState::IMPLICITLY_OPENED {
            self.implicit.remove(&zone.opened);
        }
        if state == ZoneState::IMPLICITLY_OPENED {
            self.openings += 1;
            zone.opened = self.openings;
            self.implicit.insert(self.openings, index);
        }
        if state == ZoneState::EMPTY {
            self.extensions.remove(&index);
        }
        if !state.is_active() && std::mem::take(&mut zone.area) {
            self.areas -= 1;
        }
    }

    /// Returns the state of a zone.
    pub fn state(&self, index: usize) -> Option<ZoneState> {
        self.zones.get(index).map(|zone| zone.state)
    }

    /// Describes a zone, as reports do.
    pub fn describe(&self, index: usize) -> Option<ZoneDescriptor> {
        let zone = self.zones.get(index)?;
        let start = index as u64 * self.size;
        let mut descriptor = ZoneDescriptor::new_zeroed();
        descriptor.zone_type = ZoneType::SEQUENTIAL_WRITE_REQUIRED.0;
        descriptor.zone_state = zone.state.0 << 4;
        descriptor.attributes = ZoneAttributes::new()
            .with_random_write_area(zone.area)
            .with_extension_valid(self.extensions.contains_key(&index));
        (descriptor.capacity, descriptor.start) = (self.capacity, start);
        let has_pointer = zone.state.has_write_pointer();
        descriptor.write_pointer = if has_pointer { start + zone.pointer } else { u64::MAX };
        Some(descriptor)
    }
}

/// Returns the status of a write to a zone that takes none in its state.
fn writable(state: ZoneState) -> Result<(), Status> {
    match state {
        ZoneState::FULL => Err(Status::ZONE_IS_FULL.with_do_not_retry()),
        ZoneState::READ_ONLY => Err(Status::ZONE_IS_READ_ONLY.with_do_not_retry()),
        ZoneState::OFFLINE => Err(Status::ZONE_IS_OFFLINE.with_do_not_retry()),
        _ => Ok(()),
    }
}
