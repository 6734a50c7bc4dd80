//! Zones: a host that changes its memory while the controller looks at it, and zones that change by themselves.

use super::{
    host::admin,
    stepped::{Changing, DATA, Stepped},
};
use crate::{
    emu::{Fault, FaultPlan, FaultRule},
    spec::{
        ALL_NAMESPACES, AdminOpcode, AsyncEvent, AsyncEventConfiguration, AsyncEventType, ChangedZonesLog,
        Cns, Command, CopyRange, EventKind, FeatureId, FromBytes, IdentifyController, LogPageDword10,
        LogPageId, NoticeEvent, NvmOpcode, Status,
    },
};

/// Blocks of a zone.
const ZONE: u64 = 256;
/// The place of ranges in the host's memory.
const RANGES: usize = DATA + (64 << 10);

fn pointed(stepped: &Stepped, command: Command, at: usize) -> Command {
    let mut command = command;
    command.set_data_pointer(stepped.memory.iova(at), 0);
    command
}

/// Returns the bytes of 8 blocks.
fn blocks(stepped: &mut Stepped, slba: u64) -> Vec<u8> {
    let read = pointed(stepped, Command::read(1, slba, 8), DATA);
    assert_eq!(stepped.status(1, read), Status::SUCCESS);
    stepped.memory.bytes(DATA, 4096).to_vec()
}

/// Returns the write pointer of a zone.
fn pointer(stepped: &mut Stepped, zone: u64) -> u64 {
    let report = Command::io(NvmOpcode::ZONE_MANAGEMENT_RECEIVE, 1);
    let report = Command { cdw10: (zone * ZONE) as u32, cdw12: 128 / 4 - 1, ..report };
    let report = pointed(stepped, report, DATA);
    assert_eq!(stepped.status(1, report), Status::SUCCESS);
    // The write pointer of the first descriptor, behind the report's header.
    u64::from_le_bytes(stepped.memory.bytes(DATA + 64 + 24, 8).try_into().unwrap())
}

/// The zone was checked for the ranges of one answer, and written by those of another.
#[test]
fn a_copy_asks_for_its_ranges_once() {
    let mut stepped = Stepped::new("size=1M,zoned=true,zone-size=128K");
    stepped.queue(1, 16);
    stepped.memory.set(DATA, &[7; 4096]);
    let write = pointed(&stepped, Command::write(1, 3 * ZONE, 8), DATA);
    assert_eq!(stepped.status(1, write), Status::SUCCESS);
    // The second answer has the blocks of a zone and more: the copy would run into the zone behind.
    stepped.memory.set(RANGES, &CopyRange::new(3 * ZONE, 8).to_bytes());
    let longer = CopyRange::new(0, ZONE as u32 + 8).to_bytes().to_vec();
    let iova = stepped.memory.iova(RANGES);
    stepped.memory.changing = Some(Changing { iova, reads: 0, after: 1, bytes: longer });
    let copy = Command { cdw10: 2 * ZONE as u32, ..Command::io(NvmOpcode::COPY, 1) };
    let copy = pointed(&stepped, copy, RANGES);
    assert_eq!(stepped.status(1, copy), Status::SUCCESS);
    assert_eq!(stepped.memory.changing.as_ref().map(|changing| changing.reads), Some(1));
    assert_eq!(blocks(&mut stepped, 2 * ZONE), [7; 4096]);
    assert_eq!(blocks(&mut stepped, 3 * ZONE), [7; 4096], "the zone behind");
    assert_eq!((pointer(&mut stepped, 2), pointer(&mut stepped, 3)), (2 * ZONE + 8, 3 * ZONE + 8));
}

/// Gets the Changed Zone List of namespace 1; returns the first blocks of its zones.
fn changed(stepped: &mut Stepped, retains_event: bool) -> Vec<u64> {
    let get = Command::get_log_page(LogPageId::CHANGED_ZONES, 1, 4096, 0);
    let cdw10 = LogPageDword10::from_bits(get.cdw10).with_rae(retains_event).into_bits();
    let get = pointed(stepped, Command { cdw10, ..get }, DATA);
    assert_eq!(stepped.status(0, get), Status::SUCCESS);
    let log = ChangedZonesLog::read_from_bytes(stepped.memory.bytes(DATA, 4096)).unwrap();
    log.changed().unwrap().to_vec()
}

/// Flushes, which the plan answers with the change of a zone; returns the event that comes with it: its log page and dword 1.
fn flush(stepped: &mut Stepped) -> Option<(LogPageId, u32)> {
    assert_eq!(stepped.status(1, Command::flush(1)), Status::SUCCESS);
    let done = stepped.next(0)?;
    let event = AsyncEvent::from_bits(done.dw0);
    assert_eq!(event.subject(), EventKind::Notice(NoticeEvent::ZONE_DESCRIPTOR));
    Some((event.log_page(), done.dw1))
}

/// Requests an event.
fn request(stepped: &mut Stepped) {
    stepped.put(0, &Command::asynchronous_event_request());
    stepped.ring(0);
}

/// A notice that named any other namespace took a place in the list, which no host could read.
#[test]
fn the_notice_that_a_host_raises_names_a_namespace_with_zones() {
    let mut stepped = Stepped::new("size=1M,zoned=true,zone-size=128K");
    let notice = NoticeEvent::ZONE_DESCRIPTOR.0;
    let event = AsyncEvent::new().with_kind(AsyncEventType::NOTICE).with_information(notice);
    let mut raise = |nsid| stepped.status(0, admin(0xc0, 0, event.into_bits(), nsid));
    for nsid in [0, 2, ALL_NAMESPACES] {
        assert_eq!(raise(nsid), Status::INVALID_FIELD, "{nsid}");
    }
    assert_eq!(raise(1), Status::SUCCESS);
    assert_eq!(changed(&mut stepped, true), [0]);
}

