//! Handles for other threads: the tasks of a runtime with several threads on a queue of one thread.

use std::{sync::mpsc, task::Poll, thread, time::Instant};
use tokio::task::JoinSet;
use upcie_nvme::async_queue::AsyncHandle;
use upcie_tests::{
    data::Pattern,
    deadline,
    futures::{AtMost, BLOCK, Bed, poll_once, tokio_driver, within},
    scaled,
};

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

#[test]
fn dropped_at_each_await_point_handles_leak_nothing() {
    let bed = Bed::open("size=1M,latency=1ms");
    let before = bed.in_use();
    // Fewer slots than tasks: some futures are dropped while they wait for one.
    let (handle, thread) = serve(&bed, 2, 2, false);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let request = || {
        let (handle, namespace, controller) = (handle.clone(), bed.namespace.clone(), bed.controller.clone());
        async move {
            let buffer = || controller.alloc(BLOCK).unwrap();
            let (result, back) = handle.write(&namespace, 0, buffer()).await;
            result.unwrap();
            let (first, second) =
                tokio::join!(handle.read(&namespace, 0, back), handle.read(&namespace, 8, buffer()));
            first.0.and(second.0).unwrap();
            handle.flush(&namespace).await.0.unwrap();
        }
    };
    runtime.block_on(within(async {
        for polls in 1.. {
            let others = [tokio::spawn(request()), tokio::spawn(request())];
            let walked = tokio::spawn(AtMost::new(request(), polls)).await.unwrap();
            for other in others {
                other.await.unwrap();
            }
            if walked.is_some() {
                assert!(polls > 2, "an await point for each command: {polls}");
                break;
            }
        }
    }));
    drop(handle);
    // The driver ends once the last command has: those that were dropped in flight, too.
    thread.join().unwrap();
    assert_eq!(bed.in_use(), before);
}
