//! Commands as futures: many tasks on one queue under two runtimes, polled and by interrupts, from other threads, with
//! cancellation at every await point.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::mpsc,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};
use tokio::task::{JoinSet, LocalSet};
use upcie_nvme::{
    AsyncQueue, Controller, DmaBuf, Failure, Io, Namespace, Refusal, Zeroes,
    async_queue::{AsyncHandle, Submission},
    spec::DatasetRange,
};
use upcie_tests::{bent::Bent, data::Pattern, deadline, scaled};

const BLOCK: usize = 4096;

struct Bed {
    controller: Controller,
    namespace: Namespace,
}

impl Bed {
    fn open(options: &str) -> Self {
        Self::of(Controller::open(format!("emu:{options}").as_str()).unwrap())
    }

    fn of(controller: Controller) -> Self {
        let namespace = controller.namespace(1).unwrap();
        Self { controller, namespace }
    }

    fn queue(&self, depth: u32) -> AsyncQueue {
        self.controller.queue_pair().depth(depth).create_async().unwrap()
    }

    fn buffer(&self) -> DmaBuf {
        self.controller.alloc(BLOCK).unwrap()
    }

    /// Returns the bytes of the heap that are in use.
    fn in_use(&self) -> usize {
        self.controller.heap().in_use()
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(deadline(), future).await.expect("it ends within the deadline")
}

/// Runs `test` on tokio's runtime of one thread, with tasks that stay in it.
fn in_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, within(test));
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Writes and reads blocks of its own, and checks what it reads.
async fn exercise(queue: AsyncQueue, namespace: Namespace, mut buffer: DmaBuf, task: u64, rounds: u32) {
    let (pattern, blocks) = (Pattern::of(&namespace), (BLOCK / namespace.block_size()) as u64);
    let slba = task * blocks;
    for version in 0..rounds {
        pattern.fill(&mut buffer, slba, version);
        let (result, written) = queue.write(&namespace, slba, buffer).await;
        result.unwrap();
        let (result, mut read) = queue
            .read(&namespace, slba, {
                let mut b = written;
                b.fill(0);
                b
            })
            .await;
        result.unwrap();
        pattern.verify(&read, slba, version);
        read.fill(1);
        buffer = read;
    }
}

/// Runs many tasks on a queue of few slots, beside a driver that ends once all are done.
async fn many_tasks(
    bed: &Bed,
    queue: AsyncQueue,
    driver: impl Future<Output = upcie_nvme::Result<()>> + 'static,
) {
    const TASKS: u64 = 64;
    let rounds = scaled(50) as u32;
    let driver = tokio::task::spawn_local(driver);
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        tasks.spawn_local(exercise(queue.clone(), bed.namespace.clone(), bed.buffer(), task, rounds));
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!((queue.in_flight(), queue.waiting()), (0, 0));
    drop(queue);
    // Nobody uses the queue any more.
    driver.await.unwrap().unwrap();
}

#[test]
fn many_tasks_share_a_polled_queue() {
    let bed = Bed::open("size=16M");
    in_one_thread(async {
        let queue = bed.queue(8);
        let driver = queue.drive_polled();
        many_tasks(&bed, queue, driver).await;
    });
}

#[test]
fn many_tasks_share_a_queue_by_interrupts() {
    for options in ["size=16M", "size=16M,vectors=0,msi=4", "size=16M,vectors=0,intx=true"] {
        let bed = Bed::open(options);
        let vector = bed.controller.vectors().unwrap().saturating_sub(1).min(1);
        in_one_thread(async {
            let queue = bed.controller.queue_pair().depth(8).interrupt(vector).create_async().unwrap();
            let driver = tokio_driver(&queue);
            many_tasks(&bed, queue, driver).await;
        });
    }
}

