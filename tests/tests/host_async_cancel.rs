//! Futures that are dropped: at every await point, by a timeout, while they wait and in flight. Nothing leaks, and nothing is freed
//! that the device may still use.

use std::{rc::Rc, time::Duration};
use upcie_nvme::{AsyncQueue, Controller, Io, Zeroes, spec::DatasetRange};
use upcie_tests::{
    bent::Bent,
    futures::{AtMost, BLOCK, Bed, in_one_thread, poll_once, settled},
};

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
                let walked = AtMost::new(request(queue.clone(), bed.clone()), polls);
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
