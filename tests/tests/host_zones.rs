//! Zoned namespaces of the embedded controller and of `nvme-emu`. (In the guest `guest_zones` checks the same on QEMU's.)

use std::time::Duration;
use upcie_nvme::{
    Controller, Failure, Refusal, ZoneSelect,
    emu::{Fault, FaultPlan, FaultRule, spawn_with_faults},
    spec::{
        Command, CommandSetActiveNamespaces, Csi, EventKind, LogPageId, NoticeEvent, NvmOpcode, Status,
        ZoneAction, ZoneFilter, ZoneReceiveDword13, ZoneSendDword13, ZoneState,
    },
};
use upcie_tests::{
    deadline,
    io::finish,
    process::Server,
    says, scaled, seeded,
    zones::{self, Model, Zoned},
};

/// A plain namespace, then a zoned one.
const OPTIONS: [&str; 2] = [
    "size=1M,namespaces=2,zoned=false+true,zone-size=64K,zone-capacity=48K,max-open=3,max-active=5,zrwa=16K,zasl=16K",
    // All limits differ, blocks too, and a transfer takes several commands.
    "size=4M,lba=4096,zoned=true,zone-size=256K,zone-capacity=192K,max-open=4,max-active=7,zrwa=64K,zrwas=1,mdts=16K,zde=128",
];

/// Runs a check on the embedded controller and on a server of its own.
fn on_each(check: impl Fn(&Zoned)) {
    for options in OPTIONS {
        println!("emu:{options}");
        check(&Zoned::of(&Controller::open(format!("emu:{options}")).unwrap(), true));
    }
    let server = Server::start(OPTIONS[1]);
    println!("nvme-emu {}", OPTIONS[1]);
    check(&Zoned::of(&Controller::open(server.address().to_string()).unwrap(), true));
}

#[test]
fn appends_in_flight_tell_where_they_are() {
    on_each(zones::appends_in_flight_tell_where_they_are);
}

#[test]
fn a_wrong_write_has_the_status_of_its_reason() {
    on_each(zones::a_wrong_write_has_the_status_of_its_reason);
}

#[test]
fn the_limits_of_open_and_active_zones_hold() {
    on_each(zones::the_limits_of_open_and_active_zones_hold);
}

#[test]
fn implicitly_opened_zones_are_closed_for_others() {
    on_each(zones::implicitly_opened_zones_are_closed_for_others);
}

#[test]
fn reset_zones_read_as_zeros() {
    on_each(zones::reset_zones_read_as_zeros);
}

#[test]
fn a_long_transfer_goes_zone_by_zone() {
    on_each(zones::a_long_transfer_goes_zone_by_zone);
}

#[test]
fn reports_list_the_zones_of_a_state() {
    on_each(zones::reports_list_the_zones_of_a_state);
}

#[test]
fn extensions_stay_until_a_reset() {
    on_each(zones::extensions_stay_until_a_reset);
}

/// An extension that is longer than a transfer.
#[test]
fn long_extensions_are_refused() {
    let controller = Controller::open("emu:size=1M,zoned=true,zone-size=64K,zde=16320,mdts=8K").unwrap();
    let zones = controller.namespace(1).unwrap().zones().unwrap();
    let error = zones.set_extension(0, &vec![1; zones.extension_size()]).unwrap_err();
    assert!(matches!(error.failure(), Failure::Refused { reason: Refusal::TooLong, .. }), "{error}");
    says(&zones.report_extended(0, 1).unwrap_err(), &["no room for a zone's extension of 16320 bytes"]);
    for (options, part) in
        [("zde=100", "a multiple of 64"), ("zde=16384", "up to 16320"), ("zde=64", "zoned=true")]
    {
        says(&Controller::open(format!("emu:{options}")).unwrap_err(), &[part]);
    }
}

#[test]
fn a_random_write_area_takes_any_order() {
    on_each(zones::a_random_write_area_takes_any_order);
}

#[test]
fn zones_are_those_of_a_model() {
    on_each(|zoned| Model::new(zoned).run(&mut seeded(1), scaled(1000)));
}

