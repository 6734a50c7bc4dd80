//! Commands as futures: many tasks on one queue under two runtimes, polled and by interrupts, in order, and with mistakes.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Instant,
};
use tokio::task::JoinSet;
use upcie_nvme::{AsyncQueue, Controller, DmaBuf, Failure, Refusal, Zeroes, async_queue::Submission};
use upcie_tests::{
    bent::Bent,
    deadline,
    futures::{BLOCK, Bed, exercise, in_one_thread, poll_once, tokio_driver},
    scaled,
};

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

thread_local! {
    /// The queue and the futures that the waker of [`Inline`] uses.
    static WOKEN: RefCell<Option<(AsyncQueue, Vec<Submission>)>> = const { RefCell::new(None) };
}

/// A waker that runs a program's code at once: it makes a turn, and drops a future.
struct Inline;

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        let taken =
            WOKEN.with(|woken| woken.borrow_mut().as_mut().map(|(queue, more)| (queue.clone(), more.pop())));
        if let Some((queue, dropped)) = taken {
            queue.progress().unwrap();
            drop(dropped);
            assert!(queue.in_flight() <= queue.capacity());
        }
    }
}

#[test]
fn a_waker_may_use_its_queue() {
    let bed = Bed::open("size=1M");
    let before = bed.in_use();
    let queue = bed.queue(4);
    let waker = Waker::from(Arc::new(Inline));
    let mut futures: Vec<_> = (0..32).map(|slba| queue.read(&bed.namespace, slba, bed.buffer())).collect();
    for future in &mut futures {
        assert!(Pin::new(future).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    let dropped = futures.split_off(16);
    WOKEN.set(Some((queue, dropped)));
    let end = Instant::now() + deadline();
    while !futures.is_empty() {
        assert!(Instant::now() < end);
        futures.retain_mut(|future| match Pin::new(future).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready((result, _)) => {
                result.unwrap();
                false
            }
            Poll::Pending => true,
        });
    }
    WOKEN.set(None);
    assert!(bed.in_use() <= before);
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
