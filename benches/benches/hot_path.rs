//! Submission and completion on a stand-in device, in CPU time per I/O of one thread. The peers are a
//! hand-written loop that checks nothing and a C path; further entries compare the calls of the C interface with
//! that path, and several queues, namespaces and batch sizes.

mod compare;

use compare::compare;
use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Duration;
use upcie_benches::{
    c_path::CPath,
    hand::{Hand, device_alone},
    libupcie::LibUpcie,
    ours::Ours,
    rings::Rings,
};

/// I/Os in one measurement.
const COUNT: u64 = 400_000;

/// Returns the number of ring entries for `depth` commands in flight.
fn entries(depth: usize) -> usize {
    if depth < 1024 { 1024 } else { 2048 }
}

fn submit_complete(criterion: &mut Criterion) {
    for depth in [1, 32, 128, 1024] {
        let name = format!("hot_path/submit_complete_qd{depth}");
        let (net, alone) = (format!("{name}_net_of_device"), format!("{name}_device_alone"));
        let entries = entries(depth);
        compare(
            criterion,
            &name,
            &[(&name, 0, Some(1)), (&net, 2, Some(3)), (&alone, 4, None)],
            || (Ours::new(entries, depth), Hand::new(entries, depth), Rings::new(entries)),
            |(ours, hand, rings)| {
                let (ours, hand) = (ours.run(COUNT), hand.run(depth, COUNT));
                let device = device_alone(rings, depth, COUNT);
                [ours, hand, ours - device, hand - device, device]
            },
        );
    }
}

/// Measures the path as a program has it: in a function of its own, with the namespace far from the queue.
fn caller(criterion: &mut Criterion) {
    for depth in [1, 32] {
        let name = format!("hot_path/caller_qd{depth}");
        let entries = entries(depth);
        compare(
            criterion,
            &name,
            &[(&name, 0, Some(1))],
            || (Ours::new(entries, depth), Hand::new(entries, depth)),
            |(ours, hand)| [ours.run_by_caller(COUNT), hand.run(depth, COUNT)],
        );
    }
}

fn c_path(criterion: &mut Criterion) {
    for depth in [1, 32, 128] {
        let name = format!("hot_path/c_path_qd{depth}");
        let entries = entries(depth);
        compare(
            criterion,
            &name,
            &[(&name, 0, Some(1))],
            || (Ours::new(entries, depth), CPath::new(entries, depth)),
            |(ours, c)| [ours.run(COUNT), c.run(depth, COUNT)],
        );
    }
}

/// Measures what a C program pays: the calls of the C interface against the C path, of which they are to take at
/// most 0.75.
fn c_calls(criterion: &mut Criterion) {
    for depth in [32, 128] {
        let name = format!("hot_path/c_calls_qd{depth}");
        let batches = format!("hot_path/c_batch_calls_qd{depth}");
        let entries = entries(depth);
        compare(
            criterion,
            &name,
            &[(&name, 0, Some(2)), (&batches, 1, Some(2))],
            || {
                let calls = || LibUpcie::new(entries, depth);
                (calls(), calls(), CPath::new(entries, depth))
            },
            |(poll, many, c)| [poll.run_by_poll(COUNT), many.run_by_many(COUNT), c.run(depth, COUNT)],
        );
    }
}

/// Measures four queues that one thread serves in turn, against one queue and against four hand-written ones.
fn four_queues(criterion: &mut Criterion) {
    const DEPTH: usize = 32;
    let entries = entries(DEPTH);
    compare(
        criterion,
        "hot_path/four_queues",
        &[
            ("hot_path/four_queues", 0, Some(1)),
            ("hot_path/four_queues_by_hand", 0, Some(2)),
            ("hot_path/four_queues_by_hand_against_one", 2, Some(3)),
        ],
        || {
            let hands = |count| (0..count).map(|_| Hand::new(entries, DEPTH)).collect::<Vec<_>>();
            let ours = |count| Ours::several(count, entries, DEPTH);
            ([ours(4), ours(1)], [hands(4), hands(1)])
        },
        |([four, one], [hands, hand])| {
            [
                Ours::run_by_turns(four, COUNT),
                Ours::run_by_turns(one, COUNT),
                Hand::run_by_turns(hands, DEPTH, COUNT),
                Hand::run_by_turns(hand, DEPTH, COUNT),
            ]
        },
    );
}

fn four_namespaces(criterion: &mut Criterion) {
    const DEPTH: usize = 32;
    let entries = entries(DEPTH);
    compare(
        criterion,
        "hot_path/four_namespaces",
        &[("hot_path/four_namespaces", 0, Some(1))],
        || (Ours::with_namespaces(entries, DEPTH, 4), Ours::new(entries, DEPTH)),
        |(four, one)| [four.run_namespaces(COUNT), one.run_namespaces(COUNT)],
    );
}

/// Measures 64 commands in flight, with so many I/Os for each pair of doorbells.
fn batches(criterion: &mut Criterion) {
    const DEPTH: usize = 64;
    let entries = entries(DEPTH);
    for batch in [1, 2, 4, 8, 16, 32, 64] {
        let name = format!("hot_path/batch_{batch}");
        compare(
            criterion,
            &name,
            &[(&name, 0, Some(1))],
            || (Ours::new(entries, DEPTH), Hand::new(entries, DEPTH)),
            |(ours, hand)| [ours.run_batches(batch, COUNT), hand.run(batch, COUNT)],
        );
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500));
    targets = submit_complete, caller, c_path, c_calls, four_queues, four_namespaces, batches
}
criterion_main!(benches);
