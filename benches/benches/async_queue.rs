//! The cost of commands as futures: 32 tasks of tokio's runtime of one thread, polled, against a loop of turns with 32 commands
//! in flight, and the wakeups of the tasks alone. On the stand-in device the figures are this thread's work alone; on the embedded controller they have its time in
//! them, too.

mod compare;

use compare::compare;
use criterion::{Criterion, criterion_group, criterion_main};
use std::time::Duration;
use upcie_benches::{
    futures::{Futures, Turns, Waking},
    ours::Ours,
    uring,
};
use upcie_nvme::Controller;

const DEPTH: usize = 32;
const ENTRIES: usize = 64;
/// I/Os of each measurement.
const COUNT: u64 = 100_000;

fn standin(criterion: &mut Criterion) {
    compare(
        criterion,
        "async_queue/qd32",
        &[
            ("async_queue/qd32", 0, Some(1)),
            ("async_queue/qd32_more", 2, None),
            ("async_queue/wakeups_of_tokio", 3, None),
            ("async_queue/qd32_against_io_uring", 0, Some(4)),
        ],
        || (Futures::on_standin(ENTRIES, DEPTH), Ours::new(ENTRIES, DEPTH), Waking::new(DEPTH)),
        |(futures, turns, waking)| {
            let (futures, turns, waking) = (futures.run(COUNT), turns.run(COUNT), waking.run(COUNT));
            [futures, turns, futures - turns, waking, uring::read_null(DEPTH as u64, COUNT)]
        },
    );
}

fn embedded(criterion: &mut Criterion) {
    let open = || Controller::open("emu:size=64G,null=true").expect("the embedded controller");
    compare(
        criterion,
        "async_queue/emu_qd32",
        &[("async_queue/emu_qd32", 0, Some(1)), ("async_queue/emu_qd32_more", 2, None)],
        // A controller for each: the other one has completed its commands, and sleeps.
        || (Futures::new(&open(), ENTRIES, DEPTH), Turns::new(&open(), ENTRIES, DEPTH)),
        |(futures, turns)| {
            let (futures, turns) = (futures.run(COUNT), turns.run(COUNT));
            [futures, turns, futures - turns]
        },
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500));
    targets = standin, embedded
}
criterion_main!(benches);
