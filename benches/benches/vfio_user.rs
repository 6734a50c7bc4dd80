//! Two cores: an initiator on one, a software controller on the other, and queues in memory that both have.
//!
//! Ours is the driver with an `nvme-emu` process over vfio-user; theirs is a bare pair of loops that check
//! nothing ([`bare`]). Mixed pairs show the cost of each side. All four are measured in turn for some
//! milliseconds, with the others asleep, and a round in which a thread waited for its core is left out.

use std::{
    env,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use upcie_benches::{
    bare::{self, ENTRIES, Initiator, Media, Rings, Target, Work},
    cores,
    entry::Pairs,
    rings,
    served::{Driver, Emulator},
    standin::StandIn,
};
use upcie_core::{
    Result,
    device::{Address, Device},
    dma::{DmaBuf, Heap},
    mmio::Bar,
    open,
};
use upcie_nvme::{Controller, spec};

/// The bytes of the namespace that hold data: more than the caches of a core.
const MEDIA: usize = 64 << 20;
/// The approximate length of one measurement.
const SLICE: Duration = Duration::from_millis(15);
/// Rounds that are wanted, and rounds that are tried.
const ROUNDS: (usize, usize) = (15, 60);
/// The largest share of a round's time that its threads together may wait for a core.
const MOST_DELAY: f64 = 0.01;

/// A controller without a driver: enabled with one queue pair, whose rings a bare initiator uses.
struct ByHand {
    bar: Bar,
    _device: Arc<dyn Device>,
    heap: Arc<Heap>,
    memory: Vec<DmaBuf>,
    rings: Rings,
    data: u64,
}

/// Writes a register of the device that [`ByHand`] drives.
fn write_u32(bar: &Bar, offset: u64, value: u32) -> Result<()> {
    // SAFETY: nothing else drives the device, and its rings and data live for as long as it is enabled.
    unsafe { bar.write_u32(offset, value) }
}

/// Writes a 64-bit register of the device that [`ByHand`] drives.
fn write_u64(bar: &Bar, offset: u64, value: u64) -> Result<()> {
    // SAFETY: nothing else drives the device, and its rings and data live for as long as it is enabled.
    unsafe { bar.write_u64(offset, value) }
}

impl ByHand {
    fn bring_up(address: &Address) -> Self {
        let device = open(address).expect("the device");
        let heap = Heap::new(device.dma(), None, None);
        let bar = device.bar(0).expect("registers");
        let page = |bytes: usize| heap.alloc_aligned(bytes, 4096).expect("memory");
        let (mut asq, acq, sq, cq, data) =
            (page(4096), page(4096), page(ENTRIES * 64), page(ENTRIES * 16), page(ENTRIES * 4096));
        let stride = 4_u64 << (bar.read_u64(spec::offset::CAP as u64).expect("CAP") >> 32 & 15);
        let ready = |wanted: u32| {
            let deadline = Instant::now() + Duration::from_secs(10);
            while bar.read_u32(spec::offset::CSTS as u64).expect("CSTS") & 1 != wanted {
                assert!(Instant::now() < deadline, "the controller did not become ready");
            }
        };
        write_u32(&bar, spec::offset::CC as u64, 0).expect("CC");
        ready(0);
        write_u32(&bar, spec::offset::AQA as u64, 31 | 31 << 16).expect("AQA");
        write_u64(&bar, spec::offset::ASQ as u64, asq.iova(0)).expect("ASQ");
        write_u64(&bar, spec::offset::ACQ as u64, acq.iova(0)).expect("ACQ");
        write_u32(&bar, spec::offset::CC as u64, 1 | 6 << 16 | 4 << 20).expect("CC");
        ready(1);
        let doorbell =
            |index: u64| bar.register::<u32>(0x1000 + index * stride).expect("a mapped doorbell").as_ptr();
        let rings = Rings {
            sq: sq.as_ptr().cast(),
            cq: cq.as_ptr().cast(),
            tail: doorbell(2).cast::<AtomicU32>(),
            head: doorbell(3).cast::<AtomicU32>(),
        };
        let create = [
            spec::Command::create_completion_queue(1, ENTRIES as u32, cq.iova(0), None),
            spec::Command::create_submission_queue(
                1,
                ENTRIES as u32,
                sq.iova(0),
                1,
                spec::QueuePriority::URGENT,
            ),
        ];
        for (index, command) in create.into_iter().enumerate() {
            let bytes: [u8; 64] = zerocopy::transmute!(command);
            asq.write_at(index * 64, &bytes);
            write_u32(&bar, 0x1000, index as u32 + 1).expect("a doorbell");
            // SAFETY: the last dword of an entry of the admin completion queue.
            let last = unsafe { acq.as_ptr().cast::<u32>().add(index * 4 + 3) };
            let deadline = Instant::now() + Duration::from_secs(10);
            // SAFETY: aligned, and in the ring.
            while unsafe { last.read_volatile() } >> 16 & 1 != 1 {
                assert!(Instant::now() < deadline, "no answer to a Create command");
            }
            // SAFETY: aligned, and in the ring.
            assert_eq!(unsafe { last.read_volatile() } >> 17, 0, "a Create command failed");
        }
        let first = data.iova(0);
        Self { bar, _device: device, heap, memory: vec![asq, acq, sq, cq, data], rings, data: first }
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        // The controller must not write to memory that is freed.
        write_u32(&self.bar, spec::offset::CC as u64, 0).expect("CC");
        self.memory.clear();
        self.heap.verify().expect("the heap");
    }
}

/// Runs `work` while `target` serves on `core`.
fn beside<R>(target: &mut Target, core: usize, what: impl FnOnce() -> R) -> R {
    let (stop, started) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            cores::pin(0, &[core]);
            started.store(true, Ordering::Release);
            target.serve(&stop);
        });
        while !started.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        let result = what();
        stop.store(true, Ordering::Release);
        result
    })
}

