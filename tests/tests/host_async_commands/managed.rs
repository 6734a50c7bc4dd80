//! Commands that manage a namespace or the queue as futures: zones, reservations, reclaim units, Cancel.

use super::{driven, filled, serve};
use upcie_nvme::{
    Controller, DmaBuf, Failure, HostId, Io, Refusal, ReservationCommand, ReservationReport, Result, Zeroes,
    ZoneSelect,
    protection::{Checks, Protect},
    spec::{
        CopyRange, HandleStatus, HostIdentifier, HostIdentifierData, PersistenceChange, ReservationType,
        Status, ZoneAction, ZoneDescriptor, ZoneFilter, ZoneState,
    },
};
use upcie_tests::futures::{BLOCK, Bed, in_one_thread, poll_once};

/// Checks that a command was refused for a reason, and that its buffer of so many bytes came back.
#[track_caller]
fn refused((result, buffer): (Result<()>, DmaBuf), wanted: Refusal, len: usize, named: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error.failure(), Failure::Refused { reason, .. } if *reason == wanted), "{error}");
    assert!(error.to_string().contains(named), "{named:?} is not in: {error}");
    assert_eq!(buffer.len(), len);
}

#[test]
fn zones_are_managed_and_reported_by_tasks() {
    let bed = Bed::open("size=1M,zoned=true,zone-size=64K,zde=64");
    let zones = bed.namespace.zones().unwrap();
    driven(&bed, 4, async |queue| {
        let (namespace, start) = (&bed.namespace, zones.start_of(3));
        queue.manage_zones(namespace, ZoneAction::OPEN, ZoneSelect::At(start), false).await.0.unwrap();
        let name = filled(&bed, 64, 7);
        queue.set_zone_extension(namespace, zones.start_of(5), name).await.0.unwrap();
        let room = filled(&bed, BLOCK, 0);
        let opened = ZoneFilter::EXPLICITLY_OPENED;
        let (result, report) = queue.report_zones(namespace, 0, opened, room).await;
        result.unwrap();
        let found = ZoneDescriptor::list(&report.to_vec(), 0);
        assert_eq!(found.iter().map(|(zone, _)| zone.start).collect::<Vec<_>>(), [start]);
        let (result, report) =
            queue.report_extended(namespace, zones.start_of(5), ZoneFilter::ALL, report).await;
        result.unwrap();
        let found = ZoneDescriptor::list(&report.to_vec(), 64);
        assert_eq!((found.len(), found[0].0.state(), &found[0].1), (11, ZoneState::CLOSED, &vec![7; 64]));
        queue.manage_zones(namespace, ZoneAction::RESET, ZoneSelect::All, false).await.0.unwrap();
        let states = zones.report(0, 16).unwrap();
        assert!(states.iter().all(|zone| zone.state() == ZoneState::EMPTY), "{states:?}");

        let one_off = ZoneSelect::At(start + 1);
        let done = queue.manage_zones(namespace, ZoneAction::OPEN, one_off, false).await;
        refused(done, Refusal::ZoneStart, 0, "Open Zone");
        let done = queue.report_zones(namespace, 0, ZoneFilter::ALL, filled(&bed, 62, 0)).await;
        refused(done, Refusal::Length, 62, "Zone Management Receive");
        let done = queue.set_zone_extension(namespace, 0, filled(&bed, 128, 0)).await;
        refused(done, Refusal::Length, 128, "128 bytes");
        // A zone that is empty can't be closed.
        let (result, _) = queue.manage_zones(namespace, ZoneAction::CLOSE, ZoneSelect::At(0), false).await;
        assert_eq!(result.unwrap_err().status(), Some(Status::ZONE_INVALID_TRANSITION));
    });
}

