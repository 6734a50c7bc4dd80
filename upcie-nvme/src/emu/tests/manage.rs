//! Commands that change namespaces, data and firmware, as a host with rings made by hand sends them.

use super::host::{Host, PAGE, admin, exact};
use crate::spec::{
    ALL_NAMESPACES, AdminCommand, AsyncEvent, AsyncEventType, AttachNamespace, Cns, Command, CommandSetEvent,
    CommitAction, CreateNamespace, DeleteNamespace, DetachNamespace, FeatureId, FeatureSelect,
    FirmwareCommit, FirmwareDownload, FirmwareSlotLog, FormatNvm, FromBytes, IdentifyController,
    IdentifyNamespace, LogPageId, NamespaceDescriptors, NamespaceList, NvmOpcode, Sanitize, SanitizeAction,
    SanitizeStatusLog, SelfTest, SelfTestCode, SelfTestLog, Status,
};
use std::time::{Duration, Instant};

/// Sends a command with its data; returns dword 0 of the completion.
fn send(host: &mut Host, command: &impl AdminCommand) -> Result<u32, Status> {
    host.set(0, &command.data());
    let command = host.with_page(command.command());
    host.admin.run(command).result()
}

fn list(host: &mut Host, cns: Cns) -> Vec<u32> {
    let page = host.page(Command::identify(cns, 0, 0));
    let list = NamespaceList::read_from_bytes(&page).unwrap();
    list.nsids.into_iter().take_while(|&nsid| nsid != 0).collect()
}

fn identify(host: &mut Host, cns: Cns, nsid: u32) -> IdentifyNamespace {
    IdentifyNamespace::read_from_bytes(&host.page(Command::identify(cns, nsid, 0))).unwrap()
}

fn controller(host: &mut Host) -> IdentifyController {
    IdentifyController::read_from_bytes(&host.page(Command::identify(Cns::CONTROLLER, 0, 0))).unwrap()
}

fn log<L: FromBytes>(host: &mut Host, id: LogPageId) -> L {
    let page = host.page(Command::get_log_page(id, ALL_NAMESPACES, 1024, 0));
    L::read_from_prefix(&page).unwrap().0
}

fn never(status: Status) -> Result<u32, Status> {
    Err(status.with_do_not_retry())
}

