//! The reclaim units that writes go to: Base 2.1, "Flexible Data Placement".
//!
//! A write fills the unit of its reclaim unit handle in a reclaim group; a full one is replaced by an empty one at once. The
//! media are not moved to make room, so as many bytes are written to them as hosts write, and a unit counts as erased when it
//! replaces another.

use super::super::options::PlacementOptions;
use crate::spec::{
    PlacementAttributes, PlacementConfiguration, PlacementEvent, PlacementEventFlags, PlacementEventType,
    Status,
};
use std::collections::VecDeque;
use zerocopy::FromZeros;

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();
const INVALID_LIST: Status = Status::INVALID_PLACEMENT_HANDLES.with_do_not_retry();

/// The most events that a log page has.
const EVENTS: usize = 63;

/// The types of events that are noted if a host asks for them.
pub(super) const NOTED: [PlacementEventType; 2] =
    [PlacementEventType::UNIT_NOT_FULLY_WRITTEN, PlacementEventType::INVALID_PLACEMENT_IDENTIFIER];

/// The users of a reclaim unit handle, as its usage descriptor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Usage {
    Unused = 0,
    /// A host chose it for a namespace.
    Host = 1,
    /// The controller chose it for a namespace whose host chose none.
    Controller = 2,
}

/// A reclaim unit handle.
#[derive(Debug, Clone)]
struct Handle {
    /// The bytes that are left in its unit of each reclaim group.
    left: Vec<u64>,
    /// Bits of [`NOTED`], by their position there.
    noted: u8,
}

/// The reclaim unit handles that the placement handles of a namespace refer to.
#[derive(Debug, Clone, Default)]
struct List {
    handles: Vec<u16>,
    by_host: bool,
}

/// A write: the namespace by its index, the placement identifier if it has one, its blocks, and the bytes of a block with its
/// metadata.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Write {
    pub namespace: usize,
    pub identifier: Option<u16>,
    pub blocks: u64,
    pub stride: u64,
}

/// The endurance group's flexible data placement.
#[derive(Debug)]
pub(in super::super) struct Placement {
    options: PlacementOptions,
    /// Feature 1Dh.
    on: bool,
    handles: Vec<Handle>,
    /// Handle lists by the index of the namespace.
    lists: Vec<List>,
    written: u128,
    erased: u128,
    /// The last events of hosts, the oldest first.
    events: VecDeque<PlacementEvent>,
}

impl Placement {
    /// Makes the state after power-on: it is on, and each of the first `namespaces` of at most `most` namespaces has all
    /// handles.
    pub fn new(options: &PlacementOptions, namespaces: usize, most: usize) -> Self {
        let mut placement = Self {
            on: true,
            handles: Vec::new(),
            lists: vec![List::default(); most],
            written: 0,
            erased: 0,
            events: VecDeque::new(),
            options: options.clone(),
        };
        placement.renew();
        for list in placement.lists.iter_mut().take(namespaces) {
            *list = List { handles: (0..options.handles).collect(), by_host: true };
        }
        placement
    }

    /// Gives each handle empty units, and forgets what was counted and noted.
    fn renew(&mut self) {
        let handle = Handle { left: vec![self.options.unit; self.options.groups.into()], noted: 0 };
        self.handles = vec![handle; self.options.handles.into()];
        (self.written, self.erased) = (0, 0);
        self.events.clear();
    }

    /// Turns it on or off: the caller has checked that there is no namespace.
    pub fn turn(&mut self, on: bool) {
        if on && !self.on {
            self.renew();
        }
        self.on = on;
    }

    /// Returns `true` while it is on.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Returns an error while it is off.
    pub fn check_on(&self) -> Result<(), Status> {
        if self.on { Ok(()) } else { Err(Status::FDP_DISABLED.with_do_not_retry()) }
    }

