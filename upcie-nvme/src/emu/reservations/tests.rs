//! The rules of reservations, without commands.

use super::{Access, Host, Reservations, state::HostNotices};
use crate::spec::{FromBytes, ReservationNotificationLog, ReservationType, Status};

const A: Host = Host::Named(0xa);
const B: Host = Host::Named(0xb);
const C: Host = Host::Named(0xc);
const KEYS: [(Host, u64); 3] = [(A, 1), (B, 2), (C, 3)];

/// A namespace with controllers 1 to 3, whose hosts are A, B and C. The registrants are named.
fn space(registrants: &[Host]) -> Reservations {
    let mut all = Reservations::new(1);
    for (controller, id) in [(1, 0xa), (2, 0xb), (3, 0xc)] {
        all.reset(controller);
        all.name(controller, id, false).unwrap();
    }
    for host in registrants {
        all.change(0, |space, _| space.register(*host, key(*host))).unwrap();
    }
    all
}

fn key(host: Host) -> u64 {
    KEYS.iter().find(|one| one.0 == host).unwrap().1
}

fn acquire(all: &mut Reservations, host: Host, kind: ReservationType) -> Result<(), Status> {
    all.change(0, |space, _| space.acquire(host, key(host), kind))
}

fn preempt(all: &mut Reservations, host: Host, preempted: u64, kind: ReservationType) -> Result<(), Status> {
    all.change(0, |space, told| space.preempt(host, (key(host), preempted), kind, told))
}

fn release(all: &mut Reservations, host: Host, kind: ReservationType) -> Result<(), Status> {
    all.change(0, |space, told| space.release(host, key(host), kind, told))
}

fn registrants(all: &Reservations) -> Vec<Host> {
    all.spaces[0].registrants.iter().map(|registrant| registrant.host).collect()
}

fn holders(all: &Reservations) -> Vec<Host> {
    [A, B, C].into_iter().filter(|host| all.spaces[0].is_held_by(*host)).collect()
}

/// Reads all pages of a controller's log: the types of notifications.
fn notices(all: &mut Reservations, controller: u16) -> Vec<u8> {
    let mut types = Vec::new();
    loop {
        let page = ReservationNotificationLog::read_from_bytes(&all.page(controller)).unwrap();
        if page.log_page_count == 0 {
            return types;
        }
        assert_eq!(page.namespace_id, 1);
        types.push(page.notification_type);
        all.end_page(controller);
    }
}

#[test]
fn a_host_registers_one_key() {
    let mut all = space(&[]);
    let mut change = |change: &dyn Fn(&mut super::state::Space, &mut HostNotices) -> Result<(), Status>| {
        all.change(0, change)
    };
    assert_eq!(change(&|space, _| space.replace(A, Some(1), 5)), Err(Status::RESERVATION_CONFLICT));
    assert_eq!(change(&|space, told| space.unregister(A, None, told)), Err(Status::RESERVATION_CONFLICT));
    assert_eq!(change(&|space, _| space.register(A, 1)), Ok(()));
    assert_eq!(change(&|space, _| space.register(A, 1)), Ok(()), "the same key");
    assert_eq!(change(&|space, _| space.register(A, 2)), Err(Status::RESERVATION_CONFLICT));
    assert_eq!(change(&|space, _| space.register(B, 1)), Ok(()), "two hosts may have one key");
    assert_eq!(change(&|space, _| space.replace(A, Some(9), 5)), Err(Status::RESERVATION_CONFLICT));
    assert_eq!(change(&|space, _| space.replace(A, Some(1), 5)), Ok(()));
    assert_eq!(change(&|space, _| space.replace(A, None, 6)), Ok(()));
    assert_eq!(change(&|space, told| space.unregister(A, Some(5), told)), Err(Status::RESERVATION_CONFLICT));
    assert_eq!(change(&|space, told| space.unregister(A, Some(6), told)), Ok(()));
    assert_eq!((registrants(&all), all.spaces[0].generation), (vec![B], 6), "each success counts");
}

/// The table of the specification: type, host, read and write.
#[test]
fn each_type_admits_its_hosts() {
    for kind in ReservationType::ALL {
        // A holds, B is a registrant, C is none.
        let mut all = space(&[A, B]);
        acquire(&mut all, A, kind).unwrap();
        let may = |controller, access| all.check(controller, Some(0), access).is_ok();
        let (registrants, reads) = (kind.admits_registrants(), !kind.excludes_reads());
        for (controller, read, write) in
            [(1, true, true), (2, registrants || reads, registrants), (3, reads, false)]
        {
            assert_eq!(may(controller, Access::Read), read, "{kind}, controller {controller} reads");
            assert_eq!(may(controller, Access::Write), write, "{kind}, controller {controller} writes");
            assert_eq!(all.restrict(controller), !write, "{kind}, controller {controller}");
        }
        assert!(all.check(3, None, Access::Write).is_err(), "a command for all namespaces");
    }
}

