//! Reclaim units by themselves: how writes fill them, what is noted, and who may use a handle.

use super::{
    super::options::PlacementOptions,
    Placement,
    state::{Usage, Write},
};
use crate::spec::{PlacementEventType, Status};

const BLOCK: u64 = 512;
const UNIT: u64 = 4096;

/// Makes four handles in `groups` groups, of which each of two namespaces has all.
fn placement(groups: u16) -> Placement {
    let options = PlacementOptions { on: true, handles: 4, groups, unit: UNIT };
    Placement::new(&options, 2, 3)
}

fn write(namespace: usize, identifier: Option<u16>, blocks: u64) -> Write {
    Write { namespace, identifier, blocks, stride: BLOCK }
}

fn left(placement: &Placement, identifier: u16) -> u64 {
    let mut states = placement.states(0);
    states.find(|state| state.0 == identifier).unwrap().2 / BLOCK
}

#[test]
fn a_full_unit_is_replaced_at_once() {
    let mut placement = placement(1);
    for (blocks, rest) in [(7, 1), (1, 8), (8, 8), (9, 7), (7 + 8 + 8 + 3, 5), (0, 5)] {
        placement.write(write(0, Some(2), blocks));
        assert_eq!(left(&placement, 2), rest, "after {blocks} blocks");
    }
    let blocks = 7 + 1 + 8 + 9 + 26;
    assert_eq!(placement.counted(), (u128::from(blocks * BLOCK), u128::from(blocks / 8 * UNIT)));
    assert_eq!(left(&placement, 1), 8);
}

/// A block that does not fit into the rest of a unit begins the next one; no size of a block makes a write endless.
#[test]
fn a_unit_takes_whole_blocks() {
    let mut placement = placement(1);
    placement.write(Write { stride: 520, ..write(0, Some(0), 7) });
    assert_eq!(placement.states(0).next().unwrap().2, UNIT, "the rest of 456 bytes takes no block");
    placement.write(Write { stride: 4160, ..write(0, Some(0), 3) });
    assert_eq!(placement.states(0).next().unwrap().2, UNIT);
}

#[test]
fn namespaces_share_the_units_of_a_handle() {
    let mut placement = placement(2);
    placement.write(write(0, Some(1 << 15 | 3), 2));
    placement.write(write(1, Some(1 << 15 | 3), 3));
    assert_eq!((left(&placement, 1 << 15 | 3), left(&placement, 3)), (3, 8));
    assert_eq!(placement.identifiers(0), 8);
}

#[test]
fn an_update_is_whole_or_not_at_all() {
    let mut placement = placement(1);
    placement.set_noted(1, 1, true);
    placement.write(write(0, Some(1), 3));
    let invalid = Status::INVALID_FIELD.with_do_not_retry();
    assert_eq!(placement.update(0, &[1, 4]), Err(invalid));
    assert_eq!((left(&placement, 1), placement.events().len()), (5, 0));
    placement.update(0, &[1, 2]).unwrap();
    assert_eq!((left(&placement, 1), placement.events().len()), (8, 1));
    let event = placement.events().next().unwrap();
    assert_eq!(event.event_type, PlacementEventType::UNIT_NOT_FULLY_WRITTEN.0);
    assert_eq!((event.placement_identifier, event.namespace_id, event.reclaim_unit_handle_id), (1, 1, 1));
}

#[test]
fn the_last_events_are_kept() {
    let mut placement = placement(1);
    placement.set_noted(0, 2, true);
    for identifier in 100..200 {
        placement.write(write(1, Some(identifier), 1));
    }
    let identifiers: Vec<u16> = placement.events().map(|event| event.placement_identifier).collect();
    assert_eq!(identifiers, (137..200).collect::<Vec<_>>());
    assert_eq!(left(&placement, 0), 8 - 100 % 8, "they went by placement handle 0");
}

#[test]
fn a_handle_has_users_of_one_kind() {
    let mut placement = placement(1);
    assert!(placement.usage().all(|usage| usage == Usage::Host));
    assert_eq!(placement.choose(&[]), Err(Status::INVALID_PLACEMENT_HANDLES.with_do_not_retry()));
    placement.assign(0, Vec::new(), false);
    placement.assign(1, vec![0, 2], true);
    let chosen = placement.choose(&[]).unwrap();
    assert_eq!(chosen, [1], "the first that no host has chosen");
    placement.assign(2, chosen, false);
    let usage: Vec<_> = placement.usage().collect();
    assert_eq!(usage, [Usage::Host, Usage::Controller, Usage::Host, Usage::Unused]);
    assert_eq!(placement.choose(&[]).unwrap(), [1], "again");
    assert_eq!(placement.choose(&[3, 0]).unwrap(), [3, 0], "a host may choose what another has chosen");
    for wrong in [&[1][..], &[4], &[0, 0]] {
        assert!(placement.choose(wrong).is_err(), "{wrong:?}");
    }
    // Turned off and on, all is forgotten.
    placement.write(write(1, None, 1));
    placement.turn(false);
    placement.write(write(1, None, 1));
    assert!(placement.check_on().is_err());
    placement.turn(true);
    assert_eq!(placement.counted(), (0, 0));
}
