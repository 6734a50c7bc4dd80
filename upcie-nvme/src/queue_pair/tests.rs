//! Queue pairs of emulated controllers.

use crate::{Controller, DmaBuf, Error, Failure, Io, QueueGroup, Refusal, Wait, emu};
use nix::poll::{PollFd, PollFlags, poll};
use std::{
    fmt,
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use upcie_core::{
    clock::{Clock, SystemClock},
    pci::{ConfigSpace, cap},
};

const PAGE: usize = 4096;

#[test]
fn a_blocking_call_splits_a_chain() {
    // A command takes two pages.
    let controller = Controller::open("emu:size=1M,mdts=8192").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let parts = |bytes: [u8; 2]| {
        let mut parts = [controller.alloc(3 * PAGE).unwrap(), controller.alloc(2 * PAGE).unwrap()];
        parts.iter_mut().zip(bytes).for_each(|(part, byte)| part.fill(byte));
        parts
    };
    let chained = |bytes| {
        let [mut first, second] = parts(bytes);
        first.chain(second);
        first
    };
    for gathered in [false, true] {
        let make = |bytes| if gathered { DmaBuf::gather(parts(bytes)) } else { chained(bytes) };
        namespace.write(0, &mut make([gathered.into(), 2])).unwrap();
        let mut back = make([9, 9]);
        namespace.read(0, &mut back).unwrap();
        let segments = back.into_segments();
        let found: Vec<_> = segments.iter().map(|segment| segment.to_vec()).collect();
        assert_eq!(found, [vec![gathered.into(); 3 * PAGE], vec![2; 2 * PAGE]]);
    }
}

#[test]
fn a_part_of_a_chain_is_transferred() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut held = controller.alloc(8 * PAGE).unwrap();
    held.fill(3);
    held.chain(controller.alloc(PAGE).unwrap());
    let mut queue = controller.queue_pair().create::<usize>().unwrap();
    for (start, len, wanted) in [
        (512, PAGE, Ok(())),
        (512, 5 * PAGE, Ok(())),
        (0, 8 * PAGE, Ok(())),
        (0, 9 * PAGE, Ok(())),
        (PAGE, 8 * PAGE, Ok(())),
        (8 * PAGE, PAGE, Ok(())),
        (8 * PAGE, 2 * PAGE, Err(Refusal::Length)),
    ] {
        let mut turn = queue.turn().unwrap();
        // SAFETY: `held` is not touched before the queue is closed.
        let sent = unsafe { turn.submit_held(Io::write(&namespace, 0), &held, start..start + len, len) };
        drop(turn);
        assert_eq!(sent.map_err(|refused| refused.reason), wanted, "{len} bytes from {start} on");
        if wanted.is_ok() {
            assert!(queue.wait(Wait::Poll, Duration::from_secs(10)).unwrap());
            assert_eq!(queue.turn().unwrap().next().unwrap().into_parts().1, Ok(()));
        }
    }
    queue.close().unwrap();
}

#[test]
fn a_timed_out_wait_reports_the_cause() {
    let read = |address: &str, wait| {
        let controller = Controller::open(address).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let mut queue = controller.queue_pair().depth(4).create::<u64>().unwrap();
        // Fill the ring once, so that the next command wraps around.
        for at in 0..4 {
            let buffer = controller.alloc(namespace.block_size()).unwrap();
            queue.turn().unwrap().read(&namespace, 0, buffer, at).unwrap();
            if wait || at < 3 {
                assert!(queue.wait(Wait::Poll, Duration::from_secs(10)).unwrap());
            }
            if at < 3 {
                assert!(queue.turn().unwrap().next().is_some());
            }
        }
        queue.diagnose()
    };
    let text = read("emu:size=1M,latency=500ms", false);
    let parts = [
        "1 commands in flight (submission tail 0, by the last completion fetched up to 3",
        "needs more time",
    ];
    assert!(parts.iter().all(|part| text.contains(part)) && text.contains("CSTS 1h"), "{text}");
    let text = read("emu:size=1M", true);
    assert!(
        text.contains("completion head 3, phase 1") && text.contains("a completion has arrived since"),
        "{text}"
    );
}

