use super::{super::shared::Handover, *};
use std::{sync::atomic::AtomicBool, time::Instant};

const MS: u64 = 1_000_000;

fn counted(ios: u64) -> Tally {
    Tally::of([ios, 0], [0; 2], 1000)
}

fn until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !what() {
        assert!(Instant::now() < deadline, "nothing came");
        thread::yield_now();
    }
}

/// Records that `Watch::look` was called.
#[derive(Default)]
struct Looked(AtomicBool);

impl Watch for &Looked {
    fn look(&mut self, _: &Shared<'_>) {
        self.0.store(true, Ordering::Relaxed);
    }
    fn interval(&mut self, _: &Interval, _: &Tally) {}
    fn lost(&mut self, _: usize, _: &str) {}
}

/// Returns the I/Os of each interval of a worker that runs `work`. `work` returns the end time, which
/// must be the end of the last interval.
fn intervals(work: impl FnOnce(&Shared<'_>, &Looked) -> u64 + Send) -> Vec<u64> {
    let lost = [OnceLock::new()];
    let shared = Shared::new(1, &lost);
    let running = AtomicUsize::new(1);
    let looked = Looked::default();
    let mut watch = &looked;
    let mut collector = Collector::new(1, &lost, &mut watch);
    let watcher = thread::current();
    shared.begin(0);
    let end = thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let _end = Ended { running: &running, watcher: &watcher };
            work(&shared, &looked)
        });
        collector.watch(&shared, &running, Schedule::new(Some(MS), None)).unwrap();
        worker.join().unwrap()
    });
    let counted = collector.finish(&shared, end).unwrap();
    let intervals = counted.intervals;
    assert!(intervals.windows(2).all(|pair| pair[0].end_ns == pair[1].start_ns), "{intervals:?}");
    assert_eq!(intervals.last().unwrap().end_ns, end);
    let ios: Vec<_> = intervals.iter().map(|interval| interval.ios).collect();
    assert_eq!(ios.iter().sum::<u64>(), counted.tallies[0].ios());
    ios
}

fn hand_over(shared: &Shared<'_>, ios: u64, given: u32) {
    *shared.handover(0, 0) = Handover { full: Some(counted(ios)), spare: None, given, over: false };
}

#[test]
fn an_interval_has_the_counts_of_a_late_thread() {
    let ios = intervals(|shared, looked| {
        until(|| shared.asked() == 1);
        looked.0.store(false, Ordering::Relaxed);
        // The watcher calls `look` after a tenth of a second.
        until(|| looked.0.load(Ordering::Relaxed));
        hand_over(shared, 5, 1);
        until(|| shared.asked() == 2);
        shared.handover(0, 0).end(&mut counted(3));
        shared.now() + 1000 * MS
    });
    assert_eq!(ios, [5, 3]);
}

#[test]
fn an_empty_interval_is_kept_even_at_the_end() {
    let ios = intervals(|shared, _| {
        until(|| shared.asked() == 1);
        hand_over(shared, 5, 1);
        until(|| shared.asked() == 2);
        shared.handover(0, 0).end(&mut counted(0));
        shared.now() + 60_000 * MS
    });
    assert_eq!(ios, [5, 0]);
}

#[test]
fn an_interval_closed_late_ends_with_the_run() {
    let ios = intervals(|shared, _| {
        // Earlier than the close of the interval, however late this thread runs.
        let end = 1;
        until(|| shared.asked() == 1);
        hand_over(shared, 5, 1);
        until(|| shared.asked() == 2);
        shared.handover(0, 0).end(&mut counted(0));
        end
    });
    assert_eq!(ios, [5]);
}

#[test]
fn no_interval_starts_after_the_last_completion() {
    let ios = intervals(|shared, _| {
        // Earlier than the close of the first interval, however late this thread runs.
        let end = 1;
        for (ios, number) in [(5, 1), (0, 2), (0, 3)] {
            until(|| shared.asked() == number);
            hand_over(shared, ios, number);
        }
        until(|| shared.asked() == 4);
        shared.handover(0, 0).end(&mut counted(0));
        end
    });
    assert_eq!(ios, [5]);
}

#[test]
fn a_run_that_ends_when_asked_has_one_interval() {
    let ios = intervals(|shared, _| {
        until(|| shared.asked() == 1);
        shared.handover(0, 0).end(&mut counted(5));
        shared.now()
    });
    assert_eq!(ios, [5]);
}
