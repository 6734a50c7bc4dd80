//! A program's clock that panics in a wait: nothing that the controller may still use goes to anybody else, and everything
//! works again afterwards.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tracing::{Event, Level, Metadata, Subscriber, span, subscriber::with_default};
use upcie_core::{clock::Clock, device::Device, dma::Heap};
use upcie_nvme::{
    Controller, Failure,
    emu::{Fault, FaultPlan, FaultRule, Lockstep},
    spec::{AdminOpcode, FormatNvm, offset},
};
use upcie_tests::stepping::{Hooks, Stepping};

/// A clock's bugs.
#[derive(Default)]
struct Fragile {
    /// The number of the sleep that panics, counted from now on; 0 for none.
    breaks: AtomicU32,
    /// Reading the time panics, once, when a boot partition has been read.
    watches_boot: AtomicBool,
}

/// Returns `true` if a read of a boot partition has begun, or ended: BPINFO.BRS is not 00b.
fn has_read_boot(device: &Lockstep) -> bool {
    let registers = device.bar(0).unwrap();
    registers.read_u32(offset::BPINFO as u64).unwrap() >> 24 & 3 != 0
}

impl Hooks for Fragile {
    fn before_now(&self, device: &Lockstep) {
        if self.watches_boot.load(Ordering::Relaxed) && has_read_boot(device) {
            self.watches_boot.store(false, Ordering::Relaxed);
            resume_unwind(Box::new("a clock's bug"));
        }
    }

    fn before_sleep(&self) {
        let left = self.breaks.load(Ordering::Relaxed);
        self.breaks.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 1 {
            resume_unwind(Box::new("a clock's bug"));
        }
    }
}

/// A controller with such a clock.
struct Tested {
    clock: Arc<Stepping<Fragile>>,
    controller: Controller,
}

fn open(options: &str) -> Tested {
    /// Numbers the NVM subsystems: a raw command or a Format touches all handles of its subsystem, those of other tests, too.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let options = format!("{options},serial=PANICS{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let clock = Stepping::new(&options, Fragile::default());
    let controller = clock.open(Controller::builder().queues(4));
    Tested { clock, controller }
}

impl Tested {
    /// Lets the sleep of this number in `call` panic; the number is 1 for the first.
    fn interrupt(&self, sleep: u32, call: impl FnOnce()) {
        self.clock.hooks.breaks.store(sleep, Ordering::Relaxed);
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err(), "the call waits");
        assert_eq!(self.clock.hooks.breaks.load(Ordering::Relaxed), 0);
    }

    /// Returns the bytes of DMA memory in use, rings and lists included.
    fn in_use(&self) -> usize {
        self.controller.heap().in_use()
    }

    /// Asserts that new buffers are elsewhere than the block at `iova`.
    fn assert_kept(&self, iova: u64) {
        let others: Vec<_> = (0..64).map(|_| self.controller.alloc(4096).unwrap()).collect();
        assert!(others.iter().all(|other| other.iova(0) != iova), "the controller may still write there");
    }
}

/// The events that prove that the controller has let go of memory: a reset, and the deletion of the queue pair, which the next
/// admin command makes up for.
const ENDS: [fn(&Controller); 2] =
    [|controller| controller.reset().unwrap(), |controller| drop(controller.namespace_ids().unwrap())];

#[test]
fn a_format_that_nobody_waits_for_is_still_a_change() {
    let tested = open("size=1M");
    let controller = &tested.controller;
    // The driver asks once which commands the controller has.
    controller.cancel().unwrap();
    let format = FormatNvm { nsid: 1, ..FormatNvm::default() };
    tested.interrupt(1, || drop(controller.execute(&format)));
    let error = controller.namespace(1).unwrap_err();
    assert!(matches!(error.failure(), Failure::InUse { .. }), "{error}");
    // The controller erases in pieces; the next command finds the answer.
    (0..100).for_each(|_| tested.clock.sleep(Duration::from_millis(1)));
    controller.namespace_ids().unwrap();
    controller.namespace(1).unwrap().flush().unwrap();
}

#[test]
fn a_command_that_nobody_waits_for_takes_room_until_its_answer() {
    let tested = open("size=1M");
    // More than the admin queue has room for.
    for _ in 0..40 {
        tested.interrupt(1, || drop(tested.controller.namespace_ids()));
        tested.clock.sleep(Duration::from_millis(1));
    }
    assert_eq!(tested.controller.namespace_ids().unwrap(), [1]);
}

#[test]
fn a_queue_pair_whose_end_panics_stays_with_the_controller() {
    for end in ENDS {
        for closes in [false, true] {
            let tested = open("size=1M,latency=1s");
            let namespace = tested.controller.namespace(1).unwrap();
            let idle = tested.in_use();
            let mut queue = tested.controller.queue_pair().create::<u64>().unwrap();
            let buffer = tested.controller.alloc(4096).unwrap();
            let iova = buffer.iova(0);
            queue.turn().unwrap().read(&namespace, 0, buffer, 7).unwrap();
            let busy = tested.in_use();
            tested.interrupt(1, || if closes { drop(queue.close()) } else { drop(queue) });
            assert_eq!(tested.in_use(), busy, "buffer, rings and lists");
            tested.assert_kept(iova);
            end(&tested.controller);
            assert_eq!(tested.in_use(), idle);
            // Its id is free, too.
            let most = tested.controller.max_queue_pairs();
            let all: Result<Vec<_>, _> =
                (0..most).map(|_| tested.controller.queue_pair().create::<u64>()).collect();
            all.unwrap().iter_mut().for_each(|queue| queue.turn().unwrap().flush(&namespace, 1).unwrap());
        }
    }
}

