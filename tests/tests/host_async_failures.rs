//! What becomes of commands as futures when their controller is reset, late or gone: each gets one error of its own, and its
//! buffer once the device is done with it.

use std::{
    cell::Cell,
    os::fd::AsFd,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, RawWaker, RawWakerVTable, Waker},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use upcie_nvme::{
    AsyncQueue, Controller, Failure,
    emu::{Fault, FaultPlan, FaultRule, spawn_with_faults},
    queue::OnTimeout,
    spec::{NvmOpcode, Status},
};
use upcie_tests::{
    bent::{Bent, FAULTS},
    deadline,
    futures::{BLOCK, Bed, in_one_thread, poll_once, settled, tokio_driver},
    scaled,
};

#[test]
fn resets_under_load_reach_each_future_and_the_queue_goes_on() {
    const TASKS: usize = 32;
    let controller = Controller::open("emu:size=16M,latency=200us").unwrap();
    let namespace = controller.namespace(1).unwrap();
    let queue = controller.queue_pair().depth(8).create_async().unwrap();
    let before = controller.heap().in_use();
    in_one_thread(async {
        let driver = tokio::task::spawn_local(queue.drive_polled());
        let (mut resets, lost, stop) = (0, Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let mut tasks = JoinSet::new();
        for task in 0..TASKS as u64 {
            let (queue, namespace, lost, stop) =
                (queue.clone(), namespace.clone(), lost.clone(), stop.clone());
            let mut buffer = controller.alloc(BLOCK).unwrap();
            tasks.spawn_local(async move {
                while !stop.get() {
                    let (result, back) = queue.read(&namespace, task * 8, buffer).await;
                    match result {
                        Ok(()) => {}
                        Err(error) if matches!(error.failure(), Failure::Reset { qid: None, .. }) => {
                            assert!(error.operation().is_some_and(|what| what.contains("Read")), "{error}");
                            lost.set(lost.get() + 1);
                        }
                        Err(error) => panic!("{error}"),
                    }
                    assert_eq!(back.len(), BLOCK, "the buffer is back");
                    buffer = back;
                }
                queue.read(&namespace, task * 8, buffer).await.0.unwrap();
            });
        }
        let end = Instant::now() + deadline();
        // On a slow machine a reset may find all commands completed: go on until one has found some in flight.
        while resets < scaled(5) || lost.get() == 0 {
            assert!(Instant::now() < end, "no command was in flight in {resets} resets");
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            resets += 1;
            let controller = controller.clone();
            tokio::task::spawn_blocking(move || controller.reset()).await.unwrap().unwrap();
        }
        stop.set(true);
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert!(lost.get() <= resets * queue.capacity(), "only what was in flight: {}", lost.get());
        driver.abort();
    });
    assert_eq!(controller.heap().in_use(), before);
}

/// A function to call when a waker is cloned.
type Hook = Cell<Option<Box<dyn FnOnce()>>>;

static HOOKED: RawWakerVTable = RawWakerVTable::new(call_hook, ignore, ignore, ignore);

/// Clones a waker of [`hooked`], and calls the hook, once.
unsafe fn call_hook(data: *const ()) -> RawWaker {
    // SAFETY: `hooked` made the waker of a hook that outlives it.
    let hook = unsafe { &*data.cast::<Hook>() };
    if let Some(hook) = hook.take() {
        hook();
    }
    RawWaker::new(data, &HOOKED)
}

unsafe fn ignore(_: *const ()) {}

/// Makes a waker that wakes nobody, and calls `hook` when it is cloned.
///
/// # Safety
/// The waker and its clones stay in this thread, and `hook` outlives them.
unsafe fn hooked(hook: &Hook) -> Waker {
    // SAFETY: the functions use the data as a hook, in this thread, while it lives.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::from_ref(hook).cast(), &HOOKED)) }
}

/// A reset between a driver's turn and its sleep left the driver asleep until its next look, 50 ms later.
#[test]
fn a_reset_while_a_driver_goes_to_sleep_is_noticed() {
    let bed = Bed::open("size=1M,latency=60s");
    let controller = bed.controller.clone();
    // A driver notes the waker between its turn and its sleep.
    let hook: Hook = Cell::new(Some(Box::new(move || controller.reset().unwrap())));
    // SAFETY: both stay in this thread, and the hook is declared first.
    let waker = unsafe { hooked(&hook) };
    let queue = bed.controller.queue_pair().depth(4).interrupt(1).create_async().unwrap();
    let mut read = queue.read(&bed.namespace, 0, bed.buffer());
    assert!(poll_once(&mut read).is_pending());
    assert_eq!(queue.in_flight(), 1);
    let driver = queue.drive(|fd| {
        let is_readable = move || upcie_core::irq::wait_readable(fd.as_fd(), Duration::ZERO).unwrap();
        Ok(move |_: &mut Context<'_>| if is_readable() { Poll::Ready(Ok(())) } else { Poll::Pending })
    });
    let mut driver = pin!(driver.unwrap());
    assert!(driver.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let Poll::Ready((result, buffer)) = poll_once(&mut read) else { panic!("the driver sleeps") };
    assert!(matches!(result.unwrap_err().failure(), Failure::Reset { .. }));
    assert_eq!(buffer.len(), BLOCK);
}

#[test]
fn a_dead_controller_ends_all_futures_and_the_driver() {
    for (name, fault, says) in FAULTS {
        for interrupt in [false, true] {
            println!("{name}, {}", if interrupt { "by interrupts" } else { "polled" });
            let bent = Bent::start("size=1M");
            let controller = Controller::open(bent.address()).unwrap();
            let namespace = controller.namespace(1).unwrap();
            let builder = controller.queue_pair().depth(4);
            let builder = if interrupt { builder.interrupt(1) } else { builder };
            let queue = builder.create_async().unwrap();
            in_one_thread(async {
                let driver = if interrupt {
                    tokio::task::spawn_local(tokio_driver(&queue))
                } else {
                    tokio::task::spawn_local(queue.drive_polled())
                };
                bent.faults.hang(true);
                let mut tasks = JoinSet::new();
                for task in 0..8 {
                    let (queue, namespace) = (queue.clone(), namespace.clone());
                    let buffer = controller.alloc(BLOCK).unwrap();
                    tasks.spawn_local(async move { queue.read(&namespace, task * 8, buffer).await });
                }
                while queue.in_flight() < 3 {
                    tokio::task::yield_now().await;
                }
                fault(&bent);
                while let Some(done) = tasks.join_next().await {
                    let (result, buffer) = done.unwrap();
                    let error = result.unwrap_err();
                    assert!(format!("{error:?}").contains(says), "{error:?}");
                    // A controller that could not be stopped keeps the buffers of commands in flight.
                    assert!(buffer.is_empty() || buffer.len() == BLOCK);
                }
                let error = driver.await.unwrap().unwrap_err();
                assert!(format!("{error:?}").contains(says), "{error:?}");
                let (result, buffer) = queue.read(&namespace, 0, controller.alloc(BLOCK).unwrap()).await;
                assert!(format!("{:?}", result.unwrap_err()).contains(says));
                assert_eq!(buffer.len(), BLOCK);
                bent.faults.hang(false);
            });
        }
    }
}

/// Starts a queue whose first write to block 8 is stuck, and writes to it and to others.
fn stuck(reaction: OnTimeout, check: impl AsyncFnOnce(upcie_nvme::Error, usize, &AsyncQueue, &Controller)) {
    let write = FaultRule::new(Fault::Drop).opcode(NvmOpcode::WRITE.0).lba(8..=8).count(1);
    let device = spawn_with_faults(&"size=1M".parse().unwrap(), &FaultPlan::new(1).rule(write)).unwrap();
    let controller = Controller::builder().from_device(device).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let builder =
        controller.queue_pair().depth(8).command_timeout(Duration::from_millis(400)).on_timeout(reaction);
    let queue = builder.create_async().unwrap();
    in_one_thread(async {
        let driver = tokio::task::spawn_local(queue.drive_polled());
        let buffer = || controller.alloc(BLOCK).unwrap();
        let late = queue.write(&namespace, 8, buffer());
        let (late, other) = tokio::join!(late, queue.write(&namespace, 0, buffer()));
        other.0.unwrap();
        let (result, buffer) = late;
        check(result.unwrap_err(), buffer.len(), &queue, &controller).await;
        queue.flush(&namespace).await.0.unwrap();
        driver.abort();
    });
}

#[test]
fn an_overdue_command_is_an_error_and_its_buffer_stays_in_flight() {
    stuck(OnTimeout::Report, async |error, len, queue, controller| {
        assert!(matches!(error.failure(), Failure::Overdue { .. }), "{error}");
        assert_eq!((len, queue.in_flight()), (0, 1), "the device still has it");
        let before = controller.heap().in_use();
        controller.reset().unwrap();
        settled(queue).await;
        assert!(controller.heap().in_use() <= before - BLOCK, "the controller has let go of the buffer");
    });
}

#[test]
fn an_aborted_command_is_an_error_with_its_buffer() {
    stuck(OnTimeout::Abort, async |error, len, _, _| {
        assert_eq!((error.status(), len), (Some(Status::ABORT_REQUESTED), BLOCK), "{error}");
    });
}

#[test]
fn a_reset_for_an_overdue_command_is_an_error_with_its_buffer() {
    stuck(OnTimeout::Reset, async |error, len, _, _| {
        assert!(matches!(error.failure(), Failure::Reset { .. }), "{error}");
        assert_eq!(len, BLOCK);
    });
}
