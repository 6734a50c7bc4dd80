//! Telemetry of the embedded controller: collected on request and by itself, and read in pieces.

use upcie_nvme::{
    Controller, DmaBuf, Event, LogQuery,
    spec::{
        ALL_NAMESPACES, AdminOpcode, AsyncEvent, AsyncEventType, Command, EventKind, HostBehaviorSupport,
        LogPageId, NoticeEvent, Status, TelemetryControllerLog, TelemetryHostLog,
    },
};
use upcie_tests::{deadline, process::Server};

fn collect(controller: &Controller) -> TelemetryHostLog {
    // The log-specific parameter that makes the controller collect data.
    controller.log_with(&LogQuery { parameter: 1, ..LogQuery::default() }).unwrap()
}

/// Checks the blocks from `first` to `last` of a page, each of which repeats its number. `rest` is what follows the header, block 0.
fn check_blocks(rest: &[u8], first: u32, last: u32) {
    assert!(last > first);
    for number in first..=last {
        let block = &rest[(number as usize - 1) * 512..][..512];
        assert!(block.chunks(4).all(|word| word == number.to_le_bytes()), "block {number}");
    }
}

/// Runs a check on the controller in this process, and on one behind a socket, with a large and a small transfer limit.
fn on_each(check: impl Fn(&Controller)) {
    for options in ["size=1M", "size=1M,mdts=8K"] {
        check(&Controller::open(format!("emu:{options}")).unwrap());
        let server = Server::start(options);
        check(&Controller::open(server.address()).unwrap());
    }
}

#[test]
fn telemetry_that_a_host_asks_for_is_read_in_pieces() {
    on_each(|controller| {
        // Nothing was collected: a header alone.
        let empty = controller.log::<TelemetryHostLog>().unwrap();
        assert_eq!((empty.header.total_len(), empty.header.host_data_generation), (512, 0));
        let namespace = controller.namespace(1).unwrap();
        for _ in 0..3 {
            namespace.read_at(0, &mut [0; 512]).unwrap();
        }
        let first = collect(controller);
        let header = first.header;
        assert_eq!((header.log_page_id, header.scope, header.host_data_generation), (7, 1, 1));
        let [one, two, three] =
            [header.data_area_1_last_block, header.data_area_2_last_block, header.data_area_3_last_block];
        assert!(one < two && two < three && header.data_area_4_last_block == 0, "{header}");
        assert!(header.total_len() > 128 << 10, "more than one command reads: {}", header.total_len());
        assert_eq!(first.rest.len() as u64 + 512, header.total_len());
        let text = String::from_utf8_lossy(&first.rest[..usize::from(one) * 512]).into_owned();
        assert!(text.contains("reason: a host asked\n") && text.contains("\nreads: 3\n"), "{text}");
        check_blocks(&first.rest, u32::from(two) + 1, three.into());
        // It stays as it is until a host asks again.
        namespace.read_at(0, &mut [0; 512]).unwrap();
        assert!(controller.log::<TelemetryHostLog>().unwrap() == first);
        let second = collect(controller);
        assert_eq!(second.header.host_data_generation, 2);
        let text = String::from_utf8_lossy(&second.rest[..512]).into_owned();
        assert!(text.contains("\nreads: 4\n"), "{text}");
    });
}

#[test]
fn data_area_4_is_for_hosts_that_enable_it() {
    on_each(|controller| {
        assert_eq!(collect(controller).header.data_area_4_last_block, 0);
        let mut behavior = controller.feature::<HostBehaviorSupport>().unwrap();
        behavior.data.extended_telemetry_data_area_4 = 1;
        controller.set_feature(&behavior).unwrap();
        let log = collect(controller);
        let three = u32::from(log.header.data_area_3_last_block);
        let four = log.header.data_area_4_last_block;
        assert!(three < four, "{}", log.header);
        assert_eq!(log.header.total_len(), (u64::from(four) + 1) * 512);
        check_blocks(&log.rest, three + 1, four);
    });
}

/// Makes the controller collect data by itself: its own command raises the event.
fn happen(controller: &Controller) {
    let event = AsyncEvent::new()
        .with_kind(AsyncEventType::NOTICE)
        .with_information(NoticeEvent::TELEMETRY.0)
        .with_log_page(LogPageId::TELEMETRY_CONTROLLER);
    let mut command = Command::admin(AdminOpcode(0xc0), 0);
    command.cdw10 = event.into_bits();
    // SAFETY: the embedded controller's command has no data.
    unsafe { controller.admin_raw(&command, DmaBuf::empty()) }.unwrap();
}

#[test]
fn telemetry_of_the_controller_is_kept_until_it_was_read() {
    on_each(|controller| {
        let own = || controller.log::<TelemetryControllerLog>().unwrap();
        assert_eq!((own().header.controller_data_available, own().header.total_len()), (0, 512));
        let mut events = controller.events().unwrap();
        happen(controller);
        let event: Event = events.wait(deadline()).unwrap().expect("an event");
        assert_eq!(event.kind(), EventKind::Notice(NoticeEvent::TELEMETRY), "{event}");
        assert_eq!((event.log_page(), event.log()), (LogPageId::TELEMETRY_CONTROLLER, None));
        let first = own();
        let header = first.header;
        assert_eq!((header.log_page_id, header.scope), (8, 1));
        assert_eq!((header.controller_data_available, header.controller_data_generation), (1, 1));
        assert!(first.rest.starts_with(b"reason: a host raised the event\n"));
        assert!(header.reason_identifier.starts_with(b"a host raised the event\0"));
        check_blocks(
            &first.rest,
            u32::from(header.data_area_2_last_block) + 1,
            header.data_area_3_last_block.into(),
        );
        // The page that a host asks for tells of it, too.
        let asked = collect(controller).header;
        assert_eq!((asked.controller_data_available, asked.controller_data_generation), (1, 1));
        // Unread telemetry is not replaced, not by a reset either.
        happen(controller);
        assert!(own() == first);
        controller.reset().unwrap();
        assert!(own() == first);
        let done = LogQuery { retain_event: false, ..LogQuery::default() };
        assert!(controller.log_with::<TelemetryControllerLog>(&done).unwrap().rest == first.rest);
        assert_eq!(own().header.controller_data_available, 0);
        happen(controller);
        let header = own().header;
        assert_eq!((header.controller_data_available, header.controller_data_generation), (1, 2));
    });
}

#[test]
fn parts_of_blocks_are_refused() {
    let controller = Controller::open("emu:size=1M").unwrap();
    for (bytes, offset) in [(508, 0), (516, 0), (512, 4), (512, 256)] {
        let command = Command::get_log_page(LogPageId::TELEMETRY_HOST, ALL_NAMESPACES, bytes, offset);
        let error = controller.admin(&command, &mut vec![0; bytes as usize]).unwrap_err();
        assert_eq!(error.status(), Some(Status::INVALID_FIELD), "{bytes} at {offset}");
    }
}