/// Returns a driver by the queue's interrupt, with tokio's reactor.
fn tokio_driver(queue: &AsyncQueue) -> impl Future<Output = upcie_nvme::Result<()>> + Unpin + use<> {
    let driver = queue.drive(|fd| {
        // SAFETY: an `OwnedFd` refers to the same open file for its whole life, and the closure keeps it.
        let fd = unsafe { tokio::io::unix::AsyncFd::register(fd) }?;
        Ok(move |cx: &mut Context<'_>| fd.poll_read_ready(cx).map_ok(|mut ready| ready.clear_ready()))
    });
    driver.unwrap()
}

#[test]
fn smol_drives_a_queue_by_interrupts() {
    let bed = Bed::open("size=16M");
    let queue = bed.controller.queue_pair().depth(8).interrupt(1).create_async().unwrap();
    let driver = queue.drive(|fd| {
        let fd = smol::Async::new_nonblocking(fd)?;
        Ok(move |cx: &mut Context<'_>| fd.poll_readable(cx))
    });
    let executor = smol::LocalExecutor::new();
    let tasks: Vec<_> = (0..32)
        .map(|task| {
            let (namespace, buffer) = (bed.namespace.clone(), bed.buffer());
            executor.spawn(exercise(queue.clone(), namespace, buffer, task, scaled(20) as u32))
        })
        .collect();
    drop(queue);
    smol::block_on(executor.run(async {
        let all = async {
            for task in tasks {
                task.await;
            }
        };
        let (ended, ()) = smol::future::zip(driver.unwrap(), all).await;
        ended.unwrap();
    }));
}

#[test]
fn an_idle_interrupt_driver_sleeps() {
    // Polls of a driver that has nothing to do, and of one that waits for a slow command.
    let bed = Bed::open("size=1M,latency=300ms");
    let queue = bed.controller.queue_pair().interrupt(1).create_async().unwrap();
    let polls = Rc::new(Cell::new(0));
    in_one_thread(async {
        let (counted, mut driver) = (polls.clone(), tokio_driver(&queue));
        let driver = std::future::poll_fn(move |cx| {
            counted.set(counted.get() + 1);
            Pin::new(&mut driver).poll(cx)
        });
        let driver = tokio::task::spawn_local(driver);
        queue.flush(&bed.namespace).await.0.unwrap();
        driver.abort();
    });
    // A look every 50 ms, and some for the start and the end; a loop would be in the thousands.
    assert!(polls.get() < 200, "{} polls", polls.get());
}

#[test]
fn commands_wait_for_room_in_order() {
    const DEPTH: u32 = 4;
    let bed = Bed::open("size=1M");
    let queue = bed.queue(DEPTH);
    in_one_thread(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for number in 0..20 {
            let (queue, order, buffer) = (queue.clone(), order.clone(), bed.buffer());
            let namespace = bed.namespace.clone();
            tasks.spawn_local(async move {
                queue.read(&namespace, 0, buffer).await.0.unwrap();
                order.borrow_mut().push(number);
            });
        }
        // Each task has asked, and nothing was sent: there is a driver that was not polled since.
        let mut driver = queue.drive_polled();
        assert!(poll_once(&mut driver).is_pending());
        tokio::task::yield_now().await;
        assert_eq!(queue.waiting(), 20);
        let mut most = 0;
        while !tasks.is_empty() {
            assert!(poll_once(&mut driver).is_pending());
            most = most.max(queue.in_flight());
            tokio::task::yield_now().await;
            while let Some(done) = tasks.try_join_next() {
                done.unwrap();
            }
        }
        assert_eq!(*order.borrow(), (0..20).collect::<Vec<_>>());
        assert_eq!((most, queue.capacity()), (DEPTH as usize - 1, DEPTH as usize - 1));
    });
}

#[test]
fn a_held_queue_waits_for_the_programs_progress() {
    let bed = Bed::open("size=1M");
    let queue = bed.queue(4);
    let hold = queue.hold();
    let mut read = queue.read(&bed.namespace, 0, bed.buffer());
    for _ in 0..3 {
        assert!(poll_once(&mut read).is_pending());
    }
    assert_eq!((queue.waiting(), queue.in_flight()), (1, 0), "the tasks submit nothing");
    queue.progress().unwrap();
    assert_eq!((queue.waiting(), queue.in_flight()), (0, 1));
    drop(hold);
    smol::block_on(read).0.unwrap();
}

#[test]
fn tasks_without_a_driver_go_on_by_themselves() {
    let bed = Bed::open("size=16M");
    let queue = bed.queue(8);
    in_one_thread(async {
        let mut tasks = JoinSet::new();
        for task in 0..16 {
            tasks.spawn_local(exercise(queue.clone(), bed.namespace.clone(), bed.buffer(), task, 10));
        }
        // A driver that is dropped with commands in flight wakes those that wait for it.
        let mut driver = queue.drive_polled();
        for _ in 0..3 {
            assert!(poll_once(&mut driver).is_pending());
            tokio::task::yield_now().await;
        }
        drop(driver);
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    });
}

/// Polls a future so many times, then drops it, unless it ends before.
struct AtMost<F> {
    future: Option<Pin<Box<F>>>,
    polls: usize,
}

impl<F: Future> Future for AtMost<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.future.as_mut().expect("it is not polled again");
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        self.polls -= 1;
        if self.polls > 0 {
            return Poll::Pending;
        }
        self.future = None;
        Poll::Ready(None)
    }
}

