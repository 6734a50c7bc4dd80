//! Compare and Write as a future: a pair of commands, with two buffers that come back together.

use super::{driven, filled};
use std::{cell::Cell, rc::Rc};
use tokio::task::JoinSet;
use upcie_nvme::{AsyncQueue, Controller, DmaBuf, Failure, Refusal};
use upcie_tests::{
    bent::Bent,
    futures::{AtMost, BLOCK, Bed, in_one_thread, poll_once},
};

#[test]
fn compare_and_write_is_a_lock_among_tasks() {
    const TASKS: u8 = 8;
    let bed = Bed::open("size=1M");
    // Three places: one pair at a time.
    driven(&bed, 4, async |queue| {
        let inside = Rc::new(Cell::new(0));
        let mut tasks = JoinSet::new();
        for task in 1..=TASKS {
            let (queue, namespace, inside) = (queue.clone(), bed.namespace.clone(), inside.clone());
            let (mut free, mut mine, room) =
                (filled(&bed, 512, 0), filled(&bed, 512, task), filled(&bed, 512, 0));
            tasks.spawn_local(async move {
                loop {
                    let (is_mine, buffers) = queue.compare_and_write(&namespace, 3, free, mine).await;
                    [free, mine] = buffers;
                    assert_eq!((free.to_vec(), mine.to_vec()), (vec![0; 512], vec![task; 512]));
                    if is_mine.unwrap() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                assert_eq!(inside.replace(1), 0, "two tasks hold the lock");
                let (result, read) = queue.read(&namespace, 3, room).await;
                result.unwrap();
                assert_eq!(read.to_vec(), vec![task; 512]);
                inside.set(0);
                let (was_mine, _) = queue.compare_and_write(&namespace, 3, mine, free).await;
                assert!(was_mine.unwrap());
            });
        }
        tasks.join_all().await;
    });
}

#[test]
fn a_refused_pair_brings_both_buffers_back() {
    let bed = Bed::open("size=1M");
    // One place is too few, ever.
    driven(&bed, 2, async |queue| {
        let pair = (filled(&bed, 512, 0), filled(&bed, 512, 1));
        let (result, [expected, new]) = queue.compare_and_write(&bed.namespace, 0, pair.0, pair.1).await;
        let error = result.unwrap_err();
        assert!(matches!(error.failure(), Failure::Refused { reason: Refusal::Small, .. }), "{error}");
        assert_eq!((expected.to_vec(), new.to_vec()), (vec![0; 512], vec![1; 512]));
    });
    driven(&bed, 8, async |queue| {
        for lengths in [(512, 1024), (1024, 512), (0, 512), (512, 0), (0, 0)] {
            let some = |len| if len == 0 { DmaBuf::empty() } else { filled(&bed, len, 3) };
            let pair = (some(lengths.0), some(lengths.1));
            let (result, [expected, new]) = queue.compare_and_write(&bed.namespace, 0, pair.0, pair.1).await;
            let error = result.unwrap_err();
            assert!(matches!(error.failure(), Failure::Refused { reason: Refusal::Length, .. }), "{error}");
            assert_eq!((expected.len(), new.len()), lengths);
        }
    });
}

#[test]
fn a_dropped_pair_leaves_both_buffers_until_the_device_is_done() {
    let bent = Bent::start("size=1M");
    let bed = Bed::of(Controller::open(bent.address()).unwrap());
    let queue = bed.queue(4);
    let before = bed.in_use();
    bent.faults.hang(true);
    let pair = || (filled(&bed, BLOCK, 0), filled(&bed, BLOCK, 1));
    let [mut flying, mut waiting] =
        [pair(), pair()].map(|(expected, new)| queue.compare_and_write(&bed.namespace, 0, expected, new));
    assert!(poll_once(&mut flying).is_pending() && poll_once(&mut waiting).is_pending());
    assert_eq!((queue.in_flight(), queue.waiting()), (2, 1), "one of three places is no room for a pair");
    drop(waiting);
    assert_eq!(bed.in_use(), before + 2 * BLOCK, "a pair that was not sent gives its buffers back at once");
    drop(flying);
    let _ = queue.progress().unwrap();
    assert_eq!((bed.in_use(), queue.in_flight()), (before + 2 * BLOCK, 2), "the device may still use them");
    bent.faults.hang(false);
    in_one_thread(settled_alone(&queue));
    assert_eq!(bed.in_use(), before);
    // The entry is free for others.
    smol::block_on(queue.read(&bed.namespace, 0, bed.buffer())).0.unwrap();
}

async fn settled_alone(queue: &AsyncQueue) {
    while queue.in_flight() > 0 {
        queue.progress().unwrap();
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_reset_ends_a_pair_once_with_both_buffers() {
    let bent = Bent::start("size=1M");
    let bed = Bed::of(Controller::open(bent.address()).unwrap());
    let queue = bed.queue(4);
    bent.faults.hang(true);
    let (expected, new) = (filled(&bed, 512, 5), filled(&bed, 512, 6));
    let mut pair = queue.compare_and_write(&bed.namespace, 0, expected, new);
    assert!(poll_once(&mut pair).is_pending());
    bent.faults.hang(false);
    bed.controller.reset().unwrap();
    let (result, [expected, new]) = smol::block_on(pair);
    // The controller may have executed it before the reset: then the data differed.
    match result {
        Ok(is_same) => assert!(!is_same),
        Err(error) => assert!(matches!(error.failure(), Failure::Reset { .. }), "{error}"),
    }
    assert_eq!((expected.len(), new.len(), queue.in_flight()), (512, 512, 0));
    smol::block_on(queue.write(&bed.namespace, 0, bed.buffer())).0.unwrap();
}

#[test]
fn pairs_dropped_at_each_await_point_leak_nothing() {
    for (depth, latency) in [(4, "0s"), (4, "1ms"), (3, "1ms")] {
        let bed = Rc::new(Bed::open(&format!("size=1M,latency={latency}")));
        driven(&bed, depth, async |queue| {
            let pair = async |bed: Rc<Bed>, queue: AsyncQueue| {
                let (expected, new) = (bed.buffer(), bed.buffer());
                queue.compare_and_write(&bed.namespace, 0, expected, new).await.0.unwrap();
                queue.read(&bed.namespace, 0, bed.buffer()).await.0.unwrap();
            };
            for polls in 1.. {
                let other = tokio::task::spawn_local(pair(bed.clone(), queue.clone()));
                let walked = AtMost::new(pair(bed.clone(), queue.clone()), polls);
                let walked = tokio::task::spawn_local(walked).await.unwrap();
                other.await.unwrap();
                if walked.is_some() {
                    break;
                }
            }
        });
    }
}
