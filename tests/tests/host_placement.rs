//! Flexible data placement of the embedded controller and of `nvme-emu`. (In the guest `guest_placement` checks the
//! same on QEMU's.)

use std::time::Duration;
use upcie_nvme::{
    Controller, Failure, FeatureQuery, FeatureUpdate, Io, Placement, Refusal, Zeroes,
    spec::{
        AttachNamespace, Command, CopyRange, CreateNamespace, DeleteNamespace, DirectiveReceive,
        EnduranceGroupLog, FlexibleDataPlacement, HandleStatus, NvmOpcode, PlacementConfigurationsLog,
        Status,
    },
};
use upcie_tests::{
    io::{create, finish},
    placement::{self, Model, Placed},
    process::Server,
    says, scaled, seeded,
};

const OPTIONS: [&str; 3] = [
    "size=1M,fdp=true,fdp-unit=64K",
    // Several groups, larger blocks, and transfers of several commands.
    "size=4M,lba=4096,fdp=true,fdp-handles=5,fdp-groups=3,fdp-unit=256K,mdts=16K",
    // Units are no multiple of a block with its metadata.
    "size=1M,ms=8,extended=true,fdp=true,fdp-handles=3,fdp-unit=36K",
];

/// Runs a check on the embedded controller and on a server of its own.
fn on_each(check: impl Fn(&Placed)) {
    for options in OPTIONS {
        println!("emu:{options}");
        check(&Placed::of(&Controller::open(format!("emu:{options}")).unwrap(), true));
    }
    let server = Server::start(OPTIONS[1]);
    println!("nvme-emu {}", OPTIONS[1]);
    check(&Placed::of(&Controller::open(server.address().to_string()).unwrap(), true));
}

/// Returns the blocks that are left in the unit of a placement handle, in reclaim group 0.
fn left(placement: &Placement, handle: u16) -> u64 {
    let identifier = placement.identifier(0, handle);
    let handles = placement.handles().unwrap();
    let found: Option<&HandleStatus> =
        handles.iter().find(|handle| handle.placement_identifier == identifier);
    found.unwrap().available_media_writes
}

#[test]
fn a_write_fills_the_unit_that_it_names() {
    on_each(placement::a_write_fills_the_unit_that_it_names);
}

#[test]
fn a_read_has_no_placement() {
    on_each(placement::a_read_has_no_placement);
}

#[test]
fn each_group_has_units_of_its_own() {
    on_each(placement::each_group_has_units_of_its_own);
}

#[test]
fn an_update_begins_an_empty_unit() {
    on_each(placement::an_update_begins_an_empty_unit);
}

#[test]
fn an_invalid_identifier_is_placement_handle_0() {
    on_each(placement::an_invalid_identifier_is_placement_handle_0);
}

#[test]
fn units_are_those_of_a_model() {
    on_each(|placed| Model::new(placed).run(&mut seeded(1), scaled(1000), None));
}

/// Commands that are served late, or in stages, are counted once.
#[test]
fn late_writes_fill_units() {
    for latency in ["1us", "0"] {
        let options = format!("emu:size=1M,fdp=true,fdp-unit=64K,latency={latency}");
        let placed = Placed::of(&Controller::open(&options).unwrap(), true);
        Model::new(&placed).run(&mut seeded(2), scaled(200), None);
    }
}

/// Each kind of command on a queue carries its placement, several in flight.
#[test]
fn commands_on_a_queue_carry_a_placement() {
    let controller = Controller::open("emu:size=1M,fdp=true,fdp-unit=512K").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let placement = namespace.placement().unwrap();
    let pid = |handle| placement.identifier(0, handle);
    let mut queue = create::<u32>(controller.queue_pair().depth(16));
    let mut ranges = controller.alloc(4096).unwrap();
    ranges.write_at(0, &CopyRange::new(0, 5).to_bytes());
    let mut turn = queue.turn().unwrap();
    for (tag, blocks) in [(1_u32, 1), (2, 2), (3, 3)] {
        let io = Io::write(&namespace, 8 * u64::from(tag)).fua().placement(pid(tag as u16));
        turn.submit(io, controller.alloc(512 * blocks).unwrap(), tag).unwrap();
    }
    turn.write_zeroes(Zeroes::new(&namespace, 64, 4).placement(pid(4)), 4).unwrap();
    turn.copy_placed(&namespace, ranges, 1, 128, pid(5), 5).unwrap();
    turn.write_zeroes(Zeroes::new(&namespace, 72, 9).deallocate().placement(pid(6)), 6).unwrap();
    drop(turn);
    finish(&mut queue).into_iter().for_each(|done| done.result().unwrap());
    let lefts: Vec<u64> = (0..8).map(|handle| 1024 - left(&placement, handle)).collect();
    assert_eq!(lefts, [0, 1, 2, 3, 4, 5, 0, 0], "blocks that are deallocated are not written");
    assert_eq!(placement.statistics().unwrap().host_bytes(), 15 * 512);
}