/// A PCI device is driven as PCI says: an interrupt that does not come is named, and the commands complete.
#[test]
fn missing_interrupts_are_logged_once() {
    // A completion that is there already needs no interrupt, and nobody would miss one.
    let device = emu::spawn(&"size=1M,vectors=3,latency=1ms".parse().unwrap()).unwrap();
    let controller = Controller::builder().from_device(device.clone()).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair().interrupt(1).create::<u64>().unwrap();
    let mut read = |count| {
        for tag in 0..count {
            let mut turn = queue.turn().unwrap();
            turn.read(&namespace, 0, controller.alloc(512).unwrap(), tag).unwrap();
            drop(turn);
            assert!(queue.wait(Wait::Interrupt, Duration::from_secs(20)).unwrap());
            assert_eq!(queue.turn().unwrap().next().unwrap().into_parts().0, tag);
        }
        controller.silent_vectors()
    };
    assert_eq!(read(200), []);
    let control = device.find_capability(cap::MSIX).unwrap().unwrap() + 2;
    // SAFETY: messages go off, and nothing else changes.
    unsafe { device.set_config_u16(control, 0) }.unwrap();
    assert_eq!(read(8), [1]);
    assert_eq!(read(2), [1], "a wait ends within 100 ms all the same");
    // SAFETY: messages go on, as the driver had them.
    unsafe { device.set_config_u16(control, 1 << 15) }.unwrap();
    assert_eq!(read(200), [1]);
}

#[test]
fn a_turn_that_rings_reaps_its_own_commands() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair().depth(4).create::<u64>().unwrap();
    assert_eq!((queue.room(), queue.capacity()), (3, 3));
    let mut turn = queue.turn().unwrap();
    for tag in 0..2 {
        turn.read(&namespace, 0, controller.alloc(512).unwrap(), tag).unwrap();
    }
    assert_eq!((turn.len(), turn.room(), turn.is_full()), (2, 1, false));
    assert!(turn.next().is_none(), "the controller was told of nothing yet");
    turn.ring();
    let start = Instant::now();
    let mut tags = Vec::new();
    while tags.len() < 2 {
        assert!(start.elapsed() < Duration::from_secs(60), "no completion in the turn that rang");
        tags.extend(turn.next().map(|done| *done.tag()));
    }
    assert!(turn.is_empty() && turn.next().is_none());
    drop(turn);
    assert_eq!(queue.room(), 3);
    queue.close().unwrap();
}

#[test]
fn a_cloned_completion_descriptor_wakes_its_owner() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let without = controller.queue_pair().create::<u64>().unwrap();
    assert!(
        matches!(without.clone_completion_fd(), Err(error) if matches!(error.failure(), Failure::Argument { .. }))
    );
    let mut queue = controller.queue_pair().interrupt(1).create::<u64>().unwrap();
    let owned = queue.clone_completion_fd().unwrap();
    queue.arm().unwrap();
    queue.turn().unwrap().read(&namespace, 0, controller.alloc(512).unwrap(), 5).unwrap();
    let mut fds = [PollFd::new(owned.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, 60_000_u16), Ok(1), "an interrupt within a minute");
    assert_eq!(queue.turn().unwrap().next().map(|done| *done.tag()), Some(5));
}

/// A clock whose sleeps take no time once it jumps.
#[derive(Debug, Default)]
pub(super) struct Jumping {
    pub(super) jumps: AtomicBool,
    /// Nanoseconds ahead of the system's clock.
    pub(super) ahead: AtomicU64,
}

impl Clock for Jumping {
    fn now(&self) -> Duration {
        SystemClock.now() + Duration::from_nanos(self.ahead.load(Ordering::Relaxed))
    }

    fn sleep(&self, time: Duration) {
        if self.runs() {
            SystemClock.sleep(time);
        } else {
            self.ahead.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        }
    }

    fn runs(&self) -> bool {
        !self.jumps.load(Ordering::Relaxed)
    }
}

#[test]
fn all_waits_for_a_controller_go_by_its_clock() {
    let clock = Arc::new(Jumping::default());
    let limit = Duration::from_secs(30);
    let builder = Controller::builder().clock(clock.clone()).timeout(limit);
    let controller = builder.open("emu:size=1M,latency=60s").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let vector = controller.vectors().unwrap() - 1;
    let mut queue = controller.queue_pair().interrupt(vector).create::<u64>().unwrap();
    // Returns the time by which the clock jumped.
    let jump = |wait: &mut dyn FnMut()| {
        let before = clock.ahead.load(Ordering::Relaxed);
        clock.jumps.store(true, Ordering::Relaxed);
        wait();
        clock.jumps.store(false, Ordering::Relaxed);
        Duration::from_nanos(clock.ahead.load(Ordering::Relaxed) - before)
    };
    queue.turn().unwrap().flush(&namespace, 0).unwrap();
    for how in [Wait::Poll, Wait::Interrupt, Wait::Adaptive(Duration::from_micros(20))] {
        let jumped = jump(&mut || assert!(!queue.wait(how, limit).unwrap(), "the flush takes a minute"));
        assert!(jumped > limit / 2, "{how:?}: {jumped:?}");
    }
    let jumped = jump(&mut || {
        let error = namespace.flush().unwrap_err();
        assert!(matches!(error.failure(), Failure::Timeout { after, .. } if *after == limit), "{error}");
    });
    assert!(jumped > limit / 2, "{jumped:?}");
}

