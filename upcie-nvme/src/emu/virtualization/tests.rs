//! The rules of flexible resources and states, without controllers.

use super::{Virtualization, state::PRIMARY};
use crate::{
    emu::Options,
    spec::{AdminCommand, Status, VirtualResource, VirtualizationAction, VirtualizationManagement},
};

const VQ: VirtualResource = VirtualResource::QUEUES;
const VI: VirtualResource = VirtualResource::INTERRUPTS;
const ALLOCATE: VirtualizationAction = VirtualizationAction::PRIMARY_FLEXIBLE;
const OFFLINE: VirtualizationAction = VirtualizationAction::SECONDARY_OFFLINE;
const ASSIGN: VirtualizationAction = VirtualizationAction::SECONDARY_ASSIGN;
const ONLINE: VirtualizationAction = VirtualizationAction::SECONDARY_ONLINE;

fn made(options: &str) -> (Virtualization, Options) {
    let options: Options = options.parse().unwrap();
    (*Virtualization::new(&options).unwrap(), options)
}

/// Carries out an action; returns the number of resources, or the status with its Do Not Retry bit.
fn act(
    all: &mut Virtualization,
    action: VirtualizationAction,
    controller: u16,
    resource: VirtualResource,
    number: u16,
) -> Result<u32, (Status, bool)> {
    let command = VirtualizationManagement { action, controller, resource, number }.command();
    all.manage(&command).map_err(|status| (status, status.do_not_retry()))
}

fn never(status: Status) -> Result<u32, (Status, bool)> {
    Err((status, true))
}

#[test]
fn only_a_controller_with_virtual_functions_has_flexible_resources() {
    assert!(Virtualization::new(&Options::default()).is_none());
    assert!(Virtualization::new(&"vfs=1".parse().unwrap()).is_some());
}

/// Two secondary controllers share 16 of each kind, and one may have all.
#[test]
fn no_more_is_assigned_than_is_free() {
    let (mut all, _) = made("vfs=2");
    let (first, second, refused) = (2, 3, never(Status::INVALID_RESOURCE_COUNT));
    for resource in [VQ, VI] {
        assert_eq!(act(&mut all, ASSIGN, first, resource, 17), refused);
        assert_eq!(act(&mut all, ASSIGN, first, resource, 10), Ok(10));
        assert_eq!(act(&mut all, ASSIGN, second, resource, 7), refused);
        assert_eq!(act(&mut all, ASSIGN, second, resource, 6), Ok(6));
        assert_eq!(act(&mut all, ASSIGN, first, resource, 10), Ok(10), "in place of those that it has");
        assert_eq!(act(&mut all, ASSIGN, first, resource, 11), refused);
    }
    assert_eq!(act(&mut all, OFFLINE, second, VQ, 0), Ok(0), "it gives up both kinds");
    for resource in [VQ, VI] {
        assert_eq!(act(&mut all, ASSIGN, first, resource, 16), Ok(16));
    }
}

/// Three share 24, of which one may have 16.
#[test]
fn no_secondary_controller_has_more_than_its_most() {
    let (mut all, _) = made("vfs=3");
    assert_eq!(act(&mut all, ASSIGN, 4, VQ, 17), never(Status::INVALID_RESOURCE_COUNT));
    assert_eq!(act(&mut all, ASSIGN, 4, VQ, 16), Ok(16));
}

#[test]
fn each_wrong_command_has_its_status() {
    let (mut all, _) = made("vfs=2");
    let unknown = never(Status::INVALID_CONTROLLER_ID);
    for controller in [0, PRIMARY, 4, 0xffff] {
        for action in [OFFLINE, ASSIGN, ONLINE] {
            assert_eq!(act(&mut all, action, controller, VQ, 1), unknown, "{action} of {controller}");
        }
    }
    for controller in [0, 2, 0xffff] {
        assert_eq!(act(&mut all, ALLOCATE, controller, VQ, 1), unknown);
    }
    for (action, controller) in [(ALLOCATE, PRIMARY), (ASSIGN, 2)] {
        for resource in 2..8 {
            let done = act(&mut all, action, controller, VirtualResource(resource), 1);
            assert_eq!(done, never(Status::INVALID_RESOURCE_ID), "{action}, resource {resource}");
        }
    }
    assert_eq!(act(&mut all, ALLOCATE, PRIMARY, VI, 17), never(Status::INVALID_RESOURCE_COUNT));
    for action in [0, 2, 6, 10, 15] {
        let done = act(&mut all, VirtualizationAction(action), 2, VQ, 1);
        assert_eq!(done, never(Status::INVALID_FIELD), "action {action}");
    }
}

#[test]
fn a_secondary_controller_is_turned_on_with_two_pairs_of_queues_and_a_vector() {
    let (mut all, options) = made("vfs=1");
    let not_yet = never(Status::INVALID_SECONDARY_STATE);
    let theirs = options.of_another();
    assert_eq!(act(&mut all, ONLINE, 2, VQ, 0), not_yet, "it has nothing");
    assert_eq!(act(&mut all, ASSIGN, 2, VQ, 2), Ok(2));
    assert_eq!(act(&mut all, ONLINE, 2, VQ, 0), not_yet, "no vector");
    assert_eq!(act(&mut all, ASSIGN, 2, VI, 1), Ok(1));
    assert_eq!(act(&mut all, ASSIGN, 2, VQ, 1), Ok(1));
    assert_eq!(act(&mut all, ONLINE, 2, VQ, 0), not_yet, "an admin queue alone");
    assert_eq!(act(&mut all, ASSIGN, 2, VQ, 2), Ok(2));
    let before = all.changes(2);
    assert!(all.granted(2, &theirs).is_offline);
    assert_eq!(act(&mut all, ONLINE, 2, VQ, 0), Ok(0));
    let granted = all.granted(2, &theirs);
    assert_eq!((granted.queues, granted.vectors, granted.is_offline), (1, 1, false));
    let online = all.changes(2);
    assert_ne!(online, before);
    assert_eq!(act(&mut all, ONLINE, 2, VQ, 0), Ok(0), "it is on already");
    assert_eq!(all.changes(2), online, "so it is not reset");
    for resource in [VQ, VI] {
        let done = act(&mut all, ASSIGN, 2, resource, 2);
        assert_eq!(done, never(Status::INVALID_SECONDARY_STATE), "assigned while it is on");
    }
    assert_eq!(act(&mut all, OFFLINE, 2, VQ, 0), Ok(0));
    assert_ne!(all.changes(2), online);
    assert_eq!(act(&mut all, ONLINE, 2, VQ, 0), not_yet, "its resources are gone");
}

/// The primary controller's own share counts from its next reset on, which turns the others off.
#[test]
fn the_primary_controllers_share_is_not_free_for_others() {
    let (mut all, options) = made("vfs=2,queues=3,vectors=4");
    assert_eq!(act(&mut all, ALLOCATE, PRIMARY, VQ, 12), Ok(12));
    assert_eq!(act(&mut all, ASSIGN, 2, VQ, 16), Ok(16), "not yet");
    all.allocate();
    all.stop_all();
    let granted = all.granted(PRIMARY, &options);
    assert_eq!((granted.queues, granted.vectors), (3 + 12, 4));
    assert_eq!(act(&mut all, ASSIGN, 2, VQ, 5), never(Status::INVALID_RESOURCE_COUNT));
    assert_eq!(act(&mut all, ASSIGN, 2, VQ, 4), Ok(4));
    assert_eq!(act(&mut all, ASSIGN, 2, VI, 16), Ok(16), "of the other kind");
}