/// The four pairs for one kind of work.
struct Four {
    ours: (Emulator, Driver),
    bare: (Target, Initiator),
    bare_initiator: (Emulator, ByHand, Initiator),
    bare_target: (Target, Driver, Arc<StandIn>),
}

/// Returns the data of the bare targets.
fn media() -> *const u8 {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    // Not zeroes, so that each page is present.
    BYTES.get_or_init(|| vec![0x5a; MEDIA]).as_ptr()
}

impl Four {
    fn new(with_data: bool, work: Work, target_core: usize) -> Self {
        let options = if with_data { format!("size={MEDIA}") } else { "null=true".into() };
        let emulators = ["ours", "bare"].map(|name| {
            let emulator = Emulator::start(&options, name);
            if with_data {
                let controller = Controller::open(emulator.address()).expect("nvme-emu");
                let namespace = controller.namespace(1).expect("a namespace");
                let mut buffer = controller.alloc(1 << 20).expect("memory");
                buffer.fill(0x5a);
                for piece in 0..MEDIA as u64 >> 20 {
                    namespace.write(piece << 11, &mut buffer).expect("a write");
                }
            }
            emulator
        });
        let [ours, theirs] = emulators;
        let driver = Driver::start(Controller::open(ours.address()).expect("nvme-emu"), work);
        let by_hand = ByHand::bring_up(&theirs.address());
        // SAFETY: the rings are new, and each entry has a page of data.
        let initiator = unsafe { Initiator::start(by_hand.rings, work, by_hand.data) };
        for emulator in [&ours, &theirs] {
            emulator.pin(target_core);
            emulator.signal(libc::SIGSTOP);
        }

        let rings = Rings::new();
        let data = rings::pages(work.depth * 4096);
        let bytes = with_data.then(media);
        let target = Target::new(rings, bytes.map(|bytes| Media { bytes, shift: 0 }));
        // SAFETY: the rings are new, and each entry has a page of data.
        let bare = (target, unsafe { Initiator::start(rings, work, data as u64) });

        let standin = StandIn::new();
        let controller = Controller::builder().from_device(standin.clone()).expect("bring-up");
        let driver_of_bare = Driver::start(controller, work);
        let rings = standin.rings(driver_of_bare.queue.id());
        // So few buffers are in one region of the heap.
        let probe = driver_of_bare.controller.alloc(512).expect("memory");
        let shift = (probe.as_ptr() as u64).wrapping_sub(probe.iova(0));
        let target = Target::new(rings, bytes.map(|bytes| Media { bytes, shift }));
        standin.pause();
        Self {
            ours: (ours, driver),
            bare,
            bare_initiator: (theirs, by_hand, initiator),
            bare_target: (target, driver_of_bare, standin),
        }
    }

