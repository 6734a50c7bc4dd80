//! Comparisons of several sides in one bench, interleaved.

use criterion::Criterion;
use std::{cell::RefCell, time::Duration};
use upcie_benches::entry::Pairs;

/// Runs what `setup` makes, if the bench is wanted. `run` measures all sides one right after the other, in
/// nanoseconds. Each of the `names` is reported with its two sides: ours and the peer's.
pub fn compare<State, const SIDES: usize>(
    criterion: &mut Criterion,
    id: &str,
    names: &[(&str, usize, Option<usize>)],
    setup: impl Fn() -> State,
    run: impl Fn(&mut State) -> [f64; SIDES],
) {
    let runs = RefCell::new(Vec::new());
    criterion.bench_function(id, |bencher| {
        let mut state = setup();
        bencher.iter_custom(|iterations| {
            let mut total = 0.0;
            for _ in 0..iterations {
                let times = run(&mut state);
                runs.borrow_mut().push(times);
                total += times[0];
            }
            Duration::from_secs_f64(total * 1e-9)
        });
    });
    let runs = runs.into_inner();
    for &(name, ours, theirs) in names {
        let mut pairs = Pairs::default();
        for times in &runs {
            match theirs {
                Some(theirs) => pairs.push(times[ours], times[theirs]),
                None => pairs.push_alone(times[ours]),
            }
        }
        pairs.report(name, "ns", "lower");
    }
}
