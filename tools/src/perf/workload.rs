//! Which block comes next.

use clap::ValueEnum;

/// What the I/Os do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Workload {
    /// Sequential reads
    Read,
    /// Sequential writes: overwrites the range
    Write,
    /// Random reads
    RandRead,
    /// Random writes: overwrites blocks of the range
    RandWrite,
    /// Random reads and writes, mixed by --mix
    RandRw,
}

impl Workload {
    /// Whether blocks are overwritten.
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::RandWrite | Self::RandRw)
    }

    /// Whether blocks are read.
    pub fn reads(self) -> bool {
        matches!(self, Self::Read | Self::RandRead | Self::RandRw)
    }

    fn is_random(self) -> bool {
        matches!(self, Self::RandRead | Self::RandWrite | Self::RandRw)
    }

    /// Reads among 256 I/Os, for a percentage of a mix.
    fn read_share(self, mix: u8) -> u64 {
        match self {
            Self::Read | Self::RandRead => 256,
            Self::Write | Self::RandWrite => 0,
            Self::RandRw => (u64::from(mix) * 256 + 50) / 100,
        }
    }

    /// As the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::RandRead => "randread",
            Self::RandWrite => "randwrite",
            Self::RandRw => "randrw",
        }
    }
}

/// One I/O: a unit is a piece of the worker's part of the namespace, of the block size of the I/Os.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// The unit, counted from the start of the worker's part.
    pub unit: u64,
    /// Write rather than read.
    pub write: bool,
}

/// Gives one I/O after the other, `left` of them.
#[derive(Debug, Clone)]
pub struct Source {
    units: u64,
    next: u64,
    random: bool,
    /// Reads among 256.
    reads: u64,
    left: u64,
    state: u64,
}

impl Source {
    /// The measured workload over `units` units, from `seed`; ends after `limit` I/Os.
    pub fn measured(rw: Workload, mix: u8, units: u64, seed: u64, limit: u64) -> Self {
        Self { units, next: 0, random: rw.is_random(), reads: rw.read_share(mix), left: limit, state: seed }
    }

    /// Every unit once, in order: writes or reads.
    pub fn sweep(units: u64, write: bool) -> Self {
        let reads = if write { 0 } else { 256 };
        Self { units, next: 0, random: false, reads, left: units, state: 0 }
    }

    /// The next one.
    #[inline(always)]
    pub fn next(&mut self) -> Option<Op> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let (unit, write) = if self.random {
            let draw = self.draw();
            // The top of the product is uniform over the units; its inputs' low byte plays hardly any part in it.
            let unit = ((u128::from(draw) * u128::from(self.units)) >> 64) as u64;
            (unit, draw & 0xff >= self.reads)
        } else {
            let unit = self.next;
            self.next = if unit + 1 == self.units { 0 } else { unit + 1 };
            (unit, self.reads == 0)
        };
        Some(Op { unit, write })
    }

    /// SplitMix64: one addition of state, so that a seed gives the same I/Os on every machine and in every version.
    #[inline(always)]
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }
}

/// SplitMix64's finish: every bit of the result depends on every bit of `value`.
#[inline(always)]
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_seeds_differ() {
        let take = |seed| {
            let mut source = Source::measured(Workload::RandRw, 70, 1000, seed, 10_000);
            std::iter::from_fn(move || source.next()).collect::<Vec<_>>()
        };
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
        let ops = take(1);
        assert_eq!(ops.len(), 10_000);
        assert!(ops.iter().all(|op| op.unit < 1000));
        let reads = ops.iter().filter(|op| !op.write).count();
        assert!((6_700..7_300).contains(&reads), "{reads} of 10000 with a mix of 70");
        let distinct = ops.iter().map(|op| op.unit).collect::<std::collections::HashSet<_>>().len();
        assert!(distinct > 990, "{distinct} of 1000 units met by 10000 draws");
    }

    #[test]
    fn a_mix_of_all_or_nothing_is_exact() {
        for (mix, write) in [(100, false), (0, true)] {
            let mut source = Source::measured(Workload::RandRw, mix, 10, 3, 1000);
            assert!(std::iter::from_fn(|| source.next()).all(|op| op.write == write));
        }
    }

    #[test]
    fn sequential_wraps_and_a_sweep_ends() {
        let mut source = Source::measured(Workload::Write, 0, 3, 0, 5);
        let units: Vec<_> = std::iter::from_fn(|| source.next()).map(|op| op.unit).collect();
        assert_eq!(units, [0, 1, 2, 0, 1]);
        let mut sweep = Source::sweep(4, false);
        assert_eq!(std::iter::from_fn(|| sweep.next()).count(), 4);
    }
}