    /// Returns the configuration, without its reclaim unit handles.
    pub fn configuration(&self) -> PlacementConfiguration {
        let mut configuration = PlacementConfiguration::new_zeroed();
        // The bits that tell the groups apart.
        let bits = u16::BITS - (self.options.groups - 1).leading_zeros();
        configuration.attributes =
            PlacementAttributes::new().with_reclaim_group_identifier_format(bits as u8).with_valid(true);
        configuration.reclaim_groups = self.options.groups.into();
        configuration.reclaim_unit_handles = self.options.handles;
        configuration.max_placement_identifiers = self.options.handles - 1;
        configuration.namespaces_supported = self.lists.len() as u32;
        configuration.reclaim_unit_nominal_size = self.options.unit;
        configuration
    }

    /// Returns the reclaim group, the placement handle and the reclaim unit handle that an identifier names; `None` if the
    /// namespace does not have it.
    fn find(&self, namespace: usize, identifier: u16) -> Option<(u16, u16, u16)> {
        let (group, handle) = self.configuration().parts_of(identifier);
        let unit_handle = *self.lists.get(namespace)?.handles.get(usize::from(handle))?;
        (group < self.options.groups).then_some((group, handle, unit_handle))
    }

    /// Returns the reclaim unit handle of a namespace's placement handle.
    pub fn unit_handle(&self, namespace: usize, handle: u16) -> Result<u16, Status> {
        let list = self.lists.get(namespace).ok_or(INVALID_FIELD)?;
        list.handles.get(usize::from(handle)).copied().ok_or(INVALID_FIELD)
    }

    /// Counts a write that has succeeded.
    pub fn write(&mut self, write: Write) {
        let Write { namespace, identifier, mut blocks, stride } = write;
        if !self.on || blocks == 0 {
            return;
        }
        let named = identifier.map(|identifier| self.find(namespace, identifier));
        // A write without an identifier goes by placement handle 0, and so does one with an invalid one.
        let (group, unit_handle) = match named {
            Some(Some((group, _, unit_handle))) => (group, unit_handle),
            _ => match self.unit_handle(namespace, 0) {
                Ok(unit_handle) => (0, unit_handle),
                Err(_) => return,
            },
        };
        if let Some(None) = named {
            let flags = PlacementEventFlags::new().with_placement_identifier(true).with_namespace_id(true);
            let kind = PlacementEventType::INVALID_PLACEMENT_IDENTIFIER;
            self.note(kind, flags, (identifier.unwrap_or(0), namespace), (group, unit_handle));
        }
        self.written += u128::from(blocks) * u128::from(stride);
        let Some(left) = self.left(group, unit_handle) else { return };
        let (mut rest, mut erased, unit) = (*left, 0, self.options.unit);
        loop {
            let room = rest / stride;
            if blocks < room {
                rest -= blocks * stride;
                break;
            }
            blocks -= room;
            (rest, erased) = (unit, erased + unit);
            // A unit of less than a block would never take one.
            if unit < stride {
                break;
            }
        }
        if let Some(left) = self.left(group, unit_handle) {
            *left = rest;
        }
        self.erased += u128::from(erased);
    }

    fn left(&mut self, group: u16, unit_handle: u16) -> Option<&mut u64> {
        self.handles.get_mut(usize::from(unit_handle))?.left.get_mut(usize::from(group))
    }

    /// Gives the handles that the identifiers name other, empty units: all of them, or none if one is invalid.
    pub fn update(&mut self, namespace: usize, identifiers: &[u16]) -> Result<(), Status> {
        let found: Option<Vec<_>> = identifiers
            .iter()
            .map(|&identifier| Some((identifier, self.find(namespace, identifier)?)))
            .collect();
        for (identifier, (group, _, unit_handle)) in found.ok_or(INVALID_FIELD)? {
            // A full unit was replaced when it became full, so this one has room.
            let flags = PlacementEventFlags::new()
                .with_placement_identifier(true)
                .with_namespace_id(true)
                .with_location(true);
            let kind = PlacementEventType::UNIT_NOT_FULLY_WRITTEN;
            self.note(kind, flags, (identifier, namespace), (group, unit_handle));
            let unit = self.options.unit;
            if let Some(left) = self.left(group, unit_handle) {
                *left = unit;
            }
            self.erased += u128::from(unit);
        }
        Ok(())
    }

