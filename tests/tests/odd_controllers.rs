//! Slow, unsettled or limited controllers: bring-up waits for them, or uses the part that works.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use upcie_core::clock::{Clock, SystemClock};
use upcie_nvme::{
    Controller, Failure, NoIo, Wait,
    spec::{Configuration, ControllerStatus, ShutdownNotification, ShutdownStatus, offset},
};
use upcie_tests::{
    data::Bytes,
    deadline,
    io::create,
    odd::{self, Registers},
    process::within,
    says,
};

const CAP: u64 = offset::CAP as u64;
const CC: u64 = offset::CC as u64;
const CSTS: u64 = offset::CSTS as u64;

const TIMEOUT: Duration = Duration::from_secs(30);

fn emu(options: &str) -> Controller {
    let address = format!("emu:size=4M,{options}");
    Controller::open(&address).unwrap_or_else(|error| panic!("{options}: {error:?}"))
}

/// Registers that answer reads of CSTS slowly and never become ready.
struct NeverReady {
    look: Duration,
    /// CC was written with SHN, although the controller was not ready.
    shut_down: Arc<AtomicBool>,
}

impl Registers for NeverReady {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset == CSTS {
            thread::sleep(self.look);
            data.fill(0);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        if let (CC, Ok(bytes)) = (offset, data.try_into()) {
            let cc = Configuration::from_bits(u32::from_le_bytes(bytes));
            self.shut_down.fetch_or(cc.shn() != ShutdownNotification::NONE, Ordering::Relaxed);
        }
        true
    }
}

/// Regression: bring-up read the clock after 1000 polls only, so this took minutes.
#[test]
fn slow_registers_do_not_stretch_the_deadline() {
    let shut_down = Arc::new(AtomicBool::new(false));
    let registers = NeverReady { look: Duration::from_millis(200), shut_down: shut_down.clone() };
    let start = Instant::now();
    let result = within(4 * deadline(), || odd::open("size=1M", registers, Duration::from_secs(2)));
    let error = result.unwrap_err();
    says(&error, &["odd", "RDY", "5s"]);
    assert!(start.elapsed() < deadline(), "{:?}", start.elapsed());
    assert!(!shut_down.load(Ordering::Relaxed), "a shutdown of a controller that was never ready");
}

/// Time that passes in `sleep` alone, at once, and 100 ms at least.
#[derive(Debug, Default)]
struct Hurried(AtomicU64);

impl Clock for Hurried {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn sleep(&self, time: Duration) {
        let time = time.max(Duration::from_millis(100));
        self.0.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    fn runs(&self) -> bool {
        false
    }
}

/// Since version 2.0 CRTO tells the time to become ready, which is longer than CAP.TO can tell.
#[test]
fn a_controller_gets_the_time_of_crto_to_become_ready() {
    for (options, limit) in [("size=1M", "5s"), ("size=1M,version=2.1", "150s")] {
        let registers = NeverReady { look: Duration::ZERO, shut_down: Arc::default() };
        let builder = Controller::builder().clock(Arc::new(Hurried::default()));
        let result = within(4 * deadline(), move || odd::open_with(options, registers, TIMEOUT, builder));
        says(&result.unwrap_err(), &["odd", "RDY", limit]);
    }
}

/// Registers in the state that a killed user left, for a number of reads.
struct Unsettled {
    before: ControllerStatus,
    after: ControllerStatus,
    looks: Arc<AtomicU32>,
    /// CC.EN was cleared.
    reset: bool,
    /// CC.EN was cleared before the state had settled.
    early: Arc<AtomicBool>,
}

const LOOKS: u32 = 20;

impl Registers for Unsettled {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if self.reset {
            return;
        }
        match offset {
            CC => data.copy_from_slice(&0x0046_0001_u32.to_le_bytes()),
            CSTS => {
                let looks = self.looks.fetch_add(1, Ordering::Relaxed);
                let status = if looks < LOOKS { self.before } else { self.after };
                data.copy_from_slice(&status.into_bits().to_le_bytes());
            }
            _ => {}
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        if offset == CC && data[0] & 1 == 0 {
            self.reset = true;
            self.early.store(self.looks.load(Ordering::Relaxed) <= LOOKS, Ordering::Relaxed);
        }
        true
    }
}

fn settles(before: ControllerStatus, after: ControllerStatus) {
    let (looks, early) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(true)));
    let registers = Unsettled { before, after, looks: looks.clone(), reset: false, early: early.clone() };
    let controller = odd::open("size=1M", registers, TIMEOUT).unwrap();
    assert_eq!(controller.namespace_ids().unwrap(), [1]);
    assert!(!early.load(Ordering::Relaxed), "CC.EN was cleared after {looks:?} looks");
}

/// The specification leaves clearing CC.EN while CSTS.RDY is 0 undefined.
#[test]
fn a_reset_waits_for_an_enable_under_way() {
    settles(ControllerStatus::new(), ControllerStatus::new().with_rdy(true));
}

