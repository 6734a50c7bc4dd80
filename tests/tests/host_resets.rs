//! Resets after which the controller is not as before: it has forgotten where its memory is, or another one has its place. And
//! what it had posted before.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use upcie_core::clock::Clock;
use upcie_nvme::{
    Controller, DmaBuf, Error, Failure, Namespace, QueuePair, Refusal, ResetKind,
    emu::{Fault, FaultPlan, FaultRule},
    spec::{AdminOpcode, AsyncEvent, AsyncEventType, Capabilities, Command, EventKind, NvmOpcode, offset},
};
use upcie_tests::{
    device::namespaces,
    io::{create, finish, read, write},
    odd::{self, Registers},
    own_memory, replaced, says,
    stepping::{Hooks, Stepping},
};

/// Copies the bytes out of a buffer in device memory.
fn bytes(buffer: &DmaBuf) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    buffer.read_at(0, &mut bytes);
    bytes
}

fn is_reset(error: &Error) -> bool {
    matches!(error.failure(), Failure::Reset { .. })
}

fn is_stale(error: &Error) -> bool {
    matches!(error.failure(), Failure::Refused { reason: Refusal::StaleNamespace, .. })
}

#[test]
fn a_cmb_serves_data_and_queues_after_each_reset() {
    serves_after_each_reset(&own_memory::open("size=4M"));
    // It keeps the buffer's address over some resets.
    serves_after_each_reset(&Controller::open("emu:size=4M,cmb=256K,serial=CMB").unwrap());
}

fn serves_after_each_reset(controller: &Controller) {
    let memory = controller.cmb().unwrap().expect("a memory buffer");
    let (namespace, pattern) = namespaces(controller).remove(0);
    let block = namespace.block_size();
    let empty = memory.heap().in_use();
    let mut queue = create::<u64>(controller.queue_pair().depth(32).submission_in_controller(true));
    let ring = memory.heap().in_use();
    assert!(ring > empty, "the ring is in the controller");
    for (version, kind) in
        (1..).zip([ResetKind::Controller, ResetKind::Function, ResetKind::Subsystem, ResetKind::Controller])
    {
        let mut turn = queue.turn().unwrap();
        for lba in 0..31 {
            let mut buffer = memory.alloc(block).unwrap();
            buffer.write_at(0, &pattern.bytes(lba, 1, version));
            turn.write(&namespace, lba, buffer, lba).unwrap();
        }
        drop(turn);
        controller.reset_by(kind).unwrap();
        assert!(is_reset(&queue.turn().unwrap_err()), "{kind:?}");
        let all = queue.recover().unwrap();
        assert_eq!(all.len(), 31, "{kind:?}");
        let again = controller.cmb().unwrap().expect("it is still there");
        assert!(Arc::ptr_eq(&memory, &again), "{kind:?}");
        // The buffers are as they were, and their data moves again, by commands in the controller's memory.
        let mut turn = queue.turn().unwrap();
        for (lba, _, buffer) in all.into_iter().map(upcie_nvme::Returned::into_parts) {
            assert!(buffer.is_device_memory());
            assert_eq!(bytes(&buffer), pattern.bytes(lba, 1, version), "{kind:?}");
            turn.write(&namespace, lba, buffer, lba).unwrap();
        }
        drop(turn);
        for done in finish(&mut queue) {
            let (lba, status, buffer) = done.into_parts();
            assert_eq!(status, Ok(()), "{kind:?}");
            queue.turn().unwrap().read(&namespace, lba, buffer, lba).unwrap();
        }
        for done in finish(&mut queue) {
            let (lba, status, buffer) = done.into_parts();
            assert_eq!(status, Ok(()), "{kind:?}");
            pattern.verify(&bytes(&buffer), lba, version);
        }
        pattern.verify(&read(controller, &namespace, 0, 31), 0, version);
        assert_eq!(memory.heap().in_use(), ring, "{kind:?}: nothing is lost");
    }
}

#[test]
fn a_pmr_takes_data_after_each_reset() {
    takes_data_after_each_reset(&own_memory::open("size=4M"));
    // It keeps the region's address over some resets.
    takes_data_after_each_reset(&Controller::open("emu:size=4M,pmr=1M,serial=PMR").unwrap());
}

