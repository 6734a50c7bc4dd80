//! Faults of the controller and its namespaces under load, as a host with rings made by hand sees them.

use super::host::{Host, PAGE, exact};
use crate::{
    emu::{Fault, FaultPlan, FaultRule},
    spec::{
        ALL_NAMESPACES, AsyncEvent, AsyncEventConfiguration, AsyncEventType, Cns, Command, FeatureId,
        FromBytes, IdentifyNamespace, LogPageId, NamespaceList, NoticeEvent, NvmOpcode, Status,
    },
};
use std::time::{Duration, Instant};

const DELAY: Duration = Duration::from_millis(30);
/// The opcode of the commands that faults strike in these tests.
const TRIGGER: NvmOpcode = NvmOpcode::FLUSH;

fn host(options: &str, fault: Fault) -> Host {
    let late = FaultRule::new(Fault::Delay(DELAY)).opcode(NvmOpcode::READ.0);
    Host::with_faults(options, &FaultPlan::new(7).rule(late).rule(FaultRule::new(fault).opcode(TRIGGER.0)))
}

fn command(opcode: NvmOpcode, nsid: u32, lba: u64) -> Command {
    match opcode {
        NvmOpcode::READ => Command::read(nsid, lba, 1),
        NvmOpcode::WRITE => Command::write(nsid, lba, 1),
        opcode => Command { opcode: opcode.0, ..Command::flush(nsid) },
    }
}

/// Asks for all notices, and sends a request for an event.
fn ask(host: &mut Host) {
    let wanted = AsyncEventConfiguration::from_bits(0x303);
    let set = Command::set_features(FeatureId::ASYNC_EVENT_CONFIGURATION, wanted.into_bits());
    assert_eq!(host.admin.status(set), Status::SUCCESS);
    request(host);
}

fn request(host: &mut Host) {
    host.admin.put(&Command { cid: 0x99, ..Command::asynchronous_event_request() });
    host.admin.ring();
}

/// Returns the next event.
fn event(host: &mut Host) -> AsyncEvent {
    let done = host.admin.wait();
    assert_eq!((done.cid, done.status()), (0x99, Status::SUCCESS));
    AsyncEvent::from_bits(done.dw0)
}

/// Checks that the controller tells of a change of namespace 1, once.
fn is_told(host: &mut Host) {
    let event = event(host);
    assert_eq!(
        (event.kind(), event.information()),
        (AsyncEventType::NOTICE, NoticeEvent::NAMESPACE_ATTRIBUTES.0)
    );
    let log = Command::get_log_page(LogPageId::CHANGED_NAMESPACES, ALL_NAMESPACES, PAGE as u32, 0);
    for changed in [[1, 0], [0, 0]] {
        let list = NamespaceList::read_from_bytes(&host.page(log)).unwrap();
        assert_eq!(list.nsids[..2], changed, "the log page is cleared by its read");
    }
}

fn identify(host: &mut Host) -> IdentifyNamespace {
    IdentifyNamespace::read_from_bytes(&host.page(Command::identify(Cns::NAMESPACE, 1, 0))).unwrap()
}

#[test]
fn a_closed_connection_is_a_device_that_is_gone() {
    let mut host = host("size=1M", Fault::CloseConnection);
    let mut queue = host.queue(1, [16, 16], None);
    queue.put(&command(TRIGGER, 1, 0));
    queue.ring();
    let end = Instant::now() + Duration::from_secs(10);
    while host.bar.read_u32(0x1c).is_ok_and(|csts| csts != !0) {
        assert!(Instant::now() < end, "the connection stays");
    }
    queue.silent();
}