/// A service's work on one request: every kind of command, and two at once.
async fn request(queue: AsyncQueue, bed: Rc<Bed>) {
    let (result, buffer) = queue.write(&bed.namespace, 0, bed.buffer()).await;
    result.unwrap();
    let (first, second) =
        tokio::join!(queue.read(&bed.namespace, 0, buffer), queue.read(&bed.namespace, 8, bed.buffer()));
    first.0.and(second.0).unwrap();
    queue.write_zeroes(Zeroes::new(&bed.namespace, 0, 8)).await.0.unwrap();
    let mut ranges = bed.buffer();
    ranges.write_at(0, &DatasetRange::new(0, 8).to_bytes());
    queue.deallocate(&bed.namespace, ranges, 1).await.0.unwrap();
    queue.flush(&bed.namespace).await.0.unwrap();
    queue.submit(Io::write(&bed.namespace, 0).fua(), bed.buffer()).await.0.unwrap();
}

#[test]
fn dropped_at_each_await_point_nothing_leaks() {
    // Few slots: some commands are dropped while they wait, others in flight.
    for (depth, latency) in [(4, "0s"), (4, "1ms"), (2, "1ms")] {
        let bed = Rc::new(Bed::open(&format!("size=1M,latency={latency}")));
        let queue = bed.queue(depth);
        let before = bed.in_use();
        in_one_thread(async {
            let driver = tokio::task::spawn_local(queue.drive_polled());
            for polls in 1.. {
                // Beside one that goes on.
                let other = tokio::task::spawn_local(request(queue.clone(), bed.clone()));
                let walked = AtMost { future: Some(Box::pin(request(queue.clone(), bed.clone()))), polls };
                let walked = tokio::task::spawn_local(walked).await.unwrap();
                other.await.unwrap();
                if walked.is_some() {
                    assert!(polls > 6, "an await point for each command: {polls}");
                    break;
                }
            }
            settled(&queue).await;
            driver.abort();
        });
        assert_eq!(bed.in_use(), before);
    }
}

