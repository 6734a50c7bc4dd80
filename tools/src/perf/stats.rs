//! What a worker counts.

use super::verify::Mismatch;
use hdrhistogram::Histogram;
use upcie_nvme::spec::Status;

/// Latencies up to this are told apart: ten minutes.
const LATENCY_MAX: u64 = 600_000_000_000;
/// The first distance of samples.
const SAMPLE_NS: u64 = 20_000_000;
/// Samples kept; when there are more, every second one goes.
const SAMPLES: usize = 1024;
/// Mismatches described.
const EXAMPLES: usize = 5;

/// The counts of one worker, or of all of them.
#[derive(Debug)]
pub struct Stats {
    /// Latencies in nanoseconds, to a tenth of a percent: of reads, and of writes.
    pub latency: [Histogram<u64>; 2],
    /// Failed I/Os by status.
    pub failed: Vec<(Status, u64)>,
    /// Reads that brought other data than was written.
    pub mismatches: u64,
    /// The first few of them.
    pub examples: Vec<Mismatch>,
    /// How many had succeeded by when.
    pub samples: Samples,
    /// CPU time of the thread.
    pub cpu_ns: u64,
    /// When it began, on the run's clock.
    pub start_ns: u64,
    /// When the last I/O completed.
    pub end_ns: u64,
}

impl Stats {
    /// Nothing yet.
    pub fn new(start_ns: u64) -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_MAX, 3);
        Ok(Self {
            latency: [histogram()?, histogram()?],
            failed: Vec::new(),
            mismatches: 0,
            examples: Vec::with_capacity(EXAMPLES),
            samples: Samples::new(start_ns),
            cpu_ns: 0,
            start_ns,
            end_ns: start_ns,
        })
    }

    /// A success.
    #[inline(always)]
    pub fn record(&mut self, write: bool, latency_ns: u64) {
        self.latency[usize::from(write)].saturating_record(latency_ns);
    }

    /// A failure.
    #[cold]
    pub fn fail(&mut self, status: Status) {
        match self.failed.iter_mut().find(|(known, _)| known.is(status)) {
            Some((_, count)) => *count += 1,
            None => self.failed.push((status, 1)),
        }
    }

    /// Wrong data.
    #[cold]
    pub fn mismatch(&mut self, mismatch: Mismatch) {
        self.mismatches += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(mismatch);
        }
    }

    /// I/Os that failed or brought wrong data.
    pub fn errors(&self) -> u64 {
        self.failed.iter().map(|(_, count)| count).sum::<u64>() + self.mismatches
    }

    /// Adds what another worker counted.
    pub fn add(&mut self, other: Self) -> anyhow::Result<()> {
        for (ours, theirs) in self.latency.iter_mut().zip(&other.latency) {
            ours.add(theirs)?;
        }
        self.add_faults(&other);
        self.samples = Samples::sum(&self.samples, &other.samples);
        self.cpu_ns += other.cpu_ns;
        self.start_ns = self.start_ns.min(other.start_ns);
        self.end_ns = self.end_ns.max(other.end_ns);
        Ok(())
    }

    /// Adds the failures alone: of what is run before and after the measurement.
    pub fn add_faults(&mut self, other: &Self) {
        for &(status, count) in &other.failed {
            match self.failed.iter_mut().find(|(known, _)| known.is(status)) {
                Some((_, ours)) => *ours += count,
                None => self.failed.push((status, count)),
            }
        }
        self.mismatches += other.mismatches;
        let room = EXAMPLES - self.examples.len().min(EXAMPLES);
        self.examples.extend(other.examples.iter().take(room).cloned());
    }
}

/// How many I/Os were done by when: a bounded number of points, whatever the run's length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samples {
    /// Time and count, both rising; the first is the start.
    points: Vec<(u64, u64)>,
    interval: u64,
    next: u64,
}

impl Samples {
    fn new(start: u64) -> Self {
        let mut points = Vec::with_capacity(SAMPLES + 1);
        points.push((start, 0));
        Self { points, interval: SAMPLE_NS, next: start + SAMPLE_NS }
    }

