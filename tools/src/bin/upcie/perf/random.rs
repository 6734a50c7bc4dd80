//! Random numbers, and the distributions of I/Os over the range.

use crate::units::common_divisor;
use std::{fmt, str::FromStr};

/// The SplitMix64 generator. Its state is one sum, so a seed gives the same I/Os on every machine and in
/// every version.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Makes a generator with a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Draws 64 random bits.
    #[inline(always)]
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }
}

/// 2^64 divided by the golden ratio: its multiples are spread evenly modulo 2^64.
pub const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes bits with SplitMix64's finish: every bit of the result depends on every bit of `value`.
#[inline(always)]
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Maps a random `fraction` to a uniform number below `count`: the whole part of `fraction / 2^64 * count`.
#[inline(always)]
pub fn scale(fraction: u64, count: u64) -> u64 {
    ((u128::from(fraction) * u128::from(count)) >> 64) as u64
}

/// Distribution of random I/Os over the blocks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Distribution {
    /// All blocks are equally popular.
    Uniform,
    /// The kth most popular block is used in proportion to `k^-theta`.
    Zipf(f64),
}

impl FromStr for Distribution {
    type Err = String;

    /// Parses `uniform` or `zipf:1.1`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "uniform" {
            return Ok(Self::Uniform);
        }
        let Some(theta) = text.strip_prefix("zipf:") else {
            return Err(format!("{text:?} is not a distribution: use uniform, or zipf:THETA (zipf:1.1)"));
        };
        match theta.parse::<f64>() {
            Ok(value) if value > 0.0 && value <= 5.0 => Ok(Self::Zipf(value)),
            _ => Err(format!(
                "{theta:?}: THETA must be above 0 and at most 5; a larger one makes fewer blocks hot"
            )),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf(theta) => write!(f, "zipf:{theta}"),
        }
    }
}

/// Number of ranks that have a group of their own.
const HEAD: u64 = 256;
/// Later groups hold neighbouring ranks, and each group is larger than the last one by this share. Within a
/// group the probability differs by about theta times this share, and ranks are drawn evenly.
const GROWTH: f64 = 0.02;

/// Draws from a Zipf distribution in constant time, some nanoseconds: two random numbers, and one access to
/// an alias table of about a thousand groups of ranks. The probability of a group is exact.
#[derive(Debug, Clone)]
pub struct Zipf {
    count: u64,
    /// Has no factor in common with `count`, and is near its golden section.
    stride: u64,
    groups: Box<[Group]>,
}

/// Ranks `first..first + len`; above the threshold the ranks of the group `alias`.
#[derive(Debug, Clone, Copy)]
struct Group {
    threshold: u64,
    first: u64,
    len: u64,
    alias: u32,
}

impl Zipf {
    /// Makes the distribution over `count` positions (one at least).
    pub fn new(count: u64, theta: f64) -> Self {
        let mut groups = Vec::new();
        let mut weights = Vec::new();
        let mut first = 1;
        while first <= count {
            let len = if first <= HEAD { 1 } else { (first as f64 * GROWTH) as u64 };
            let len = len.max(1).min(count - first + 1);
            groups.push(Group { threshold: u64::MAX, first, len, alias: 0 });
            weights.push(weight(first, len, theta));
            first += len;
        }
        alias(&mut groups, &weights);
        let near = (count as f64 / 1.618_033_988_749_895) as u64;
        // The search succeeds: `count - 1` has no factor in common with `count`.
        let stride = (near.max(1)..=count).find(|&stride| common_divisor(stride, count) == 1).unwrap_or(1);
        Self { count, stride, groups: groups.into() }
    }

    /// Draws a rank: 0 is the most popular.
    #[inline]
    pub fn rank(&self, rng: &mut Rng) -> u64 {
        let product = u128::from(rng.draw()) * self.groups.len() as u128;
        let mut group = &self.groups[(product >> 64) as usize];
        if product as u64 > group.threshold {
            group = &self.groups[group.alias as usize];
        }
        let within = if group.len == 1 { 0 } else { scale(rng.draw(), group.len) };
        group.first - 1 + within
    }

    /// Draws a position. Ranks are spread over the range, so that popular positions are not neighbours.
    #[inline]
    pub fn draw(&self, rng: &mut Rng) -> u64 {
        self.position(self.rank(rng))
    }

    /// Maps a rank to its position; the mapping is one to one.
    #[inline]
    fn position(&self, rank: u64) -> u64 {
        match rank.checked_mul(self.stride) {
            Some(product) => product % self.count,
            // The product needs 128 bits, which is slower.
            None => (u128::from(rank) * u128::from(self.stride) % u128::from(self.count)) as u64,
        }
    }
}

/// Sums `k^-theta` over a group: with Euler's midpoint rule for a wide one.
fn weight(first: u64, len: u64, theta: f64) -> f64 {
    if len == 1 {
        return (first as f64).powf(-theta);
    }
    let (low, high) = (first as f64 - 0.5, (first + len) as f64 - 0.5);
    if (theta - 1.0).abs() < 1e-9 {
        return (high / low).ln();
    }
    let power = 1.0 - theta;
    (high.powf(power) - low.powf(power)) / power
}