/// Waits until no command is in flight.
async fn settled(queue: &AsyncQueue) {
    while queue.in_flight() + queue.waiting() > 0 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_dropped_future_leaves_its_buffer_until_the_device_is_done() {
    let bent = Bent::start("size=1M");
    let bed = Bed::of(Controller::open(bent.address()).unwrap());
    let queue = bed.queue(2);
    let before = bed.in_use();
    bent.faults.hang(true);
    let [mut flying, mut waiting] = [0, 8].map(|slba| queue.write(&bed.namespace, slba, bed.buffer()));
    assert!(poll_once(&mut flying).is_pending() && poll_once(&mut waiting).is_pending());
    assert_eq!((queue.in_flight(), queue.waiting()), (1, 1));
    drop(waiting);
    assert_eq!(bed.in_use(), before + BLOCK, "a command that was not sent gives its buffer back at once");
    drop(flying);
    let _ = queue.progress().unwrap();
    assert_eq!((bed.in_use(), queue.in_flight()), (before + BLOCK, 1), "the device may still use it");
    bent.faults.hang(false);
    in_one_thread(async {
        while queue.in_flight() > 0 {
            queue.progress().unwrap();
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(bed.in_use(), before);
}

#[test]
fn a_timeout_cancels_one_command_and_the_others_go_on() {
    let bent = Bent::start("size=1M");
    let bed = Bed::of(Controller::open(bent.address()).unwrap());
    let queue = bed.queue(8);
    let before = bed.in_use();
    in_one_thread(async {
        let driver = tokio::task::spawn_local(queue.drive_polled());
        bent.faults.hang(true);
        let limit = Duration::from_millis(20);
        let late = tokio::time::timeout(limit, queue.read(&bed.namespace, 0, bed.buffer())).await;
        assert!(late.is_err());
        assert_eq!((queue.in_flight(), bed.in_use()), (1, before + BLOCK));
        let other = queue.read(&bed.namespace, 8, bed.buffer());
        bent.faults.hang(false);
        other.await.0.unwrap();
        settled(&queue).await;
        driver.abort();
    });
    assert_eq!(bed.in_use(), before);
}

#[test]
fn refused_commands_bring_their_buffers_back() {
    let bed = Bed::open("size=1M");
    let queue = bed.queue(4);
    let other = Bed::open("size=1M");
    let refused = |future: Submission, reason: Refusal, len: usize| {
        let (result, buffer) = smol::block_on(future);
        let error = result.unwrap_err();
        assert!(
            matches!(error.failure(), Failure::Refused { reason: found, .. } if *found == reason),
            "{error:?}"
        );
        assert_eq!((error.device(), buffer.len()), (Some(bed.controller.name()), len));
    };
    let namespace = &bed.namespace;
    refused(queue.read(namespace, namespace.blocks(), bed.buffer()), Refusal::OutOfRange, BLOCK);
    refused(queue.read(namespace, 0, DmaBuf::empty()), Refusal::Length, 0);
    refused(queue.write(namespace, 0, bed.controller.alloc(700).unwrap()), Refusal::Length, 700);
    refused(queue.write(namespace, 0, other.buffer()), Refusal::ForeignBuffer, BLOCK);
    refused(queue.flush(&other.namespace), Refusal::ForeignNamespace, 0);
    refused(queue.write_zeroes(Zeroes::new(namespace, 0, 0)), Refusal::Length, 0);
    refused(queue.deallocate(namespace, bed.buffer(), 257), Refusal::Length, BLOCK);
    // A future that was finished is an error, not a panic.
    let mut done = queue.flush(namespace);
    let first = smol::block_on(&mut done);
    first.0.unwrap();
    assert!(matches!(poll_once(&mut done), Poll::Ready((Err(_), _))));
    for (capacity, first) in [(0, true), (usize::MAX, true), (4, false), (5, true)] {
        assert_eq!(queue.handle(capacity).is_err(), first, "{capacity}");
    }
}

#[test]
fn a_closed_queue_ends_its_futures_with_their_buffers() {
    let bent = Bent::start("size=1M");
    let bed = Bed::of(Controller::open(bent.address()).unwrap());
    let queue = bed.queue(2);
    bent.faults.hang(true);
    let mut futures = [0, 8].map(|slba| queue.write(&bed.namespace, slba, bed.buffer()));
    for future in &mut futures {
        assert!(poll_once(future).is_pending());
    }
    thread::scope(|scope| {
        // The admin command that deletes the queue needs the controller.
        scope.spawn(|| bent.faults.hang(false));
        queue.close().unwrap();
    });
    for future in &mut futures {
        let Poll::Ready((result, buffer)) = poll_once(future) else { panic!("it has ended") };
        // The controller may have completed the first one before it deleted the queue.
        if let Err(error) = result {
            assert!(error.to_string().contains("closed"), "{error}");
        }
        assert_eq!(buffer.len(), BLOCK);
    }
    let (result, buffer) = smol::block_on(queue.read(&bed.namespace, 0, bed.buffer()));
    assert!(result.is_err() && buffer.len() == BLOCK);
    assert!(queue.progress().is_err() && queue.handle(1).is_err());
    smol::block_on(queue.drive_polled()).unwrap();
    queue.close().unwrap();
}

/// Starts a thread that owns a queue, and returns a handle to it.
fn serve(bed: &Bed, depth: u32, capacity: usize, interrupt: bool) -> (AsyncHandle, thread::JoinHandle<()>) {
    let (sender, handles) = mpsc::channel();
    let controller = bed.controller.clone();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let builder = controller.queue_pair().depth(depth);
            let builder = if interrupt { builder.interrupt(1) } else { builder };
            let queue = builder.create_async().unwrap();
            sender.send(queue.handle(capacity).unwrap()).unwrap();
            if interrupt {
                let driver = tokio_driver(&queue);
                drop(queue);
                driver.await.unwrap();
            } else {
                let driver = queue.drive_polled();
                drop(queue);
                driver.await.unwrap();
            }
        });
    });
    (handles.recv().unwrap(), thread)
}