    /// Measures each pair once; returns the nanoseconds per I/O of ours, bare, bare initiator, bare target.
    fn round(&mut self, counts: &[u64; 4], core: usize) -> [f64; 4] {
        // The rounds before the measurement wake the other side up.
        let few = |count: u64| (count / 20).max(200);
        let (emulator, driver) = &mut self.ours;
        let ours = emulator.awake(|| {
            driver.run(few(counts[0]));
            driver.run(counts[0])
        });
        let (target, initiator) = &mut self.bare;
        let bare = beside(target, core, || {
            initiator.run(few(counts[1]));
            initiator.run(counts[1])
        });
        let (emulator, _, initiator) = &mut self.bare_initiator;
        let bare_initiator = emulator.awake(|| {
            initiator.run(few(counts[2]));
            initiator.run(counts[2])
        });
        let (target, driver, _) = &mut self.bare_target;
        let bare_target = beside(target, core, || {
            driver.run(few(counts[3]));
            driver.run(counts[3])
        });
        [ours, bare, bare_initiator, bare_target]
    }

    /// Returns the time that these threads have waited for a core so far.
    fn delay(&self) -> u64 {
        let emulators =
            [&self.ours.0, &self.bare_initiator.0].map(|emulator| cores::run_delay(emulator.child.id()));
        emulators.iter().sum::<u64>() + cores::run_delay(std::process::id())
    }

    fn end(self) {
        let (emulator, driver) = self.ours;
        emulator.signal(libc::SIGCONT);
        drop(driver);
        let (emulator, by_hand, _) = self.bare_initiator;
        emulator.signal(libc::SIGCONT);
        drop(by_hand);
        let (_, driver, standin) = self.bare_target;
        standin.resume();
        drop(driver);
    }
}

fn measure(name: &str, with_data: bool, work: Work, [target, initiator]: [usize; 2]) {
    // Threads that start from here on may run on either core.
    cores::pin(0, &[target, initiator]);
    let mut four = Four::new(with_data, work, target);
    cores::pin(0, &[initiator]);
    let first = four.round(&[2000; 4], target);
    let counts = first.map(|ns| (SLICE.as_nanos() as f64 / ns) as u64);
    let mut pairs: [Pairs; 3] = Default::default();
    let mut hand_off = Pairs::default();
    let (mut kept, mut tried) = (0, 0);
    while kept < ROUNDS.0 && tried < ROUNDS.1 {
        tried += 1;
        let (start, before) = (Instant::now(), four.delay());
        let [ours, bare, bare_initiator, bare_target] = four.round(&counts, target);
        let trip = bare::hand_off(target);
        let delay = four.delay() - before;
        if delay as f64 > start.elapsed().as_nanos() as f64 * MOST_DELAY {
            continue;
        }
        kept += 1;
        for (pairs, ns) in pairs.iter_mut().zip([ours, bare_initiator, bare_target]) {
            pairs.push(ns, bare);
        }
        hand_off.push_alone(trip);
    }
    four.end();
    if kept < ROUNDS.0 {
        eprintln!("{name}: {kept} of {tried} rounds had their cores to themselves, fewer than {}", ROUNDS.0);
    }
    let [ours, bare_initiator, bare_target] = pairs;
    ours.report(name, "ns", "lower");
    bare_initiator.report(&format!("{name}/bare_initiator"), "ns", "lower");
    bare_target.report(&format!("{name}/bare_target"), "ns", "lower");
    hand_off.report(&format!("{name}/hand_off"), "ns", "lower");
}

fn main() {
    let filter = env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let &[target, initiator, ..] = &cores::allowed()[..] else {
        eprintln!("vfio_user: skipped, since it needs two cores");
        return;
    };
    cores::prefer();
    for (backing, with_data) in [("null", false), ("ram", true)] {
        for bytes in [512, 4096] {
            for depth in [1, 32, 128] {
                let name = format!("vfio_user/{backing}_{bytes}_qd{depth}");
                if name.contains(&filter) {
                    let work = Work { depth, blocks: bytes / 512, mask: (MEDIA as u64 >> 9) - 1 };
                    measure(&name, with_data, work, [target, initiator]);
                }
            }
        }
    }
}
