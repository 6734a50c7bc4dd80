//! Asynchronous events: a controller reports by itself what has happened, again and again, and a program waits for that.

use std::time::{Duration, Instant};
use upcie_core::irq::{IrqKind, wait_readable};
use upcie_nvme::{
    Controller, DmaBuf, Error, ErrorKind, Event, Events, Failure, Refusal, Wait,
    spec::{
        ALL_NAMESPACES, AdminOpcode, AsyncEvent, AsyncEventConfiguration, AsyncEventType, Command, EventKind,
        FeatureId, FromBytes, LogPageId, NoticeEvent, SmartEvent, SmartLog,
    },
};
use upcie_tests::{Device, deadline, on_each_device, process, says, scaled};

/// The embedded controller's own command: raises an event.
const RAISE: u8 = 0xc0;

/// Moves the threshold of the composite temperature below or far above the temperature.
fn set_threshold(controller: &Controller, is_below: bool) {
    let mut log = [0; 512];
    controller.admin(&Command::get_log_page(LogPageId::SMART, ALL_NAMESPACES, 512, 0), &mut log).unwrap();
    let now = SmartLog::read_from_bytes(&log[..]).unwrap().temperature();
    let threshold = if is_below { now - 20 } else { now + 100 };
    let command = Command::set_features(FeatureId::TEMPERATURE_THRESHOLD, threshold.into());
    controller.admin(&command, &mut []).unwrap();
}

fn next(events: &mut Events) -> Event {
    events.wait(deadline()).unwrap().expect("an event")
}

/// Raises notices with an embedded controller, each with its log page and a namespace. Returns `false` where the controller
/// has no such command.
fn raise(device: &Device, controller: &Controller, notices: &[(NoticeEvent, LogPageId, u32)]) -> bool {
    for &(notice, page, nsid) in notices {
        let event = AsyncEvent::new()
            .with_kind(AsyncEventType::NOTICE)
            .with_information(notice.0)
            .with_log_page(page);
        let mut command = Command::admin(AdminOpcode(RAISE), 0);
        (command.cdw10, command.cdw11) = (event.into_bits(), nsid);
        // SAFETY: the embedded controller's command has no data; on another controller it is an invalid opcode.
        if let Err(error) = unsafe { controller.admin_raw(&command, DmaBuf::empty()) } {
            assert!(error.status().is_some(), "{error}");
            device.lacks("notices on purpose", &error);
            return false;
        }
    }
    true
}

#[test]
fn each_event_comes_with_its_log_page() {
    on_each_device(|device| {
        let controller = device.open();
        set_threshold(&controller, false);
        let mut events = controller.events().unwrap();
        assert!(events.try_next().unwrap().is_none());
        // More often than the controller holds requests, so each event is answered by a new request.
        for round in 0..scaled(40).max(20) {
            set_threshold(&controller, true);
            let event = next(&mut events);
            assert_eq!(event.kind(), EventKind::Smart(SmartEvent::TEMPERATURE), "round {round}: {event}");
            assert_eq!((event.log_page(), event.log().map(<[u8]>::len)), (LogPageId::SMART, Some(512)));
            assert!(event.smart().unwrap().temperature() > 200, "{event:?}");
            set_threshold(&controller, false);
            assert!(events.try_next().unwrap().is_none(), "round {round}");
        }
    });
}

#[test]
fn a_program_polls_a_descriptor_for_events() {
    on_each_device(|device| {
        for kind in [IrqKind::Msix, IrqKind::Msi, IrqKind::Intx] {
            match Controller::builder().irq(kind).open(device.address()) {
                Ok(controller) => poll_a_descriptor(&controller),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                    device.lacks(&format!("a descriptor of events by {kind}"), &error);
                }
            }
        }
    });
}

fn poll_a_descriptor(controller: &Controller) {
    set_threshold(controller, false);
    let mut events = controller.events().unwrap();
    for _ in 0..4 {
        while events.try_next().unwrap().is_some() {}
        let handle = controller.clone();
        let other = std::thread::spawn(move || set_threshold(&handle, true));
        let end = Instant::now() + deadline();
        // The descriptor may be readable for the other thread's commands, too.
        let event = loop {
            assert!(Instant::now() < end, "no event");
            assert!(wait_readable(events.fd().unwrap(), deadline()).unwrap(), "nothing to read");
            if let Some(event) = events.try_next().unwrap() {
                break event;
            }
        };
        assert_eq!(event.kind(), EventKind::Smart(SmartEvent::TEMPERATURE));
        other.join().unwrap();
        set_threshold(controller, false);
    }
    // An event that another call has reaped keeps the descriptor readable.
    while events.try_next().unwrap().is_some() {}
    set_threshold(controller, true);
    controller.namespace_ids().unwrap();
    for _ in 0..2 {
        assert!(wait_readable(events.fd().unwrap(), deadline()).unwrap(), "nothing to read");
    }
    assert!(next(&mut events).smart().is_some());
    set_threshold(controller, false);
}