#[test]
fn tasks_of_many_threads_use_handles() {
    const TASKS: u64 = 32;
    for interrupt in [false, true] {
        let bed = Bed::open("size=16M");
        let before = bed.in_use();
        let (handle, thread) = serve(&bed, 8, 4, interrupt);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
        runtime.block_on(within(async {
            let mut tasks = JoinSet::new();
            for task in 0..TASKS {
                let (handle, namespace, mut buffer) = (handle.clone(), bed.namespace.clone(), bed.buffer());
                tasks.spawn(async move {
                    let (pattern, slba) = (Pattern::of(&namespace), task * 8);
                    for version in 0..scaled(20) as u32 {
                        pattern.fill(&mut buffer, slba, version);
                        // A cancelled command beside it.
                        let mut cancelled = handle.flush(&namespace);
                        let _ = poll_once(&mut cancelled);
                        drop(cancelled);
                        let (result, written) = handle.write(&namespace, slba, buffer).await;
                        result.unwrap();
                        let (result, read) = handle.read(&namespace, slba, written).await;
                        result.unwrap();
                        pattern.verify(&read, slba, version);
                        buffer = read;
                    }
                });
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
        }));
        // The driver ends with the last handle.
        drop(handle);
        thread.join().unwrap();
        assert_eq!(bed.in_use(), before);
    }
}

#[test]
fn handles_learn_that_their_queue_is_closed() {
    let bed = Bed::open("size=1M");
    let before = bed.in_use();
    let queue = bed.queue(4);
    let handle = queue.handle(1).unwrap();
    // One request has the only slot, one waits for it, one is made later.
    let mut futures = [0, 8, 16].map(|slba| handle.read(&bed.namespace, slba, bed.buffer()));
    for future in &mut futures[..2] {
        assert!(poll_once(future).is_pending());
    }
    drop(queue);
    let end = Instant::now() + deadline();
    for future in &mut futures {
        let (result, buffer) = loop {
            if let Poll::Ready(done) = poll_once(future) {
                break done;
            }
            assert!(Instant::now() < end);
        };
        let error = result.unwrap_err();
        assert!(error.to_string().contains("is closed"), "{error}");
        assert_eq!(buffer.len(), BLOCK);
    }
    drop(futures);
    // The queue's rings went with the queue.
    assert!(bed.in_use() <= before);
}