/// The geometry of a mixed controller: what is a zone, and what the namespaces are.
#[test]
fn a_namespace_knows_its_command_set() {
    let controller = Controller::open(format!("emu:{}", OPTIONS[0])).unwrap();
    let [plain, zoned] = [1, 2].map(|nsid| controller.namespace(nsid).unwrap());
    assert_eq!((plain.command_set(), zoned.command_set()), (Csi::NVM, Csi::ZONED));
    says(&plain.zones().unwrap_err(), &["namespace 1 has no zones", "NVM"]);
    let zones = zoned.zones().unwrap();
    assert_eq!((zones.count(), zones.zone_blocks()), (16, 128));
    assert_eq!((zones.max_open(), zones.max_active()), (Some(3), Some(5)));
    assert_eq!((zones.max_append(), zones.random_write_area()), (16 << 10, 32));
    assert_eq!((zones.start_of(3), zones.zone_of(400)), (384, 384));
    let list = |csi| {
        let page = controller.identify_bytes(
            upcie_nvme::spec::Cns::COMMAND_SET_ACTIVE_NAMESPACES,
            csi,
            &Default::default(),
        );
        let page = page.unwrap();
        let list = <CommandSetActiveNamespaces as upcie_nvme::spec::IdentifyData>::from_page(&page);
        list.to_string()
    };
    assert!(list(Csi::ZONED).contains('2') && !list(Csi::ZONED).contains('1'), "{}", list(Csi::ZONED));
    let unlimited = Controller::open("emu:size=1M,zoned=true,zone-size=64K").unwrap();
    let zones = unlimited.namespace(1).unwrap().zones().unwrap();
    assert_eq!((zones.max_open(), zones.max_active()), (None, None));
    assert_eq!(zones.max_append(), 64 << 10, "a zone is less than MDTS");
}

/// A wrong append or report is refused with the reason, and nothing is sent.
#[test]
fn a_wrong_append_is_refused_before_it_is_sent() {
    let controller = Controller::open(format!("emu:{}", OPTIONS[0])).unwrap();
    let [plain, zoned] = [1, 2].map(|nsid| controller.namespace(nsid).unwrap());
    let zones = zoned.zones().unwrap();
    let mut queue = controller.queue_pair().depth(4).create::<u32>().unwrap();
    let mut refused = |namespace, zone, len| {
        let buffer = controller.alloc(len).unwrap();
        let refused = queue.turn().unwrap().append(namespace, zone, buffer, 9).unwrap_err();
        assert_eq!((refused.tag, refused.buffer.len()), (9, len), "both are back");
        refused.reason
    };
    assert_eq!(refused(&plain, 0, 512), Refusal::NotZoned);
    assert_eq!(refused(&zoned, 1, 512), Refusal::ZoneStart);
    assert_eq!(refused(&zoned, zoned.blocks(), 512), Refusal::OutOfRange);
    assert_eq!(refused(&zoned, 0, (16 << 10) + 512), Refusal::TooLong);
    assert_eq!(refused(&zoned, 0, 100), Refusal::Length);
    assert_eq!(queue.in_flight(), 0);
    let mut buffer = controller.alloc(32 << 10).unwrap();
    says(&zones.append(128, &mut buffer).unwrap_err(), &["Zone Append", "zone of block 128", "split it"]);
    says(&zones.append(7, &mut buffer).unwrap_err(), &["first one of a zone", "start_of"]);
    says(&zones.open(ZoneSelect::At(1)).unwrap_err(), &["Open Zone", "first one of a zone"]);
    assert!(zones.report(0, 16).unwrap().iter().all(|zone| zone.state() == ZoneState::EMPTY));
    assert_eq!(zones.report(1 << 40, 1).unwrap_err().status(), None, "refused, not sent");
}

/// Any namespace handle is stale after a Format NVM, which empties the zones.
#[test]
fn a_format_empties_the_zones() {
    let controller = Controller::open("emu:size=1M,zoned=true,zone-size=64K").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let zones = namespace.zones().unwrap();
    zones.append(0, &mut controller.alloc(4096).unwrap()).unwrap();
    controller.execute(&upcie_nvme::spec::FormatNvm { nsid: 1, format: 1, ..Default::default() }).unwrap();
    says(&zones.report(0, 1).unwrap_err(), &["get the namespace again"]);
    let zones = controller.namespace(1).unwrap().zones().unwrap();
    assert_eq!((zones.count(), zones.zone_blocks()), (16, 16));
    assert!(zones.report(0, 16).unwrap().iter().all(|zone| zone.state() == ZoneState::EMPTY));
}

