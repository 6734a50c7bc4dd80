//! Flexible data placement of a controller that is not ours: QEMU's controller E.

use upcie_tests::{
    pci,
    placement::{self, Model, Placed},
    scaled, seeded,
};

/// Controller E.
const BDF: &str = "0000:05:00.0";

/// Runs a check on controller E; the tests of this suite take turns.
fn on_it(check: impl Fn(&Placed)) {
    pci::take_turn(BDF, |controller| check(&Placed::of(&controller, false)));
}

#[test]
fn a_write_fills_the_unit_that_it_names() {
    on_it(placement::a_write_fills_the_unit_that_it_names);
}

#[test]
fn a_read_has_no_placement() {
    on_it(placement::a_read_has_no_placement);
}

#[test]
fn each_group_has_units_of_its_own() {
    on_it(placement::each_group_has_units_of_its_own);
}

#[test]
fn an_update_begins_an_empty_unit() {
    on_it(placement::an_update_begins_an_empty_unit);
}

#[test]
fn an_invalid_identifier_is_placement_handle_0() {
    on_it(placement::an_invalid_identifier_is_placement_handle_0);
}

/// No unit is filled: QEMU 10.0 begins none for a write with an invalid identifier.
#[test]
fn units_are_those_of_a_model() {
    on_it(|placed| Model::new(placed).run(&mut seeded(1), scaled(4000), Some(placed.unit - 1)));
}

/// The endurance group as QEMU was told to make it.
#[test]
fn the_configuration_is_qemus() {
    on_it(|placed| {
        let (placement, configuration) = (&placed.placement, placed.placement.configuration());
        assert_eq!((placed.namespace.block_size(), placement.endurance_group()), (4096, 1));
        assert_eq!((configuration.reclaim_groups, configuration.reclaim_unit_handles), (2, 8));
        assert_eq!((configuration.reclaim_unit_nominal_size, placed.unit), (96 << 20, 24576));
        let handles = placement.handles().unwrap();
        let unit_handles: Vec<u16> = handles.iter().map(|handle| handle.reclaim_unit_handle).collect();
        assert_eq!(unit_handles, [1, 1, 2, 2, 3, 3, 4, 4], "four placement handles in two groups");
        let usage = placement.usage().unwrap().handles();
        let usage: Vec<u8> = usage.iter().map(|handle| handle.attributes).collect();
        assert_eq!(usage, [0, 1, 1, 1, 1, 0, 0, 0]);
    });
}