#[test]
fn a_reset_waits_for_a_shutdown_under_way() {
    let status = |shst| ControllerStatus::new().with_rdy(true).with_shst(shst);
    settles(status(ShutdownStatus::OCCURRING), status(ShutdownStatus::COMPLETE));
}

#[test]
fn a_fatal_status_is_reset_at_once() {
    settles(ControllerStatus::new(), ControllerStatus::new().with_cfs(true));
}

/// A CAP register with one value in all bytes.
struct Cap(u8);

impl Registers for Cap {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset == CAP {
            data.fill(self.0);
        }
    }
}

#[test]
fn registers_without_a_controller_name_the_cause() {
    let open = |value| odd::open("size=1M", Cap(value), TIMEOUT).unwrap_err();
    let offline = open(0);
    says(&offline, &["odd", "CAP is 0", "virtual function", "Virtualization Management"]);
    assert!(!format!("{offline:?}").contains("command set"));
    let gone = open(0xff);
    assert!(matches!(gone.failure(), Failure::Gone { .. }), "{gone:?}");
    says(&gone, &["all ones", "powered down"]);
}

/// Writes and reads a few blocks, by a blocking call and through a queue.
fn serves(controller: &Controller) {
    let namespace = controller.namespace(1).unwrap();
    let mut buffer = controller.alloc(256 << 10).unwrap();
    buffer.bytes_mut().iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 7) as u8);
    let expected = buffer.to_vec();
    namespace.write(8, &mut buffer).unwrap();
    namespace.flush().unwrap();
    let mut queue = create::<u64>(controller.queue_pair());
    let len = namespace.max_transfer().min(buffer.len());
    let back = controller.alloc(len).unwrap();
    queue.turn().unwrap().read(&namespace, 8, back, 1).unwrap();
    assert!(queue.wait(Wait::Poll, deadline()).unwrap());
    let (_, result, back) = queue.turn().unwrap().next().unwrap().into_parts();
    result.unwrap();
    assert_eq!(back.bytes(), &expected[..len]);
    queue.close().unwrap();
    buffer.fill(0);
    namespace.read(8, &mut buffer).unwrap();
    assert!(buffer.bytes() == expected, "a blocking read after the queue");
}

#[test]
fn command_sets_and_large_pages_are_accepted() {
    for options in ["css=0", "css=0x40", "css=0x41", "mpsmin=64K", "mpsmin=16K,mdts=32K", "mpsmin=4M,mdts=8M"]
    {
        let controller = emu(options);
        controller.check_io().unwrap();
        serves(&controller);
    }
    assert_eq!(emu("mpsmin=64K").page_size(), 64 << 10);
    // Larger than a huge page.
    assert_eq!(emu("mpsmin=4M,mdts=8M").page_size(), 4 << 20);
}

#[test]
fn a_controller_without_io_opens_and_says_why() {
    for (options, part) in
        [("css=0x80", "admin commands only"), ("queues=0", "Number of Queues"), ("depth=1", "CAP.MQES is 0")]
    {
        let controller = emu(options);
        assert!(controller.identify().model().contains("uPCIe"), "{}", controller.identify().model());
        let namespace = controller.namespace(1).unwrap();
        assert!(namespace.blocks() > 0);
        let mut buffer = controller.alloc(4096).unwrap();
        let refusals = [
            controller.check_io(),
            controller.queue_pair().create::<u64>().map(drop),
            namespace.check_usable(),
            namespace.read(0, &mut buffer),
            namespace.flush(),
        ];
        for refusal in refusals {
            let error = refusal.unwrap_err();
            assert!(matches!(error.failure(), Failure::NoIo { .. }), "{options}: {error:?}");
            says(&error, &["emu", part]);
        }
    }
    let reason = |options| match emu(options).check_io().unwrap_err().failure() {
        Failure::NoIo { reason, .. } => *reason,
        other => panic!("{other:?}"),
    };
    assert!(matches!(reason("css=0x80"), NoIo::AdminOnly { css: 0x80, .. }));
    assert_eq!(reason("depth=1"), NoIo::QueueEntries);
}

/// A CAP register whose MQES is 0, of a device with these PCI ids.
struct NoEntries {
    vendor: u16,
    device: u16,
}

impl Registers for NoEntries {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset == CAP {
            data[..2].fill(0);
        }
    }

    fn read_config(&mut self, offset: u64, data: &mut [u8]) {
        show_ids([self.vendor, self.device], offset, data);
    }
}

/// Puts PCI ids into bytes that were read at an offset into configuration space.
fn show_ids(ids: [u16; 2], offset: u64, data: &mut [u8]) {
    let ids = ids.map(u16::to_le_bytes).concat();
    for (byte, id) in data.iter_mut().zip(ids.into_iter().skip(offset as usize)) {
        *byte = id;
    }
}

