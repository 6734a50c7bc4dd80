//! The driver and the embedded controller in one thread, by a simulated clock: two runs are the same.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use upcie_core::{clock::Clock, device::Device, irq::IrqKind, testing::Random};
use upcie_nvme::{
    Controller, Failure, Namespace, QueuePair, Wait,
    emu::{Fault, FaultPlan, FaultRule, HostMemory, Lockstep, Machine, Media, Storage},
    queue::OnTimeout,
    spec::{AdminOpcode, NvmOpcode, Status},
};
use upcie_tests::says;

/// Time that passes only in `sleep`, where the controller takes its steps.
struct Simulated<M: Media + 'static> {
    now: AtomicU64,
    device: Arc<Lockstep<M>>,
    /// Each step with work: its time and the amount.
    trace: Mutex<Vec<(Duration, usize)>>,
    /// Leaves steps out at random, for another order of driver and controller.
    random: Mutex<Option<Random>>,
}

impl<M: Media> fmt::Debug for Simulated<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "simulated time {:?}", self.now())
    }
}

impl<M: Media> Clock for Simulated<M> {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.now.load(Ordering::Relaxed))
    }

    fn sleep(&self, time: Duration) {
        self.now.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        let skips = self.random.lock().unwrap().as_mut().is_some_and(|random| random.one_in(3));
        if skips {
            return;
        }
        let work = self.device.step(self.now());
        if work > 0 {
            self.trace.lock().unwrap().push((self.now(), work));
        }
    }

    fn runs(&self) -> bool {
        false
    }
}

/// A driver and a controller that wait for each other in this thread.
struct Pair<M: Media + 'static> {
    clock: Arc<Simulated<M>>,
    controller: Controller,
    namespace: Namespace,
}

fn pair(options: &str, seed: Option<u64>) -> Pair<Storage> {
    over(Lockstep::new(&options.parse().unwrap()).unwrap(), seed)
}

fn over<M: Media + 'static>(device: Arc<Lockstep<M>>, seed: Option<u64>) -> Pair<M> {
    let random = Mutex::new(seed.map(Random));
    let (now, trace) = (AtomicU64::new(0), Mutex::default());
    let clock = Arc::new(Simulated { now, device: device.clone(), trace, random });
    let controller = Controller::builder().clock(clock.clone()).from_device(device).unwrap();
    let namespace = controller.namespace(1).unwrap();
    Pair { clock, controller, namespace }
}

impl<M: Media> Pair<M> {
    fn queue(&self) -> QueuePair<u64> {
        self.controller.queue_pair().depth(8).create().unwrap()
    }

    /// Writes blocks and reads them back on a queue of its own; returns the trace of the whole life.
    fn run(self) -> Vec<(Duration, usize)> {
        let mut queue = self.queue();
        let block = self.namespace.block_size();
        for lba in 0..20_u64 {
            let mut buffer = self.controller.alloc(block).unwrap();
            buffer.write_at(0, &vec![lba as u8 + 1; block]);
            queue.turn().unwrap().write(&self.namespace, lba, buffer, lba).unwrap();
            assert!(queue.wait(Wait::Poll, Duration::from_secs(1)).unwrap());
            let (tag, status, _) = queue.turn().unwrap().next().unwrap().into_parts();
            assert_eq!((tag, status), (lba, Ok(())));
        }
        let mut back = vec![0; 20 * block];
        self.namespace.read_at(0, &mut back).unwrap();
        for (lba, data) in back.chunks(block).enumerate() {
            assert!(data.iter().all(|&byte| byte == lba as u8 + 1), "block {lba}");
        }
        queue.close().unwrap();
        let clock = self.clock.clone();
        drop(self);
        clock.trace.lock().unwrap().clone()
    }
}

#[test]
fn two_runs_have_the_same_trace() {
    let run = |seed| pair("size=1M", seed).run();
    let plain = run(None);
    assert!(plain.len() > 20, "{plain:?}");
    assert_eq!(plain, run(None));
    assert_eq!(run(Some(7)), run(Some(7)));
    assert_ne!(plain, run(Some(7)), "the seed decides the order");
}

