//! Blocking reads and flushes, and reads of what the controller says, are sent again when the controller fails them without "do
//! not retry", after the delay that it asks for, by a simulated clock; writes are not.

use std::{sync::Arc, time::Duration};
use upcie_core::clock::Clock;
use upcie_nvme::{
    Controller, ErrorKind, IdentifyQuery, Namespace,
    emu::{Fault, FaultPlan, FaultRule},
    spec::{
        AdminOpcode, DatasetRange, IdentifyController, NvmOpcode, SmartLog, Status, StatusType,
        TemperatureThreshold,
    },
};
use upcie_tests::stepping::Stepping;

/// A controller whose commands with one opcode fail `count` times.
struct Failing {
    clock: Arc<Stepping>,
    controller: Controller,
    namespace: Namespace,
}

const TIMEOUT: Duration = Duration::from_secs(20);
/// CRDT1 to CRDT3 of the embedded controller.
const DELAYS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(60)];

fn status(delay: u16) -> Status {
    Status::from_bits(Status::new(StatusType::MEDIA, 0x81).into_bits() | delay << 11)
}

fn failing(retries: u32, rules: impl IntoIterator<Item = FaultRule>) -> Failing {
    failing_within(TIMEOUT, retries, rules)
}

fn failing_within(timeout: Duration, retries: u32, rules: impl IntoIterator<Item = FaultRule>) -> Failing {
    let clock = Stepping::new("size=1M,mdts=8K", ());
    let plan = rules.into_iter().fold(FaultPlan::new(1), FaultPlan::rule);
    clock.device.inject(&plan).unwrap();
    let controller = clock.open(Controller::builder().timeout(timeout).retries(retries));
    let namespace = controller.namespace(1).unwrap();
    Failing { clock, controller, namespace }
}

fn rule(opcode: NvmOpcode, status: Status) -> FaultRule {
    FaultRule::new(Fault::Status(status)).opcode(opcode.0)
}

impl Failing {
    /// Runs a call, and returns its status, if it failed with one, and the simulated time that it took.
    fn time(&self, call: impl FnOnce(&Self) -> upcie_nvme::Result<()>) -> (Option<Status>, Duration) {
        let start = self.clock.now();
        let result = call(self).map_err(|error| {
            assert_eq!(error.kind(), ErrorKind::Status, "{error:?}");
            assert_eq!(error.device(), Some(self.controller.name()));
            error.status().unwrap()
        });
        (result.err(), self.clock.now() - start)
    }

    fn read(&self, blocks: usize) -> upcie_nvme::Result<()> {
        self.namespace.read(0, &mut self.controller.alloc(blocks * 512)?)
    }
}

#[test]
fn a_read_is_sent_again_after_the_stated_delay() {
    for delay in 0..3_u16 {
        let failing = failing(3, [rule(NvmOpcode::READ, status(delay)).count(3)]);
        let (failed, took) = failing.time(|failing| failing.read(1));
        let expected = 3 * DELAYS[usize::from(delay)];
        assert_eq!(failed, None, "CRD {delay}");
        assert!(took >= expected && took < expected + Duration::from_millis(100), "CRD {delay}: {took:?}");
    }
}

#[test]
fn a_read_that_fails_too_often_returns_the_status() {
    for (retries, count, is_good) in [(0, 1, false), (2, 2, true), (2, 3, false)] {
        let failing = failing(retries, [rule(NvmOpcode::READ, status(1)).count(count)]);
        let (failed, _) = failing.time(|failing| failing.read(1));
        assert_eq!(failed.is_none(), is_good, "{retries} retries, {count} failures");
    }
}

/// Pieces of 8 KiB: the one that fails is sent again, and those after it; the data is that of one transfer.
#[test]
fn a_long_read_repeats_the_piece_that_failed() {
    let rules = [rule(NvmOpcode::READ, status(1)).lba(100..=100).count(2)];
    let failing =
        failing(2, rules.into_iter().chain([rule(NvmOpcode::READ, status(1)).lba(700..=700).count(2)]));
    let (namespace, controller) = (&failing.namespace, &failing.controller);
    let mut data = controller.alloc(1024 * 512).unwrap();
    for block in 0..1024_usize {
        data.write_at(block * 512, &[block as u8; 512]);
    }
    namespace.write(0, &mut data).unwrap();
    let mut back = controller.alloc(1024 * 512).unwrap();
    let (failed, took) = failing.time(|failing| failing.namespace.read(0, &mut back));
    assert_eq!(failed, None);
    assert!(took >= 4 * DELAYS[1], "{took:?}");
    for block in 0..1024_usize {
        let mut part = [0; 512];
        back.read_at(block * 512, &mut part);
        assert_eq!(part, [block as u8; 512], "block {block}");
    }
}

