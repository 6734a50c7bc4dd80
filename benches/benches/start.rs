//! Time from nothing to the end of the first I/O on the embedded controller, by the wall clock and by steps.

use criterion::{Criterion, criterion_group, criterion_main};
use std::{
    cell::RefCell,
    time::{Duration, Instant},
};
use upcie_benches::entry::Pairs;
use upcie_nvme::{Address, Controller, Wait};

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

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = open_to_first_io
}
criterion_main!(benches);