#[test]
fn reservations_are_held_and_reported_by_tasks() {
    let bed = Bed::open("size=1M");
    let data = HostIdentifierData { identifier: 7 };
    bed.controller.set_feature(&HostIdentifier { data }).unwrap();
    let kind = ReservationType::EXCLUSIVE_ACCESS;
    driven(&bed, 4, async |queue| {
        let namespace = &bed.namespace;
        let mut buffer = filled(&bed, BLOCK, 0);
        for command in [
            ReservationCommand::register_with(namespace, 5, PersistenceChange::SET),
            ReservationCommand::replace(namespace, Some(5), 6),
            ReservationCommand::acquire(namespace, 6, kind),
            ReservationCommand::report(namespace, false),
        ] {
            let (result, back) = queue.submit_reservation(command, buffer).await;
            result.unwrap();
            buffer = back;
        }
        let report = ReservationReport::from_bytes(&buffer.to_vec(), false).unwrap();
        assert_eq!((report.kind, report.persists, report.registrants.len()), (Some(kind), true, 1));
        let one = report.registrants[0];
        assert_eq!((one.holds, one.key, one.host), (true, 6, HostId::Short(7)));
        let wrong = ReservationCommand::release(namespace, 7, kind);
        let (result, buffer) = queue.submit_reservation(wrong, buffer).await;
        let error = result.unwrap_err();
        assert_eq!(error.status(), Some(Status::RESERVATION_CONFLICT));
        assert!(error.to_string().contains("Reservation Release (15h, Release) of namespace 1"), "{error}");
        // The other form is for other host identifiers.
        let (result, buffer) =
            queue.submit_reservation(ReservationCommand::report(namespace, true), buffer).await;
        assert_eq!(result.unwrap_err().status(), Some(Status::HOST_ID_INCONSISTENT));
        queue.submit_reservation(ReservationCommand::clear(namespace, 6), buffer).await.0.unwrap();
        let report = namespace.reservations().unwrap().report().unwrap();
        assert_eq!((report.kind, report.registrants), (None, Vec::new()));

        let short = queue.submit_reservation(ReservationCommand::register(namespace, 1), filled(&bed, 8, 0));
        refused(short.await, Refusal::Length, 8, "Register Reservation Key");
        let cut = queue.submit_reservation(ReservationCommand::report(namespace, false), filled(&bed, 30, 0));
        refused(cut.await, Refusal::Length, 30, "Reservation Report");
    });
}

#[test]
fn writes_and_copies_of_tasks_fill_their_reclaim_units() {
    let bed = Bed::open("size=1M,fdp=true,fdp-handles=4,fdp-unit=64K");
    let placement = bed.namespace.placement().unwrap();
    driven(&bed, 4, async |queue| {
        let (namespace, [second, third]) =
            (&bed.namespace, [1, 2].map(|handle| placement.identifier(0, handle)));
        let write = Io::write(namespace, 0).placement(second);
        let (result, buffer) = queue.submit(write, filled(&bed, BLOCK, 7)).await;
        result.unwrap();
        let mut ranges = filled(&bed, 32, 0);
        ranges.write_at(0, &CopyRange::new(0, 3).to_bytes());
        queue.copy_placed(namespace, ranges, 1, 64, third).await.0.unwrap();
        let zeroes = Zeroes::new(namespace, 128, 2).placement(third);
        queue.write_zeroes(zeroes).await.0.unwrap();
        let left = async |buffer| {
            let (result, buffer) = queue.handle_status(namespace, buffer).await;
            result.unwrap();
            let (count, handles) = HandleStatus::list(&buffer.to_vec());
            assert_eq!(count, 4);
            (handles.iter().map(|handle| handle.available_media_writes).collect::<Vec<_>>(), buffer)
        };
        let (found, buffer) = left(buffer).await;
        assert_eq!(found, [128, 128 - 8, 128 - 5, 128]);
        let mut identifiers = filled(&bed, 4, 0);
        identifiers.write_at(0, &third.to_le_bytes());
        identifiers.write_at(2, &second.to_le_bytes());
        let (result, identifiers) = queue.update_handles(namespace, identifiers, 1).await;
        result.unwrap();
        let (found, buffer) = left(buffer).await;
        assert_eq!(found, [128, 128 - 8, 128, 128], "the first identifier alone");
        drop(buffer);

        let done = queue.update_handles(namespace, identifiers, 3).await;
        refused(done, Refusal::Length, 4, "3 placement identifiers");
        let done = queue.handle_status(namespace, filled(&bed, 12, 0)).await;
        refused(done, Refusal::Length, 12, "I/O Management Receive");
    });
}

#[test]
fn protected_copies_and_zeros_have_their_tags() {
    let bed = Bed::open("size=1M,ms=8,pi=1");
    driven(&bed, 4, async |queue| {
        let namespace = &bed.namespace;
        let made = Protect::new().action().application_tag(0x1234);
        let checked = Protect::new().check(Checks::all()).application_tag(0x1234);
        queue.write_zeroes(Zeroes::new(namespace, 8, 4).protect(made)).await.0.unwrap();
        // Without the protection of the command the tag would be 0.
        queue.verify(namespace, 8, 4, checked).await.0.unwrap();
        let ranges = || filled(&bed, BLOCK, 0);
        let sources = [(CopyRange::new(8, 4), checked)];
        queue.copy_protected(namespace, &sources, ranges(), 64, made).await.0.unwrap();
        queue.verify(namespace, 64, 4, checked).await.0.unwrap();
        let wrong = [(CopyRange::new(8, 4), checked.application_tag(0x4321))];
        let (result, _) = queue.copy_protected(namespace, &wrong, ranges(), 64, made).await;
        assert_eq!(result.unwrap_err().status(), Some(Status::APPLICATION_TAG_CHECK_ERROR));
        let done = queue.copy_protected(namespace, &[], ranges(), 64, made).await;
        refused(done, Refusal::Length, BLOCK, "Copy");
    });
}

