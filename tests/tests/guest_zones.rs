//! Zoned namespaces of a controller that is not ours: QEMU's controller D.

use upcie_tests::{
    pci, scaled, seeded,
    zones::{self, Model, Zoned},
};

/// Controller D.
const BDF: &str = "0000:04:00.0";

/// Runs a check on controller D; the tests of this suite take turns.
fn on_it(check: impl Fn(&Zoned)) {
    pci::take_turn(BDF, |controller| check(&Zoned::of(&controller, false)));
}

#[test]
fn appends_in_flight_tell_where_they_are() {
    on_it(zones::appends_in_flight_tell_where_they_are);
}

#[test]
fn a_wrong_write_has_the_status_of_its_reason() {
    on_it(zones::a_wrong_write_has_the_status_of_its_reason);
}

#[test]
fn the_limits_of_open_and_active_zones_hold() {
    on_it(zones::the_limits_of_open_and_active_zones_hold);
}

#[test]
fn implicitly_opened_zones_are_closed_for_others() {
    on_it(zones::implicitly_opened_zones_are_closed_for_others);
}

#[test]
fn reset_zones_read_as_zeros() {
    on_it(zones::reset_zones_read_as_zeros);
}

#[test]
fn a_long_transfer_goes_zone_by_zone() {
    on_it(zones::a_long_transfer_goes_zone_by_zone);
}

#[test]
fn reports_list_the_zones_of_a_state() {
    on_it(zones::reports_list_the_zones_of_a_state);
}

#[test]
fn extensions_stay_until_a_reset() {
    on_it(zones::extensions_stay_until_a_reset);
}

#[test]
fn a_random_write_area_takes_any_order() {
    on_it(zones::a_random_write_area_takes_any_order);
}

#[test]
fn zones_are_those_of_a_model() {
    on_it(|zoned| Model::new(zoned).run(&mut seeded(1), scaled(4000)));
}

/// The zones as QEMU was told to make them.
#[test]
fn the_geometry_is_qemus() {
    on_it(|zoned| {
        let zones = &zoned.zones;
        assert_eq!((zoned.namespace.nsid(), zoned.namespace.block_size()), (2, 4096));
        assert_eq!((zones.count(), zones.zone_blocks(), zoned.capacity), (16, 256, 192));
        assert_eq!((zones.max_open(), zones.max_active()), (Some(3), Some(5)));
        assert_eq!((zones.max_append(), zones.random_write_area()), (128 << 10, 16));
        assert!(zoned.controller.namespace(1).unwrap().zones().is_err(), "a plain namespace beside it");
    });
}
