//! Checks of flexible data placement, for the emulated controllers and for QEMU's: the same facts on each.
//!
//! [`Model`] is the reclaim units of a namespace as the specification has them, written down a second time and simply.

use crate::{data::Pattern, io::read, says};
use std::collections::BTreeMap;
use upcie_core::testing::Random;
use upcie_nvme::{
    Controller, Io, Namespace, Placement,
    spec::{PlacementEventType, Status},
};

/// A namespace with flexible data placement, and empty reclaim units.
#[derive(Debug)]
pub struct Placed {
    /// The controller.
    pub controller: Controller,
    /// The namespace.
    pub namespace: Namespace,
    /// Placement handles of the namespace.
    pub placement: Placement,
    /// The data of its blocks.
    pub pattern: Pattern,
    /// Blocks of a reclaim unit.
    pub unit: u64,
    /// The controller logs writes with an invalid identifier, and counts as written only blocks that hosts wrote.
    pub strict: bool,
}

impl Placed {
    /// Gives each handle of namespace 1 empty reclaim units.
    ///
    /// # Panics
    /// Panics if it has no flexible data placement, or a unit is not as large as it should be.
    #[track_caller]
    pub fn of(controller: &Controller, strict: bool) -> Self {
        let namespace = controller.namespace(1).unwrap();
        let placement = namespace.placement().unwrap();
        let identifiers: Vec<u16> =
            placement.handles().unwrap().iter().map(|handle| handle.placement_identifier).collect();
        placement.update(&identifiers).unwrap();
        let format = namespace.format();
        let stride = (format.data_size() + format.metadata_size()) as u64;
        let unit = placement.configuration().reclaim_unit_nominal_size / stride;
        let placed = Self {
            controller: controller.clone(),
            pattern: Pattern::of(&namespace),
            namespace,
            placement,
            unit,
            strict,
        };
        assert!(placed.left().values().all(|&left| left == unit), "{:?}", placed.left());
        placed
    }

    /// Returns the blocks that are left in the unit of each placement identifier.
    pub fn left(&self) -> BTreeMap<u16, u64> {
        let handles = self.placement.handles().unwrap();
        handles.iter().map(|handle| (handle.placement_identifier, handle.available_media_writes)).collect()
    }

    /// Writes `blocks` blocks from `slba` on, with a placement identifier or without.
    pub fn write(&self, slba: u64, blocks: u64, identifier: Option<u16>) {
        let mut buffer = self.controller.alloc(blocks as usize * self.namespace.block_size()).unwrap();
        buffer.write_at(0, &self.pattern.bytes(slba, blocks as usize, 1));
        let io = Io::write(&self.namespace, slba);
        let io = match identifier {
            Some(identifier) => io.placement(identifier),
            None => io,
        };
        self.namespace.run(io, &mut buffer).unwrap();
    }

    /// Returns the bytes that hosts wrote, by the statistics.
    pub fn host_bytes(&self) -> u128 {
        self.placement.statistics().unwrap().host_bytes()
    }
}

/// Checks that a write fills the unit that it names, and that its data is there.
pub fn a_write_fills_the_unit_that_it_names(placed: &Placed) {
    let (named, first) = (placed.placement.identifier(0, 2), placed.placement.identifier(0, 0));
    let written = placed.host_bytes();
    placed.write(3, 4, Some(named));
    placed.write(7, 2, None);
    let left = placed.left();
    assert_eq!(left[&named], placed.unit - 4);
    assert_eq!(left[&first], placed.unit - 2, "without an identifier, by placement handle 0");
    let others = left.iter().filter(|(identifier, _)| ![named, first].contains(identifier));
    assert!(others.into_iter().all(|(_, &left)| left == placed.unit), "{left:?}");
    let format = placed.namespace.format();
    let bytes = 6 * (format.data_size() + format.metadata_size()) as u128;
    assert_eq!(placed.host_bytes() - written, bytes);
    placed.pattern.verify(&read(&placed.controller, &placed.namespace, 3, 6), 3, 1);
}