fn takes_data_after_each_reset(controller: &Controller) {
    let region = controller.pmr().unwrap().expect("a persistent memory region");
    assert!(region.takes_data());
    let (namespace, pattern) = namespaces(controller).remove(0);
    let blocks = 8192 / namespace.block_size();
    let mut log = region.alloc_unzeroed(8192).unwrap();
    for (version, kind) in (1..).zip([ResetKind::Controller, ResetKind::Function, ResetKind::Subsystem]) {
        log.write_at(0, &pattern.bytes(20, blocks, version));
        controller.reset_by(kind).unwrap();
        region.flush().unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!(bytes(&log), pattern.bytes(20, blocks, version), "{kind:?}: it keeps its data");
        write(&namespace, 20, &mut log);
        pattern.verify(&read(controller, &namespace, 20, blocks), 20, version);
        log.fill(0);
        namespace.read(20, &mut log).unwrap();
        pattern.verify(&bytes(&log), 20, version);
    }
}

/// A controller without CAP.NSSRS, bit 36.
struct NoSubsystem;

impl Registers for NoSubsystem {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            if at == offset::CAP as u64 + 4 {
                *byte &= !(1 << 4);
            }
        }
    }
}

#[test]
fn a_subsystem_reset_that_is_not_there_changes_nothing() {
    let controller = odd::open("size=1M", NoSubsystem, Duration::from_secs(30)).unwrap();
    let (namespace, _) = namespaces(&controller).remove(0);
    let mut queue = create::<u64>(controller.queue_pair());
    let error = controller.reset_by(ResetKind::Subsystem).unwrap_err();
    says(&error, &[controller.name(), "no NVM subsystem reset", "CAP.NSSRS"]);
    queue.turn().unwrap().flush(&namespace, 1).unwrap();
    assert_eq!(finish(&mut queue).len(), 1, "the queue goes on");
}

#[test]
fn a_controller_that_is_the_same_goes_on() {
    let options = "size=1M,namespaces=2";
    let controller = replaced::open(options, options);
    let all = namespaces(&controller);
    let mut queue = create::<u64>(controller.queue_pair());
    controller.reset().unwrap();
    assert!(queue.recover().unwrap().is_empty());
    for (tag, (namespace, pattern)) in (0..).zip(&all) {
        let mut buffer = controller.alloc(namespace.block_size()).unwrap();
        pattern.fill(&mut buffer, 3, 1);
        write(namespace, 3, &mut buffer);
        queue.turn().unwrap().read(namespace, 3, buffer, tag).unwrap();
        let done = finish(&mut queue).remove(0);
        let (_, status, buffer) = done.into_parts();
        assert_eq!(status, Ok(()));
        pattern.verify(&buffer, 3, 1);
    }
}

#[test]
fn another_controller_after_a_reset_is_not_used() {
    let before = "size=1M,mdts=128K,queues=4";
    let limit = "another serial number, model or limit than before";
    for (after, reason) in [
        ("size=1M,mdts=128K,queues=4,serial=OTHER", limit),
        ("size=1M,mdts=64K,queues=4", limit),
        ("size=1M,mdts=256K,queues=4", limit),
        ("size=1M,mdts=128K,queues=3", "it grants 3 queue pairs, 4 before"),
        ("size=1M,mdts=128K,queues=4,depth=64", "CAP.MQES is 0x3f, 0xfff before"),
        ("size=1M,mdts=128K,queues=4,mpsmin=16K", "CAP.MPSMIN is 0x2, 0x0 before"),
        ("size=1M,mdts=128K,queues=4,css=0x80", "CAP.CSS is 0x80, 0x1 before"),
    ] {
        let controller = replaced::open(before, after);
        let (namespace, _) = namespaces(&controller).remove(0);
        let mut queue = create::<u64>(controller.queue_pair());
        queue.turn().unwrap().flush(&namespace, 7).unwrap();
        for error in [
            controller.reset().unwrap_err(),
            queue.turn().unwrap_err(),
            queue.recover().unwrap_err(),
            namespace.flush().unwrap_err(),
            controller.namespace_ids().unwrap_err(),
        ] {
            assert!(matches!(error.failure(), Failure::Down { .. }), "{after}: {error}");
            says(&error, &[controller.name(), "is down", "did not come back from a reset", reason]);
        }
        // The controller was stopped before that, so the command's memory is free.
        assert_eq!(queue.close().unwrap().len(), 1, "{after}");
    }
}

/// Bits of CAP that a test flips.
struct Flipped(Arc<AtomicU64>);

impl Registers for Flipped {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let flipped = self.0.load(Ordering::Relaxed).to_le_bytes();
        for (at, byte) in (offset as usize..).zip(data) {
            *byte ^= at.checked_sub(offset::CAP).and_then(|at| flipped.get(at)).unwrap_or(&0);
        }
    }
}