    /// Whether the next sample is due.
    #[inline(always)]
    pub fn is_due(&self, now: u64) -> bool {
        now >= self.next
    }

    /// Takes a sample. Allocates nothing.
    #[cold]
    pub fn push(&mut self, now: u64, done: u64) {
        if self.points.len() >= SAMPLES {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.interval *= 2;
        }
        self.points.push((now, done));
        self.next = now + self.interval;
    }

    /// The count at a time, between the points in proportion.
    fn at(&self, time: u64) -> f64 {
        let after = self.points.partition_point(|point| point.0 <= time);
        match (after.checked_sub(1).map(|before| self.points[before]), self.points.get(after)) {
            (None, _) => 0.0,
            (Some(last), None) => last.1 as f64,
            (Some(before), Some(next)) => {
                let share = (time - before.0) as f64 / (next.0 - before.0) as f64;
                before.1 as f64 + share * (next.1 - before.1) as f64
            }
        }
    }

    fn sum(a: &Self, b: &Self) -> Self {
        let mut times: Vec<_> = a.points.iter().chain(&b.points).map(|point| point.0).collect();
        times.sort_unstable();
        times.dedup();
        let points = times.into_iter().map(|time| (time, (a.at(time) + b.at(time)) as u64)).collect();
        Self { points, interval: a.interval.max(b.interval), next: a.next.max(b.next) }
    }

    /// I/Os per second over the run, in at most `count` steps: the middle of each in seconds, and the rate.
    pub fn rates(&self, count: usize) -> Vec<(f64, f64)> {
        let (Some(&(start, _)), Some(&(end, _))) = (self.points.first(), self.points.last()) else {
            return Vec::new();
        };
        let steps = (((end - start) / self.interval.max(SAMPLE_NS)) as usize).clamp(1, count.max(1));
        let step = (end - start) as f64 / steps as f64;
        if step <= 0.0 {
            return Vec::new();
        }
        let count_at = |i: usize| self.at(start + (i as f64 * step) as u64);
        (0..steps)
            .map(|i| ((i as f64 + 0.5) * step / 1e9, (count_at(i + 1) - count_at(i)) * 1e9 / step))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_recorded() {
        let mut stats = Stats::new(0).unwrap();
        for latency in 1..=1000 {
            stats.record(false, latency * 1000);
        }
        let reads = &stats.latency[0];
        for (quantile, value) in [(0.5, 500_000.0), (0.99, 990_000.0), (0.999, 999_000.0)] {
            let got = reads.value_at_quantile(quantile) as f64;
            assert!((got / value - 1.0).abs() < 0.001, "{quantile}: {got}");
        }
        assert_eq!(stats.latency[1].len(), 0);
    }

    #[test]
    fn failures_are_counted_by_status() {
        let (mut a, mut b) = (Stats::new(0).unwrap(), Stats::new(5).unwrap());
        a.fail(Status::LBA_OUT_OF_RANGE);
        b.fail(Status::LBA_OUT_OF_RANGE.with_do_not_retry());
        b.fail(Status::INTERNAL_ERROR);
        a.add(b).unwrap();
        assert_eq!(a.errors(), 3);
        assert_eq!(a.failed.len(), 2);
        assert_eq!(a.failed[0].1, 2);
    }

    #[test]
    fn samples_of_a_steady_run_give_its_rate_however_long_it_is() {
        let mut samples = Samples::new(1000);
        // 100 000 per second for ten minutes, one look each millisecond.
        for ms in 1..600_000_u64 {
            let now = 1000 + ms * 1_000_000;
            if samples.is_due(now) {
                samples.push(now, ms * 100);
            }
        }
        assert!(samples.points.len() <= SAMPLES + 1);
        let both = Samples::sum(&samples, &samples);
        let rates = both.rates(100);
        assert_eq!(rates.len(), 100);
        assert!(rates.iter().all(|(_, rate)| (rate / 200_000.0 - 1.0).abs() < 0.01), "{rates:?}");
        assert!(rates.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn no_samples_give_no_rates() {
        assert!(Samples::new(7).rates(10).is_empty());
    }
}