/// Fills in thresholds and aliases by Vose's method: at most two groups share an entry.
fn alias(groups: &mut [Group], weights: &[f64]) {
    let mean = weights.iter().sum::<f64>() / weights.len() as f64;
    let mut shares: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..shares.len()).partition(|&i| shares[i] < 1.0);
    while let (Some(&poor), Some(&rich)) = (small.last(), large.last()) {
        small.pop();
        groups[poor].threshold = (shares[poor] * 2_f64.powi(64)) as u64;
        groups[poor].alias = rich as u32;
        shares[rich] -= 1.0 - shares[poor];
        if shares[rich] < 1.0 {
            large.pop();
            small.push(rich);
        }
    }
    // The remaining entries are 1 but for rounding. They keep the highest threshold and need no alias.
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computes chi-squared of many draws against `k^-theta`, for the first 20 ranks and all others.
    fn chi_squared(count: u64, theta: f64) -> f64 {
        const DRAWS: u32 = 1_000_000;
        let zipf = Zipf::new(count, theta);
        let mut rng = Rng::new(42);
        let mut met = [0_u32; 21];
        for _ in 0..DRAWS {
            let rank = zipf.rank(&mut rng);
            assert!(rank < count);
            met[rank.min(20) as usize] += 1;
        }
        let all: f64 = (1..=count).map(|k| (k as f64).powf(-theta)).sum();
        let mut rest = 1.0;
        let mut sum = 0.0;
        for (k, &met) in (1..=20).zip(&met) {
            let share = f64::from(k).powf(-theta) / all;
            rest -= share;
            let expected = share * f64::from(DRAWS);
            sum += (f64::from(met) - expected).powi(2) / expected;
        }
        let expected = rest * f64::from(DRAWS);
        sum + (f64::from(met[20]) - expected).powi(2) / expected
    }

    #[test]
    fn zipf_ranks_follow_the_power_law() {
        for (count, theta) in [(1_000, 1.1), (100_000, 0.8), (1_000_000, 1.0), (50, 2.5)] {
            // 20 degrees of freedom: a value above 45 has a probability of 0.1 %. The seed is fixed.
            let chi = chi_squared(count, theta);
            assert!(chi < 45.0, "{count} {theta}: {chi}");
        }
    }

    #[test]
    fn zipf_s_tail_has_its_share_too() {
        let (count, theta) = (1_000_000_u64, 0.9);
        let zipf = Zipf::new(count, theta);
        let mut rng = Rng::new(7);
        let beyond = (0..1_000_000).filter(|_| zipf.rank(&mut rng) >= 10_000).count() as f64 / 1e6;
        let of = |range: std::ops::RangeInclusive<u64>| range.map(|k| (k as f64).powf(-theta)).sum::<f64>();
        let expected = of(10_001..=count) / of(1..=count);
        assert!((beyond / expected - 1.0).abs() < 0.01, "{beyond} of {expected}");
    }

    #[test]
    fn zipf_is_spread_over_the_range_and_stays_in_it() {
        for count in [1, 2, 3, 300, 1 << 40] {
            let zipf = Zipf::new(count, 1.2);
            let mut rng = Rng::new(1);
            let draws: Vec<_> = (0..10_000).map(|_| zipf.draw(&mut rng)).collect();
            assert!(draws.iter().all(|&at| at < count), "{count}");
            if count >= 300 {
                let half = draws.iter().filter(|&&at| at < count / 2).count();
                assert!((2_500..9_000).contains(&half), "{count}: {half} in the lower half");
            }
        }
        // The second most popular position is not next to the most popular.
        assert!(Zipf::new(1000, 1.2).position(1) > 100);
    }

    #[test]
    fn every_position_has_one_rank() {
        for count in [1, 2, 3, 4, 6, 30, 1000, 2310, 65_536] {
            let zipf = Zipf::new(count, 1.0);
            let mut met: Vec<_> = (0..count).map(|rank| zipf.position(rank)).collect();
            met.sort_unstable();
            assert!(met.into_iter().eq(0..count), "{count}");
        }
        let zipf = Zipf::new(1 << 50, 1.0);
        let last = u128::from(zipf.count - 1) * u128::from(zipf.stride) % (1 << 50);
        assert_eq!(u128::from(zipf.position(zipf.count - 1)), last);
    }

    #[test]
    fn a_zipf_table_is_small_for_any_range() {
        assert!(Zipf::new(1 << 50, 1.0).groups.len() < 2000);
    }

    #[test]
    fn distributions_are_read_and_written_alike() {
        for text in ["uniform", "zipf:1.1", "zipf:0.5"] {
            assert_eq!(text.parse::<Distribution>().unwrap().to_string(), text);
        }
        for text in ["", "zipf", "zipf:", "zipf:0", "zipf:-1", "zipf:9", "zipf:nan", "pareto:1"] {
            assert!(text.parse::<Distribution>().is_err(), "{text}");
        }
    }
}
