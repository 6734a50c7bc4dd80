//! The embedded controller end to end, over vfio-user in one process: two threads, two cores, no data moved. What the
//! pair of them can do; there is no peer yet.

use criterion::{Criterion, criterion_group, criterion_main};
use std::{
    cell::RefCell,
    time::{Duration, Instant},
};
use upcie_benches::{Random, entry::Pairs};
use upcie_nvme::{Controller, Namespace, QueuePair};

const DEPTH: u64 = 128;
const COUNT: u64 = 400_000;

/// I/Os per second.
fn run(queue: &mut QueuePair<u64>, namespace: &Namespace, random: &mut Random) -> f64 {
    let mask = namespace.blocks().next_power_of_two() / 2 - 1;
    let start = Instant::now();
    let mut done = 0;
    while done < COUNT {
        let mut turn = queue.turn().expect("an open queue");
        while let Some(completion) = turn.next() {
            let (tag, result, buffer) = completion.into_parts();
            result.expect("a success");
            turn.read(namespace, random.next() & mask, buffer, tag).expect("room");
            done += 1;
        }
    }
    done as f64 / start.elapsed().as_secs_f64()
}

fn randread(criterion: &mut Criterion) {
    let pairs = RefCell::new(Pairs::default());
    criterion.bench_function("emu/randread_512_qd128", |bencher| {
        let address = "emu:null=true".parse().expect("an address");
        let controller = Controller::open(&address).expect("the embedded controller");
        let namespace = controller.namespace(1).expect("a namespace");
        let mut queue = controller.queue_pair().depth(256).create().expect("a queue");
        let mut random = Random::new();
        let mut turn = queue.turn().expect("an open queue");
        for tag in 0..DEPTH {
            turn.read(&namespace, 0, controller.alloc(512).expect("memory"), tag).expect("room");
        }
        drop(turn);
        bencher.iter_custom(|iterations| {
            let mut total = 0.0;
            for _ in 0..iterations {
                let rate = run(&mut queue, &namespace, &mut random);
                pairs.borrow_mut().push_alone(rate);
                total += 1.0 / rate;
            }
            Duration::from_secs_f64(total)
        });
    });
    pairs.into_inner().report("emu/randread_512_qd128", "IOPS", "higher");
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = randread
}
criterion_main!(benches);