/// Checks that a read with a placement is a read.
pub fn a_read_has_no_placement(placed: &Placed) {
    placed.write(0, 1, None);
    let before = placed.left();
    let mut buffer = placed.controller.alloc(placed.namespace.block_size()).unwrap();
    placed.namespace.run(Io::read(&placed.namespace, 0).placement(1), &mut buffer).unwrap();
    placed.pattern.verify(&buffer.to_vec(), 0, 1);
    assert_eq!(placed.left(), before);
}

/// Checks that each reclaim group has a unit of its own.
pub fn each_group_has_units_of_its_own(placed: &Placed) {
    let groups = placed.placement.configuration().reclaim_groups as u16;
    for group in 0..groups {
        placed.write(0, u64::from(group) + 1, Some(placed.placement.identifier(group, 1)));
    }
    let left = placed.left();
    for group in 0..groups {
        let identifier = placed.placement.identifier(group, 1);
        assert_eq!(left[&identifier], placed.unit - u64::from(group) - 1, "group {group}");
    }
}

/// Checks that an update begins an empty unit, that it is noted if a host asks for that, and that nothing changes if one
/// identifier of a list is wrong.
pub fn an_update_begins_an_empty_unit(placed: &Placed) {
    let placement = &placed.placement;
    let [one, two] = [1, 2].map(|handle| placement.identifier(0, handle));
    placed.write(0, 4, Some(one));
    placed.write(4, 4, Some(two));
    let kind = PlacementEventType::UNIT_NOT_FULLY_WRITTEN;
    placement.set_events(1, &[kind], true).unwrap();
    let is_noted = |handle| {
        let events = placement.events(handle).unwrap();
        events.iter().find(|event| event.kind() == kind).unwrap().attributes.enabled()
    };
    assert!(is_noted(1) && !is_noted(2));
    let count = || {
        let log = placement.host_events().unwrap();
        log.events().iter().filter(|event| event.event_type == kind.0).count()
    };
    let before = count();
    let wrong = placement.identifier(0, 100);
    let error = placement.update(&[wrong]).unwrap_err();
    assert_eq!(error.status(), Some(Status::INVALID_FIELD));
    says(&error, &["I/O Management Send", "namespace 1"]);
    assert_eq!((placed.left()[&one], count()), (placed.unit - 4, before), "nothing has changed");
    placement.update(&[one, two]).unwrap();
    let left = placed.left();
    assert_eq!((left[&one], left[&two]), (placed.unit, placed.unit));
    assert_eq!(count(), (before + 1).min(63), "noted of the handle that was asked for");
    let log = placement.host_events().unwrap();
    let last = log.events().iter().rfind(|event| event.event_type == kind.0).unwrap();
    assert!(last.valid.placement_identifier() && last.valid.namespace_id() && last.valid.location());
    assert_eq!((last.placement_identifier, last.namespace_id), (one, 1));
    placement.set_events(1, &[kind], false).unwrap();
    assert!(!is_noted(1));
    placement.update(&[one]).unwrap();
    assert_eq!(count(), (before + 1).min(63), "not noted any more");
    assert!(placement.controller_events().unwrap().events().iter().all(|event| event.event_type >= 0x80));
}

