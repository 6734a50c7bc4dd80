//! Checks of a zoned namespace, for the emulated controllers and for QEMU's: the same facts on each.
//!
//! [`Model`] is a namespace's zones as the ZNS specification has them, written down a second time and simply.

mod model;

pub use model::Model;

use crate::{
    data::Pattern,
    io::{finish, read},
    says,
};
use upcie_nvme::{
    Controller, Failure, Namespace, Refusal, ZoneSelect, Zones,
    spec::{Csi, Status, ZoneDescriptor, ZoneFilter, ZoneState},
};

/// The zoned namespace of a controller, empty.
#[derive(Debug)]
pub struct Zoned {
    /// The controller.
    pub controller: Controller,
    /// The namespace.
    pub namespace: Namespace,
    /// Zones of the namespace.
    pub zones: Zones,
    /// The data of its blocks.
    pub pattern: Pattern,
    /// Blocks of each zone that can be written.
    pub capacity: u64,
    /// The controller closes zones only if it has to.
    pub strict: bool,
}

impl Zoned {
    /// Resets all zones of the first zoned namespace of `controller`.
    ///
    /// # Panics
    /// Panics if it has none, or a zone is of no use.
    #[track_caller]
    pub fn of(controller: &Controller, strict: bool) -> Self {
        let all = controller.namespaces().unwrap();
        let namespace = all.into_iter().find(|namespace| namespace.command_set() == Csi::ZONED);
        let namespace = namespace.expect("a zoned namespace");
        let zones = namespace.zones().unwrap();
        zones.reset(ZoneSelect::All).unwrap();
        let first = zones.report(0, 1).unwrap()[0];
        assert_eq!((first.start, first.state()), (0, ZoneState::EMPTY));
        Self {
            controller: controller.clone(),
            pattern: Pattern::of(&namespace),
            namespace,
            zones,
            capacity: first.capacity,
            strict,
        }
    }

    /// Returns the first block of a zone.
    pub fn start(&self, zone: u64) -> u64 {
        self.zones.start_of(zone)
    }

    /// Writes `blocks` blocks from `slba` on.
    pub fn write(&self, slba: u64, blocks: u64) -> Result<(), upcie_nvme::Error> {
        let mut buffer = self.controller.alloc(blocks as usize * self.namespace.block_size()).unwrap();
        buffer.write_at(0, &self.pattern.bytes(slba, blocks as usize, 1));
        self.namespace.write(slba, &mut buffer)
    }

    /// Returns the status that an error is about.
    fn status(result: Result<(), upcie_nvme::Error>) -> Status {
        match result {
            Ok(()) => Status::SUCCESS,
            Err(error) => error.status().unwrap_or_else(|| panic!("{error}")),
        }
    }

    fn state(&self, zone: u64) -> (ZoneState, Option<u64>) {
        let found = self.zones.report(self.start(zone), 1).unwrap()[0];
        (found.state(), found.written())
    }
}

/// Checks that appends in flight land one behind the other, and that each completion tells where.
pub fn appends_in_flight_tell_where_they_are(zoned: &Zoned) {
    let Zoned { controller, namespace, pattern, .. } = zoned;
    let zone = zoned.start(2);
    let mut queue = controller.queue_pair().depth(8).create::<usize>().unwrap();
    let most = zoned.zones.max_append() / namespace.block_size();
    let counts = [1_usize, 3, 2, 4, 1, 5].map(|count| count.min(most));
    let mut turn = queue.turn().unwrap();
    for (tag, blocks) in counts.into_iter().enumerate() {
        let mut buffer = controller.alloc(blocks * namespace.block_size()).unwrap();
        buffer.write_at(0, &pattern.bytes(1000 * tag as u64, blocks, 7));
        turn.append(namespace, zone, buffer, tag).unwrap();
    }
    drop(turn);
    let mut places: Vec<_> = finish(&mut queue)
        .into_iter()
        .map(|done| {
            let (block, tag) = (done.block(), *done.tag());
            done.into_parts().1.unwrap();
            (block, tag)
        })
        .collect();
    places.sort_unstable();
    let mut next = zone;
    for (block, tag) in places {
        assert_eq!(block, next, "append {tag}");
        pattern.verify(&read(controller, namespace, block, counts[tag]), 1000 * tag as u64, 7);
        next += counts[tag] as u64;
    }
    assert_eq!(zoned.state(2), (ZoneState::IMPLICITLY_OPENED, Some(next - zone)));
    // The blocking call, too.
    let mut buffer = controller.alloc(2 * namespace.block_size()).unwrap();
    assert_eq!(zoned.zones.append(zone, &mut buffer).unwrap(), next);
}