    /// Returns the identifiers of a namespace with their reclaim unit handle and the bytes that are left in its unit.
    pub fn states(&self, namespace: usize) -> impl Iterator<Item = (u16, u16, u64)> + '_ {
        let configuration = self.configuration();
        let list = self.lists.get(namespace).map_or(&[][..], |list| &list.handles);
        (0..).zip(list).flat_map(move |(handle, &unit_handle)| {
            let units = self.handles.get(usize::from(unit_handle)).map_or(&[][..], |handle| &handle.left);
            (0..)
                .zip(units)
                .map(move |(group, &left)| (configuration.identifier(group, handle), unit_handle, left))
        })
    }

    /// Returns the number of identifiers of a namespace.
    pub fn identifiers(&self, namespace: usize) -> usize {
        let handles = self.lists.get(namespace).map_or(0, |list| list.handles.len());
        handles * usize::from(self.options.groups)
    }

    /// Returns the users of each reclaim unit handle.
    pub fn usage(&self) -> impl Iterator<Item = Usage> {
        let mut all = vec![Usage::Unused; self.options.handles.into()];
        for List { handles, by_host } in &self.lists {
            for &handle in handles {
                if let Some(usage) = all.get_mut(usize::from(handle)) {
                    let is_hosts = *by_host || *usage == Usage::Host;
                    *usage = if is_hosts { Usage::Host } else { Usage::Controller };
                }
            }
        }
        all.into_iter()
    }

    /// Returns the reclaim unit handles of a new namespace: those that its host has chosen, or one that the controller does.
    pub fn choose(&self, chosen: &[u16]) -> Result<Vec<u16>, Status> {
        let usage: Vec<_> = self.usage().collect();
        if chosen.is_empty() {
            let free = (0..).zip(&usage).find(|(_, usage)| **usage != Usage::Host);
            return free.map(|(handle, _)| vec![handle]).ok_or(INVALID_LIST);
        }
        let is_free =
            |&handle: &u16| usage.get(usize::from(handle)).is_some_and(|usage| *usage != Usage::Controller);
        let is_once = (1..).zip(chosen).all(|(next, handle)| !chosen[next..].contains(handle));
        if is_once && chosen.iter().all(is_free) { Ok(chosen.to_vec()) } else { Err(INVALID_LIST) }
    }

    /// Gives a namespace its placement handles; none to one that is deleted.
    pub fn assign(&mut self, namespace: usize, handles: Vec<u16>, by_host: bool) {
        if let Some(list) = self.lists.get_mut(namespace) {
            *list = List { handles, by_host };
        }
    }

    /// Returns the types of events of a reclaim unit handle that are noted.
    pub fn noted(&self, unit_handle: u16) -> u8 {
        self.handles.get(usize::from(unit_handle)).map_or(0, |handle| handle.noted)
    }

    /// Notes events of a reclaim unit handle from now on, or does not: `types` are bits of [`NOTED`].
    pub fn set_noted(&mut self, unit_handle: u16, types: u8, noted: bool) {
        if let Some(handle) = self.handles.get_mut(usize::from(unit_handle)) {
            handle.noted = if noted { handle.noted | types } else { handle.noted & !types };
        }
    }

    fn note(
        &mut self,
        kind: PlacementEventType,
        flags: PlacementEventFlags,
        (identifier, namespace): (u16, usize),
        (group, unit_handle): (u16, u16),
    ) {
        let bit = NOTED.iter().position(|noted| *noted == kind);
        if bit.is_none_or(|bit| self.noted(unit_handle) >> bit & 1 == 0) {
            return;
        }
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        let mut event = PlacementEvent::new_zeroed();
        (event.event_type, event.valid) = (kind.0, flags);
        (event.placement_identifier, event.namespace_id) = (identifier, namespace as u32 + 1);
        if flags.location() {
            (event.reclaim_group_id, event.reclaim_unit_handle_id) = (group, unit_handle as u8);
        }
        self.events.push_back(event);
    }

    /// Returns the events of hosts that were noted, the oldest first.
    pub fn events(&self) -> impl ExactSizeIterator<Item = &PlacementEvent> {
        self.events.iter()
    }

    /// Returns the bytes that were written, and those that were erased.
    pub fn counted(&self) -> (u128, u128) {
        (self.written, self.erased)
    }
}