#[test]
fn a_removed_namespace_refuses_the_commands_in_flight_and_later_ones() {
    let mut host = host("size=1M,namespaces=3", Fault::RemoveNamespace(None));
    let mut queue = host.queue(1, [16, 16], None);
    ask(&mut host);
    host.set(0, &[0xee; PAGE]);
    for (cid, nsid) in [(1, 1), (2, 2)] {
        let mut read = Command { cid, ..command(NvmOpcode::READ, nsid, 0) };
        read.set_data_pointer(host.iova(PAGE * usize::from(cid - 1)), 0);
        queue.put(&read);
    }
    queue.put(&Command { cid: 3, ..command(TRIGGER, 1, 0) });
    queue.ring();
    // Its identifier is inactive, not invalid.
    let gone = exact(Status::INVALID_FIELD.with_do_not_retry());
    let done = [queue.wait(), queue.wait(), queue.wait()].map(|done| (done.cid, exact(done.status())));
    assert_eq!(done, [(3, gone), (1, gone), (2, exact(Status::SUCCESS))]);
    assert_eq!(host.bytes(0, 512), [0xee; 512], "no data came");
    is_told(&mut host);
    for opcode in [NvmOpcode::WRITE, NvmOpcode::FLUSH, NvmOpcode::WRITE_ZEROES] {
        assert_eq!(exact(queue.status(host.with_page(command(opcode, 1, 0)))), gone, "{opcode:?}");
    }
    let page = host.page(Command::identify(Cns::ACTIVE_NAMESPACES, 0, 0));
    assert_eq!(NamespaceList::read_from_bytes(&page).unwrap().nsids[..3], [2, 3, 0]);
    assert!(host.page(Command::identify(Cns::NAMESPACE, 1, 0)).iter().all(|byte| *byte == 0));
    let descriptors = host.with_page(Command::identify(Cns::NAMESPACE_DESCRIPTORS, 1, 0));
    assert_eq!(host.admin.status(descriptors), Status::INVALID_FIELD);
    let invalid = exact(Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry());
    for nsid in [0, 4, ALL_NAMESPACES] {
        assert_eq!(exact(queue.status(host.with_page(command(NvmOpcode::READ, nsid, 0)))), invalid, "{nsid}");
    }
    assert_eq!(queue.status(command(TRIGGER, 2, 0)), Status::SUCCESS, "it strikes once");
}

#[test]
fn a_resized_namespace_ends_at_its_new_last_block() {
    let mut host = host("size=1M", Fault::ResizeNamespace { target: Some(1), blocks: 8 });
    let mut queue = host.queue(1, [16, 16], None);
    ask(&mut host);
    for (cid, lba) in [(1, 7), (2, 8)] {
        queue.put(&Command { cid, ..host.with_page(command(NvmOpcode::READ, 1, lba)) });
    }
    queue.put(&Command { cid: 3, ..command(TRIGGER, ALL_NAMESPACES, 0) });
    queue.ring();
    let done = [queue.wait(), queue.wait(), queue.wait()].map(|done| (done.cid, done.status()));
    assert_eq!(done, [(3, Status::SUCCESS), (1, Status::SUCCESS), (2, Status::LBA_OUT_OF_RANGE)]);
    is_told(&mut host);
    let id = identify(&mut host);
    assert_eq!((id.nsze, id.ncap, id.block_size()), (8, 8, Some(512)));
    for (lba, status) in [(7, Status::SUCCESS), (8, Status::LBA_OUT_OF_RANGE)] {
        assert_eq!(queue.status(host.with_page(command(NvmOpcode::WRITE, 1, lba))), status);
    }
}

/// A namespace that has larger blocks by now does not become larger than its part of the medium.
#[test]
fn no_change_reaches_beyond_the_part_of_the_medium() {
    let reformat = FaultRule::new(Fault::ReformatNamespace { target: Some(1), block_size: 4096 });
    let resize = FaultRule::new(Fault::ResizeNamespace { target: Some(1), blocks: 2048 });
    let plan = FaultPlan::new(1).rule(reformat.opcode(TRIGGER.0)).rule(resize.opcode(TRIGGER.0).after(1));
    let mut host = Host::with_faults("size=1M,namespaces=2", &plan);
    let mut queue = host.queue(1, [16, 16], None);
    assert_eq!(queue.status(command(TRIGGER, 2, 0)), Status::SUCCESS);
    assert_eq!(identify(&mut host).nsze, 256);
    assert_eq!(queue.status(command(TRIGGER, 2, 0)), Status::SUCCESS);
    assert_eq!(identify(&mut host).nsze, 256);
    host.set(0, &[7; PAGE]);
    for (lba, status) in [(255, Status::SUCCESS), (256, Status::LBA_OUT_OF_RANGE)] {
        assert_eq!(queue.status(host.with_page(command(NvmOpcode::WRITE, 1, lba))), status);
    }
    assert_eq!(queue.status(host.with_page(command(NvmOpcode::READ, 2, 0))), Status::SUCCESS);
    assert_eq!(host.bytes(0, 512), [0; 512], "the neighbour has its own blocks");
}