/// A part of a buffer that stays with the caller, and blocks with metadata apart, have placements, too.
#[test]
fn held_and_separate_buffers_have_placements() {
    let controller = Controller::open("emu:size=1M,ms=8,fdp=true,fdp-unit=520K").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let placement = namespace.placement().unwrap();
    let (mut data, mut metadata) = (controller.alloc(4 * 512).unwrap(), controller.alloc(4 * 8).unwrap());
    let io = Io::write(&namespace, 0).placement(placement.identifier(0, 3));
    namespace.run_with_metadata(io, &mut data, &mut metadata).unwrap();
    assert_eq!(left(&placement, 3), 1024 - 4);
    assert_eq!(placement.statistics().unwrap().host_bytes(), 4 * 520, "with metadata");

    let controller = Controller::open("emu:size=1M,fdp=true,fdp-unit=512K").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let placement = namespace.placement().unwrap();
    let held = controller.alloc(4096).unwrap();
    let mut queue = create::<u32>(controller.queue_pair().depth(4));
    let io = Io::write(&namespace, 0).placement(placement.identifier(0, 1));
    let mut turn = queue.turn().unwrap();
    // SAFETY: `held` stays alive and untouched until the queue is empty.
    unsafe { turn.submit_held(io, &held, 512..2048, 1) }.unwrap();
    let parts = [(&held, 2048..2560), (&held, 512..1024)];
    let io = Io::write(&namespace, 8).placement(placement.identifier(0, 2));
    // SAFETY: `held`, of which both parts are, stays alive and untouched until the queue is empty.
    unsafe { turn.submit_vectored_held(io, &parts, 2) }.unwrap();
    drop(turn);
    finish(&mut queue).into_iter().for_each(|done| done.result().unwrap());
    assert_eq!((left(&placement, 1), left(&placement, 2)), (1024 - 3, 1024 - 2));
}

/// The error says what is missing: the controller's support, or the feature in the endurance group.
#[test]
fn a_namespace_without_placement_says_why() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let error = controller.namespace(1).unwrap().placement().unwrap_err();
    assert!(matches!(error.failure(), Failure::Unsupported { .. }), "{error}");
    says(&error, &["namespace 1 has no flexible data placement", "CTRATT bit 19"]);
    // The commands do not exist there.
    let mut status = vec![0; 48];
    let command = Command::reclaim_unit_handle_status(1, 48);
    let error = controller.io(&command, &mut status, Duration::from_secs(30)).unwrap_err();
    assert!(matches!(error.failure(), Failure::Argument { .. }), "{error}");
    says(&error, &["I/O Management Receive", "opcode 12h is not in its log page", "submit_raw"]);
}