#[test]
fn zones_that_change_by_themselves_are_reported() {
    let mut stepped = Stepped::new("size=1M,zoned=true,zone-size=128K");
    stepped.queue(1, 16);
    let rule = |fault, after| FaultRule::new(fault).opcode(NvmOpcode::FLUSH.0).after(after);
    let plan = FaultPlan::new(1)
        .rule(rule(Fault::ReadOnlyZone { target: None, zone: 5 }, 0))
        .rule(rule(Fault::OfflineZone { target: Some(1), zone: 2 }, 1))
        // An offline zone stays so.
        .rule(rule(Fault::ReadOnlyZone { target: None, zone: 2 }, 2))
        .rule(rule(Fault::OfflineZone { target: None, zone: 6 }, 2))
        .rule(rule(Fault::OfflineZone { target: None, zone: 5 }, 3));
    stepped.inject(&plan);
    request(&mut stepped);
    assert_eq!(flush(&mut stepped), None, "the host does not ask for events");
    assert_eq!(changed(&mut stepped, true), [5 * ZONE]);
    let wanted = AsyncEventConfiguration::new().with_zone_descriptor(true).into_bits();
    let set = Command::set_features(FeatureId::ASYNC_EVENT_CONFIGURATION, wanted);
    assert_eq!(stepped.status(0, set), Status::SUCCESS);
    let event = Some((LogPageId::CHANGED_ZONES, 1));
    assert_eq!(flush(&mut stepped), event);
    assert_eq!(changed(&mut stepped, true), [2 * ZONE, 5 * ZONE]);
    request(&mut stepped);
    assert_eq!(flush(&mut stepped), None, "the list was not read");
    assert_eq!(changed(&mut stepped, false), [2 * ZONE, 5 * ZONE, 6 * ZONE]);
    stepped.step();
    assert_eq!(stepped.next(0), None, "the list had this one, too");
    assert!(changed(&mut stepped, false).is_empty());
    assert_eq!(flush(&mut stepped), event);
    assert_eq!(changed(&mut stepped, false), [5 * ZONE]);
    let offline = Status::ZONE_IS_OFFLINE;
    for (zone, wanted) in [(0, Status::SUCCESS), (2, offline), (5, offline), (6, offline)] {
        let write = pointed(&stepped, Command::write(1, zone * ZONE, 1), DATA);
        assert_eq!(stepped.status(1, write), wanted, "zone {zone}");
    }
}

/// The list of a namespace that is gone can't be read, so its event must not keep others back.
#[test]
fn the_event_of_a_namespace_ends_with_it() {
    for is_deleted in [false, true] {
        let mut stepped = Stepped::new("size=1M,namespaces=2,zoned=true,zone-size=128K");
        stepped.queue(1, 16);
        let rule = |fault, after| FaultRule::new(fault).opcode(NvmOpcode::FLUSH.0).after(after);
        let mut plan = FaultPlan::new(1)
            .rule(rule(Fault::OfflineZone { target: Some(1), zone: 2 }, 0))
            .rule(rule(Fault::OfflineZone { target: Some(2), zone: 3 }, 2));
        if !is_deleted {
            plan = plan.rule(rule(Fault::RemoveNamespace(Some(1)), 1));
        }
        stepped.inject(&plan);
        let wanted = AsyncEventConfiguration::new().with_zone_descriptor(true).into_bits();
        let set = Command::set_features(FeatureId::ASYNC_EVENT_CONFIGURATION, wanted);
        assert_eq!(stepped.status(0, set), Status::SUCCESS);
        request(&mut stepped);
        assert_eq!(flush(&mut stepped), Some((LogPageId::CHANGED_ZONES, 1)));
        if is_deleted {
            let delete = admin(AdminOpcode::NAMESPACE_MANAGEMENT.0, 1, 1, 0);
            assert_eq!(stepped.status(0, delete), Status::SUCCESS);
        }
        request(&mut stepped);
        for event in [None, Some((LogPageId::CHANGED_ZONES, 2))] {
            assert_eq!(stepped.status(1, Command::flush(2)), Status::SUCCESS);
            stepped.step();
            let told = stepped.next(0).map(|done| (AsyncEvent::from_bits(done.dw0).log_page(), done.dw1));
            assert_eq!(told, event, "deleted: {is_deleted}");
        }
    }
}

#[test]
fn a_controller_without_zones_has_no_list_of_them() {
    let options = [("size=1M", false), ("size=1M,namespaces=2,zoned=false+true,zone-size=128K", true)];
    for (options, has_zones) in options {
        let mut stepped = Stepped::new(options);
        let identify = pointed(&stepped, Command::identify(Cns::CONTROLLER, 0, 0), DATA);
        assert_eq!(stepped.status(0, identify), Status::SUCCESS);
        let id = IdentifyController::read_from_bytes(stepped.memory.bytes(DATA, 4096)).unwrap();
        assert_eq!(id.oaes >> 27 & 1 == 1, has_zones, "{options}");
        let wanted = if has_zones { Status::INVALID_FIELD } else { Status::INVALID_LOG_PAGE };
        // The list is that of one namespace with zones.
        for nsid in [0, 1, 3, ALL_NAMESPACES] {
            let get = Command::get_log_page(LogPageId::CHANGED_ZONES, nsid, 4096, 0);
            let get = pointed(&stepped, get, DATA);
            assert_eq!(stepped.status(0, get), wanted, "{options}: namespace {nsid}");
        }
    }
}