/// Checks that a write that does not fit the zone's state has the status of its reason, and changes nothing.
pub fn a_wrong_write_has_the_status_of_its_reason(zoned: &Zoned) {
    let (start, end) = (zoned.start(1), zoned.start(1) + zoned.capacity);
    assert_eq!(Zoned::status(zoned.write(start + 1, 1)), Status::ZONE_INVALID_WRITE, "behind the pointer");
    assert_eq!(zoned.state(1), (ZoneState::EMPTY, Some(0)));
    zoned.write(start, zoned.capacity - 1).unwrap();
    assert_eq!(Zoned::status(zoned.write(start, 1)), Status::ZONE_INVALID_WRITE, "before the pointer");
    assert_eq!(Zoned::status(zoned.write(end - 1, 2)), Status::ZONE_BOUNDARY_ERROR);
    assert_eq!(zoned.state(1), (ZoneState::IMPLICITLY_OPENED, Some(zoned.capacity - 1)));
    zoned.write(end - 1, 1).unwrap();
    assert_eq!(zoned.state(1), (ZoneState::FULL, Some(zoned.capacity)));
    assert_eq!(Zoned::status(zoned.write(start, 1)), Status::ZONE_IS_FULL);
    let mut buffer = zoned.controller.alloc(zoned.namespace.block_size()).unwrap();
    let error = zoned.zones.append(start, &mut buffer).unwrap_err();
    assert_eq!(error.status(), Some(Status::ZONE_IS_FULL));
    says(&error, &["Zone Append", "the zone is full"]);
    let blocks = zoned.capacity as usize;
    zoned.pattern.verify(&read(&zoned.controller, &zoned.namespace, start, blocks), start, 1);
}

/// Checks that no more zones are open or active than the controller says.
pub fn the_limits_of_open_and_active_zones_hold(zoned: &Zoned) {
    let (Some(open), Some(active)) = (zoned.zones.max_open(), zoned.zones.max_active()) else {
        panic!("the namespace has no limits to try")
    };
    let at = |zone: u32| ZoneSelect::At(zoned.start(zone.into()));
    for zone in 0..open {
        zoned.zones.open(at(zone)).unwrap();
    }
    let error = zoned.zones.open(at(open)).unwrap_err();
    assert_eq!(error.status(), Some(Status::TOO_MANY_OPEN_ZONES), "{error}");
    assert_eq!(Zoned::status(zoned.write(zoned.start(open.into()), 1)), Status::TOO_MANY_OPEN_ZONES);
    assert_eq!(zoned.state(open.into()).0, ZoneState::EMPTY);
    zoned.zones.close(ZoneSelect::All).unwrap();
    for zone in open..active {
        zoned.write(zoned.start(zone.into()), 1).unwrap();
    }
    assert_eq!(Zoned::status(zoned.write(zoned.start(active.into()), 1)), Status::TOO_MANY_ACTIVE_ZONES);
    // A full zone is not active.
    zoned.zones.finish(at(0)).unwrap();
    zoned.write(zoned.start(active.into()), 1).unwrap();
}

/// Checks that a zone that was opened implicitly gives way to another one.
pub fn implicitly_opened_zones_are_closed_for_others(zoned: &Zoned) {
    let open = u64::from(zoned.zones.max_open().expect("a limit"));
    for zone in 0..=open {
        zoned.write(zoned.start(zone), 1).unwrap();
    }
    let states: Vec<_> = (0..=open).map(|zone| zoned.state(zone).0).collect();
    let closed = states.iter().filter(|state| **state == ZoneState::CLOSED).count();
    assert_eq!(closed, 1, "{states:?}");
    assert_eq!(states[open as usize], ZoneState::IMPLICITLY_OPENED);
}

/// Checks that unwritten blocks read as zeros, and so do those of a zone that was reset.
pub fn reset_zones_read_as_zeros(zoned: &Zoned) {
    let (controller, namespace, start) = (&zoned.controller, &zoned.namespace, zoned.start(3));
    zoned.write(start, 5).unwrap();
    let block = namespace.block_size();
    let data = read(controller, namespace, start, 8);
    zoned.pattern.verify(&data[..5 * block], start, 1);
    assert!(data[5 * block..].iter().all(|&byte| byte == 0), "behind the write pointer");
    zoned.zones.reset(ZoneSelect::At(start)).unwrap();
    assert_eq!(zoned.state(3), (ZoneState::EMPTY, Some(0)));
    assert!(read(controller, namespace, start, 8).iter().all(|&byte| byte == 0));
}

