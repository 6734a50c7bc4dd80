//! Counts of a run: I/Os, bytes, latencies, failures.

use super::{
    latencies::{Latencies, histogram},
    verify::Mismatch,
};
use hdrhistogram::Histogram;
use upcie_nvme::spec::Status;

/// Number of mismatches that are described.
const EXAMPLES: usize = 5;

/// Latencies of successful reads and writes (in this order), and the number of failures.
#[derive(Debug)]
pub struct Tally {
    latencies: [Latencies; 2],
    ios: [u64; 2],
    bytes: [u64; 2],
    /// I/Os that failed or returned wrong data.
    pub errors: u64,
}

impl Tally {
    /// Makes an empty tally.
    pub fn new() -> Self {
        Self { latencies: [Latencies::new(), Latencies::new()], ios: [0; 2], bytes: [0; 2], errors: 0 }
    }

    /// Counts the latency of `count` reads (0) or writes (1). [`succeeded`](Self::succeeded) counts the rest of them.
    #[inline(always)]
    pub fn latency(&mut self, kind: usize, nanoseconds: u64, count: u64) {
        self.latencies[kind].count(nanoseconds, count);
    }

    /// Counts reads and writes, in this order, and their bytes.
    #[inline]
    pub fn succeeded(&mut self, ios: [u64; 2], bytes: [u64; 2]) {
        for kind in 0..2 {
            self.ios[kind] += ios[kind];
            self.bytes[kind] += bytes[kind];
        }
    }

    /// Returns the number of I/Os that succeeded.
    pub fn ios(&self) -> u64 {
        self.ios.iter().sum()
    }

    /// Returns the bytes of reads and writes, in this order.
    pub fn bytes(&self) -> [u64; 2] {
        self.bytes
    }

    /// Returns true if nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.ios() + self.errors == 0
    }

    /// Adds another tally.
    pub fn add(&mut self, other: &Self) {
        for (kind, theirs) in other.latencies.iter().enumerate().filter(|&(kind, _)| other.ios[kind] > 0) {
            self.latencies[kind].add(theirs);
        }
        self.succeeded(other.ios, other.bytes);
        self.errors += other.errors;
    }

    /// Sets all counts to 0.
    pub fn reset(&mut self) {
        for (latencies, _) in self.latencies.iter_mut().zip(self.ios).filter(|&(_, ios)| ios > 0) {
            latencies.reset();
        }
        (self.ios, self.bytes, self.errors) = ([0; 2], [0; 2], 0);
    }

    /// Returns the latencies of reads (0) or writes (1).
    pub fn histogram(&self, kind: usize) -> anyhow::Result<Histogram<u64>> {
        let mut histogram = histogram()?;
        self.latencies[kind].add_to(&mut histogram)?;
        Ok(histogram)
    }

    /// Returns the latencies of reads and writes together.
    pub fn all(&self) -> anyhow::Result<Histogram<u64>> {
        let mut all = self.histogram(0)?;
        self.latencies[1].add_to(&mut all)?;
        Ok(all)
    }

    /// Makes a tally of `ios` I/Os of one latency, for tests.
    #[cfg(test)]
    pub fn of(ios: [u64; 2], bytes: [u64; 2], nanoseconds: u64) -> Self {
        let mut tally = Self::new();
        for (latencies, ios) in tally.latencies.iter_mut().zip(ios) {
            latencies.count(nanoseconds, ios);
        }
        tally.succeeded(ios, bytes);
        tally
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
        let mut tally = Tally::new();
        for latency in 1..=1000 {
            tally.latency(0, latency * 1000, 1);
        }
        tally.succeeded([1000, 0], [512_000, 0]);
        let mut sum = Tally::new();
        sum.add(&tally);
        let reads = sum.histogram(0).unwrap();
        for (quantile, value) in [(0.5, 500_000.0), (0.99, 990_000.0), (0.999, 999_000.0)] {
            let got = reads.value_at_quantile(quantile) as f64;
            assert!((got / value - 1.0).abs() < 0.001, "{quantile}: {got}");
        }
        assert_eq!((sum.histogram(1).unwrap().len(), sum.ios(), sum.bytes()), (0, 1000, [512_000, 0]));
        sum.reset();
        assert!(sum.is_empty() && sum.all().unwrap().is_empty());
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