/// Read-only zones take no writes, and go offline by command alone.
#[test]
fn read_only_zones_go_offline() {
    let controller = Controller::open("emu:size=1M,zoned=true,zone-size=64K,read-only-zones=2").unwrap();
    let zoned = Zoned::of(&controller, true);
    let (last, zones) = (zoned.start(15), &zoned.zones);
    assert_eq!(zones.report_some(ZoneFilter::READ_ONLY, 0, 9).unwrap().len(), 2);
    assert_eq!(zoned.write(last, 1).unwrap_err().status(), Some(Status::ZONE_IS_READ_ONLY));
    assert_eq!(
        zones.reset(ZoneSelect::At(last)).unwrap_err().status(),
        Some(Status::ZONE_INVALID_TRANSITION)
    );
    zones.offline(ZoneSelect::All).unwrap();
    assert_eq!(zones.report_some(ZoneFilter::OFFLINE, 0, 9).unwrap().len(), 2);
    assert_eq!(zoned.write(last, 1).unwrap_err().status(), Some(Status::ZONE_IS_OFFLINE));
    let mut buffer = controller.alloc(512).unwrap();
    assert_eq!(zoned.namespace.read(last, &mut buffer).unwrap_err().status(), Some(Status::ZONE_IS_OFFLINE));
}

/// The controller reports zones that it changes by itself: an event names the namespace, and its log page the zones.
#[test]
fn zones_that_fail_are_reported() {
    let rule = |fault, after| FaultRule::new(fault).opcode(NvmOpcode::FLUSH.0).after(after);
    let plan = FaultPlan::new(1)
        .rule(rule(Fault::ReadOnlyZone { target: None, zone: 3 }, 0))
        .rule(rule(Fault::OfflineZone { target: Some(2), zone: 5 }, 1));
    let options = "size=4M,namespaces=2,zoned=false+true,zone-size=256K,serial=zones-that-fail";
    let device = spawn_with_faults(&options.parse().unwrap(), &plan).unwrap();
    let controller = Controller::builder().from_device(device).unwrap();
    let zoned = Zoned::of(&controller, true);
    let mut events = controller.events().unwrap();
    assert!(events.try_next().unwrap().is_none());
    for (zone, state, refusal) in [
        (3, ZoneState::READ_ONLY, Status::ZONE_IS_READ_ONLY),
        (5, ZoneState::OFFLINE, Status::ZONE_IS_OFFLINE),
    ] {
        let start = zoned.start(zone);
        zoned.write(start, 1).unwrap();
        zoned.namespace.flush().unwrap();
        let event = events.wait(deadline()).unwrap().expect("an event");
        assert_eq!(event.kind(), EventKind::Notice(NoticeEvent::ZONE_DESCRIPTOR), "{event}");
        assert_eq!((event.log_page(), event.zoned_namespace()), (LogPageId::CHANGED_ZONES, Some(2)));
        assert_eq!(event.changed_zones(), Some(vec![start]), "{event}");
        assert_eq!(zoned.zones.report(start, 1).unwrap()[0].state(), state);
        assert_eq!(zoned.write(start + 1, 1).unwrap_err().status(), Some(refusal));
    }
    assert!(events.try_next().unwrap().is_none());
    zoned.write(0, 1).unwrap();
}

/// A command on a queue that crosses the end of a zone fails, unless the namespace allows that of reads.
#[test]
fn a_read_across_zones_needs_the_namespaces_consent() {
    for (cross, wanted) in [(false, Status::ZONE_BOUNDARY_ERROR), (true, Status::SUCCESS)] {
        let options = format!("emu:size=1M,zoned=true,zone-size=64K,cross-zone-reads={cross}");
        let controller = Controller::open(&options).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let mut queue = controller.queue_pair().depth(4).create::<u32>().unwrap();
        queue.turn().unwrap().read(&namespace, 126, controller.alloc(2048).unwrap(), 0).unwrap();
        assert_eq!(finish(&mut queue).remove(0).status(), wanted, "{options}");
    }
}