#[test]
fn a_delayed_command_completes_by_simulated_time() {
    let pair = pair("size=1M,latency=50ms", None);
    let mut queue = pair.queue();
    let start = pair.clock.now();
    queue.turn().unwrap().read(&pair.namespace, 0, pair.controller.alloc(512).unwrap(), 1).unwrap();
    assert_eq!(pair.clock.device.next_due(), None, "not fetched before a step");
    assert!(queue.wait(Wait::Poll, Duration::from_secs(5)).unwrap());
    let took = pair.clock.now() - start;
    assert!(took >= Duration::from_millis(50) && took < Duration::from_millis(80), "{took:?}");
    assert!(queue.turn().unwrap().next().unwrap().into_parts().1.is_ok());
    assert_eq!(pair.clock.device.next_due(), None);
}

#[test]
fn a_timeout_passes_in_simulated_time() {
    let pair = pair("size=1M,latency=60s", None);
    let mut queue = pair.queue();
    let (start, real) = (pair.clock.now(), std::time::Instant::now());
    queue.turn().unwrap().read(&pair.namespace, 0, pair.controller.alloc(512).unwrap(), 1).unwrap();
    assert!(!queue.wait(Wait::Poll, Duration::from_secs(30)).unwrap());
    assert!(pair.clock.now() - start >= Duration::from_secs(30));
    assert!(real.elapsed() < upcie_tests::deadline(), "the system's time has not passed");
}

#[test]
fn interrupts_reach_a_queue_in_the_same_thread() {
    for (options, kind) in [
        ("size=1M", IrqKind::Msix),
        ("size=1M,vectors=0,msi=4", IrqKind::Msi),
        ("size=1M,vectors=0,intx=true", IrqKind::Intx),
    ] {
        let pair = pair(options, None);
        assert!(pair.clock.device.irq_count(kind).unwrap() > 0, "{options}");
        let vector = if kind == IrqKind::Intx { 0 } else { 1 };
        let mut queue: QueuePair<u64> =
            pair.controller.queue_pair().depth(8).interrupt(vector).create().unwrap();
        for tag in 0..20 {
            let buffer = pair.controller.alloc(512).unwrap();
            queue.turn().unwrap().read(&pair.namespace, tag, buffer, tag).unwrap();
            assert!(queue.wait(Wait::Interrupt, Duration::from_secs(1)).unwrap(), "{options}");
            assert_eq!(queue.turn().unwrap().next().unwrap().into_parts().0, tag, "{options}");
        }
    }
}

#[test]
fn a_reset_forgets_the_queues_and_the_driver_says_so() {
    let pair = pair("size=1M", None);
    let mut queue = pair.queue();
    // SAFETY: the driver's commands name memory of its own, and none is in flight.
    unsafe { pair.clock.device.reset() }.unwrap();
    queue.turn().unwrap().read(&pair.namespace, 0, pair.controller.alloc(512).unwrap(), 1).unwrap();
    let error = queue.wait(Wait::Poll, Duration::from_secs(1)).unwrap_err();
    assert!(matches!(error.failure(), Failure::Disabled { .. }), "{error}");
}

/// A wait notices a fault within the promised limit, not after its whole timeout. In simulated time the limit is exact.
#[test]
fn a_wait_notices_faults_within_100_ms() {
    // Without a fault in it: a reset by somebody else.
    for fault in [Some(Fault::Fatal), Some(Fault::AllOnes(None)), None] {
        for how in [Wait::Poll, Wait::Interrupt, Wait::Adaptive(Duration::from_micros(20))] {
            let pair = pair("size=1M", None);
            let mut queue: QueuePair<u64> =
                pair.controller.queue_pair().depth(8).interrupt(1).create().unwrap();
            match fault {
                Some(fault) => {
                    let plan = FaultPlan::new(0).rule(FaultRule::new(fault).opcode(NvmOpcode::FLUSH.0));
                    pair.clock.device.inject(&plan).unwrap();
                }
                // SAFETY: the driver's commands name memory of its own, and none is in flight.
                None => unsafe { pair.clock.device.reset() }.unwrap(),
            }
            queue.turn().unwrap().flush(&pair.namespace, 1).unwrap();
            let start = pair.clock.now();
            let error = queue.wait(how, Duration::from_secs(30)).unwrap_err();
            let took = pair.clock.now() - start;
            assert!(took <= Duration::from_millis(100), "{fault:?}, {how:?}: after {took:?}: {error}");
        }
    }
}