/// Feature 1Dh is changed while the endurance group has no namespace, and namespaces are made with chosen handles.
#[test]
fn namespaces_are_made_with_placement_handles() {
    let controller = Controller::open("emu:size=4M,nn=4,fdp=true,fdp-handles=4,fdp-unit=64K").unwrap();
    let query = FeatureQuery { dword11: Some(1), ..Default::default() };
    let turn = |on| {
        let value = FlexibleDataPlacement::new().with_enabled(on);
        controller.set_feature_with(&value, &FeatureUpdate { group: 1, ..Default::default() })
    };
    let is_on = || controller.feature_with::<FlexibleDataPlacement>(&query).unwrap().enabled();
    let make = |handles: &[u16]| -> Result<u32, upcie_nvme::Error> {
        let placement_handles = handles.to_vec();
        let create =
            CreateNamespace { placement_handles, endurance_group: 1, ..CreateNamespace::new(1024, 0) };
        let nsid = controller.execute(&create)?;
        controller.execute(&AttachNamespace { nsid, controllers: vec![1] })?;
        Ok(nsid)
    };
    assert!(is_on());
    assert_eq!(
        turn(false).unwrap_err().status(),
        Some(Status::COMMAND_SEQUENCE_ERROR),
        "there is a namespace"
    );
    controller.execute(&DeleteNamespace { nsid: 1 }).unwrap();
    turn(false).unwrap();
    assert!(!is_on());

    assert_eq!(make(&[1]).unwrap_err().status(), Some(Status::FDP_DISABLED));
    let nsid = make(&[]).unwrap();
    let error = controller.namespace(nsid).unwrap().placement().unwrap_err();
    says(&error, &["is off in endurance group 1", "feature 1Dh", "delete"]);
    let mut status = vec![0; 48];
    let command = Command::reclaim_unit_handle_status(nsid, 48);
    let error = controller.io(&command, &mut status, Duration::from_secs(30)).unwrap_err();
    assert_eq!(error.status(), Some(Status::FDP_DISABLED));
    controller.execute(&DeleteNamespace { nsid }).unwrap();
    turn(true).unwrap();

    for wrong in [&[4][..], &[1, 1], &[0, 1, 2, 3, 0]] {
        let error = make(wrong).unwrap_err();
        assert_eq!(error.status(), Some(Status::INVALID_PLACEMENT_HANDLES), "{wrong:?}");
    }
    let chosen = make(&[3, 1]).unwrap();
    let left_to_it = make(&[]).unwrap();
    assert_eq!(
        make(&[0]).unwrap_err().status(),
        Some(Status::INVALID_PLACEMENT_HANDLES),
        "the controller uses it"
    );
    let shared = make(&[1]).unwrap();
    let of = |nsid| controller.namespace(nsid).unwrap().placement().unwrap();
    let handles = |nsid| -> Vec<(u16, u16)> {
        let all = of(nsid).handles().unwrap();
        all.iter().map(|handle| (handle.placement_identifier, handle.reclaim_unit_handle)).collect()
    };
    assert_eq!(handles(chosen), [(0, 3), (1, 1)]);
    assert_eq!((handles(left_to_it), handles(shared)), (vec![(0, 0)], vec![(0, 1)]));
    let usage: Vec<u8> =
        of(chosen).usage().unwrap().handles().iter().map(|handle| handle.attributes).collect();
    assert_eq!(usage, [2, 1, 0, 1]);

    // Two namespaces fill the unit of the reclaim unit handle that they share.
    for (nsid, identifier) in [(chosen, 1), (shared, 0)] {
        let namespace = controller.namespace(nsid).unwrap();
        let mut buffer = controller.alloc(2048).unwrap();
        namespace.run(Io::write(&namespace, 0).placement(identifier), &mut buffer).unwrap();
    }
    assert_eq!((left(&of(chosen), 1), left(&of(shared), 0)), (128 - 8, 128 - 8));
    controller.execute(&DeleteNamespace { nsid: chosen }).unwrap();
    let usage = of(shared).usage().unwrap().handles();
    assert_eq!(usage.iter().map(|handle| handle.attributes).collect::<Vec<_>>(), [2, 1, 0, 0]);
}