/// Zone commands that a program builds: a whole report counts all zones, and a wrong field is an error.
#[test]
fn zone_commands_pass_through() {
    let controller = Controller::open(format!("emu:{}", OPTIONS[0])).unwrap();
    let second = Duration::from_secs(30);
    let mut report = vec![0; 64 + 2 * 64];
    let dword = ZoneReceiveDword13::new();
    let command = Command::zone_management_receive(2, 128, report.len() as u32, dword);
    controller.io(&command, &mut report, second).unwrap();
    assert_eq!(report[..8], 15_u64.to_le_bytes(), "all zones that match, of which two are here");
    let command = Command::zone_management_receive(2, 128, report.len() as u32, dword.with_partial(true));
    controller.io(&command, &mut report, second).unwrap();
    assert_eq!(report[..8], 2_u64.to_le_bytes());
    let extended = Command::zone_management_receive(2, 0, report.len() as u32, dword.with_action(1));
    let error = controller.io(&extended, &mut report, second).unwrap_err();
    assert_eq!(error.status(), Some(Status::INVALID_FIELD));
    let open = ZoneSendDword13::new().with_action(ZoneAction::OPEN);
    controller.io(&Command::zone_management_send(2, 0, open), &mut [], second).unwrap();
    let error = controller.io(&Command::zone_management_send(2, 5, open), &mut [], second).unwrap_err();
    assert_eq!(error.status(), Some(Status::INVALID_FIELD), "not the first block of a zone");
    // A plain namespace does not have the commands.
    let error = controller.io(&Command::zone_management_send(1, 0, open), &mut [], second).unwrap_err();
    assert!(matches!(error.failure(), Failure::Argument { .. }), "{error}");
    says(&error, &["Zone Management Send", "opcode 79h is not in its log page"]);
    let mut block = vec![7; 512];
    assert_eq!(controller.io(&Command::zone_append(2, 256, 1), &mut block, second).unwrap(), 256);
    let extension = ZoneSendDword13::new().with_action(ZoneAction::SET_DESCRIPTOR_EXTENSION);
    let error = controller.io(&Command::zone_management_send(2, 0, extension), &mut [], second).unwrap_err();
    assert!(matches!(error.failure(), Failure::Argument { .. }), "{error}");
    assert_eq!(NvmOpcode::ZONE_APPEND.to_string(), "Zone Append (7Dh)");
}

/// Commands that are served late, or in stages, have their result, too.
#[test]
fn a_late_append_has_its_place() {
    for options in ["latency=1ms", "latency=0"] {
        let options = format!("emu:size=1M,zoned=true,zone-size=64K,{options}");
        let zoned = Zoned::of(&Controller::open(&options).unwrap(), true);
        zones::appends_in_flight_tell_where_they_are(&zoned);
    }
}

/// Copy writes at the write pointer, Write Zeroes moves it.
#[test]
fn copies_and_zeroes_move_the_write_pointer() {
    let zoned = Zoned::of(&Controller::open(format!("emu:{}", OPTIONS[0])).unwrap(), true);
    let (namespace, controller) = (&zoned.namespace, &zoned.controller);
    zoned.write(0, 8).unwrap();
    namespace.write_zeroes(8, 4).unwrap();
    assert_eq!(zoned.zones.report(0, 1).unwrap()[0].written(), Some(12));
    assert_eq!(namespace.write_zeroes(13, 4).unwrap_err().status(), Some(Status::ZONE_INVALID_WRITE));
    let mut queue = controller.queue_pair().depth(4).create::<u32>().unwrap();
    for (target, wanted) in [(129, Status::ZONE_INVALID_WRITE), (128, Status::SUCCESS)] {
        let mut ranges = controller.alloc(4096).unwrap();
        ranges.write_at(0, &upcie_nvme::spec::CopyRange::new(2, 5).to_bytes());
        queue.turn().unwrap().copy(namespace, ranges, 1, target, 0).unwrap();
        assert_eq!(finish(&mut queue).remove(0).status(), wanted);
    }
    assert_eq!(zoned.zones.report(128, 1).unwrap()[0].written(), Some(5));
    zoned.pattern.verify(&upcie_tests::io::read(controller, namespace, 128, 5), 2, 1);
}
