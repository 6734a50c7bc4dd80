//! Asynchronous queues under test: a controller, tasks that check their data, and their runtimes.

use crate::{data::Pattern, deadline};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use tokio::{io::unix::AsyncFd, task::LocalSet};
use upcie_nvme::{AsyncQueue, Controller, DmaBuf, Namespace};

/// The bytes of a test's buffers.
pub const BLOCK: usize = 4096;

/// A controller and its first namespace.
#[derive(Debug)]
pub struct Bed {
    /// The controller.
    pub controller: Controller,
    /// First namespace of the controller.
    pub namespace: Namespace,
}

impl Bed {
    /// Opens an embedded controller.
    ///
    /// # Panics
    /// Panics if that fails.
    pub fn open(options: &str) -> Self {
        Self::of(Controller::open(format!("emu:{options}").as_str()).unwrap())
    }

    /// Uses a controller.
    ///
    /// # Panics
    /// Panics if it has no namespace.
    pub fn of(controller: Controller) -> Self {
        let namespace = controller.namespace(1).unwrap();
        Self { controller, namespace }
    }

    /// Creates an asynchronous queue.
    ///
    /// # Panics
    /// Panics if that fails.
    pub fn queue(&self, depth: u32) -> AsyncQueue {
        self.controller.queue_pair().depth(depth).create_async().unwrap()
    }

    /// Allocates a buffer of [`BLOCK`] bytes.
    ///
    /// # Panics
    /// Panics if that fails.
    pub fn buffer(&self) -> DmaBuf {
        self.controller.alloc(BLOCK).unwrap()
    }

    /// Returns the bytes of the heap that are in use.
    pub fn in_use(&self) -> usize {
        self.controller.heap().in_use()
    }
}

/// Awaits a future.
///
/// # Panics
/// Panics if it does not end within the deadline.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(deadline(), future).await.expect("it ends within the deadline")
}

/// Runs `test` on tokio's runtime of one thread, with tasks that stay in it.
///
/// # Panics
/// Panics if it does not end within the deadline.
pub fn in_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, within(test));
}

/// Polls a future without a task.
pub fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Writes and reads blocks of its own, and checks what it reads.
///
/// # Panics
/// Panics if a command fails, or the data is wrong.
pub async fn exercise(queue: AsyncQueue, namespace: Namespace, mut buffer: DmaBuf, task: u64, rounds: u32) {
    let (pattern, blocks) = (Pattern::of(&namespace), (BLOCK / namespace.block_size()) as u64);
    let slba = task * blocks;
    for version in 0..rounds {
        pattern.fill(&mut buffer, slba, version);
        let (result, written) = queue.write(&namespace, slba, buffer).await;
        result.unwrap();
        buffer = written;
        buffer.fill(0);
        let (result, read) = queue.read(&namespace, slba, buffer).await;
        result.unwrap();
        pattern.verify(&read, slba, version);
        buffer = read;
    }
}

/// Returns a driver by the queue's interrupt, with tokio's reactor.
///
/// # Panics
/// Panics if the queue has no interrupt.
pub fn tokio_driver(queue: &AsyncQueue) -> impl Future<Output = upcie_nvme::Result<()>> + Unpin + use<> {
    let driver = queue.drive(|fd| {
        // SAFETY: an `OwnedFd` refers to the same open file for its whole life, and the closure keeps it.
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(move |cx: &mut Context<'_>| fd.poll_read_ready(cx).map_ok(|mut ready| ready.clear_ready()))
    });
    driver.unwrap()
}

/// Waits until no command is in flight.
pub async fn settled(queue: &AsyncQueue) {
    while queue.in_flight() + queue.waiting() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Polls a future so many times, then drops it, unless it ends before: then it has a result.
#[derive(Debug)]
pub struct AtMost<F> {
    future: Option<Pin<Box<F>>>,
    polls: usize,
}

impl<F> AtMost<F> {
    /// Makes a future that is dropped after `polls` polls, at least one.
    pub fn new(future: F, polls: usize) -> Self {
        Self { future: Some(Box::pin(future)), polls }
    }
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