#[test]
fn a_reformatted_namespace_takes_commands_once_it_was_identified() {
    let mut host = host("size=1M", Fault::ReformatNamespace { target: None, block_size: 4096 });
    let mut queue = host.queue(1, [16, 16], None);
    ask(&mut host);
    host.set(0, &[7; PAGE]);
    assert_eq!(queue.status(host.with_page(command(NvmOpcode::WRITE, 1, 0))), Status::SUCCESS);
    host.set(0, &[0xee; PAGE]);
    queue.put(&Command { cid: 1, ..host.with_page(command(NvmOpcode::READ, 1, 0)) });
    queue.put(&Command { cid: 2, ..command(TRIGGER, 1, 0) });
    queue.ring();
    let busy = exact(Status::FORMAT_IN_PROGRESS);
    let mut done = [queue.wait(), queue.wait()].map(|done| (done.cid, exact(done.status())));
    done.sort_unstable_by_key(|(cid, _)| *cid);
    assert_eq!(done, [(1, busy), (2, busy)]);
    is_told(&mut host);
    host.set(0, &[0xee; PAGE]);
    assert_eq!(exact(queue.status(host.with_page(command(NvmOpcode::READ, 1, 0)))), busy);
    assert_eq!(host.bytes(0, PAGE), [0xee; PAGE], "no data came");
    let id = identify(&mut host);
    assert_eq!((id.nsze, id.block_size()), (256, Some(4096)));
    assert_eq!(queue.status(host.with_page(command(NvmOpcode::READ, 1, 0))), Status::SUCCESS);
    assert_eq!(host.bytes(0, PAGE), [0; PAGE], "the old data is lost");
}

#[test]
fn a_storm_has_its_number_of_events_of_each_type_in_turn() {
    let mut host = host("size=1M", Fault::EventStorm(7));
    let mut queue = host.queue(1, [16, 16], None);
    ask(&mut host);
    assert_eq!(queue.status(command(TRIGGER, 1, 0)), Status::SUCCESS);
    let mut kinds = Vec::new();
    for left in (0..7).rev() {
        let event = event(&mut host);
        kinds.push(event.kind());
        let log = Command::get_log_page(event.log_page(), ALL_NAMESPACES, 512, 0);
        host.page(log);
        if left > 0 {
            request(&mut host);
        }
    }
    use AsyncEventType as Type;
    let turn = [Type::ERROR, Type::SMART, Type::NOTICE];
    assert_eq!(kinds, [&turn[..], &turn, &turn[..1]].concat());
    request(&mut host);
    host.admin.silent();
}

#[test]
fn changes_that_can_not_work_are_refused() {
    let resize = |target, blocks| Fault::ResizeNamespace { target, blocks };
    let reformat = |block_size| Fault::ReformatNamespace { target: None, block_size };
    for (fault, part) in [
        (Fault::RemoveNamespace(Some(0)), "target"),
        (Fault::RemoveNamespace(Some(3)), "target"),
        (resize(None, 0), "remove-namespace"),
        (resize(Some(1), 2049), "never becomes larger"),
        (reformat(1024), "512 or 4096"),
        (Fault::ReadOnlyZone { target: None, zone: 0 }, "zoned=true"),
        (Fault::OfflineZone { target: Some(3), zone: 0 }, "target"),
        (Fault::EventStorm(0), "no event"),
    ] {
        let plan = FaultPlan::new(0).rule(FaultRule::new(fault));
        let error =
            crate::emu::spawn_with_faults(&"size=1M,namespaces=2".parse().unwrap(), &plan).unwrap_err();
        let text = upcie_core::Chain(&error).to_string();
        assert!(text.contains(part) && text.contains("rule 1"), "{part}: {text}");
    }
    let beyond = Fault::OfflineZone { target: None, zone: 16 };
    for (options, fault, part) in [
        ("size=3584", reformat(4096), "less than a block"),
        ("size=1M,zoned=true,zone-size=64K", beyond, "fewer zones"),
        (
            "size=1M,namespaces=2,zoned=false+true,zone-size=64K",
            Fault::OfflineZone { target: Some(1), zone: 0 },
            "zoned=true",
        ),
    ] {
        let plan = FaultPlan::new(0).rule(FaultRule::new(fault));
        let error = crate::emu::spawn_with_faults(&options.parse().unwrap(), &plan).unwrap_err();
        assert!(upcie_core::Chain(&error).to_string().contains(part), "{error}");
    }
    let lockstep = crate::emu::Lockstep::new(&"size=1M".parse().unwrap()).unwrap();
    let error = lockstep.inject(&FaultPlan::new(0).rule(FaultRule::new(Fault::CloseConnection))).unwrap_err();
    assert!(upcie_core::Chain(&error).to_string().contains("close-connection needs a server"), "{error}");
}