/// A list of several pages had a deadline for each of its commands.
#[test]
fn a_list_of_namespaces_has_one_deadline() {
    let each = Duration::from_secs(20);
    // One page is full, so the driver asks for the next.
    let pair = pair("size=4K,namespaces=1024", None);
    assert_eq!(pair.controller.namespace_ids().unwrap().len(), 1024);
    let slow = FaultRule::new(Fault::Delay(each)).queue(0).opcode(AdminOpcode::IDENTIFY.0);
    pair.clock.device.inject(&FaultPlan::new(0).rule(slow)).unwrap();
    let start = pair.clock.now();
    let error = pair.controller.namespace_ids().unwrap_err();
    let took = pair.clock.now() - start;
    assert!(matches!(error.failure(), Failure::Timeout { .. }), "{error}");
    assert!(took >= each && took < 2 * each, "{took:?}");
    // The default, which is for the whole list.
    says(&error, &["30s"]);
}

#[test]
fn a_reset_that_fails_ends_in_time() {
    for (fault, lets_go) in [(Fault::NeverReady, true), (Fault::AllOnes(None), false)] {
        let pair = pair("size=1M", None);
        let flush = FaultRule::new(fault).opcode(NvmOpcode::FLUSH.0);
        let plan = FaultPlan::new(0).rule(flush).rule(FaultRule::new(Fault::Drop).opcode(NvmOpcode::READ.0));
        pair.clock.device.inject(&plan).unwrap();
        let mut queue = pair.queue();
        queue.turn().unwrap().read(&pair.namespace, 0, pair.controller.alloc(512).unwrap(), 1).unwrap();
        assert_eq!(pair.namespace.flush().is_ok(), lets_go);
        let start = pair.clock.now();
        let error = pair.controller.reset().unwrap_err();
        assert!(pair.clock.now() - start < Duration::from_secs(60), "{fault:?}");
        assert!(matches!(error.failure(), Failure::Down { .. }), "{error}");
        let error = queue.turn().unwrap_err();
        assert!(matches!(error.failure(), Failure::Down { .. }), "{error}");
        assert!(queue.take_kept().is_empty(), "it is open");
        match queue.try_close() {
            Ok(all) => assert!(lets_go && all.len() == 1 && all[0].result().is_none()),
            Err(error) => {
                assert!(
                    !lets_go && matches!(error.failure(), Failure::Undeleted { commands: 1, .. }),
                    "{error}"
                );
                says(&error, &["the memory of its 1 commands"]);
                // The buffer is kept; the tag is not.
                assert_eq!((queue.take_kept(), queue.in_flight()), (vec![1], 0));
            }
        }
        assert!(queue.take_kept().is_empty(), "each once");
    }
}

#[test]
fn a_controller_that_does_not_stop_has_its_function_reset() {
    let pair = pair("size=1M", None);
    let plan = FaultPlan::new(0).rule(FaultRule::new(Fault::AlwaysReady).opcode(NvmOpcode::FLUSH.0).count(2));
    pair.clock.device.inject(&plan).unwrap();
    let mut queue = pair.queue();
    pair.namespace.flush().unwrap();
    queue.turn().unwrap().read(&pair.namespace, 0, pair.controller.alloc(512).unwrap(), 1).unwrap();
    let start = pair.clock.now();
    pair.controller.reset().unwrap();
    assert!(pair.clock.now() - start < Duration::from_secs(60));
    let error = queue.turn().unwrap_err();
    assert!(matches!(error.failure(), Failure::Reset { .. }), "{error}");
    let all = queue.recover().unwrap();
    assert!(all.len() == 1 && all[0].result().is_none(), "the read");
    queue.turn().unwrap().read(&pair.namespace, 0, pair.controller.alloc(512).unwrap(), 2).unwrap();
    assert!(queue.wait(Wait::Poll, Duration::from_secs(1)).unwrap());
    // The same at the end: the memory is free again, which it would not be after a controller that did not stop.
    pair.namespace.flush().unwrap();
    let heap = pair.controller.heap().clone();
    let start = pair.clock.now();
    drop((queue, pair.namespace, pair.controller));
    assert!(pair.clock.now() - start < Duration::from_secs(60));
    heap.alloc(4096).unwrap();
}