#[test]
fn a_cancel_ends_commands_and_frees_dropped_ones() {
    // A Cancel is held back for the same time.
    let bed = Bed::open("size=1M,latency=4s");
    let queue = bed.queue(4);
    let (before, cancel) = (bed.in_use(), bed.controller.cancel().unwrap());
    let mut kept = queue.read(&bed.namespace, 0, bed.buffer());
    let mut dropped = queue.write(&bed.namespace, 8, bed.buffer());
    assert!(poll_once(&mut kept).is_pending() && poll_once(&mut dropped).is_pending());
    drop(dropped);
    assert_eq!((queue.in_flight(), bed.in_use()), (2, before + 2 * BLOCK));
    in_one_thread(async {
        let (ended, _) = queue.cancel(cancel.of_namespace(&bed.namespace)).await;
        assert_eq!(ended.unwrap().aborted(), 2);
        let (result, buffer) = kept.await;
        let error = result.unwrap_err();
        assert_eq!((error.status(), buffer.len()), (Some(Status::ABORT_REQUESTED), BLOCK));
        drop(buffer);
        assert_eq!((queue.in_flight(), bed.in_use()), (0, before));
        let (ended, _) = queue.cancel(cancel).await;
        assert_eq!(ended.unwrap().aborted(), 0, "nothing is in flight");

        let foreign = Controller::open("emu:size=1M").unwrap().cancel().unwrap();
        for (cancel, wanted) in [(cancel.of_slot(0), Refusal::NotInFlight), (foreign, Refusal::ForeignCancel)]
        {
            let (result, _) = queue.cancel(cancel).await;
            let error = result.unwrap_err();
            let is_wanted = matches!(error.failure(), Failure::Refused { reason, .. } if *reason == wanted);
            assert!(is_wanted && error.to_string().contains("Cancel"), "{error}");
        }
    });
}

#[test]
fn handles_of_other_threads_manage_namespaces() {
    for options in
        ["size=1M,zoned=true,zone-size=64K,zde=64", "size=1M,fdp=true,fdp-unit=64K", "size=1M,ms=8,pi=1"]
    {
        let bed = Bed::open(options);
        let (handle, thread) = serve(&bed);
        let namespace = &bed.namespace;
        in_one_thread(async {
            if let Ok(zones) = namespace.zones() {
                let start = zones.start_of(1);
                handle.set_zone_extension(namespace, start, filled(&bed, 64, 3)).await.0.unwrap();
                let (result, report) =
                    handle.report_extended(namespace, 0, ZoneFilter::CLOSED, bed.buffer()).await;
                result.unwrap();
                assert_eq!(ZoneDescriptor::list(&report.to_vec(), 64)[0].1, vec![3; 64]);
                handle.manage_zones(namespace, ZoneAction::RESET, ZoneSelect::All, false).await.0.unwrap();
                let (result, report) = handle.report_zones(namespace, start, ZoneFilter::EMPTY, report).await;
                result.unwrap();
                assert_eq!(ZoneDescriptor::list(&report.to_vec(), 0)[0].0.start, start);
                return;
            }
            if let Ok(placement) = namespace.placement() {
                let third = placement.identifier(0, 2);
                let mut ranges = filled(&bed, 32, 0);
                ranges.write_at(0, &CopyRange::new(0, 3).to_bytes());
                handle.copy_placed(namespace, ranges, 1, 64, third).await.0.unwrap();
                let mut identifiers = filled(&bed, 2, 0);
                let (result, status) = handle.handle_status(namespace, bed.buffer()).await;
                result.unwrap();
                assert_eq!(HandleStatus::list(&status.to_vec()).1[2].available_media_writes, 125);
                identifiers.write_at(0, &third.to_le_bytes());
                handle.update_handles(namespace, identifiers, 1).await.0.unwrap();
                assert_eq!(placement.handles().unwrap()[2].available_media_writes, 128);
                return;
            }
            let register = ReservationCommand::register(namespace, 9);
            let (result, buffer) = handle.submit_reservation(register, bed.buffer()).await;
            result.unwrap();
            let report = ReservationCommand::report(namespace, false);
            let (result, buffer) = handle.submit_reservation(report, buffer).await;
            result.unwrap();
            let report = ReservationReport::from_bytes(&buffer.to_vec(), false).unwrap();
            assert_eq!(report.registrants[0].key, 9);
            let made = Protect::new().action();
            let sources = [(CopyRange::new(0, 4), Protect::new())];
            handle.copy_protected(namespace, &sources, buffer, 64, made).await.0.unwrap();
            let (ended, _) = handle.cancel(bed.controller.cancel().unwrap()).await;
            assert_eq!(ended.unwrap().aborted(), 0);
        });
        drop(handle);
        thread.join().unwrap();
    }
}