/// A reset that activates firmware may do this.
#[test]
fn a_reset_takes_over_the_capabilities_that_may_change() {
    let flips = Arc::new(AtomicU64::new(0));
    let registers = Flipped(flips.clone());
    let controller = odd::open("size=1M,depth=64", registers, Duration::from_secs(30)).unwrap();
    let (namespace, _) = namespaces(&controller).remove(0);
    let mut queue = create::<u64>(controller.queue_pair());
    let before = controller.capabilities();
    let flip = |now: Capabilities| flips.store(before.into_bits() ^ now.into_bits(), Ordering::Relaxed);
    let now = before.with_to(60).with_mqes(4095);
    flip(now);
    controller.reset().unwrap();
    assert_eq!((controller.capabilities(), controller.max_depth()), (now, 64));
    assert!(queue.recover().unwrap().is_empty());
    queue.turn().unwrap().flush(&namespace, 1).unwrap();
    assert_eq!(finish(&mut queue).len(), 1);
    namespace.flush().unwrap();

    // The queues' doorbells would be elsewhere.
    flip(now.with_dstrd(0));
    for error in [controller.reset().unwrap_err(), queue.turn().unwrap_err(), namespace.flush().unwrap_err()]
    {
        assert!(matches!(error.failure(), Failure::Down { .. }), "{error}");
        says(&error, &[controller.name(), "CAP.DSTRD is 0x0, 0x3 before", "open it again"]);
    }
    assert_eq!(controller.register(offset::CSTS).unwrap() & 1, 0, "it stays stopped");
}

/// The controller was down whatever the queues had.
#[test]
fn queues_of_fewer_entries_are_taken_over_where_all_fit() {
    let flips = Arc::new(AtomicU64::new(0));
    let registers = Flipped(flips.clone());
    let controller = odd::open("size=1M,depth=256", registers, Duration::from_secs(30)).unwrap();
    let (namespace, _) = namespaces(&controller).remove(0);
    let mut queue = create::<u64>(controller.queue_pair().depth(32));
    let before = controller.capabilities();
    let flip = |now: Capabilities| flips.store(before.into_bits() ^ now.into_bits(), Ordering::Relaxed);
    flip(before.with_mqes(31));
    controller.reset().unwrap();
    assert_eq!(controller.max_depth(), 32);
    assert!(queue.recover().unwrap().is_empty());
    queue.turn().unwrap().flush(&namespace, 1).unwrap();
    assert_eq!(finish(&mut queue).len(), 1);
    namespace.flush().unwrap();
    drop(create::<u64>(controller.queue_pair()));
    let error = controller.queue_pair().depth(33).create::<u64>().unwrap_err();
    assert!(matches!(error.failure(), Failure::Argument { .. }), "{error}");

    flip(before.with_mqes(15));
    let error = controller.reset().unwrap_err();
    assert!(matches!(error.failure(), Failure::Down { .. }), "{error}");
    let misfit = format!("queue pair {} has 32 entries", queue.id());
    says(&error, &[controller.name(), "CAP.MQES is 0xf, 0x1f before", &misfit, "open it again"]);
}

#[test]
fn namespaces_of_another_size_or_format_are_stale() {
    let before = "size=1M,namespaces=2";
    for (after, blocks) in [
        ("size=2M,namespaces=2", 4096),
        ("size=512K,namespaces=2", 1024),
        ("size=1M,namespaces=2,lba=4096+512", 256),
    ] {
        let controller = replaced::open(before, after);
        let all = namespaces(&controller);
        let mut queue = create::<u64>(controller.queue_pair());
        controller.reset().unwrap();
        queue.recover().unwrap();
        for (namespace, _) in &all {
            let error = namespace.flush().unwrap_err();
            assert!(is_stale(&error), "{after}: {error}");
            let buffer = controller.alloc(4096).unwrap();
            let refused = queue.turn().unwrap().read(namespace, 0, buffer, 1).unwrap_err();
            assert_eq!(refused.reason, Refusal::StaleNamespace, "{after}");
        }
        let new = controller.namespace(1).unwrap();
        assert_eq!(new.blocks(), blocks, "{after}");
        new.flush().unwrap();
    }
}

#[test]
fn a_namespace_that_is_gone_after_a_reset_is_stale() {
    let controller = replaced::open("size=1M,namespaces=2", "size=1M,namespaces=1");
    let all = namespaces(&controller);
    controller.reset().unwrap();
    assert_eq!(controller.namespace_ids().unwrap(), [1]);
    for (namespace, _) in &all {
        let error = namespace.flush().unwrap_err();
        assert!(is_stale(&error), "{error}");
    }
    controller.namespace(1).unwrap().flush().unwrap();
}

