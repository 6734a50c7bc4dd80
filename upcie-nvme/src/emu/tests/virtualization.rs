//! A primary controller and its secondary ones, each with a host that makes its rings by hand.

use super::host::{Host, queue};
use crate::{
    Error,
    emu::{self, Lockstep},
    spec::{
        ALL_NAMESPACES, AdminCommand, AdminOpcode, Cns, Command, CommandsSupportedLog, FeatureId,
        FeatureSelect, FromBytes, IdentifyController, LogPageId, NumberOfQueues, OptionalAdmin,
        PrimaryController, SecondaryController, SecondaryControllerList, Status, VirtualResource,
        VirtualizationAction, VirtualizationManagement, offset,
    },
};
use std::time::{Duration, Instant};

const PRIMARY: u16 = 1;
const CFS: u32 = 1 << 1;

fn manage(
    host: &mut Host,
    action: VirtualizationAction,
    controller: u16,
    resource: VirtualResource,
    number: u16,
) -> Result<u32, Status> {
    let command = VirtualizationManagement { action, controller, resource, number }.command();
    host.admin.run(command).result()
}

fn assign(host: &mut Host, controller: u16, [queues, vectors]: [u16; 2]) {
    for (resource, number) in [(VirtualResource::QUEUES, queues), (VirtualResource::INTERRUPTS, vectors)] {
        let done = manage(host, VirtualizationAction::SECONDARY_ASSIGN, controller, resource, number);
        assert_eq!(done, Ok(number.into()));
    }
}

fn set(host: &mut Host, action: VirtualizationAction, controller: u16) -> Result<u32, Status> {
    manage(host, action, controller, VirtualResource::default(), 0)
}

fn online(host: &mut Host, controller: u16, resources: [u16; 2]) {
    assign(host, controller, resources);
    assert_eq!(set(host, VirtualizationAction::SECONDARY_ONLINE, controller), Ok(0));
}

fn offline(host: &mut Host, controller: u16) {
    assert_eq!(set(host, VirtualizationAction::SECONDARY_OFFLINE, controller), Ok(0));
}

fn identify(host: &mut Host) -> IdentifyController {
    IdentifyController::read_from_bytes(&host.page(Command::identify(Cns::CONTROLLER, 0, 0))).unwrap()
}

fn capabilities(host: &mut Host) -> PrimaryController {
    PrimaryController::read_from_bytes(&host.page(Command::identify(Cns::PRIMARY_CONTROLLER, 0, 0))).unwrap()
}

fn list(host: &mut Host, from: u16) -> Vec<SecondaryController> {
    let page = host.page(Command::identify(Cns::SECONDARY_CONTROLLERS, 0, from));
    SecondaryControllerList::read_from_bytes(&page).unwrap().used().to_vec()
}

/// Returns the state, and the flexible resources, of each secondary controller.
fn states(host: &mut Host) -> Vec<(u8, u16, u16)> {
    list(host, 0).iter().map(|one| (one.state, one.vq_flexible, one.vi_flexible)).collect()
}

/// Returns the number of I/O queues of each kind.
fn queues(host: &mut Host) -> u32 {
    let number = Command::get_features(FeatureId::NUMBER_OF_QUEUES, FeatureSelect::CURRENT);
    host.admin.run(number).result().unwrap()
}

fn granted(count: u32) -> u32 {
    NumberOfQueues::of(count, count).into_bits()
}

/// Waits until a register of a secondary controller has a value: its own thread carries out what the primary one has told.
fn wait_for_csts(host: &Host, wanted: u32) {
    let end = Instant::now() + Duration::from_secs(30);
    while host.csts() != wanted {
        assert!(Instant::now() < end, "CSTS is {:#x}, not {wanted:#x}", host.csts());
        std::thread::yield_now();
    }
}