#[test]
fn one_reservation_is_held_at_a_time() {
    let kind = ReservationType::WRITE_EXCLUSIVE;
    let mut all = space(&[A, B]);
    assert_eq!(acquire(&mut all, C, kind), Err(Status::RESERVATION_CONFLICT), "it is no registrant");
    acquire(&mut all, A, kind).unwrap();
    acquire(&mut all, A, kind).unwrap();
    assert_eq!(acquire(&mut all, A, ReservationType::EXCLUSIVE_ACCESS), Err(Status::RESERVATION_CONFLICT));
    assert_eq!(acquire(&mut all, B, kind), Err(Status::RESERVATION_CONFLICT));
    assert_eq!(release(&mut all, B, kind), Ok(()), "it holds none");
    assert_eq!(holders(&all), [A]);
    assert_eq!(release(&mut all, A, ReservationType::EXCLUSIVE_ACCESS), Err(Status::INVALID_FIELD));
    assert_eq!(release(&mut all, C, kind), Err(Status::RESERVATION_CONFLICT));
    assert_eq!(release(&mut all, A, kind), Ok(()));
    assert_eq!((holders(&all), notices(&mut all, 2)), (vec![], vec![]), "this type tells nobody");

    let kind = ReservationType::WRITE_EXCLUSIVE_ALL_REGISTRANTS;
    acquire(&mut all, A, kind).unwrap();
    assert_eq!((holders(&all), acquire(&mut all, B, kind)), (vec![A, B], Ok(())));
    assert_eq!(release(&mut all, B, kind), Ok(()), "each holds it");
    assert_eq!((holders(&all), notices(&mut all, 1)), (vec![], vec![2]));
}

#[test]
fn an_unregistered_holder_holds_no_more() {
    for kind in ReservationType::ALL {
        let mut all = space(&[A, B]);
        acquire(&mut all, A, kind).unwrap();
        all.change(0, |space, told| space.unregister(A, None, told)).unwrap();
        let (left, told) = match () {
            () if kind.is_shared() => (vec![B], vec![]),
            () if kind.admits_registrants() => (vec![], vec![2]),
            () => (vec![], vec![]),
        };
        assert_eq!((holders(&all), notices(&mut all, 2)), (left, told), "{kind}");
        all.change(0, |space, told| space.unregister(B, None, told)).unwrap();
        assert_eq!((all.spaces[0].kind(), registrants(&all)), (None, vec![]), "{kind}");
    }
}

#[test]
fn a_preempted_host_is_told() {
    let (first, second) = (ReservationType::EXCLUSIVE_ACCESS, ReservationType::WRITE_EXCLUSIVE);
    // Without a reservation registrations end, and none is made.
    let mut all = space(&[A, B]);
    assert_eq!(preempt(&mut all, A, 9, first), Err(Status::RESERVATION_CONFLICT));
    assert_eq!(preempt(&mut all, C, 1, first), Err(Status::RESERVATION_CONFLICT));
    assert_eq!(preempt(&mut all, A, 2, first), Ok(()));
    assert_eq!((registrants(&all), holders(&all), notices(&mut all, 2)), (vec![A], vec![], vec![1]));

    // The holder's key: the reservation changes hands.
    let mut all = space(&[A, B, C]);
    acquire(&mut all, A, first).unwrap();
    assert_eq!(preempt(&mut all, B, 0, second), Err(Status::INVALID_FIELD));
    assert_eq!(preempt(&mut all, B, 9, second), Err(Status::RESERVATION_CONFLICT));
    let generation = all.spaces[0].generation;
    assert_eq!(preempt(&mut all, B, 1, second), Ok(()));
    assert_eq!((registrants(&all), holders(&all), all.spaces[0].kind()), (vec![B, C], vec![B], Some(second)));
    assert_eq!((notices(&mut all, 1), notices(&mut all, 3)), (vec![1], vec![]));
    assert_eq!(all.spaces[0].generation, generation + 1);
    // Another's key: the reservation stays.
    assert_eq!(preempt(&mut all, B, 3, first), Ok(()));
    assert_eq!((registrants(&all), holders(&all), all.spaces[0].kind()), (vec![B], vec![B], Some(second)));
    // Its own: the type changes.
    assert_eq!(preempt(&mut all, B, 2, first), Ok(()));
    assert_eq!((registrants(&all), holders(&all), all.spaces[0].kind()), (vec![B], vec![B], Some(first)));
}