/// Identify, log pages and directives tell that the controller has it.
#[test]
fn the_controller_describes_its_endurance_group() {
    let controller =
        Controller::open("emu:size=1M,namespaces=2,fdp=true,fdp-handles=5,fdp-groups=3,fdp-unit=96K")
            .unwrap();
    assert!(controller.identify().has_placement());
    let placement = controller.namespace(2).unwrap().placement().unwrap();
    assert_eq!((placement.namespace().nsid(), placement.endurance_group()), (2, 1));
    assert_eq!(placement.handles().unwrap().len(), 15);
    assert_eq!(placement.identifier(2, 4), 2 << 14 | 4);
    let query = upcie_nvme::LogQuery { identifier: 1, ..Default::default() };
    let log = controller.log_with::<PlacementConfigurationsLog>(&query).unwrap();
    let all: Vec<_> = log.configurations().collect();
    let [(configuration, handles)] = &all[..] else { panic!("{all:?}") };
    assert_eq!(configuration, placement.configuration());
    assert!(configuration.attributes.valid());
    assert_eq!((configuration.reclaim_unit_nominal_size, configuration.reclaim_groups), (96 << 10, 3));
    assert!(handles.len() == 5 && handles.iter().all(|handle| handle.handle_type == 1));
    let group = controller.log_with::<EnduranceGroupLog>(&query).unwrap();
    assert_eq!(u128::from_le_bytes(group.total_capacity), 2 << 20);
    let other = upcie_nvme::LogQuery { identifier: 2, ..Default::default() };
    let error = controller.log_with::<PlacementConfigurationsLog>(&other).unwrap_err();
    assert_eq!(error.status(), Some(Status::INVALID_FIELD), "there is no group 2");
    let parameters = DirectiveReceive { nsid: 1, operation: 1, len: 4096, ..Default::default() };
    let (_, lists) = controller.execute(&parameters).unwrap();
    assert_eq!((lists[0], lists[32], lists[64]), (0b101, 0b101, 0b100));
}

/// Lists of placement identifiers and parts of a status that can't be sent are refused; the passthrough knows the
/// lengths.
#[test]
fn lengths_follow_from_the_commands() {
    let controller = Controller::open("emu:size=1M,fdp=true,fdp-unit=64K").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let placement = namespace.placement().unwrap();
    says(
        &placement.update(&[]).unwrap_err(),
        &["I/O Management Send", "of 0 placement identifiers", "length"],
    );
    says(&placement.set_events(0, &[], true).unwrap_err(), &["FDP Events", "1 to 255"]);
    assert_eq!(placement.events(100).unwrap_err().status(), Some(Status::INVALID_FIELD));
    let mut queue = create::<u32>(controller.queue_pair().depth(4));
    let held = controller.alloc(4096).unwrap();
    let mut turn = queue.turn().unwrap();
    for part in [0..12, 0..18, 0..8192] {
        // SAFETY: nothing is sent.
        let refused = unsafe { turn.handle_status_held(&namespace, &held, part.clone(), 1) }.unwrap_err();
        assert_eq!(refused.reason, Refusal::Length, "{part:?}");
    }
    for part in [0..0, 0..3, 4092..4100] {
        // SAFETY: nothing is sent.
        let refused = unsafe { turn.update_handles_held(&namespace, &held, part.clone(), 1) }.unwrap_err();
        assert_eq!(refused.reason, Refusal::Length, "{part:?}");
    }
    drop(turn);
    drop(queue);
    let second = Duration::from_secs(30);
    // The header, and one of the descriptors.
    let mut status = vec![0; 16 + 32];
    let command = Command::reclaim_unit_handle_status(1, 48);
    controller.io(&command, &mut status, second).unwrap();
    assert_eq!((status[14], status[24]), (8, 128), "eight descriptors, 128 blocks left in the first unit");
    let mut identifiers = [3_u16, 5].map(u16::to_le_bytes).concat();
    controller.io(&Command::reclaim_unit_handle_update(1, 2), &mut identifiers, second).unwrap();
    let error = controller.io(&Command::reclaim_unit_handle_update(1, 9), &mut [0; 18], second).unwrap_err();
    assert_eq!(error.status(), Some(Status::INVALID_FIELD), "more than the namespace has");
    let mut nothing = Command::io(NvmOpcode::IO_MANAGEMENT_SEND, 1);
    controller.io(&nothing, &mut [], second).unwrap();
    nothing.cdw10 = 2;
    let error = controller.io(&nothing, &mut [], second).unwrap_err();
    assert!(matches!(error.failure(), Failure::Argument { .. }), "{error}");
}

/// A reset of the controller keeps the units, and the events that are noted.
#[test]
fn units_survive_a_reset() {
    let controller = Controller::open("emu:size=1M,fdp=true,fdp-unit=64K").unwrap();
    let placed = Placed::of(&controller, true);
    placed.write(0, 3, Some(placed.placement.identifier(0, 1)));
    controller.reset().unwrap();
    let placement = controller.namespace(1).unwrap().placement().unwrap();
    assert_eq!(left(&placement, 1), 128 - 3);
}