/// A clock that calls a function at its next reading, and counts the sleeps after that. Waits sleep by it alone.
#[derive(Default)]
struct Hooked {
    hook: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    sleeps: AtomicU64,
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooked").field("sleeps", &self.sleeps).finish_non_exhaustive()
    }
}

impl Clock for Hooked {
    fn now(&self) -> Duration {
        let hook = self.hook.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
            self.sleeps.store(0, Ordering::Relaxed);
        }
        SystemClock.now()
    }

    fn sleep(&self, time: Duration) {
        self.sleeps.fetch_add(1, Ordering::Relaxed);
        SystemClock.sleep(time);
    }

    fn runs(&self) -> bool {
        false
    }
}

/// A wait that had seen its queue live, and forgot the wake-up of another thread's reset, slept until its next look.
#[test]
fn a_reset_before_a_wait_sleeps_is_noticed() {
    let clock = Arc::new(Hooked::default());
    let controller = Controller::builder().clock(clock.clone()).open("emu:size=1M,latency=60s").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let resets = || {
        let controller = controller.clone();
        *clock.hook.lock().unwrap() = Some(Box::new(move || controller.reset().unwrap()));
    };
    let limit = Duration::from_secs(60);
    for together in [false, true] {
        let mut queue = controller.queue_pair().interrupt(0).create::<u64>().unwrap();
        queue.turn().unwrap().flush(&namespace, 0).unwrap();
        let mut group = QueueGroup::new();
        // So that the wait does not begin with a look.
        group.check(std::slice::from_mut(&mut queue)).unwrap();
        resets();
        let waited = if together {
            group.wait(std::slice::from_mut(&mut queue), Wait::Interrupt, limit).map_err(Error::from)
        } else {
            queue.wait(Wait::Interrupt, limit)
        };
        let sleeps = clock.sleeps.load(Ordering::Relaxed);
        assert!(matches!(waited.unwrap_err().failure(), Failure::Reset { .. }));
        assert_eq!(sleeps, 0, "together: {together}");
    }
}

/// The documentation states which types can be sent and shared; a queue pair can't be shared (`compile_fail` there).
#[test]
fn handles_can_be_sent_and_shared() {
    fn sent<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    shared::<Controller>();
    shared::<crate::Namespace>();
    shared::<DmaBuf>();
    shared::<Error>();
    shared::<crate::Address>();
    shared::<upcie_core::Error>();
    shared::<upcie_core::dma::Heap>();
    shared::<upcie_core::dma::Region>();
    sent::<crate::QueuePair<u64>>();
    sent::<crate::Stream>();
    sent::<crate::Completion<u64>>();
}

#[test]
fn a_turn_that_a_panic_ends_rings_the_doorbell() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair().create::<u64>().unwrap();
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let mut turn = queue.turn().unwrap();
        turn.read(&namespace, 0, controller.alloc(PAGE).unwrap(), 7).unwrap();
        resume_unwind(Box::new("a caller's bug"));
    }));
    assert!(unwound.is_err());
    assert!(queue.wait(Wait::Poll, Duration::from_secs(30)).unwrap(), "{}", queue.diagnose());
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let mut turn = queue.turn().unwrap();
        let done = turn.next().unwrap();
        assert_eq!((*done.tag(), done.result()), (7, Ok(())));
        resume_unwind(Box::new("another"));
    }));
    assert!(unwound.is_err_and(|payload| payload.is::<&str>()));
    assert_eq!((queue.in_flight(), queue.room()), (0, queue.capacity()));
    assert!(queue.turn().unwrap().next().is_none(), "the completion was reaped before the panic");
}

/// A program that sleeps until a queue's descriptor is readable would sleep for ever after a reset by another thread.
#[test]
fn a_reset_makes_descriptors_readable() {
    let controller = Controller::open("emu:size=1M,latency=60s").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut queue = controller.queue_pair().interrupt(1).create::<u8>().unwrap();
    let buffer = controller.alloc(PAGE).unwrap();
    queue.turn().unwrap().read(&namespace, 0, buffer, 7).unwrap();
    queue.arm().unwrap();
    assert!(!queue.is_ready());
    std::thread::scope(|scope| {
        let resets = scope.spawn(|| controller.reset());
        let fd = queue.completion_fd().unwrap();
        assert_eq!(poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], 30_000_u16).unwrap(), 1);
        resets.join().unwrap().unwrap();
    });
    let error = queue.turn().unwrap_err();
    assert!(matches!(error.failure(), Failure::Reset { .. }), "{error}");
    let returned = queue.recover().unwrap();
    assert_eq!(returned.iter().map(|command| *command.tag()).collect::<Vec<_>>(), [7]);
}