/// Asks until the answer is the wanted one.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn namespaces_are_made_of_the_mediums_free_bytes() {
    let mut host = Host::new("size=1M,namespaces=2,nn=4");
    let mut queue = host.queue(1, [16, 16], None);
    let whole = controller(&mut host);
    assert_eq!((whole.total_capacity(), whole.unallocated_capacity(), whole.nn), (2 << 20, 0, 4));
    let full = never(Status::NAMESPACE_INSUFFICIENT_CAPACITY);
    assert_eq!(send(&mut host, &CreateNamespace::new(1, 0)), full);
    let identity = |host: &mut Host, nsid| {
        let page = host.page(Command::identify(Cns::NAMESPACE_DESCRIPTORS, nsid, 0));
        NamespaceDescriptors::new(&page).next().unwrap().nid.to_vec()
    };
    let first = identity(&mut host, 1);
    host.set(0, &[7; PAGE]);
    assert_eq!(queue.status(host.with_page(Command::write(1, 0, 8))), Status::SUCCESS);
    assert_eq!(send(&mut host, &DeleteNamespace { nsid: 1 }), Ok(0));
    assert_eq!(controller(&mut host).unallocated_capacity(), 1 << 20);
    // It is detached, with an identity of its own and none of the old data.
    assert_eq!(send(&mut host, &CreateNamespace::new(64, 1)), Ok(1));
    assert_eq!(send(&mut host, &CreateNamespace::new(512, 0)), Ok(3));
    assert_eq!(
        (list(&mut host, Cns::ACTIVE_NAMESPACES), list(&mut host, Cns::ALLOCATED_NAMESPACES)),
        (vec![2], vec![1, 2, 3])
    );
    assert_eq!(identify(&mut host, Cns::NAMESPACE, 1).nsze, 0);
    let made = identify(&mut host, Cns::ALLOCATED_NAMESPACE, 1);
    assert_eq!((made.nsze, made.block_size(), u128::from_le_bytes(made.nvmcap)), (64, Some(4096), 256 << 10));
    let refused = exact(Status::INVALID_FIELD.with_do_not_retry());
    assert_eq!(exact(queue.status(host.with_page(Command::read(1, 0, 1)))), refused, "it is detached");
    let attach = |nsid, controllers: &[u16]| AttachNamespace { nsid, controllers: controllers.to_vec() };
    assert_eq!(send(&mut host, &attach(1, &[1])), Ok(0));
    assert_ne!(identity(&mut host, 1), first);
    host.set(0, &[0xee; PAGE]);
    assert_eq!(queue.status(host.with_page(Command::read(1, 0, 1))), Status::SUCCESS);
    assert_eq!(host.bytes(0, PAGE), [0; PAGE]);
    let controllers = host.page(Command::identify(Cns::NAMESPACE_CONTROLLERS, 1, 0));
    assert_eq!(controllers[..6], [1, 0, 1, 0, 0, 0]);
    assert_eq!(host.page(Command::identify(Cns::NAMESPACE_CONTROLLERS, 3, 0))[..4], [0; 4]);
    assert_eq!(host.page(Command::identify(Cns::CONTROLLERS, 0, 2))[..4], [0; 4], "none from 2 on");
    for (command, expected) in [
        (attach(1, &[1]), Status::NAMESPACE_ALREADY_ATTACHED),
        (attach(3, &[2]), Status::CONTROLLER_LIST_INVALID),
        (attach(3, &[1, 2]), Status::CONTROLLER_LIST_INVALID),
        (attach(4, &[1]), Status::INVALID_FIELD),
        (attach(5, &[1]), Status::INVALID_NAMESPACE_OR_FORMAT),
    ] {
        assert_eq!(send(&mut host, &command), never(expected), "{command:?}");
    }
    let detach = DetachNamespace { nsid: 1, controllers: vec![1] };
    assert_eq!(send(&mut host, &detach), Ok(0));
    assert_eq!(send(&mut host, &detach), never(Status::NAMESPACE_NOT_ATTACHED));
    // 512 KiB are left: 256 KiB behind each of the two, not in one piece for the larger one.
    assert_eq!(controller(&mut host).unallocated_capacity(), 512 << 10);
    assert_eq!(send(&mut host, &CreateNamespace::new(1025, 0)), full);
    assert_eq!(send(&mut host, &CreateNamespace::new(1, 11)), never(Status::INVALID_FORMAT));
    let thin = CreateNamespace { capacity: 1, ..CreateNamespace::new(2, 0) };
    assert_eq!(send(&mut host, &thin), never(Status::THIN_PROVISIONING_NOT_SUPPORTED));
    assert_eq!(send(&mut host, &CreateNamespace::new(1, 0)), Ok(4));
    assert_eq!(send(&mut host, &CreateNamespace::new(1, 0)), never(Status::NAMESPACE_ID_UNAVAILABLE));
    assert_eq!(send(&mut host, &DeleteNamespace { nsid: ALL_NAMESPACES }), Ok(0));
    assert_eq!(list(&mut host, Cns::ALLOCATED_NAMESPACES), []);
    assert_eq!(send(&mut host, &CreateNamespace::new(4096, 0)), Ok(1), "all of the medium");
}

#[test]
fn a_format_changes_the_block_size_and_loses_the_data() {
    let mut host = Host::new("size=1M,namespaces=2");
    let mut queue = host.queue(1, [16, 16], None);
    host.set(0, &[7; PAGE]);
    for nsid in [1, 2] {
        assert_eq!(queue.status(host.with_page(Command::write(nsid, 0, 8))), Status::SUCCESS);
    }
    let mark = Command { opcode: NvmOpcode::WRITE_UNCORRECTABLE.0, nsid: 1, cdw10: 3, ..Command::default() };
    assert_eq!(queue.status(mark), Status::SUCCESS);
    let read = host.with_page(Command::read(1, 3, 1));
    assert_eq!(queue.status(read), Status::UNRECOVERED_READ_ERROR);
    let format = |nsid, format| FormatNvm { nsid, format, ..FormatNvm::default() };
    assert_eq!(send(&mut host, &format(1, 1)), Ok(0));
    let id = identify(&mut host, Cns::NAMESPACE, 1);
    assert_eq!((id.nsze, id.block_size(), id.format_index()), (256, Some(4096), 1));
    host.set(0, &[0xee; PAGE]);
    assert_eq!(queue.status(host.with_page(Command::read(1, 0, 1))), Status::SUCCESS);
    assert_eq!(host.bytes(0, PAGE), [0; PAGE]);
    assert_eq!(queue.status(host.with_page(Command::read(2, 0, 8))), Status::SUCCESS);
    assert_eq!(host.bytes(0, PAGE), [7; PAGE], "the other one has its data");
    for (command, expected) in [
        (format(1, 11), Status::INVALID_FORMAT),
        (FormatNvm { protection: 4, ..format(1, 2) }, Status::INVALID_FORMAT),
        (FormatNvm { protection: 1, ..format(1, 0) }, Status::INVALID_FORMAT),
        (FormatNvm { extended_metadata: true, ..format(1, 0) }, Status::INVALID_FORMAT),
        (format(3, 0), Status::INVALID_NAMESPACE_OR_FORMAT),
    ] {
        assert_eq!(send(&mut host, &command), never(expected), "{command:?}");
    }
    assert_eq!(send(&mut host, &format(ALL_NAMESPACES, 1)), Ok(0));
    assert_eq!(identify(&mut host, Cns::NAMESPACE, 2).block_size(), Some(4096));
}