/// The event of one type waits while another of the type is unread, so it comes without a command of the test.
#[test]
fn a_changed_namespace_makes_its_handles_stale() {
    const FIRMWARE: (NoticeEvent, LogPageId, u32) =
        (NoticeEvent::FIRMWARE_ACTIVATION, LogPageId::FIRMWARE_SLOT, 0);
    const CHANGE: (NoticeEvent, LogPageId, u32) =
        (NoticeEvent::NAMESPACE_ATTRIBUTES, LogPageId::CHANGED_NAMESPACES, 1);
    on_each_device(|device| {
        let controller = device.open();
        let mut events = controller.events().unwrap();
        for is_idle in [false, true] {
            if !raise(device, &controller, &[FIRMWARE, CHANGE]) {
                return;
            }
            let namespace = controller.namespace(1).unwrap();
            namespace.flush().unwrap();
            let mut queue = controller.queue_pair().depth(4).create::<()>().unwrap();
            let event = next(&mut events);
            assert_eq!(event.kind(), EventKind::Notice(NoticeEvent::FIRMWARE_ACTIVATION), "{event}");
            assert_eq!((event.log_page(), event.changed_namespaces()), (LogPageId::FIRMWARE_SLOT, None));
            let end = Instant::now() + deadline();
            loop {
                assert!(Instant::now() < end, "the handle stays good");
                // A wait for completions sees the event as any admin command does.
                if is_idle {
                    assert!(!queue.wait(Wait::Poll, Duration::from_millis(60)).unwrap());
                } else {
                    controller.namespace_ids().unwrap();
                }
                let sent = queue.turn().unwrap().flush(&namespace, ());
                match sent.map_err(|refused| refused.reason) {
                    Err(reason) => break assert_eq!(reason, Refusal::StaleNamespace),
                    Ok(()) => assert!(queue.wait(Wait::Poll, deadline()).unwrap()),
                }
                queue.turn().unwrap().for_each(|done| done.result().map(drop).unwrap());
            }
            let error = namespace.flush().unwrap_err();
            assert!(matches!(error.failure(), Failure::Refused { reason: Refusal::StaleNamespace, .. }));
            let event = next(&mut events);
            assert_eq!(event.kind(), EventKind::Notice(NoticeEvent::NAMESPACE_ATTRIBUTES), "{event}");
            assert_eq!(event.changed_namespaces(), Some(vec![1]));
            controller.namespace(1).unwrap().flush().unwrap();
        }
    });
}

/// The driver asked for all events when a program turned them on, and after each reset.
#[test]
fn the_events_that_a_program_has_chosen_stay_chosen() {
    on_each_device(|device| {
        let controller = device.open();
        let chosen = AsyncEventConfiguration::new().with_smart(1 << 1);
        controller.set_feature(&chosen).unwrap();
        let events = controller.events().unwrap();
        assert_eq!(controller.feature::<AsyncEventConfiguration>().unwrap(), chosen);
        controller.reset().unwrap();
        assert_eq!(controller.feature::<AsyncEventConfiguration>().unwrap(), chosen);
        drop(events);
    });
}

#[test]
fn one_program_part_takes_the_events() {
    on_each_device(|device| {
        let controller = device.open();
        set_threshold(&controller, false);
        let first = controller.events().unwrap();
        let error = controller.events().unwrap_err();
        assert!(matches!(error.failure(), Failure::InUse { .. }), "{error}");
        says(&error, &[controller.name(), "asynchronous events", "drop it first"]);
        drop(first);
        // The requests of the first one answer the second one's events.
        let mut second = controller.events().unwrap();
        set_threshold(&controller, true);
        assert!(next(&mut second).smart().is_some());
        set_threshold(&controller, false);
    });
}

#[test]
fn a_controller_with_pending_requests_closes_at_once() {
    on_each_device(|device| {
        for _ in 0..3 {
            let controller = device.open();
            let events = controller.events().unwrap();
            drop(controller);
            // A shutdown that waited for a request would take ten seconds.
            process::within(Duration::from_secs(if upcie_tests::in_guest() { 60 } else { 8 }), || {
                drop(events)
            });
        }
    });
}

#[test]
fn a_wait_for_events_notices_that_the_controller_is_gone() {
    on_each_device(|device| {
        let controller = device.open();
        let mut events = controller.events().unwrap();
        let Some(server) = device.server() else { return };
        server.process().kill();
        let error: Error = process::within(deadline(), move || events.wait(Duration::MAX)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Gone), "{error}");
    });
}
