//! An asynchronous queue under tokio's runtime of one thread: tasks that read, each one block after the other.

use crate::{Random, ours, standin::Device, standin::StandIn, thread_time};
use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};
use tokio::{runtime::Runtime, task::LocalSet};
use upcie_nvme::{AsyncQueue, Controller, DmaBuf, Namespace, QueuePair, async_queue::DrivePolled};

/// The tasks and their queue over all measurements.
#[derive(Debug)]
pub struct Futures {
    runtime: Runtime,
    tasks: LocalSet,
    driver: DrivePolled,
    done: Rc<Cell<u64>>,
    /// The stand-in, if its commands are served in this thread.
    standin: Option<(Device, Arc<StandIn>)>,
    _queue: AsyncQueue,
}

impl Drop for Futures {
    fn drop(&mut self) {
        // The queue is deleted next, which needs the helper thread.
        if let Some((_, standin)) = &self.standin {
            standin.resume();
        }
    }
}

impl Futures {
    /// Makes a queue on a stand-in of its own, with `depth` tasks.
    pub fn on_standin(entries: usize, depth: usize) -> Self {
        let (standin, controller) = ours::controller(1);
        standin.resume();
        let queue = controller.queue_pair().depth(entries as u32).create_async().expect("a queue");
        let device = standin.release(queue.id());
        let mut made = Self::with_tasks(&controller, queue, depth);
        standin.pause();
        made.standin = Some((device, standin));
        made
    }

    /// Makes a queue of `controller`, with `depth` tasks.
    ///
    /// # Panics
    /// Panics if memory is short.
    pub fn new(controller: &Controller, entries: usize, depth: usize) -> Self {
        let queue = controller.queue_pair().depth(entries as u32).create_async().expect("a queue");
        Self::with_tasks(controller, queue, depth)
    }

    fn with_tasks(controller: &Controller, queue: AsyncQueue, depth: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (tasks, done) = (LocalSet::new(), Rc::new(Cell::new(0)));
        let namespace = controller.namespace(1).expect("the namespace");
        for task in 0..depth as u64 {
            let buffer = controller.alloc(4096).expect("a buffer");
            tasks.spawn_local(read(queue.clone(), namespace.clone(), buffer, done.clone(), task));
        }
        Self { runtime, tasks, driver: queue.drive_polled(), done, standin: None, _queue: queue }
    }

    /// Does at least `count` I/Os; returns the nanoseconds of CPU time per I/O.
    #[inline(never)]
    pub fn run(&mut self, count: u64) -> f64 {
        let Self { runtime, tasks, driver, done, standin, .. } = self;
        let before = done.get();
        let main = poll_fn(|cx| {
            if let Some((device, _)) = standin {
                device.step();
            }
            if Pin::new(&mut *driver).poll(cx).is_ready() {
                std::process::abort();
            }
            if done.get() - before < count {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        });
        let start = thread_time();
        tasks.block_on(runtime, main);
        (thread_time() - start) as f64 / (done.get() - before) as f64
    }
}

async fn read(queue: AsyncQueue, namespace: Namespace, mut buffer: DmaBuf, done: Rc<Cell<u64>>, task: u64) {
    let mut random = Random::new();
    loop {
        let (result, back) = queue.read(&namespace, (random.next() ^ task) & 0xff_fff8, buffer).await;
        if result.is_err() {
            std::process::abort();
        }
        buffer = back;
        done.set(done.get() + 1);
    }
}

/// The same tasks without a queue: each is woken by the main task, and waits again.
#[derive(Debug)]
pub struct Waking {
    runtime: Runtime,
    tasks: LocalSet,
    asleep: Rc<RefCell<Vec<Waker>>>,
    woken: Vec<Waker>,
}

impl Waking {
    /// Makes `depth` tasks.
    ///
    /// # Panics
    /// Panics if memory is short.
    pub fn new(depth: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (tasks, asleep) = (LocalSet::new(), Rc::new(RefCell::new(Vec::<Waker>::with_capacity(depth))));
        for _ in 0..depth {
            let asleep = asleep.clone();
            tasks.spawn_local(async move {
                loop {
                    let mut is_woken = false;
                    let asleep = &asleep;
                    poll_fn(move |cx| {
                        if is_woken {
                            return Poll::Ready(());
                        }
                        is_woken = true;
                        asleep.borrow_mut().push(cx.waker().clone());
                        Poll::Pending
                    })
                    .await;
                }
            });
        }
        Self { runtime, tasks, asleep, woken: Vec::with_capacity(depth) }
    }

    /// Wakes tasks at least `count` times; returns the nanoseconds of CPU time for each.
    #[inline(never)]
    pub fn run(&mut self, count: u64) -> f64 {
        let Self { runtime, tasks, asleep, woken } = self;
        let mut done = 0;
        let start = thread_time();
        let main = poll_fn(|cx| {
            std::mem::swap(woken, &mut *asleep.borrow_mut());
            done += woken.len() as u64;
            woken.drain(..).for_each(Waker::wake);
            if done < count {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        });
        tasks.block_on(runtime, main);
        (thread_time() - start) as f64 / done as f64
    }
}

/// A loop of turns on a queue of its own, with the commands of the tasks.
#[derive(Debug)]
pub struct Turns {
    queue: QueuePair<u64>,
    namespace: Namespace,
    random: Random,
}

impl Turns {
    /// Makes a queue of `controller`, with `depth` reads in flight.
    ///
    /// # Panics
    /// Panics if memory is short.
    pub fn new(controller: &Controller, entries: usize, depth: usize) -> Self {
        let mut queue = controller.queue_pair().depth(entries as u32).create().expect("a queue");
        let namespace = controller.namespace(1).expect("the namespace");
        let mut turn = queue.turn().expect("a turn");
        for tag in 0..depth as u64 {
            turn.read(&namespace, 0, controller.alloc(4096).expect("a buffer"), tag).expect("room");
        }
        drop(turn);
        Self { queue, namespace, random: Random::new() }
    }

    /// Does at least `count` I/Os; returns the nanoseconds of CPU time per I/O.
    #[inline(never)]
    pub fn run(&mut self, count: u64) -> f64 {
        let Self { queue, namespace, random } = self;
        let (start, mut done) = (thread_time(), 0);
        while done < count {
            let Ok(mut turn) = queue.turn() else { std::process::abort() };
            while let Some(completion) = turn.next() {
                let (tag, result, buffer): (u64, _, DmaBuf) = completion.into_parts();
                if result.is_err() || turn.read(namespace, random.next() & 0xff_fff8, buffer, tag).is_err() {
                    std::process::abort();
                }
                done += 1;
            }
        }
        (thread_time() - start) as f64 / done as f64
    }
}
