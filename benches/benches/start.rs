//! Time from nothing to the end of the first I/O on the embedded controller, by the wall clock and by steps; and that of a reset
//! with commands in flight, to the first completion after it.

use criterion::{Criterion, criterion_group, criterion_main};
use std::{
    cell::RefCell,
    time::{Duration, Instant},
};
use upcie_benches::entry::Pairs;
use upcie_nvme::{
    Address, Controller, QueuePair, Wait,
    emu::{Fault, FaultPlan, FaultRule, spawn_with_faults},
    spec::NvmOpcode,
};

const STEPS: [&str; 6] = ["open", "namespace", "queue_pair", "alloc", "first_io", "close"];

/// Returns the milliseconds of each step.
fn start(address: &Address) -> [f64; STEPS.len()] {
    let (mut times, mut at, mut last) = ([0.0; STEPS.len()], 0, Instant::now());
    let mut lap = || {
        let now = Instant::now();
        times[at] = (now - last).as_secs_f64() * 1e3;
        (at, last) = (at + 1, now);
    };
    let controller = Controller::open(address).expect("the embedded controller");
    lap();
    let namespace = controller.namespace(1).expect("a namespace");
    lap();
    let mut queue = controller.queue_pair().create::<u64>().expect("a queue");
    lap();
    let buffer = controller.alloc(4096).expect("a buffer");
    lap();
    queue.turn().expect("an open queue").read(&namespace, 0, buffer, 0).expect("room");
    assert!(queue.wait(Wait::Poll, Duration::from_secs(5)).expect("a live controller"), "no completion");
    let completion = queue.turn().expect("an open queue").next().expect("a completion");
    completion.into_parts().1.expect("success");
    lap();
    drop((queue, namespace, controller));
    lap();
    times
}

fn open_to_first_io(criterion: &mut Criterion) {
    let runs = RefCell::new(Vec::new());
    let address = "emu".parse().expect("an address");
    criterion.bench_function("start/open_to_first_io", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = 0.0;
            for _ in 0..iterations {
                let times = start(&address);
                total += times[..5].iter().sum::<f64>();
                runs.borrow_mut().push(times);
            }
            Duration::from_secs_f64(total * 1e-3)
        });
    });
    let runs = runs.into_inner();
    let report = |name: &str, of: &dyn Fn(&[f64; STEPS.len()]) -> f64| {
        let mut pairs = Pairs::default();
        runs.iter().for_each(|times| pairs.push_alone(of(times)));
        pairs.report(name, "ms", "lower");
    };
    report("start/open_to_first_io", &|times| times[..5].iter().sum());
    for (i, step) in STEPS.iter().enumerate() {
        report(&format!("start/step_{step}"), &|times| times[i]);
    }
}

/// Queues of a reset, and commands in flight on each.
const QUEUES: usize = 4;
const DEPTH: u32 = 1024;

/// Returns the milliseconds from a reset with commands in flight, which all come back, to the first completion after it.
fn reset() -> f64 {
    let plan = FaultPlan::new(0).rule(FaultRule::new(Fault::Drop).opcode(NvmOpcode::READ.0));
    let device = spawn_with_faults(&"size=16M".parse().expect("options"), &plan).expect("the device");
    let controller = Controller::builder().from_device(device).expect("the embedded controller");
    let namespace = controller.namespace(1).expect("a namespace");
    let make = |_| controller.queue_pair().depth(DEPTH + 1).create().expect("a queue");
    let mut queues: Vec<QueuePair<u64>> = (0..QUEUES).map(make).collect();
    for queue in &mut queues {
        let mut turn = queue.turn().expect("an open queue");
        for tag in 0..DEPTH {
            let buffer = controller.alloc(512).expect("a buffer");
            turn.read(&namespace, tag.into(), buffer, tag.into()).expect("room");
        }
    }
    let start = Instant::now();
    controller.reset().expect("a live controller");
    for queue in &mut queues {
        assert_eq!(queue.recover().expect("a queue after a reset").len(), DEPTH as usize);
    }
    let queue = &mut queues[0];
    queue.turn().expect("an open queue").flush(&namespace, 0).expect("room");
    assert!(queue.wait(Wait::Poll, Duration::from_secs(5)).expect("a live controller"), "no completion");
    start.elapsed().as_secs_f64() * 1e3
}

fn reset_to_first_completion(criterion: &mut Criterion) {
    let runs = RefCell::new(Pairs::default());
    criterion.bench_function("reset/first_completion", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = 0.0;
            for _ in 0..iterations {
                let time = reset();
                total += time;
                runs.borrow_mut().push_alone(time);
            }
            Duration::from_secs_f64(total * 1e-3)
        });
    });
    runs.into_inner().report("reset/first_completion", "ms", "lower");
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = open_to_first_io, reset_to_first_completion
}
criterion_main!(benches);