/// Checks that a blocking write or read goes zone by zone, and that an error tells how much was written before it.
pub fn a_long_transfer_goes_zone_by_zone(zoned: &Zoned) {
    let (controller, namespace, zones) = (&zoned.controller, &zoned.namespace, &zoned.zones);
    let whole = zones.zone_blocks();
    if zoned.capacity == whole {
        zoned.write(zoned.start(1), 2 * whole).unwrap();
        let data = read(controller, namespace, zoned.start(1), 2 * whole as usize);
        zoned.pattern.verify(&data, zoned.start(1), 1);
        return;
    }
    // The blocks between the capacity and the next zone take no data: the command that reaches them fails, or the one behind
    // the full zone.
    let error = zoned.write(zoned.start(1), 2 * whole).unwrap_err();
    let status = error.status().unwrap();
    let written = zoned.state(1).1.unwrap();
    let expected = if written == zoned.capacity { Status::ZONE_IS_FULL } else { Status::ZONE_BOUNDARY_ERROR };
    assert_eq!(status, expected, "{error}");
    let bytes = written as usize * namespace.block_size();
    let one = namespace.max_transfer().min(whole as usize * namespace.block_size());
    assert_eq!(bytes, zoned.capacity as usize * namespace.block_size() / one * one, "whole commands");
    assert_eq!(error.to_string().contains(&format!("after the first {bytes} bytes")), bytes > 0, "{error}");
    assert_eq!(zoned.state(2), (ZoneState::EMPTY, Some(0)), "nothing is sent after the error");
    // Reads cross the gap: its blocks read as zeros.
    let data = read(controller, namespace, zoned.start(1), 2 * whole as usize);
    zoned.pattern.verify(&data[..bytes], zoned.start(1), 1);
    assert!(data[bytes..].iter().all(|&byte| byte == 0));
}

/// Checks that a report lists the zones of a state, from any block on.
pub fn reports_list_the_zones_of_a_state(zoned: &Zoned) {
    let (zones, count) = (&zoned.zones, zoned.zones.count());
    let all = zones.report(0, usize::MAX).unwrap();
    assert_eq!(all.len() as u64, count);
    for (number, zone) in (0..).zip(&all) {
        assert_eq!((zone.start, zone.capacity), (zones.start_of(number), zoned.capacity));
    }
    zoned.write(zoned.start(1), 2).unwrap();
    zones.open(ZoneSelect::At(zoned.start(2))).unwrap();
    zones.finish(ZoneSelect::At(zoned.start(4))).unwrap();
    zoned.write(zoned.start(5), 1).unwrap();
    zones.close(ZoneSelect::At(zoned.start(5))).unwrap();
    let starts = |filter, first| -> Vec<u64> {
        let found = zones.report_some(filter, first, usize::MAX).unwrap();
        found.iter().map(|zone| zone.start / zones.zone_blocks()).collect()
    };
    assert_eq!(starts(ZoneFilter::IMPLICITLY_OPENED, 0), [1]);
    assert_eq!(starts(ZoneFilter::EXPLICITLY_OPENED, 0), [2]);
    assert_eq!(starts(ZoneFilter::FULL, 0), [4]);
    assert_eq!(starts(ZoneFilter::CLOSED, 0), [5]);
    assert_eq!(starts(ZoneFilter::OFFLINE, 0), [0; 0]);
    let empty: Vec<u64> = (0..count).filter(|zone| ![1, 2, 4, 5].contains(zone)).collect();
    assert_eq!(starts(ZoneFilter::EMPTY, 0), empty);
    // Zones are listed from the one of any block on.
    assert_eq!(starts(ZoneFilter::ALL, zoned.start(4) + 1), (4..count).collect::<Vec<_>>());
    assert_eq!(zones.report(zoned.start(3), 2).unwrap().len(), 2);
}

