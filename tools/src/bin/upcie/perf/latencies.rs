//! Counters of latencies, as cheap as counting gets: one addition at an index that a few instructions compute.
//!
//! The buckets are those of an HdrHistogram of three digits: 2,048 of one nanosecond each, then 1,024 for each doubling,
//! so that a bucket is never wider than a thousandth of its values. A [`Histogram`] that is made of them equals one that
//! had recorded every latency by itself, except for latencies above [`LONGEST`], which count as that one.

use hdrhistogram::Histogram;

/// Longest latency that the counters resolve: ten minutes, in nanoseconds.
const LONGEST: u64 = 600_000_000_000;
/// Log2 of the number of buckets of one nanosecond.
const EXACT_BITS: u32 = 11;
/// Buckets for each doubling above those of one nanosecond.
const PER_DOUBLING: usize = 1 << (EXACT_BITS - 1);
/// Buckets that are looked at together.
const MANY: usize = 64;
const BUCKETS: usize = bucket(LONGEST) + 1;

/// Returns the bucket of a latency.
#[inline(always)]
const fn bucket(nanoseconds: u64) -> usize {
    let doublings = (u64::BITS - EXACT_BITS) - (nanoseconds | ((1 << EXACT_BITS) - 1)).leading_zeros();
    doublings as usize * PER_DOUBLING + (nanoseconds >> doublings) as usize
}

/// Returns the shortest latency of a bucket.
fn shortest(bucket: usize) -> u64 {
    let doublings = (bucket / PER_DOUBLING).saturating_sub(1);
    ((bucket - doublings * PER_DOUBLING) as u64) << doublings
}

/// Returns true if a count is not 0. Most are, so [`MANY`] are looked at together.
fn any(counts: &[u64]) -> bool {
    counts.iter().fold(0, |bits, count| bits | count) != 0
}

/// Makes an empty histogram of nanoseconds with the same resolution.
pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LONGEST, 3)?)
}

/// Number of I/Os by latency.
#[derive(Debug)]
pub struct Latencies(Box<[u64; BUCKETS]>);

impl Latencies {
    /// Makes counters that are all 0.
    pub fn new() -> Self {
        Self(vec![0; BUCKETS].try_into().expect("as many as the array has"))
    }

    /// Counts `count` I/Os of one latency.
    #[inline(always)]
    pub fn count(&mut self, nanoseconds: u64, count: u64) {
        self.0[bucket(nanoseconds).min(BUCKETS - 1)] += count;
    }

    /// Adds the counts of others.
    pub fn add(&mut self, other: &Self) {
        for (ours, theirs) in
            self.0.chunks_mut(MANY).zip(other.0.chunks(MANY)).filter(|(_, theirs)| any(theirs))
        {
            ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours += theirs);
        }
    }

    /// Sets all counts to 0.
    pub fn reset(&mut self) {
        self.0.chunks_mut(MANY).filter(|counts| any(counts)).for_each(|counts| counts.fill(0));
    }

    /// Adds the counts to a histogram made by [`histogram`].
    pub fn add_to(&self, sum: &mut Histogram<u64>) -> anyhow::Result<()> {
        for (bucket, counts) in (0..).step_by(MANY).zip(self.0.chunks(MANY)).filter(|(_, counts)| any(counts))
        {
            for (bucket, &count) in (bucket..).zip(counts).filter(|&(_, &count)| count > 0) {
                sum.record_n(shortest(bucket), count)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Latencies at both ends of every bucket's width, and between.
    fn samples() -> impl Iterator<Item = u64> {
        let near = |power: u64| [power - 1, power, power + 1, power + power / 3, power + power / 7 * 5];
        (0..4100).chain((12..39).flat_map(move |bits| near(1 << bits))).chain([LONGEST - 1, LONGEST])
    }

    #[test]
    fn counters_lose_nothing_against_a_histogram() {
        let (mut counters, mut recorded) = (Latencies::new(), histogram().unwrap());
        for (count, latency) in (1..).zip(samples()) {
            counters.count(latency, count);
            recorded.record_n(latency, count).unwrap();
        }
        let mut counted = histogram().unwrap();
        counters.add_to(&mut counted).unwrap();
        assert_eq!(counted, recorded);
        assert_eq!((counted.min(), counted.max()), (recorded.min(), recorded.max()));
        assert_eq!((counted.mean(), counted.stdev()), (recorded.mean(), recorded.stdev()));
        for thousandth in 0..=1000 {
            let quantile = f64::from(thousandth) / 1000.0;
            assert_eq!(counted.value_at_quantile(quantile), recorded.value_at_quantile(quantile));
        }
    }

    #[test]
    fn a_latency_beyond_the_longest_counts_as_the_longest() {
        for latency in [LONGEST + 1, 1 << 50, u64::MAX] {
            let mut counters = Latencies::new();
            counters.count(latency, 1);
            let mut counted = histogram().unwrap();
            counters.add_to(&mut counted).unwrap();
            assert!(counted.equivalent(counted.max(), LONGEST), "{latency}: {}", counted.max());
        }
    }

    #[test]
    fn counts_add_up_and_reset() {
        let (mut ours, mut theirs) = (Latencies::new(), Latencies::new());
        ours.count(7, 1);
        theirs.count(7, 2);
        theirs.count(5000, 3);
        ours.add(&theirs);
        let mut counted = histogram().unwrap();
        ours.add_to(&mut counted).unwrap();
        assert_eq!([7, 5000].map(|latency| counted.count_at(latency)), [3, 3]);
        ours.reset();
        counted.reset();
        ours.add_to(&mut counted).unwrap();
        assert!(counted.is_empty());
    }
}