/// Checks that a write with an identifier of no handle or group goes by placement handle 0.
pub fn an_invalid_identifier_is_placement_handle_0(placed: &Placed) {
    let placement = &placed.placement;
    let configuration = placement.configuration();
    let kind = PlacementEventType::INVALID_PLACEMENT_IDENTIFIER;
    if placed.strict {
        placement.set_events(0, &[kind], true).unwrap();
    }
    let mut invalid = vec![placement.identifier(0, 100)];
    let bits = configuration.attributes.reclaim_group_identifier_format();
    if configuration.reclaim_groups < 1 << bits {
        invalid.push(placement.identifier(configuration.reclaim_groups as u16, 0));
    }
    for (written, &identifier) in (1..).zip(&invalid) {
        placed.write(0, 1, Some(identifier));
        assert_eq!(placed.left()[&placement.identifier(0, 0)], placed.unit - written, "{identifier:#x}");
    }
    if placed.strict {
        let log = placement.host_events().unwrap();
        let noted = log.events().iter().filter(|event| event.event_type == kind.0);
        let noted: Vec<_> = noted.map(|event| (event.placement_identifier, event.namespace_id)).collect();
        assert_eq!(noted, invalid.iter().map(|&identifier| (identifier, 1)).collect::<Vec<_>>());
    }
}

/// The blocks that are left in the units of a namespace's placement identifiers.
#[derive(Debug)]
pub struct Model<'a> {
    placed: &'a Placed,
    left: BTreeMap<u16, u64>,
    host_bytes: u128,
    /// Units that began since the statistics were read.
    begun: u128,
    erased: u128,
}

impl<'a> Model<'a> {
    /// Takes the units as they are.
    pub fn new(placed: &'a Placed) -> Self {
        let erased = placed.placement.statistics().unwrap().erased_bytes();
        Self { placed, left: placed.left(), host_bytes: placed.host_bytes(), begun: 0, erased }
    }

    fn write(&mut self, identifier: u16, mut blocks: u64) {
        let format = self.placed.namespace.format();
        self.host_bytes += u128::from(blocks) * (format.data_size() + format.metadata_size()) as u128;
        let left = self.left.get_mut(&identifier).unwrap();
        while blocks >= *left {
            blocks -= *left;
            *left = self.placed.unit;
            self.begun += 1;
        }
        *left -= blocks;
    }

    /// Writes, zeroes and updates by chance, and compares the namespace's units with the model's. With `most` no more than so
    /// many blocks are written.
    pub fn run(mut self, random: &mut Random, steps: usize, most: Option<u64>) {
        let identifiers: Vec<u16> = self.left.keys().copied().collect();
        let first = self.placed.placement.identifier(0, 0);
        let mut written = 0;
        for step in 0..steps {
            // Some take several commands.
            let blocks = 1 + random.below(64) as u64;
            if most.is_some_and(|most| written + blocks > most) {
                break;
            }
            let slba = random.below((self.placed.namespace.blocks() - blocks) as usize) as u64;
            let named = identifiers[random.below(identifiers.len())];
            let invalid = self.placed.placement.identifier(0, 0x70);
            match random.below(10) {
                0 => {
                    self.placed.placement.update(&[named]).unwrap();
                    self.left.insert(named, self.placed.unit);
                    self.begun += 1;
                    continue;
                }
                1 => {
                    self.placed.namespace.write_zeroes(slba, blocks).unwrap();
                    self.write(first, blocks);
                }
                2 => {
                    self.placed.write(slba, blocks, None);
                    self.write(first, blocks);
                }
                3 => {
                    self.placed.write(slba, blocks, Some(invalid));
                    self.write(first, blocks);
                }
                _ => {
                    self.placed.write(slba, blocks, Some(named));
                    self.write(named, blocks);
                }
            }
            written += blocks;
            assert_eq!(self.placed.left(), self.left, "step {step}");
        }
        let statistics = self.placed.placement.statistics().unwrap();
        assert_eq!(statistics.host_bytes(), self.host_bytes);
        assert!(statistics.media_bytes() >= statistics.host_bytes());
        if self.placed.strict {
            let unit = u128::from(self.placed.placement.configuration().reclaim_unit_nominal_size);
            assert_eq!(statistics.media_bytes(), statistics.host_bytes(), "no data was moved");
            assert_eq!(statistics.erased_bytes() - self.erased, self.begun * unit);
        }
    }
}