/// The controller takes four Aborts at a time (ACL), and refuses a fifth: the driver would reset it then.
#[test]
fn no_more_aborts_are_sent_than_the_controller_takes() {
    let answer = Duration::from_millis(50);
    let pair = pair("size=1M", None);
    let plan = FaultPlan::new(0)
        .rule(FaultRule::new(Fault::Drop).opcode(NvmOpcode::WRITE.0))
        .rule(FaultRule::new(Fault::Delay(answer)).queue(0).opcode(AdminOpcode::ABORT.0));
    pair.clock.device.inject(&plan).unwrap();
    assert_eq!(pair.controller.identify().acl, 3);
    let builder = pair.controller.queue_pair().depth(32).command_timeout(Duration::from_secs(1));
    let mut queue: QueuePair<u64> = builder.on_timeout(OnTimeout::Abort).create().unwrap();
    let mut turn = queue.turn().unwrap();
    for tag in 0..18 {
        turn.write(&pair.namespace, tag, pair.controller.alloc(512).unwrap(), tag).unwrap();
    }
    drop(turn);
    let (start, mut ended) = (pair.clock.now(), Vec::new());
    while ended.len() < 18 {
        assert!(queue.wait(Wait::Poll, Duration::from_secs(5)).expect("no reset"), "{ended:?}");
        let now = pair.clock.now() - start;
        for (tag, status, _) in queue.turn().unwrap().map(upcie_nvme::Completion::into_parts) {
            assert_eq!(status, Err(Status::ABORT_REQUESTED));
            ended.push((tag, now));
        }
    }
    let mut tags: Vec<_> = ended.iter().map(|(tag, _)| *tag).collect();
    tags.sort_unstable();
    assert_eq!(tags, (0..18).collect::<Vec<_>>(), "each once");
    // Four commands end at a time, at the interval at which Aborts are answered.
    for window in ended.windows(5) {
        assert!(window[4].1 - window[0].1 >= answer, "{ended:?}");
    }
    queue.close().unwrap();
}

/// Blocks in a vector, of which some can't be read.
#[derive(Debug)]
struct Worn {
    blocks: Vec<u8>,
    broken: u64,
}

// SAFETY: one copy of the call's bytes in `read` and one in `write`.
unsafe impl Media for Worn {
    fn read(&mut self, host: &mut impl HostMemory, offset: u64, iova: u64, len: usize) -> Result<(), Status> {
        if (offset..offset + len as u64).contains(&self.broken) {
            return Err(Status::UNRECOVERED_READ_ERROR);
        }
        let bytes = &self.blocks[offset as usize..][..len];
        host.write(iova, bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)
    }

    fn write(
        &mut self,
        host: &mut impl HostMemory,
        offset: u64,
        iova: u64,
        len: usize,
    ) -> Result<(), Status> {
        let bytes = &mut self.blocks[offset as usize..][..len];
        host.read(iova, bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<(), Status> {
        self.blocks[offset as usize..][..len as usize].fill(0);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Status> {
        Ok(())
    }
}

#[test]
fn a_medium_of_the_callers_own_fails_where_it_wants() {
    let worn = Worn { blocks: vec![0; 1 << 20], broken: 9 * 512 };
    let machine = Machine::with_media(&"".parse().unwrap(), worn, 1 << 20).unwrap();
    let pair = over(Lockstep::over(machine, "worn").unwrap(), None);
    assert_eq!(pair.namespace.blocks(), 2048);
    let data: Vec<u8> = (0..16 * 512).map(|index| (index % 251) as u8).collect();
    pair.namespace.write_at(0, &data).unwrap();
    let mut back = vec![0; 9 * 512];
    pair.namespace.read_at(0, &mut back).unwrap();
    assert_eq!(back, data[..9 * 512]);
    let error = pair.namespace.read_at(9 * 512, &mut back[..512]).unwrap_err();
    says(&error, &["worn", "Unrecovered Read Error"]);
}