/// Returns `true` if the controller's log has Virtualization Management.
fn is_in_log(host: &mut Host) -> bool {
    let page = host.page(Command::get_log_page(LogPageId::COMMANDS_SUPPORTED, ALL_NAMESPACES, 4096, 0));
    let log = CommandsSupportedLog::read_from_bytes(&page).unwrap();
    log.admin_commands[usize::from(AdminOpcode::VIRTUALIZATION_MANAGEMENT.0)].supported()
}

#[test]
fn other_controllers_know_nothing_of_virtualization() {
    let mut host = Host::new("size=1M");
    let id = identify(&mut host);
    assert!(!id.optional_admin().contains(OptionalAdmin::VIRTUALIZATION));
    assert_eq!(id.cmic, 0);
    assert!(!is_in_log(&mut host));
    for cns in [Cns::PRIMARY_CONTROLLER, Cns::SECONDARY_CONTROLLERS] {
        let command = host.with_page(Command::identify(cns, 0, 0));
        assert_eq!(host.admin.status(command), Status::INVALID_FIELD, "{cns}");
    }
    let done = set(&mut host, VirtualizationAction::SECONDARY_OFFLINE, 2);
    assert_eq!(done, Err(Status::INVALID_OPCODE));
}

#[test]
fn a_primary_controller_lists_its_secondary_ones_and_their_resources() {
    let mut host = Host::new("size=1M,queues=3,vectors=4,vfs=3,serial=listed");
    let id = identify(&mut host);
    assert!(id.optional_admin().contains(OptionalAdmin::VIRTUALIZATION));
    assert_eq!((id.cntlid, id.cmic), (PRIMARY, 1 << 1), "of several controllers, on a physical function");
    assert!(is_in_log(&mut host));
    assert_eq!(queues(&mut host), granted(3));
    let page = host.page(Command::identify(Cns::CONTROLLERS, 0, 0));
    assert_eq!(page[..10], [4, 0, 1, 0, 2, 0, 3, 0, 4, 0]);
    let of = capabilities(&mut host);
    assert_eq!((of.controller_id, of.resource_types), (PRIMARY, 0b11));
    assert_eq!((of.vq_flexible_total, of.vq_flexible_assigned, of.vq_flexible_of_primary), (24, 0, 0));
    assert_eq!((of.vi_flexible_total, of.vi_flexible_assigned, of.vi_flexible_of_primary), (24, 0, 0));
    // One pair of queues is the admin queue's.
    assert_eq!((of.vq_private, of.vi_private), (4, 4));
    assert_eq!((of.vq_max_of_secondary, of.vi_max_of_secondary), (16, 16));
    assert_eq!((of.vq_granularity, of.vi_granularity), (1, 1));
    let numbers = |all: Vec<SecondaryController>| -> Vec<_> {
        let each = all.iter().map(|one| {
            (one.secondary_controller_id, one.primary_controller_id, one.virtual_function, one.state)
        });
        each.collect()
    };
    let all: [(u16, u16, u16, u8); 3] = [(2, PRIMARY, 1, 0), (3, PRIMARY, 2, 0), (4, PRIMARY, 3, 0)];
    assert_eq!(numbers(list(&mut host, 0)), all);
    assert_eq!(numbers(list(&mut host, 3)), all[1..]);
    assert_eq!(numbers(list(&mut host, 5)), []);
    assign(&mut host, 3, [5, 2]);
    let of = capabilities(&mut host);
    assert_eq!((of.vq_flexible_assigned, of.vi_flexible_assigned), (5, 2));
    assert_eq!(states(&mut host), [(0, 0, 0), (0, 5, 2), (0, 0, 0)]);
}

#[test]
fn an_offline_controller_shows_a_fatal_status_and_takes_no_write() {
    let _primary = Host::new("size=1M,vfs=1,serial=offline");
    let host = Host::disabled("vf=1,serial=offline");
    assert_eq!(host.csts(), CFS);
    for at in [offset::CAP, offset::CAP + 4, offset::VS, offset::CC, offset::AQA] {
        assert_eq!(host.bar.read_u32(at as u64).unwrap(), 0, "{at:#x}");
    }
    host.configure(1 | 6 << 16 | 4 << 20);
    assert_eq!((host.csts(), host.bar.read_u32(offset::CC as u64).unwrap()), (CFS, 0));
}