#[test]
fn a_flush_is_sent_again_and_writes_are_not() {
    let failing = failing(
        3,
        [NvmOpcode::FLUSH, NvmOpcode::WRITE, NvmOpcode::WRITE_ZEROES, NvmOpcode::DATASET_MANAGEMENT]
            .map(|opcode| rule(opcode, status(1)).count(1)),
    );
    let namespace = &failing.namespace;
    assert_eq!(failing.time(|_| namespace.flush()).0, None);
    let mut data = failing.controller.alloc(512).unwrap();
    assert_eq!(failing.time(|_| namespace.write(0, &mut data)).0, Some(status(1)));
    assert_eq!(failing.time(|_| namespace.write_zeroes(0, 1)).0, Some(status(1)));
    assert_eq!(failing.time(|_| namespace.deallocate(&[DatasetRange::new(0, 1)])).0, Some(status(1)));
    // Each rule has struck once.
    failing.time(|_| namespace.write(0, &mut data));
}

/// The driver's own reads of what the controller says failed with the first status.
#[test]
fn what_the_controller_says_is_read_again() {
    type Call = fn(&Controller) -> upcie_nvme::Result<()>;
    let calls: [(AdminOpcode, Call); 5] = [
        (AdminOpcode::IDENTIFY, |controller| controller.namespace(1).map(drop)),
        (AdminOpcode::IDENTIFY, |controller| controller.namespace_ids().map(drop)),
        (AdminOpcode::IDENTIFY, |controller| {
            controller.identify_as::<IdentifyController>(&IdentifyQuery::default()).map(drop)
        }),
        (AdminOpcode::GET_LOG_PAGE, |controller| controller.log::<SmartLog>().map(drop)),
        (AdminOpcode::GET_FEATURES, |controller| controller.feature::<TemperatureThreshold>().map(drop)),
    ];
    let passing = Status::INTERNAL_ERROR;
    for (retries, status, count, is_good) in [
        (2, passing, 2, true),
        (2, passing, 3, false),
        (0, passing, 1, false),
        (2, passing.with_do_not_retry(), 1, false),
    ] {
        for (index, (opcode, call)) in calls.into_iter().enumerate() {
            let clock = Stepping::new("size=1M,serial=READ-AGAIN", ());
            let controller = clock.open(Controller::builder().retries(retries));
            let rule = FaultRule::new(Fault::Status(status)).queue(0).opcode(opcode.0).count(count);
            clock.device.inject(&FaultPlan::new(1).rule(rule)).unwrap();
            let failed = call(&controller).map_err(|error| error.status()).err();
            let expected = (!is_good).then_some(Some(status));
            assert_eq!(failed, expected, "call {index}, {retries} retries, {count} failures");
            // The rule has struck as often as it can.
            assert!(call(&controller).is_ok(), "call {index}");
        }
    }
}

#[test]
fn do_not_retry_is_final() {
    let failing = failing(3, [rule(NvmOpcode::READ, status(1).with_do_not_retry()).count(1)]);
    let (failed, took) = failing.time(|failing| failing.read(1));
    assert!(failed.is_some_and(Status::do_not_retry) && took < DELAYS[1], "{took:?}");
    failing.read(1).unwrap();
}

/// A delay of a minute is more than a call of twenty seconds has: the call ends at once, with the status.
#[test]
fn a_delay_beyond_the_deadline_is_not_waited_for() {
    let failing = failing(3, [rule(NvmOpcode::READ, status(3)).count(1)]);
    let (failed, took) = failing.time(|failing| failing.read(1));
    assert_eq!(failed, Some(status(3)));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

/// Delays of half a second in a call of one second: the time of the first one counts in full.
#[test]
fn all_delays_are_within_one_deadline() {
    let failing = failing_within(Duration::from_secs(1), 9, [rule(NvmOpcode::READ, status(2))]);
    let (failed, took) = failing.time(|failing| failing.read(1));
    assert_eq!(failed, Some(status(2)));
    assert!(took >= DELAYS[2] && took < Duration::from_millis(900), "{took:?}");
}

/// Without retries the driver does not ask for delays, and the controller names none.
#[test]
fn delays_are_asked_for_with_retries_only() {
    for (retries, delay) in [(0, 0), (1, 2)] {
        let failing = failing(retries, [rule(NvmOpcode::WRITE, status(2))]);
        let mut data = failing.controller.alloc(512).unwrap();
        let (failed, _) = failing.time(|failing| failing.namespace.write(0, &mut data));
        assert_eq!(failed.unwrap().retry_delay(), delay, "{retries} retries");
    }
}