/// A controller whose plan strikes at a Flush, and a queue with a read in flight that the plan drops.
fn struck(serial: &str, fault: Fault) -> (Arc<Stepping>, Controller, Namespace, QueuePair<u64>) {
    let clock = Stepping::new(&format!("size=1M,serial={serial}"), ());
    let plan = FaultPlan::new(0)
        .rule(FaultRule::new(fault).opcode(NvmOpcode::FLUSH.0))
        .rule(FaultRule::new(Fault::Drop).opcode(NvmOpcode::READ.0).count(1));
    clock.device.inject(&plan).unwrap();
    let controller = clock.open(Controller::builder());
    let namespace = controller.namespace(1).unwrap();
    let mut queue = create(controller.queue_pair().depth(8));
    queue.turn().unwrap().read(&namespace, 0, controller.alloc(512).unwrap(), 1).unwrap();
    (clock, controller, namespace, queue)
}

/// Checks that a queue gives the dropped read back, and works.
fn works_again(namespace: &Namespace, queue: &mut QueuePair<u64>) {
    let mut all = queue.recover().unwrap();
    let (tag, result, buffer) = all.pop().expect("the read").into_parts();
    assert_eq!((tag, result, all.len()), (1, None, 0));
    queue.turn().unwrap().read(namespace, 0, buffer, 2).unwrap();
    assert!(finish(queue).remove(0).result().is_ok());
    namespace.flush().unwrap();
}

/// A controller that stopped and did not become ready again was down for good.
#[test]
fn a_controller_that_does_not_start_again_has_its_function_reset() {
    let (clock, controller, namespace, mut queue) = struck("STUCK-START", Fault::StuckStart);
    namespace.flush().unwrap();
    let start = clock.now();
    controller.reset().unwrap();
    assert!(clock.now() - start < Duration::from_secs(60));
    works_again(&namespace, &mut queue);
}

/// Down was final, and every handle had to be dropped.
#[test]
fn a_controller_that_is_down_comes_back_by_a_deeper_reset() {
    let is_down = |error: Error| assert!(matches!(error.failure(), Failure::Down { .. }), "{error}");
    for kind in [ResetKind::Function, ResetKind::Subsystem] {
        let gone = Duration::from_secs(60);
        let fault = Fault::AllOnes(Some(gone));
        let (clock, controller, namespace, mut queue) = struck("COMES-BACK", fault);
        namespace.flush().unwrap_err();
        is_down(controller.reset().unwrap_err());
        is_down(controller.reset_by(kind).unwrap_err());
        clock.sleep(gone);
        // Only a deeper one is tried.
        is_down(controller.reset().unwrap_err());
        is_down(queue.recover().unwrap_err());
        controller.reset_by(kind).unwrap();
        works_again(&namespace, &mut queue);
    }
}

/// The controller that another thread resets in the next sleep, after the step: the thread that sleeps can't reap before.
#[derive(Default)]
struct ResetsOnce(Mutex<Option<Controller>>);

impl Hooks for ResetsOnce {
    fn after_step(&self) {
        let controller = self.0.lock().unwrap().take();
        if let Some(controller) = controller {
            thread::spawn(move || controller.reset().unwrap()).join().unwrap();
        }
    }
}

#[test]
fn answers_and_events_from_before_a_reset_count() {
    // It has an NVM subsystem of its own: a raw command makes all namespace handles of its subsystem stale, those of other tests, too.
    let clock = Stepping::new("size=1M,serial=POSTED", ResetsOnce::default());
    let controller = clock.open(Controller::builder());
    let mut events = controller.events().unwrap();
    assert!(events.try_next().unwrap().is_none());
    // The embedded controller's own command: raises an event.
    let mut raise = Command::admin(AdminOpcode(0xc0), 0);
    raise.cdw10 = AsyncEvent::new().with_kind(AsyncEventType::VENDOR).with_information(7).into_bits();
    *clock.hooks.0.lock().unwrap() = Some(controller.clone());
    // SAFETY: the command has no data.
    let (entry, _) = unsafe { controller.admin_entry(&raise, DmaBuf::empty()) }.unwrap();
    assert!(entry.is_success() && clock.hooks.0.lock().unwrap().is_none());
    let event = events.try_next().unwrap().expect("it was posted beside the answer");
    assert_eq!(event.kind(), EventKind::Vendor(7));
    assert!(events.try_next().unwrap().is_none());
}