/// Samsung's PM1725 reports queues of one entry, and has some of 64. No other drive is trusted beyond what it says.
#[test]
fn queues_of_one_entry_are_a_known_drives_mistake() {
    let open = |vendor, device| odd::open("size=4M", NoEntries { vendor, device }, TIMEOUT).unwrap();
    let known = open(0x144d, 0xa821);
    known.check_io().unwrap();
    assert_eq!(known.max_depth(), 64);
    serves(&known);
    for (vendor, device) in [(0x144d, 0xa808), (0x1b36, 0x0010)] {
        let other = open(vendor, device);
        assert!(other.identify().model().contains("uPCIe") && other.namespace(1).unwrap().blocks() > 0);
        let error = other.check_io().unwrap_err();
        assert!(matches!(error.failure(), Failure::NoIo { reason: NoIo::QueueEntries, .. }), "{error:?}");
        says(&error, &["odd", "CAP.MQES is 0"]);
    }
}

/// A clock whose sleeps of [`LONG`](Self::LONG) and more take no time, and return early.
#[derive(Debug, Default)]
struct Leaping {
    /// Milliseconds ahead of the system's clock.
    ahead: AtomicU64,
}

impl Leaping {
    const LONG: Duration = Duration::from_millis(100);
}

impl Clock for Leaping {
    fn now(&self) -> Duration {
        SystemClock.now() + Duration::from_millis(self.ahead.load(Ordering::Relaxed))
    }

    fn sleep(&self, time: Duration) {
        if time < Self::LONG {
            SystemClock.sleep(time);
        } else {
            self.ahead.fetch_add(Self::LONG.as_millis() as u64, Ordering::Relaxed);
        }
    }
}

/// A device with PCI ids that notes how long it was left alone after CC.EN was cleared.
struct Resting {
    ids: [u16; 2],
    clock: Arc<Leaping>,
    /// The time at which CC.EN was cleared, until CSTS is read.
    cleared: Option<Duration>,
    rests: Arc<Mutex<Vec<Duration>>>,
}

impl Registers for Resting {
    fn read(&mut self, offset: u64, _data: &mut [u8]) {
        if offset == CSTS {
            let now = self.clock.now();
            self.rests.lock().unwrap().extend(self.cleared.take().map(|cleared| now - cleared));
        }
    }

    fn read_config(&mut self, offset: u64, data: &mut [u8]) {
        show_ids(self.ids, offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        if let (CC, Ok(bytes)) = (offset, data.try_into()) {
            let cc = Configuration::from_bits(u32::from_le_bytes(bytes));
            self.cleared = (!cc.en()).then(|| self.clock.now());
        }
        true
    }
}

/// Some controllers fail if CSTS is read soon after CC.EN is cleared: they are left alone for 2.3 s, others are not.
#[test]
fn a_known_controller_rests_after_a_stop() {
    for (ids, needs_rest) in [([0x1c58, 0x0003], true), ([0x1b36, 0x0010], false)] {
        let (clock, rests) = (Arc::new(Leaping::default()), Arc::new(Mutex::new(Vec::new())));
        let registers = Resting { ids, clock: clock.clone(), cleared: None, rests: rests.clone() };
        let builder = Controller::builder().clock(clock.clone());
        let controller = odd::open_with("size=4M", registers, TIMEOUT, builder).unwrap();
        controller.reset().unwrap();
        serves(&controller);
        drop(controller);
        let rests = rests.lock().unwrap();
        assert!(rests.len() >= 2, "the reset and the end each clear CC.EN: {rests:?}");
        let all_are_long = rests.iter().all(|rest| *rest >= Duration::from_millis(2300));
        let slept = clock.ahead.load(Ordering::Relaxed) != 0;
        assert_eq!((all_are_long, slept), (needs_rest, needs_rest), "{rests:?}");
    }
}

#[test]
fn one_queue_pair_of_two_entries_serves_everything() {
    let controller = emu("queues=1,depth=2,vectors=1,mdts=8K");
    assert_eq!((controller.max_queue_pairs(), controller.max_depth()), (1, 2));
    for _ in 0..3 {
        serves(&controller);
    }
    // While the program has the only queue, a blocking call fails and says what it needs.
    let queue = create::<u64>(controller.queue_pair().interrupt(0));
    let mut buffer = controller.alloc(4096).unwrap();
    let error = controller.namespace(1).unwrap().read(0, &mut buffer).unwrap_err();
    says(&error, &["all 1 I/O queue pairs", "blocking calls need one"]);
    assert_eq!(buffer.len(), 4096, "the buffer is the caller's");
    drop(queue);
    serves(&controller);
}

/// Soundness part B (g): a device that completes a command now and then holds no call for ever.
#[test]
fn a_blocking_call_ends_on_a_slow_device() {
    // Each batch of 31 commands is in time, but 9 batches take longer than 1 s plus a second for each MiB.
    let address = "emu:size=4M,mdts=8K,latency=700ms";
    let controller = Controller::builder().timeout(Duration::from_secs(1)).open(address).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut buffer = controller.alloc(2 << 20).unwrap();
    let start = Instant::now();
    let error = namespace.read(0, &mut buffer).unwrap_err();
    assert!(matches!(error.failure(), Failure::Timeout { .. }), "{error:?}");
    assert!(start.elapsed() < deadline());
}