#[test]
fn all_registrants_are_preempted_by_the_key_0() {
    let shared = ReservationType::EXCLUSIVE_ACCESS_ALL_REGISTRANTS;
    let mut all = space(&[A, B, C]);
    acquire(&mut all, A, shared).unwrap();
    assert_eq!(preempt(&mut all, B, 3, ReservationType::WRITE_EXCLUSIVE), Ok(()));
    assert_eq!((registrants(&all), holders(&all)), (vec![A, B], vec![A, B]), "the reservation stays");
    assert_eq!(preempt(&mut all, B, 0, ReservationType::WRITE_EXCLUSIVE), Ok(()));
    assert_eq!((registrants(&all), holders(&all)), (vec![B], vec![B]));
    assert_eq!((notices(&mut all, 1), notices(&mut all, 3)), (vec![1], vec![1]));
    assert_eq!(all.spaces[0].kind(), Some(ReservationType::WRITE_EXCLUSIVE));
}

#[test]
fn clear_ends_all_registrations() {
    let mut all = space(&[A, B]);
    acquire(&mut all, A, ReservationType::WRITE_EXCLUSIVE).unwrap();
    let clear =
        |all: &mut Reservations, host| all.change(0, |space, told| space.clear(host, key(host), told));
    assert_eq!(clear(&mut all, C), Err(Status::RESERVATION_CONFLICT));
    all.set_mask(1, 0, 1 << 1);
    assert_eq!(clear(&mut all, B), Ok(()), "any registrant clears");
    assert_eq!((registrants(&all), holders(&all)), (vec![], vec![]));
    assert_eq!((notices(&mut all, 1), notices(&mut all, 2)), (vec![3], vec![]));
    let mut all = space(&[A, B]);
    all.set_mask(1, 0, 1 << 3);
    clear(&mut all, B).unwrap();
    assert_eq!(notices(&mut all, 1), [], "it is masked");
}

#[test]
fn registrations_outlast_resets_by_their_host() {
    let mut all = space(&[A]);
    acquire(&mut all, A, ReservationType::EXCLUSIVE_ACCESS).unwrap();
    all.reset(1);
    assert_eq!(all.host(1), Host::Unnamed(1));
    assert_eq!(
        (registrants(&all), all.restrict(1)),
        (vec![A], true),
        "it is another host until it says who it is"
    );
    all.name(1, 0xa, false).unwrap();
    assert!(!all.restrict(1));
    // A host without an identifier is another one after each reset.
    let unnamed = Host::Unnamed(2);
    all.reset(2);
    all.change(0, |space, _| space.register(unnamed, 7)).unwrap();
    assert_eq!(registrants(&all), [A, unnamed]);
    all.reset(1);
    assert_eq!(registrants(&all), [A, unnamed], "another controller's reset");
    all.reset(2);
    assert_eq!(registrants(&all), [A]);
    all.lose_power();
    assert_eq!((registrants(&all), all.spaces[0].kind()), (vec![], None));
    let mut all = space(&[A]);
    all.spaces[0].persists = true;
    all.lose_power();
    assert_eq!((registrants(&all), all.spaces[0].persists), (vec![A], true));
}

#[test]
fn an_identifier_stays_and_has_one_length() {
    let mut all = Reservations::new(1);
    all.reset(1);
    all.reset(2);
    assert_eq!(all.identifier(1, true), Ok(0));
    assert_eq!(all.name(1, 0, false), Ok(()));
    assert_eq!(all.name(1, 5, false), Ok(()));
    assert_eq!(all.name(1, 5, false), Ok(()), "the same again");
    assert_eq!(all.name(1, 6, false), Err(Status::COMMAND_SEQUENCE_ERROR));
    assert_eq!(all.name(1, 0, false), Err(Status::COMMAND_SEQUENCE_ERROR));
    assert_eq!(
        (all.identifier(1, false), all.identifier(1, true)),
        (Ok(5), Err(Status::HOST_ID_INCONSISTENT))
    );
    assert_eq!(all.name(2, 1 << 100, true), Err(Status::HOST_ID_INCONSISTENT));
    assert_eq!(all.name(2, 5, false), Ok(()), "two controllers of one host");
    assert_eq!(all.controllers(Host::Named(5)).collect::<Vec<_>>(), [1, 2]);
}