#[test]
fn a_queue_pair_whose_creation_panics_stays_with_the_controller() {
    for end in ENDS {
        // In the wait for the completion queue, and for the submission queue.
        for sleep in [1, 2] {
            let tested = open("size=1M");
            let idle = tested.in_use();
            tested.interrupt(sleep, || drop(tested.controller.queue_pair().create::<u64>()));
            assert!(tested.in_use() > idle, "rings and lists");
            end(&tested.controller);
            assert_eq!(tested.in_use(), idle);
            let most = tested.controller.max_queue_pairs();
            let all: Result<Vec<_>, _> =
                (0..most).map(|_| tested.controller.queue_pair().create::<u64>()).collect();
            assert!(all.is_ok(), "{all:?}");
        }
    }
}

#[test]
fn a_queue_pair_whose_recovery_panics_stays_with_the_controller() {
    for end in ENDS {
        for sleep in [1, 2] {
            let tested = open("size=1M");
            let idle = tested.in_use();
            let mut queue = tested.controller.queue_pair().create::<u64>().unwrap();
            tested.controller.reset().unwrap();
            let busy = tested.in_use();
            tested.interrupt(sleep, || drop(queue.recover()));
            drop(queue);
            assert_eq!(tested.in_use(), busy, "rings and lists");
            end(&tested.controller);
            assert_eq!(tested.in_use(), idle);
        }
    }
}

#[test]
fn a_blocking_calls_buffer_stays_with_the_controller() {
    for end in ENDS {
        let tested = open("size=1M,latency=1s");
        let namespace = tested.controller.namespace(1).unwrap();
        let idle = tested.in_use();
        // The first call makes the queue pair of all calls.
        namespace.flush().unwrap();
        let mut buffer = tested.controller.alloc(4096).unwrap();
        let (iova, busy) = (buffer.iova(0), tested.in_use());
        tested.interrupt(1, || drop(namespace.read(0, &mut buffer)));
        assert!(buffer.is_empty(), "the controller has its memory");
        assert_eq!(tested.in_use(), busy);
        tested.assert_kept(iova);
        end(&tested.controller);
        assert_eq!(tested.in_use(), idle);
        // The next call makes another queue pair.
        let mut buffer = tested.controller.alloc(4096).unwrap();
        namespace.read(0, &mut buffer).unwrap();
        assert_eq!(buffer.len(), 4096);
    }
}

#[test]
fn memory_of_a_boot_partitions_read_is_not_freed_by_a_panic() {
    let tested = open("size=1M,boot-partitions=256K");
    let before = tested.in_use();
    tested.clock.hooks.watches_boot.store(true, Ordering::Relaxed);
    let mut data = [0; 4096];
    let read = AssertUnwindSafe(|| tested.controller.read_boot_partition(0, 0, &mut data));
    assert!(catch_unwind(read).is_err());
    assert_eq!(tested.in_use(), before + 4096);
    tested.controller.read_boot_partition(0, 0, &mut data).unwrap();
    assert_eq!(tested.in_use(), before + 4096, "a read that ends frees its memory");
}

#[test]
fn a_shutdown_that_panics_closes_the_heaps() {
    let Tested { clock, controller } = open("size=1M,boot-partitions=256K");
    let heap = controller.heap().clone();
    // From here on, reading the time panics.
    controller.read_boot_partition(0, 0, &mut [0; 4096]).unwrap();
    clock.hooks.watches_boot.store(true, Ordering::Relaxed);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(controller))).is_err());
    let error = heap.alloc(4096).unwrap_err();
    assert!(error.to_string().contains("the device did not stop"), "{error}");
}

/// A subscriber that allocates memory at each error.
struct Allocates {
    heap: Arc<Heap>,
    /// Whether each allocation was refused.
    refused: Arc<Mutex<Vec<bool>>>,
}

impl Subscriber for Allocates {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        self.refused.lock().unwrap().push(self.heap.alloc(4096).is_err());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
fn heaps_are_closed_before_the_log_says_so() {
    let tested = open("size=1M");
    // From the next Identify on, every register reads as all ones.
    let gone = FaultRule::new(Fault::AllOnes(None)).queue(0).opcode(AdminOpcode::IDENTIFY.0);
    tested.clock.device.inject(&FaultPlan::new(1).rule(gone)).unwrap();
    drop(tested.controller.namespace_ids());
    let refused = Arc::<Mutex<Vec<bool>>>::default();
    let subscriber = Allocates { heap: tested.controller.heap().clone(), refused: refused.clone() };
    with_default(subscriber, || drop(tested));
    let refused = refused.lock().unwrap();
    assert!(!refused.is_empty() && refused.iter().all(|refused| *refused), "{refused:?}");
}
