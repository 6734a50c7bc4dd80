//! A measurement: commands of one size, with so many in flight, for some time.

use crate::{
    failure::Failure,
    namespace::Namespace,
    open::{Open, check_signals},
};
use hdrhistogram::Histogram;
use pyo3::prelude::*;
use std::time::{Duration, Instant};
use upcie_nvme::{Direction, Io, Wait, upcie_core::deadline::Stopwatch};

/// The interval at which Python's signals are looked for.
const LOOK: Duration = Duration::from_millis(50);
/// The longest latency that is told apart, in nanoseconds: a minute.
const LONGEST: u64 = 60_000_000_000;

/// The result of [`perf`].
#[pyclass(frozen, module = "upcie")]
pub struct PerfResult {
    /// I/Os that were completed without an error.
    #[pyo3(get)]
    ios: u64,
    /// I/Os that the controller completed with an error.
    #[pyo3(get)]
    errors: u64,
    /// Bytes that were moved.
    #[pyo3(get)]
    bytes: u64,
    /// The time from the first submission to the last completion.
    #[pyo3(get)]
    seconds: f64,
    latencies: Histogram<u64>,
}

#[pymethods]
impl PerfResult {
    /// Returns I/Os per second.
    #[getter]
    fn iops(&self) -> f64 {
        self.ios as f64 / self.seconds
    }

    /// Returns bytes per second.
    #[getter]
    fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }

    /// Returns the mean latency in nanoseconds.
    #[getter]
    fn mean(&self) -> f64 {
        self.latencies.mean()
    }

    /// Returns the shortest latency in nanoseconds.
    #[getter]
    fn shortest(&self) -> u64 {
        self.latencies.min()
    }

    /// Returns the longest latency in nanoseconds.
    #[getter]
    fn longest(&self) -> u64 {
        self.latencies.max()
    }

    /// Returns the latency in nanoseconds that so many percent of the I/Os did not exceed.
    fn percentile(&self, percent: f64) -> PyResult<u64> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(Failure::Argument(format!("a percentile of {percent}: it takes 0 to 100")).into());
        }
        Ok(self.latencies.value_at_percentile(percent))
    }

    /// Lists the buckets that are not empty: the least and the largest latency in nanoseconds, and the number of I/Os.
    fn histogram(&self) -> Vec<(u64, u64, u64)> {
        let buckets = self.latencies.iter_recorded().map(|bucket| {
            let value = bucket.value_iterated_to();
            (self.latencies.lowest_equivalent(value), value, bucket.count_at_value())
        });
        buckets.collect()
    }

    fn __repr__(&self) -> String {
        format!(
            "<upcie.PerfResult: {:.0} IOPS, {:.1} MB/s, mean latency {:.1} µs>",
            self.iops(),
            self.bytes_per_second() / 1e6,
            self.mean() / 1e3
        )
    }
}

/// The work to measure.
struct Work {
    direction: Direction,
    is_random: bool,
    block_size: usize,
    depth: u32,
    time: Duration,
    seed: u64,
}

/// Measures a namespace. `rw` is `"read"`, `"write"`, `"randread"` or `"randwrite"`; writes destroy data, and take `overwrite=True`.
#[pyfunction]
#[pyo3(signature = (namespace, *, rw = "randread", block_size = 4096, depth = 32, seconds = 1.0, seed = 1, overwrite = false))]
#[expect(clippy::too_many_arguments, reason = "Python's keywords")]
pub fn perf(
    py: Python<'_>,
    namespace: &Bound<'_, Namespace>,
    rw: &str,
    block_size: usize,
    depth: u32,
    seconds: f64,
    seed: u64,
    overwrite: bool,
) -> PyResult<PerfResult> {
    let bad = |text: String| PyErr::from(Failure::Argument(text));
    let (direction, is_random) = match rw {
        "read" => (Direction::Read, false),
        "write" => (Direction::Write, false),
        "randread" => (Direction::Read, true),
        "randwrite" => (Direction::Write, true),
        _ => return Err(bad(format!("rw={rw:?}: it takes read, write, randread and randwrite"))),
    };
    if direction == Direction::Write && !overwrite {
        return Err(bad(format!("rw={rw:?} destroys data: say overwrite=True")));
    }
    let time =
        Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero() && time.as_secs() < 1 << 32);
    let time = time.ok_or_else(|| bad(format!("seconds={seconds}: it must be positive")))?;
    if depth == 0 || depth > 65535 {
        return Err(bad(format!("depth={depth}: it takes 1 to 65535")));
    }
    let work = Work { direction, is_random, block_size, depth, time, seed };
    let namespace = namespace.get();
    let key = namespace.key;
    Ok(namespace.shared.with(py, |open| measure(open, &open.namespace(key)?, &work))?)
}

