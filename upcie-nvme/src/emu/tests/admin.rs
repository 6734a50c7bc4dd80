//! Admin commands: their answers and their errors.

use super::host::{Host, PAGE, admin, exact};
use crate::spec::{
    ALL_NAMESPACES, AdminOpcode, AsyncEvent, AsyncEventType, Cns, Command, CommandsSupportedLog,
    ErrorLogEntry, FeatureId, FeatureSelect, FeaturesSupportedLog, FirmwareSlotLog, IdentifyController,
    IdentifyNamespace, LogPageId, NamespaceList, NumberOfQueues, QueuePriority, SmartLog, Status,
    SupportedLogPages,
};
use upcie_core::irq::{EventFd, IrqKind};
use zerocopy::FromBytes;

#[test]
fn identify_data_follows_the_options() {
    let mut host = Host::new("size=64M,lba=512+4096,namespaces=3,mdts=128K,serial=S-1");
    let page = host.page(Command::identify(Cns::CONTROLLER, 0, 0));
    let id = IdentifyController::read_from_bytes(&page).unwrap();
    assert_eq!((id.serial().as_str(), id.nn, id.max_transfer(4096)), ("S-1", 3, Some(128 << 10)));
    assert_eq!((id.sqes, id.cqes, id.ver, id.cntrltype), (0x66, 0x44, 0x0001_0400, 1));
    assert!(!id.has_volatile_cache() && id.subsystem_name().starts_with("nqn.2014-08.org.nvmexpress:uuid:"));
    for (nsid, block) in [(1, 512), (2, 4096), (3, 4096)] {
        let page = host.page(Command::identify(Cns::NAMESPACE, nsid, 0));
        let id = IdentifyNamespace::read_from_bytes(&page).unwrap();
        assert_eq!((id.block_size(), id.nsze * block), (Some(block), 64 << 20));
    }
    for (above, expected) in [(0, vec![1, 2, 3]), (2, vec![3]), (3, vec![]), (0xffff_fffd, vec![])] {
        let page = host.page(Command::identify(Cns::ACTIVE_NAMESPACES, above, 0));
        let list = NamespaceList::read_from_bytes(&page).unwrap();
        let found: Vec<u32> = list.nsids.into_iter().take_while(|&nsid| nsid != 0).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn every_admin_error_is_the_specified_one() {
    let mut host = Host::new("queues=4,depth=64,vectors=3,namespaces=2,mdts=8K");
    let _queue = host.queue(1, [8, 8], None);
    let page = host.iova(PAGE);
    let cq = |qid, entries, at, vector| Command::create_completion_queue(qid, entries, at, vector);
    let sq = |qid, entries, at, cqid| {
        Command::create_submission_queue(qid, entries, at, cqid, QueuePriority::MEDIUM)
    };
    let get = |fid, select| Command::get_features(FeatureId(fid), FeatureSelect(select));
    let set = |fid, value| Command::set_features(FeatureId(fid), value);
    let log = |lid, nsid, bytes, offset| Command::get_log_page(LogPageId(lid), nsid, bytes, offset);
    let discontiguous = |command: Command| Command { cdw11: command.cdw11 & !1, ..command };
    let id = |cns, nsid| Command::identify(Cns(cns), nsid, 0);
    let table = [
        // Opcodes and the fields of all commands.
        (admin(0x03, 0, 0, 0), Status::INVALID_OPCODE),
        (admin(0x81, 1, 0, 0), Status::INVALID_OPCODE),
        (admin(0xff, 0, 0, 0), Status::INVALID_OPCODE),
        (Command { flags: 0x40, ..id(1, 0) }, Status::INVALID_FIELD),
        (Command { flags: 0x01, ..id(1, 0) }, Status::INVALID_FIELD),
        // Identify.
        (id(0x00, 0), Status::INVALID_NAMESPACE_OR_FORMAT),
        (id(0x00, 3), Status::INVALID_NAMESPACE_OR_FORMAT),
        (id(0x11, 3), Status::INVALID_NAMESPACE_OR_FORMAT),
        (id(0x12, 3), Status::INVALID_NAMESPACE_OR_FORMAT),
        (id(0x10, ALL_NAMESPACES), Status::INVALID_NAMESPACE_OR_FORMAT),
        (id(0x02, 0xffff_fffe), Status::INVALID_NAMESPACE_OR_FORMAT),
        (id(0x02, ALL_NAMESPACES), Status::INVALID_NAMESPACE_OR_FORMAT),
        (id(0x03, 0), Status::INVALID_NAMESPACE_OR_FORMAT),
        (id(0x04, 0), Status::INVALID_FIELD),
        (id(0xff, 1), Status::INVALID_FIELD),
        // Completion queues.
        (cq(0, 8, page, None), Status::INVALID_QUEUE_ID),
        (cq(1, 8, page, None), Status::INVALID_QUEUE_ID),
        (cq(5, 8, page, None), Status::INVALID_QUEUE_ID),
        (cq(0xffff, 8, page, None), Status::INVALID_QUEUE_ID),
        (admin(0x05, 0, 2, 1), Status::INVALID_QUEUE_SIZE),
        (cq(2, 65, page, None), Status::INVALID_QUEUE_SIZE),
        (cq(2, 8, page + 16, None), Status::PRP_OFFSET_INVALID),
        (cq(2, 8, page, Some(3)), Status::INVALID_INTERRUPT_VECTOR),
        (discontiguous(cq(2, 8, page, None)), Status::INVALID_FIELD),
        // Submission queues.
        (sq(0, 8, page, 1), Status::INVALID_QUEUE_ID),
        (sq(1, 8, page, 1), Status::INVALID_QUEUE_ID),
        (sq(5, 8, page, 1), Status::INVALID_QUEUE_ID),
        (admin(0x01, 0, 2, 1 | 1 << 16), Status::INVALID_QUEUE_SIZE),
        (sq(2, 65, page, 1), Status::INVALID_QUEUE_SIZE),
        (sq(2, 8, page + 64, 1), Status::PRP_OFFSET_INVALID),
        (sq(2, 8, page, 0), Status::INVALID_QUEUE_ID),
        (sq(2, 8, page, 5), Status::INVALID_QUEUE_ID),
        (sq(2, 8, page, 2), Status::COMPLETION_QUEUE_INVALID),
        (discontiguous(sq(2, 8, page, 1)), Status::INVALID_FIELD),
        // Their deletion.
        (Command::delete_submission_queue(0), Status::INVALID_QUEUE_ID),
        (Command::delete_submission_queue(2), Status::INVALID_QUEUE_ID),
        (Command::delete_completion_queue(0), Status::INVALID_QUEUE_ID),
        (Command::delete_completion_queue(2), Status::INVALID_QUEUE_ID),
        (Command::delete_completion_queue(1), Status::INVALID_QUEUE_DELETION),
        // Features.
        (get(0x00, 0), Status::INVALID_FIELD),
        (get(0x06, 0), Status::INVALID_FIELD),
        (get(0xc0, 0), Status::INVALID_FIELD),
        (get(0x07, 4), Status::INVALID_FIELD),
        (Command { nsid: 3, ..get(0x05, 0) }, Status::INVALID_NAMESPACE_OR_FORMAT),
        (set(0x05, 0), Status::INVALID_NAMESPACE_OR_FORMAT),
        (admin(0x0a, 0, 0x09, 3), Status::INVALID_FIELD),
        (set(0x00, 0), Status::INVALID_FIELD),
        (set(0x02, 1), Status::INVALID_FIELD),
        (set(0x04, 1 << 16), Status::INVALID_FIELD),
        (set(0x07, 3 | 3 << 16), Status::COMMAND_SEQUENCE_ERROR),
        (set(0x07, 0xffff), Status::INVALID_FIELD),
        (set(0x09, 3), Status::INVALID_FIELD),
        (admin(0x09, 0, 0x8000_0001, 0), Status::FEATURE_NOT_SAVEABLE),
        (admin(0x09, 1, 0x01, 0), Status::FEATURE_NOT_NAMESPACE_SPECIFIC),
        (admin(0x09, 9, 0x05, 0), Status::INVALID_NAMESPACE_OR_FORMAT),
        (admin(0x09, 1, 0x05, 1 << 16), Status::INVALID_FIELD),
        // Log pages.
        (log(0x09, ALL_NAMESPACES, 512, 0), Status::INVALID_LOG_PAGE),
        (log(0x7f, ALL_NAMESPACES, 512, 0), Status::INVALID_LOG_PAGE),
        (log(0x02, 1, 512, 0), Status::INVALID_FIELD),
        (log(0x02, 0, 8192 + 4, 0), Status::INVALID_FIELD),
        (log(0x02, 0, 512, 516), Status::INVALID_FIELD),
        (log(0x02, 0, 512, 1 << 40), Status::INVALID_FIELD),
        (Command { cdw12: 2, ..log(0x02, 0, 4, 0) }, Status::INVALID_FIELD),
        // Abort of a queue that is not there.
        (Command::abort(3, 0), Status::INVALID_FIELD),
    ];
    for (index, (command, expected)) in table.into_iter().enumerate() {
        // Queue creation brings its own pointer.
        let mut command = Command { cid: index as u16, ..command };
        if command.prp1() == 0 {
            command = host.with_page(command);
        }
        let status = host.admin.status(command);
        assert_eq!(exact(status), (expected, true), "{index}: {command:?}");
    }
    for (prp1, prp2, bytes, expected) in [
        (host.iova(2), 0, 4096, Status::PRP_OFFSET_INVALID),
        (host.iova(64), host.iova(64), 4096, Status::PRP_OFFSET_INVALID),
        (host.iova(64), host.iova(4096), 4096, Status::SUCCESS),
        (0x7fff_0000_0000, 0, 4096, Status::DATA_TRANSFER_ERROR),
    ] {
        let mut command = id(1, 0);
        command.set_data_pointer(prp1, prp2);
        assert_eq!(host.admin.status(command), expected, "{bytes}");
    }
    let newest = host.page(log(0x01, 0, 4096, 0));
    let entry = ErrorLogEntry::read_from_prefix(&newest).unwrap().0;
    assert_eq!((entry.status(), entry.sqid), (Status::DATA_TRANSFER_ERROR, 0));
}

#[test]
fn queues_are_created_and_deleted_in_order() {
    let mut host = Host::new("size=1M");
    for _ in 0..3 {
        let mut queue = host.queue(7, [4, 4], None);
        assert_eq!(queue.status(Command::flush(1)), Status::SUCCESS);
        assert_eq!(host.admin.status(Command::delete_submission_queue(7)), Status::SUCCESS);
        assert_eq!(host.admin.status(Command::delete_completion_queue(7)), Status::SUCCESS);
    }
}

#[test]
fn features_keep_their_values_until_a_reset() {
    let mut host = Host::new("queues=8,namespaces=2");
    let get = |host: &mut Host, fid, select| {
        let done = host.admin.run(Command::get_features(fid, FeatureSelect(select)));
        done.result().unwrap()
    };
    for fid in [0x01, 0x02, 0x04, 0x07, 0x08, 0x09, 0x0a, 0x0b] {
        for select in 0..3 {
            get(&mut host, FeatureId(fid), select);
        }
        assert_eq!(get(&mut host, FeatureId(fid), 3), 4, "changeable");
    }
    let asked = NumberOfQueues::of(3, 100).into_bits();
    let got = host.admin.run(Command::set_features(FeatureId::NUMBER_OF_QUEUES, asked)).result().unwrap();
    assert_eq!(got, NumberOfQueues::of(3, 8).into_bits());
    assert_eq!(get(&mut host, FeatureId::NUMBER_OF_QUEUES, 0), got);
    assert_eq!(get(&mut host, FeatureId::NUMBER_OF_QUEUES, 1), NumberOfQueues::of(8, 8).into_bits());
    let recovery = Command { nsid: ALL_NAMESPACES, ..Command::set_features(FeatureId::ERROR_RECOVERY, 7) };
    assert_eq!(host.admin.status(recovery), Status::SUCCESS);
    let read =
        Command { nsid: 2, ..Command::get_features(FeatureId::ERROR_RECOVERY, FeatureSelect::CURRENT) };
    assert_eq!(host.admin.run(read).result(), Ok(7));
    // Hosts may ask without a namespace, and get the first one's value.
    let first = Command { nsid: 1, ..Command::set_features(FeatureId::ERROR_RECOVERY, 9) };
    assert_eq!(host.admin.status(first), Status::SUCCESS);
    for (nsid, value) in [(0, 9), (ALL_NAMESPACES, 9), (1, 9), (2, 7)] {
        assert_eq!(host.admin.run(Command { nsid, ..read }).result(), Ok(value), "namespace {nsid:#x}");
    }
    assert_eq!(get(&mut host, FeatureId::ERROR_RECOVERY, 1), 0, "the default");
    assert_eq!(get(&mut host, FeatureId::ERROR_RECOVERY, 3), 0b110, "changeable, of a namespace");
    host.write_u32(0x14, 0).unwrap();
    host.enable();
    assert_eq!(host.admin.run(read).result(), Ok(0));
    assert_eq!(get(&mut host, FeatureId::NUMBER_OF_QUEUES, 0), NumberOfQueues::of(8, 8).into_bits());
}

#[test]
fn log_pages_can_be_read_in_parts() {
    let mut host = Host::new("size=1M");
    let mut queue = host.queue(1, [4, 4], None);
    assert_eq!(queue.status(Command { cid: 77, ..Command::read(9, 0x123, 1) }).code(), 0x0b);
    let mut read = Command::read(1, 0, 8);
    read.set_data_pointer(host.iova(0), 0);
    assert_eq!(queue.status(read), Status::SUCCESS);

    let smart = host.page(Command::get_log_page(LogPageId::SMART, ALL_NAMESPACES, 512, 0));
    let log = SmartLog::read_from_prefix(&smart).unwrap().0;
    assert_eq!((log.temperature(), log.host_read_commands(), log.data_units_read()), (300, 1, 1));
    assert_eq!((log.error_log_entries(), log.warnings().bits()), (1, 0));
    assert_eq!(smart[512], 0xee, "no more than asked for");
    let part = host.page(Command::get_log_page(LogPageId::SMART, ALL_NAMESPACES, 8, 32));
    assert_eq!((&part[..8], part[8]), (&smart[32..40], 0xee));
    let firmware = host.page(Command::get_log_page(LogPageId::FIRMWARE_SLOT, 0, 512, 0));
    let log = FirmwareSlotLog::read_from_prefix(&firmware).unwrap().0;
    assert_eq!((log.active_slot(), log.revision(1).as_deref()), (1, Some("1.0")));
    let errors = host.page(Command::get_log_page(LogPageId::ERROR_INFORMATION, 0, 128, 0));
    let entry = ErrorLogEntry::read_from_prefix(&errors).unwrap().0;
    assert_eq!((entry.error_count, entry.sqid, entry.cid, entry.nsid, entry.lba), (1, 1, 77, 9, 0x123));
    assert_eq!(errors[64..128], [0; 64]);
}

#[test]
fn event_requests_wait_for_an_event_or_an_abort() {
    let mut host = Host::new("");
    let request = |cid| Command { cid, ..Command::asynchronous_event_request() };
    for cid in 10..14 {
        host.admin.put(&request(cid));
    }
    host.admin.ring();
    host.admin.silent();
    let fifth = host.admin.run(request(14));
    assert_eq!(exact(fifth.status()), (Status::ASYNC_EVENT_LIMIT_EXCEEDED, true));

    host.admin.put(&Command { cid: 20, ..Command::abort(0, 11) });
    host.admin.ring();
    let done = [host.admin.wait(), host.admin.wait()].map(|done| (done.cid, done.status().code(), done.dw0));
    assert!(done.contains(&(11, 0x07, 0)) && done.contains(&(20, 0, 0)), "{done:?}");
    assert_eq!(host.admin.run(Command::abort(0, 11)).dw0, 1, "it is over");

    // A temperature threshold below the temperature, before and after the event is enabled.
    let threshold = |kelvin| Command::set_features(FeatureId::TEMPERATURE_THRESHOLD, kelvin);
    assert_eq!(host.admin.status(threshold(290)), Status::SUCCESS);
    host.admin.silent();
    assert_eq!(host.admin.status(threshold(400)), Status::SUCCESS);
    assert_eq!(
        host.admin.status(Command::set_features(FeatureId::ASYNC_EVENT_CONFIGURATION, 2)),
        Status::SUCCESS
    );
    let event = |host: &mut Host| {
        host.admin.put(&Command { cid: 30, ..threshold(290) });
        host.admin.ring();
        let mut done = [host.admin.wait(), host.admin.wait()];
        done.sort_by_key(|done| done.cid);
        done[0]
    };
    let first = event(&mut host);
    let told = AsyncEvent::from_bits(first.dw0);
    assert_eq!((first.cid, told.kind(), told.log_page()), (10, AsyncEventType::SMART, LogPageId::SMART));
    // Not again before the log was read.
    assert_eq!(host.admin.status(threshold(400)), Status::SUCCESS);
    assert_eq!(host.admin.status(threshold(290)), Status::SUCCESS);
    host.admin.silent();
    let retain = Command::get_log_page(LogPageId::SMART, 0, 512, 0);
    let retain = host.with_page(Command { cdw10: retain.cdw10 | 1 << 15, ..retain });
    assert_eq!(host.admin.status(retain), Status::SUCCESS);
    host.admin.silent();
    // The page tells what has happened until now; only later events are reported.
    host.page(Command::get_log_page(LogPageId::SMART, 0, 512, 0));
    host.admin.silent();
    assert_eq!(host.admin.status(threshold(400)), Status::SUCCESS);
    assert_eq!(event(&mut host).cid, 12);
}

#[test]
fn notices_are_masked_until_their_log_is_read() {
    let mut host = Host::new("");
    let raise = |information: u8, page: LogPageId, nsid| {
        let event = AsyncEvent::new().with_kind(AsyncEventType::NOTICE).with_information(information);
        Command { cdw11: nsid, ..admin(0xc0, 0, event.with_log_page(page).into_bits(), 0) }
    };
    let (firmware, list) = (LogPageId::FIRMWARE_SLOT, LogPageId::CHANGED_NAMESPACES);
    for cid in [10, 11] {
        host.admin.put(&Command { cid, ..Command::asynchronous_event_request() });
    }
    host.admin.ring();
    assert_eq!(host.admin.status(raise(0, list, 1)), Status::SUCCESS);
    host.admin.silent();
    let wanted = Command::set_features(FeatureId::ASYNC_EVENT_CONFIGURATION, 0x300);
    assert_eq!(host.admin.status(wanted), Status::SUCCESS);
    let mut told = |command: Command, count| {
        host.admin.put(&host.with_page(Command { cid: 30, ..command }));
        host.admin.ring();
        let mut done: Vec<_> = (0..count).map(|_| host.admin.wait()).collect();
        done.retain(|done| done.cid != 30);
        host.admin.silent();
        done.pop().map(|done| AsyncEvent::from_bits(done.dw0).log_page())
    };
    assert_eq!(told(raise(1, firmware, 0), 2), Some(firmware));
    assert_eq!(told(raise(0, list, 7), 1), None, "another notice is not read yet");
    assert_eq!(told(raise(0, list, 3), 1), None);
    let read = |page| Command::get_log_page(page, 0, 4096, 0);
    assert_eq!(told(Command::get_log_page(firmware, 0, 512, 0), 2), Some(list));
    let page = host.page(read(list));
    assert_eq!((page[..12].to_vec(), page[4095]), (vec![3, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0], 0));
    assert_eq!(host.page(read(list))[..8], [0; 8], "it was read");
}

#[test]
fn an_abort_finds_a_delayed_command() {
    let mut host = Host::new("size=1M,latency=5s");
    let mut queue = host.queue(1, [8, 8], None);
    queue.put(&Command { cid: 5, ..Command::flush(1) });
    queue.put(&Command { cid: 6, ..Command::flush(1) });
    queue.ring();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(host.admin.run(Command::abort(1, 6)).dw0, 0);
    let done = queue.wait();
    assert_eq!((done.cid, done.status()), (6, Status::ABORT_REQUESTED));
    assert_eq!(host.admin.run(Command::abort(1, 6)).dw0, 1);
    assert_eq!(host.admin.status(Command::delete_submission_queue(1)), Status::SUCCESS);
    assert_eq!(queue.wait().cid, 5, "what was done is told before its queue goes");
}

#[test]
fn completions_raise_their_vector() {
    let mut host = Host::new("size=1M,vectors=3");
    assert_eq!(host.device.irq_count(IrqKind::Msix).unwrap(), 3);
    let events = [0, 1, 2].map(|_| EventFd::new().unwrap());
    let fds: Vec<_> = events.iter().map(std::os::fd::AsFd::as_fd).collect();
    host.device.set_irqs(IrqKind::Msix, &fds).unwrap();
    let (mut first, mut second) = (host.queue(1, [4, 4], Some(2)), host.queue(2, [4, 4], None));
    let wait = |event: &EventFd| event.wait(std::time::Duration::from_secs(5)).unwrap();
    assert!(wait(&events[0]), "the admin queue has vector 0");
    for _ in 0..5 {
        assert_eq!(first.status(Command::flush(1)), Status::SUCCESS);
        assert!(wait(&events[2]) && events[2].take().unwrap() > 0);
        assert_eq!(second.status(Command::flush(1)), Status::SUCCESS);
    }
    assert_eq!(events[1].take().unwrap() + events[2].take().unwrap(), 0);
}

#[test]
fn unknown_opcodes_are_refused_one_by_one() {
    let mut host = Host::new("");
    for opcode in 0..=255_u8 {
        if AdminOpcode(opcode).name().is_none() && !matches!(opcode, 0xc0 | 0xc1) {
            assert_eq!(host.admin.status(admin(opcode, 0, 0, 0)), Status::INVALID_OPCODE, "{opcode:#x}");
        }
    }
}

/// The controller has the log pages, commands and features that it lists, and no others.
#[test]
fn the_lists_of_what_is_supported_are_true() {
    let mut host = Host::new("size=1M");
    let log = |lid| Command::get_log_page(LogPageId(lid), ALL_NAMESPACES, 512, 0);
    let whole = |id| Command::get_log_page(id, ALL_NAMESPACES, 4096, 0);
    let pages = host.page(whole(LogPageId::SUPPORTED_LOG_PAGES));
    let pages = SupportedLogPages::read_from_prefix(&pages).unwrap().0;
    let commands = host.page(whole(LogPageId::COMMANDS_SUPPORTED));
    let commands = CommandsSupportedLog::read_from_bytes(&commands).unwrap();
    let features = host.page(whole(LogPageId::FEATURES_SUPPORTED));
    let features = FeaturesSupportedLog::read_from_prefix(&features).unwrap().0;
    for code in 0..=u8::MAX {
        let index = usize::from(code);
        let command = host.with_page(log(code));
        let status = host.admin.status(command);
        assert_eq!(
            pages.log_pages[index].supported(),
            status == Status::SUCCESS,
            "log page {code:#x}: {status}"
        );
        let get = Command { nsid: 1, ..Command::get_features(FeatureId(code), FeatureSelect::CURRENT) };
        let get = host.with_page(get);
        let status = host.admin.status(get);
        assert_eq!(
            features.features[index].supported(),
            status == Status::SUCCESS,
            "feature {code:#x}: {status}"
        );
        // This one would not complete.
        if AdminOpcode(code) == AdminOpcode::ASYNC_EVENT_REQUEST {
            continue;
        }
        let status = host.admin.status(admin(code, 0, 0, 0));
        let unknown = status == Status::INVALID_OPCODE.with_do_not_retry();
        assert_eq!(commands.admin_commands[index].supported(), !unknown, "opcode {code:#x}: {status}");
    }
}