#[test]
fn a_secondary_controller_grants_what_was_assigned() {
    let mut primary = Host::new("size=1M,vfs=2,serial=granted");
    online(&mut primary, 3, [3, 2]);
    assert_eq!(states(&mut primary), [(0, 0, 0), (1, 3, 2)]);
    let mut host = Host::new("vf=2,serial=granted");
    let id = identify(&mut host);
    assert_eq!((id.cntlid, id.cmic), (3, 1 << 1 | 1 << 2), "of several controllers, on a virtual function");
    assert!(!id.optional_admin().contains(OptionalAdmin::VIRTUALIZATION));
    assert_eq!(host.device.irq_count(upcie_core::irq::IrqKind::Msix).unwrap(), 2);
    assert_eq!(queues(&mut host), granted(2));
    let refused = |host: &mut Host, qid, vector| {
        let [create, _] = queue(&host.device, &host.bar, qid, 4, 4).creation(vector);
        host.admin.status(create)
    };
    assert_eq!(refused(&mut host, 3, None), Status::INVALID_QUEUE_ID);
    assert_eq!(refused(&mut host, 1, Some(2)), Status::INVALID_INTERRUPT_VECTOR);
    // Both share the primary controller's namespace.
    let mut both = [host.queue(1, [4, 4], Some(1)), host.queue(2, [4, 4], None)];
    host.set(0, &[7; 4096]);
    assert_eq!(both[0].status(host.with_page(Command::write(1, 0, 8))), Status::SUCCESS);
    primary.set(0, &[0; 4096]);
    let mut theirs = primary.queue(1, [4, 4], None);
    assert_eq!(theirs.status(primary.with_page(Command::read(1, 0, 8))), Status::SUCCESS);
    assert_eq!(primary.bytes(0, 4096), [7; 4096]);
    assert_eq!(both[1].status(host.with_page(Command::read(1, 0, 8))), Status::SUCCESS);
    // It is no primary controller.
    let done = set(&mut host, VirtualizationAction::SECONDARY_OFFLINE, 3);
    assert_eq!(done, Err(Status::INVALID_OPCODE));
    // It is still on for its next host.
    drop((host, both));
    assert_eq!(queues(&mut Host::new("vf=2,serial=granted")), granted(2));
}

#[test]
fn a_controller_that_is_turned_off_stops_its_commands() {
    let mut primary = Host::new("size=1M,vfs=1,latency=60s,serial=stopped");
    online(&mut primary, 2, [2, 1]);
    let mut host = Host::new("vf=1,serial=stopped");
    let mut queue = host.queue(1, [4, 4], None);
    queue.put(&host.with_page(Command::read(1, 0, 1)));
    queue.ring();
    offline(&mut primary, 2);
    assert_eq!(states(&mut primary), [(0, 0, 0)]);
    wait_for_csts(&host, CFS);
    queue.silent();
    assert_eq!(
        set(&mut primary, VirtualizationAction::SECONDARY_ONLINE, 2),
        Err(Status::INVALID_SECONDARY_STATE)
    );
    // It is there again in the same session, disabled.
    online(&mut primary, 2, [3, 1]);
    wait_for_csts(&host, 0);
    host.enable();
    assert_eq!(queues(&mut host), granted(2));
}