#[test]
fn a_sanitize_refuses_io_until_it_has_ended() {
    let mut host = Host::new("size=1M,namespaces=2");
    let mut queue = host.queue(1, [16, 16], None);
    host.set(0, &[7; PAGE]);
    assert_eq!(queue.status(host.with_page(Command::write(1, 0, 8))), Status::SUCCESS);
    let never_done: SanitizeStatusLog = log(&mut host, LogPageId::SANITIZE_STATUS);
    assert_eq!((never_done.progress, never_done.status.operation()), (0xffff, 0));
    host.admin.put(&Command { cid: 0x99, ..Command::asynchronous_event_request() });
    host.admin.ring();
    // 16 passes: time to look.
    let overwrite = Sanitize { passes: 0, ..Sanitize::new(SanitizeAction::OVERWRITE) };
    assert_eq!(send(&mut host, &overwrite), Ok(0));
    let running: SanitizeStatusLog = log(&mut host, LogPageId::SANITIZE_STATUS);
    assert_eq!((running.status.operation(), running.command_dword_10), (2, 3));
    let busy = exact(Status::SANITIZE_IN_PROGRESS);
    assert_eq!(exact(queue.status(host.with_page(Command::read(1, 0, 1)))), busy);
    assert_eq!(send(&mut host, &FormatNvm { nsid: 1, ..FormatNvm::default() }), Err(busy.0));
    // It goes on after a reset.
    host.write_u32(0x14, 0).unwrap();
    host.enable();
    let mut queue = host.queue(1, [16, 16], None);
    host.admin.put(&Command { cid: 0x99, ..Command::asynchronous_event_request() });
    host.admin.ring();
    let done = host.admin.wait();
    let event = AsyncEvent::from_bits(done.dw0);
    assert_eq!((done.cid, event.kind()), (0x99, AsyncEventType::COMMAND_SET));
    assert_eq!(event.information(), CommandSetEvent::SANITIZE_COMPLETED.0);
    let ended: SanitizeStatusLog = log(&mut host, event.log_page());
    assert_eq!((ended.progress, ended.status.operation()), (0xffff, 1));
    assert!(ended.status.global_data_erased());
    host.set(0, &[0xee; PAGE]);
    assert_eq!(queue.status(host.with_page(Command::read(1, 0, 8))), Status::SUCCESS);
    assert_eq!(host.bytes(0, PAGE), [0; PAGE]);
    assert_eq!(queue.status(host.with_page(Command::write(1, 0, 8))), Status::SUCCESS);
    let written: SanitizeStatusLog = log(&mut host, LogPageId::SANITIZE_STATUS);
    assert!(!written.status.global_data_erased());
    // Progress only grows.
    assert_eq!(send(&mut host, &overwrite), Ok(0));
    let mut before = 0;
    until("the sanitize does not end", || {
        let now: SanitizeStatusLog = log(&mut host, LogPageId::SANITIZE_STATUS);
        assert!(now.progress >= before, "{now}");
        before = now.progress;
        now.status.operation() == 1
    });
    for action in [SanitizeAction(0), SanitizeAction::EXIT_MEDIA_VERIFICATION, SanitizeAction(7)] {
        assert_eq!(send(&mut host, &Sanitize::new(action)), never(Status::INVALID_FIELD), "{action}");
    }
    assert_eq!(send(&mut host, &Sanitize::new(SanitizeAction::EXIT_FAILURE)), Ok(0));
}

