//! Counters of a run.

use super::verify::Mismatch;
use hdrhistogram::Histogram;
use upcie_nvme::spec::Status;

/// Longest latency that the histograms resolve: ten minutes, in nanoseconds.
const LATENCY_MAX: u64 = 600_000_000_000;
/// Number of mismatches that are described.
const EXAMPLES: usize = 5;

/// Makes a histogram of nanoseconds with a resolution of a tenth of a percent.
pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_MAX, 3)?)
}

/// Latencies of successful reads and writes (in this order), and the number of failures.
#[derive(Debug)]
pub struct Tally {
    /// Latencies.
    pub latency: [Histogram<u64>; 2],
    /// Bytes moved.
    pub bytes: [u64; 2],
    /// I/Os that failed or returned wrong data.
    pub errors: u64,
}

impl Tally {
    /// Makes an empty tally.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { latency: [histogram()?, histogram()?], bytes: [0; 2], errors: 0 })
    }

    /// Returns the number of I/Os that succeeded.
    pub fn ios(&self) -> u64 {
        self.latency.iter().map(Histogram::len).sum()
    }

    /// Returns true if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.ios() + self.errors == 0
    }

    /// Adds another tally.
    pub fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        for (ours, theirs) in self.latency.iter_mut().zip(&other.latency) {
            if !theirs.is_empty() {
                ours.add(theirs)?;
            }
        }
        for (ours, theirs) in self.bytes.iter_mut().zip(other.bytes) {
            *ours += theirs;
        }
        self.errors += other.errors;
        Ok(())
    }

    /// Sets all counts to 0.
    pub fn reset(&mut self) {
        for latency in &mut self.latency {
            if !latency.is_empty() {
                latency.reset();
            }
        }
        (self.bytes, self.errors) = ([0; 2], 0);
    }

    /// Returns the latencies of reads and writes together.
    pub fn all(&self) -> anyhow::Result<Histogram<u64>> {
        let mut all = self.latency[0].clone();
        all.add(&self.latency[1])?;
        Ok(all)
    }
}

/// Failures of I/Os.
#[derive(Debug, Default)]
pub struct Faults {
    /// Failed I/Os by status.
    pub failed: Vec<(Status, u64)>,
    /// Reads that returned other data than was written.
    pub mismatches: u64,
    /// The first few mismatches.
    pub examples: Vec<Mismatch>,
}

impl Faults {
    /// Counts a failure.
    #[cold]
    pub fn fail(&mut self, status: Status) {
        self.add_failed(status, 1);
    }

    /// Counts a mismatch.
    #[cold]
    pub fn mismatch(&mut self, mismatch: Mismatch) {
        self.mismatches += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(mismatch);
        }
    }

    /// Returns the number of failures and mismatches.
    pub fn count(&self) -> u64 {
        self.failed.iter().map(|(_, count)| count).sum::<u64>() + self.mismatches
    }

    /// Adds the faults of another lane.
    pub fn add(&mut self, other: &Self) {
        for &(status, count) in &other.failed {
            self.add_failed(status, count);
        }
        self.mismatches += other.mismatches;
        let room = EXAMPLES - self.examples.len().min(EXAMPLES);
        self.examples.extend(other.examples.iter().take(room).cloned());
    }

    fn add_failed(&mut self, status: Status, count: u64) {
        match self.failed.iter_mut().find(|(known, _)| *known == status) {
            Some((_, ours)) => *ours += count,
            None => self.failed.push((status, count)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_match_the_recorded_latencies() {
        let mut tally = Tally::new().unwrap();
        for latency in 1..=1000 {
            tally.latency[0].saturating_record(latency * 1000);
        }
        let mut sum = Tally::new().unwrap();
        sum.add(&tally).unwrap();
        let reads = &sum.latency[0];
        for (quantile, value) in [(0.5, 500_000.0), (0.99, 990_000.0), (0.999, 999_000.0)] {
            let got = reads.value_at_quantile(quantile) as f64;
            assert!((got / value - 1.0).abs() < 0.001, "{quantile}: {got}");
        }
        assert_eq!((sum.latency[1].len(), sum.ios()), (0, 1000));
        sum.reset();
        assert_eq!(sum.ios(), 0);
    }

    #[test]
    fn failures_are_counted_by_status() {
        let (mut a, mut b) = (Faults::default(), Faults::default());
        a.fail(Status::LBA_OUT_OF_RANGE);
        b.fail(Status::LBA_OUT_OF_RANGE.with_do_not_retry());
        b.fail(Status::INTERNAL_ERROR);
        a.add(&b);
        assert_eq!(a.count(), 3);
        assert_eq!(a.failed.len(), 2);
        assert_eq!(a.failed[0].1, 2);
    }
}