fn measure(open: &Open, namespace: &upcie_nvme::Namespace, work: &Work) -> Result<PerfResult, Failure> {
    namespace.check_usable()?;
    let block = namespace.block_size();
    let pieces = (work.block_size / block) as u64;
    if pieces == 0 || !work.block_size.is_multiple_of(block) || work.block_size > namespace.max_transfer() {
        let most = namespace.max_transfer();
        let text =
            format!("block_size={}: it takes multiples of {block} bytes up to {most}", work.block_size);
        return Err(Failure::Argument(text));
    }
    let places = namespace.blocks() / pieces;
    if places == 0 {
        return Err(Failure::Argument(format!("block_size={}: the namespace is smaller", work.block_size)));
    }
    let (mut sequence, mut random) = (0, work.seed | 1);
    let mut next_place = || {
        if !work.is_random {
            sequence = (sequence + 1) % places;
            return sequence * pieces;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // The upper half of the product: as good as the remainder, without a division.
        ((u128::from(random) * u128::from(places)) >> 64) as u64 * pieces
    };
    let mut queue = open.controller.queue_pair().depth(work.depth + 1).create::<Instant>()?;
    let mut idle = Vec::new();
    for _ in 0..work.depth {
        idle.push(open.controller.alloc(work.block_size)?);
    }
    let mut latencies = Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds that fit");
    let (mut ios, mut errors, mut in_flight) = (0_u64, 0_u64, 0_u32);
    let start = Instant::now();
    let (mut now, mut looked) = (start, start);
    // Since the last look at which something had completed.
    let (mut waiting, mut seen) = (Stopwatch::new(), 0);
    loop {
        let goes_on = now - start < work.time;
        let mut turn = queue.turn()?;
        for done in turn.by_ref() {
            let (since, result, buffer) = done.into_parts();
            in_flight -= 1;
            match result {
                Ok(()) => ios += 1,
                Err(_) => errors += 1,
            }
            latencies.saturating_record((now - since).as_nanos() as u64);
            idle.push(buffer);
        }
        while goes_on && !idle.is_empty() && !turn.is_full() {
            let buffer = idle.pop().unwrap_or_default();
            let io = Io::new(work.direction, namespace, next_place());
            if let Err(refused) = turn.submit(io, buffer, now) {
                let device = open.controller.name().to_owned();
                let operation = format!("{} of {} bytes", work.direction.opcode(), work.block_size);
                return Err(Failure::Refused { device, operation, reason: refused.reason });
            }
            in_flight += 1;
        }
        drop(turn);
        if in_flight == 0 && !goes_on {
            break;
        }
        if !queue.is_ready() {
            queue.wait(Wait::Poll, LOOK)?;
        }
        now = Instant::now();
        if now - looked >= LOOK {
            looked = now;
            check_signals()?;
            if seen != ios + errors {
                (waiting, seen) = (Stopwatch::new(), ios + errors);
            }
            if waiting.waited() >= open.timeout {
                let (device, operation) = (open.controller.name().to_owned(), queue.diagnose());
                return Err(Failure::Timeout { device, operation, after: open.timeout });
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(PerfResult { ios, errors, bytes: ios * work.block_size as u64, seconds, latencies })
}