#[test]
fn self_tests_have_progress_and_results() {
    let mut host = Host::new("size=1M");
    let test = |nsid, code| SelfTest { nsid, code };
    assert_eq!(send(&mut host, &test(0, SelfTestCode::ABORT)), Ok(0), "there is none");
    assert_eq!(send(&mut host, &test(0, SelfTestCode::EXTENDED)), Ok(0));
    let running: SelfTestLog = log(&mut host, LogPageId::DEVICE_SELF_TEST);
    assert_eq!((running.current_operation, running.results().len()), (2, 0));
    let busy = never(Status::SELF_TEST_IN_PROGRESS);
    assert_eq!(send(&mut host, &test(0, SelfTestCode::SHORT)), busy);
    // An extended test goes on after a reset.
    host.write_u32(0x14, 0).unwrap();
    host.enable();
    assert_eq!(send(&mut host, &test(0, SelfTestCode::SHORT)), busy);
    assert_eq!(send(&mut host, &test(0, SelfTestCode::ABORT)), Ok(0));
    assert_eq!(send(&mut host, &test(1, SelfTestCode::SHORT)), Ok(0));
    until("the short test does not end", || {
        let log: SelfTestLog = log(&mut host, LogPageId::DEVICE_SELF_TEST);
        log.current_operation == 0
    });
    let ended: SelfTestLog = log(&mut host, LogPageId::DEVICE_SELF_TEST);
    let results: Vec<_> =
        ended.results().iter().map(|result| (result.status.test(), result.status.result())).collect();
    assert_eq!(results, [(1, 0), (2, 1)]);
    assert_eq!(ended.results()[0].namespace_id.get(), 1);
    assert_eq!(send(&mut host, &test(9, SelfTestCode::SHORT)), never(Status::INVALID_NAMESPACE_OR_FORMAT));
    assert_eq!(send(&mut host, &test(0, SelfTestCode(4))), never(Status::INVALID_FIELD));
}

#[test]
fn firmware_is_stored_and_activated() {
    let mut host = Host::new("size=1M");
    let image = |revision: &[u8; 8]| [&revision[..], &[0; PAGE - 8]].concat();
    let commit = |slot, action| FirmwareCommit { slot, action, boot_partition: 0 };
    let download = |host: &mut Host, revision: &[u8; 8]| {
        let image = image(revision);
        // From the end, since the parts may come in any order.
        for offset in [PAGE, 0] {
            let data = if offset == 0 { &image[..] } else { &[9; PAGE] };
            assert_eq!(send(host, &FirmwareDownload { offset: offset as u32, data }), Ok(0));
        }
    };
    assert_eq!(send(&mut host, &commit(2, CommitAction::STORE)), never(Status::INVALID_FIRMWARE_IMAGE));
    download(&mut host, b"2.0     ");
    let overlap = FirmwareDownload { offset: 0, data: &[1; 8] };
    assert_eq!(send(&mut host, &overlap), never(Status::OVERLAPPING_RANGE));
    assert_eq!(send(&mut host, &commit(1, CommitAction::STORE)), never(Status::INVALID_FIRMWARE_SLOT));
    assert_eq!(send(&mut host, &commit(4, CommitAction::STORE)), never(Status::INVALID_FIRMWARE_SLOT));
    assert_eq!(send(&mut host, &commit(2, CommitAction::STORE_AND_ACTIVATE)), Ok(0));
    let slots: FirmwareSlotLog = log(&mut host, LogPageId::FIRMWARE_SLOT);
    assert_eq!((slots.active_slot(), slots.next_slot()), (1, Some(2)));
    assert_eq!(controller(&mut host).firmware(), "1.0");
    host.write_u32(0x14, 0).unwrap();
    host.enable();
    let slots: FirmwareSlotLog = log(&mut host, LogPageId::FIRMWARE_SLOT);
    assert_eq!(
        (slots.active_slot(), slots.next_slot(), slots.revision(2).as_deref()),
        (2, None, Some("2.0"))
    );
    assert_eq!(controller(&mut host).firmware(), "2.0");
    // At once, into the slot that is not in use.
    download(&mut host, b"3.0     ");
    assert_eq!(send(&mut host, &commit(0, CommitAction::ACTIVATE_NOW)), Ok(0));
    assert_eq!(controller(&mut host).firmware(), "3.0");
    // A part that is missing, and a revision that is none.
    for offset in [8192, 0] {
        assert_eq!(send(&mut host, &FirmwareDownload { offset, data: b"4.0     " }), Ok(0), "{offset}");
    }
    assert_eq!(send(&mut host, &commit(2, CommitAction::STORE)), never(Status::INVALID_FIRMWARE_IMAGE));
    assert_eq!(send(&mut host, &FirmwareDownload { offset: 0, data: &[1; 8] }), Ok(0));
    assert_eq!(send(&mut host, &commit(2, CommitAction::STORE)), never(Status::INVALID_FIRMWARE_IMAGE));
    let odd = FirmwareDownload { offset: 8, data: &[1; 8] };
    assert_eq!(send(&mut host, &odd), never(Status::INVALID_FIELD), "FWUG");
}