/// Base, "Secondary Controller States": each reset of the primary controller turns them off.
#[test]
fn a_reset_of_the_primary_controller_turns_the_others_off() {
    let mut primary = Host::new("size=1M,vfs=2,serial=reset");
    let mut host = Host::disabled("vf=2,serial=reset");
    for by_function in [false, true] {
        online(&mut primary, 3, [2, 1]);
        wait_for_csts(&host, 0);
        host.enable();
        host.alive();
        if by_function {
            primary.reset().unwrap();
        } else {
            primary.write_u32(offset::CC as u64, 0).unwrap();
        }
        wait_for_csts(&host, CFS);
        primary.enable();
        assert_eq!(states(&mut primary), [(0, 0, 0); 2]);
    }
    // Its host is gone.
    online(&mut primary, 3, [2, 1]);
    wait_for_csts(&host, 0);
    drop(primary);
    wait_for_csts(&host, CFS);
}

/// Base, "Primary Controller Capabilities", VQRFAP: not with a reset by CC.EN.
#[test]
fn the_primary_controllers_share_comes_with_a_reset_of_its_function() {
    let mut host = Host::new("size=1M,queues=3,vectors=4,vfs=1,serial=share");
    for (resource, number) in [(VirtualResource::QUEUES, 2), (VirtualResource::INTERRUPTS, 1)] {
        let done = manage(&mut host, VirtualizationAction::PRIMARY_FLEXIBLE, PRIMARY, resource, number);
        assert_eq!(done, Ok(number.into()));
    }
    host.write_u32(offset::CC as u64, 0).unwrap();
    host.enable();
    assert_eq!((queues(&mut host), capabilities(&mut host).vq_flexible_of_primary), (granted(3), 0));
    host.reset().unwrap();
    host.enable();
    assert_eq!(queues(&mut host), granted(5));
    let of = capabilities(&mut host);
    assert_eq!((of.vq_flexible_of_primary, of.vi_flexible_of_primary, of.vq_private), (2, 1, 4));
    host.queue(5, [4, 4], None);
    let (action, resource) = (VirtualizationAction::SECONDARY_ASSIGN, VirtualResource::QUEUES);
    assert_eq!(manage(&mut host, action, 2, resource, 7), Err(Status::INVALID_RESOURCE_COUNT));
    assert_eq!(manage(&mut host, action, 2, resource, 6), Ok(6));
}

/// Returns the text of the error with which a controller is not started.
fn refusal(options: &str) -> String {
    let error: Error = emu::spawn(&options.parse().unwrap()).expect_err(options);
    upcie_core::Chain(&error).to_string()
}

#[test]
fn an_address_of_a_controller_that_is_not_there_says_what_to_do() {
    let says = |options: &str, parts: &[&str]| {
        let text = refusal(options);
        assert!(parts.iter().all(|part| text.contains(part)), "{options}: {text}");
    };
    says("vf=1,serial=named", &["vf=1", "no controller with vfs=", "serial=named", "open that first"]);
    let primary = Host::disabled("size=1M,vfs=2,serial=named");
    let secondary = Host::disabled("vf=2,serial=named");
    says("vf=3,serial=named", &["vf=3", "vfs=2"]);
    says("vf=2,serial=named", &["vf=2", "open in this process already"]);
    says("size=1M,vfs=2,serial=named", &["vfs=2", "open in this process already"]);
    says("size=1M,vfs=1,serial=named", &["serial=named", "other options"]);
    // The others can be opened again as long as one of them is open.
    drop(primary);
    drop(Host::disabled("vf=1,serial=named"));
    drop(Host::disabled("size=1M,vfs=2,serial=named"));
    drop(secondary);
    says("vf=1,serial=named", &["no controller with vfs="]);
    let error = Lockstep::new(&"vf=1".parse().unwrap()).unwrap_err();
    let text = upcie_core::Chain(&error).to_string();
    assert!(text.contains("made with its primary one"), "{text}");
    for count in [1, 2, 4] {
        let text = emu::spawn_subsystem(&"size=1M,vfs=2".parse().unwrap(), count).unwrap_err();
        let text = upcie_core::Chain(&text).to_string();
        assert!(text.contains("vfs=2") && text.contains(&format!("there are {count}")), "{text}");
    }
}