/// Checks that a zone keeps its descriptor extension until it is reset.
pub fn extensions_stay_until_a_reset(zoned: &Zoned) {
    let (zones, size) = (&zoned.zones, zoned.zones.extension_size());
    let named = |name: &[u8]| {
        let mut extension = vec![0; size];
        extension[..name.len()].copy_from_slice(name);
        extension
    };
    if size == 0 {
        says(&zones.set_extension(0, &[1; 64]).unwrap_err(), &["Set Zone Descriptor Extension"]);
        says(&zones.report_extended(0, 1).unwrap_err(), &["no descriptor extensions"]);
        return;
    }
    let set = |zone, name: &[u8]| Zoned::status(zones.set_extension(zoned.start(zone), &named(name)));
    assert_eq!(set(1, b"one"), Status::SUCCESS);
    assert_eq!(set(3, b"three"), Status::SUCCESS);
    assert_eq!(zoned.state(1), (ZoneState::CLOSED, Some(0)));
    // QEMU's controller stores the bytes, and refuses the command after that.
    let again: &[u8] = if zoned.strict { b"again" } else { b"one" };
    assert_eq!(set(1, again), Status::ZONE_INVALID_TRANSITION);
    let shown = || -> Vec<Option<Vec<u8>>> {
        let found = zones.report_extended(zoned.start(1), 3).unwrap();
        let valid =
            |(zone, extension): (ZoneDescriptor, _)| zone.attributes.extension_valid().then_some(extension);
        found.into_iter().map(valid).collect()
    };
    assert_eq!(shown(), [Some(named(b"one")), None, Some(named(b"three"))]);
    // It stays when the zone is written and full.
    zoned.write(zoned.start(1), 1).unwrap();
    zones.finish(ZoneSelect::At(zoned.start(1))).unwrap();
    assert_eq!(shown()[0], Some(named(b"one")));
    zones.reset(ZoneSelect::At(zoned.start(1))).unwrap();
    assert_eq!(shown(), [None, None, Some(named(b"three"))]);
    // All zones: each with its own.
    let all = zones.report_extended(0, usize::MAX).unwrap();
    assert_eq!(all.len() as u64, zones.count());
    let valid: Vec<_> = all.iter().filter(|(zone, _)| zone.attributes.extension_valid()).collect();
    assert_eq!((valid.len(), valid[0].0.start), (1, zoned.start(3)));
    for wrong in [size - 1, size + 64, 0] {
        let error = zones.set_extension(zoned.start(2), &vec![1; wrong]).unwrap_err();
        let is_refused = matches!(error.failure(), Failure::Refused { reason: Refusal::Length, .. });
        assert!(is_refused, "{error}");
    }
    let inside = zones.set_extension(zoned.start(2) + 1, &named(b"x")).unwrap_err();
    assert!(matches!(inside.failure(), Failure::Refused { reason: Refusal::ZoneStart, .. }), "{inside}");
    // Such zones are active.
    let most = zones.max_active().expect("a limit");
    zones.reset(ZoneSelect::All).unwrap();
    (0..u64::from(most)).for_each(|zone| assert_eq!(set(zone, b"x"), Status::SUCCESS));
    assert_eq!(set(most.into(), b"x"), Status::TOO_MANY_ACTIVE_ZONES);
}

/// Checks that the blocks of a random write area are written in any order, until they are committed.
pub fn a_random_write_area_takes_any_order(zoned: &Zoned) {
    let area = zoned.zones.random_write_area();
    assert!(area >= 8, "the namespace has no random write areas to try");
    let (start, zones) = (zoned.start(6), &zoned.zones);
    let granularity = u64::from(zones.identify().random_write_area_flush_granularity);
    zones.open_for_random_writes(start).unwrap();
    let zone = zones.report(start, 1).unwrap()[0];
    assert!(zone.attributes.random_write_area(), "{zone}");
    for block in [5, 0, 3, 0] {
        zoned.write(start + block, 1).unwrap();
    }
    assert_eq!(zoned.state(6), (ZoneState::EXPLICITLY_OPENED, Some(0)));
    // Behind the area the write pointer moves along.
    zoned.write(start + area, 1).unwrap();
    assert_eq!(zoned.state(6).1, Some(granularity));
    zones.flush_random_writes(start + 2 * granularity - 1).unwrap();
    assert_eq!(zoned.state(6).1, Some(2 * granularity));
    assert_eq!(Zoned::status(zoned.write(start, 1)), Status::ZONE_INVALID_WRITE, "it is committed");
    assert_eq!(
        Zoned::status(zoned.write(start + 2 * granularity + 2 * area, 1)),
        Status::ZONE_INVALID_WRITE,
        "beyond both areas"
    );
    let mut buffer = zoned.controller.alloc(zoned.namespace.block_size()).unwrap();
    let error = zones.append(start, &mut buffer).unwrap_err();
    assert_eq!(error.status(), Some(Status::INVALID_ZONE_OPERATION), "{error}");
    for block in [0, 3, 5, area] {
        let data = read(&zoned.controller, &zoned.namespace, start + block, 1);
        zoned.pattern.verify(&data, start + block, 1);
    }
}