/// Nothing changes a medium that is write protected.
#[test]
fn a_protected_medium_stays_as_it_is() {
    let mut host = Host::new("size=1M,ro=true");
    let protected = never(Status::WRITE_PROTECTED);
    assert_eq!(send(&mut host, &DeleteNamespace { nsid: 1 }), protected);
    assert_eq!(send(&mut host, &CreateNamespace::new(1, 0)), protected);
    assert_eq!(send(&mut host, &FormatNvm { nsid: 1, ..FormatNvm::default() }), protected);
    assert_eq!(send(&mut host, &Sanitize::new(SanitizeAction::BLOCK_ERASE)), protected);
}

#[test]
fn the_host_tells_its_time_and_behavior() {
    let mut host = Host::new("size=1M");
    let get = |host: &mut Host, fid| host.page(Command::get_features(fid, FeatureSelect::CURRENT));
    let set = |host: &mut Host, fid, data: &[u8]| {
        host.set(0, data);
        let command = host.with_page(Command::set_features(fid, 0));
        host.admin.status(command)
    };
    // Since power-on, until a host sets it.
    assert_eq!(get(&mut host, FeatureId::TIMESTAMP)[6], 0);
    let time = 1_700_000_000_000_u64;
    assert_eq!(set(&mut host, FeatureId::TIMESTAMP, &time.to_le_bytes()), Status::SUCCESS);
    host.write_u32(0x14, 0).unwrap();
    host.enable();
    let shown = get(&mut host, FeatureId::TIMESTAMP);
    let now = u64::from_le_bytes(*shown.first_chunk().unwrap()) & ((1 << 48) - 1);
    assert!((time..time + 60_000).contains(&now), "{now}");
    assert_eq!(shown[6], 1 << 1, "set by a host");
    let mut behavior = [0; 512];
    behavior[0] = 1;
    assert_eq!(set(&mut host, FeatureId::HOST_BEHAVIOR_SUPPORT, &behavior), Status::SUCCESS);
    assert_eq!(get(&mut host, FeatureId::HOST_BEHAVIOR_SUPPORT)[..512], behavior);
    behavior[0] = 2;
    assert_eq!(set(&mut host, FeatureId::HOST_BEHAVIOR_SUPPORT, &behavior), Status::INVALID_FIELD);
}

#[test]
fn a_host_without_a_sign_of_life_is_given_up() {
    let mut host = Host::new("size=1M");
    let timer = |ms| Command::set_features(FeatureId::KEEP_ALIVE_TIMER, ms);
    assert_eq!(host.admin.status(timer(60_000)), Status::SUCCESS);
    let get = Command::get_features(FeatureId::KEEP_ALIVE_TIMER, FeatureSelect::CURRENT);
    assert_eq!(host.admin.run(get).result(), Ok(60_000));
    assert_eq!(host.admin.status(admin(0x18, 0, 0, 0)), Status::SUCCESS);
    assert_eq!(host.csts() & 2, 0);
    // Rounded up to 100 ms.
    assert_eq!(host.admin.status(timer(1)), Status::SUCCESS);
    until("the controller goes on", || {
        host.admin.ring();
        host.csts() & 2 != 0
    });
    host.write_u32(0x14, 0).unwrap();
    host.enable();
    assert_eq!(host.admin.run(get).result(), Ok(0), "off after a reset");
}
