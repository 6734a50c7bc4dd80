//! Chooses the blocks of the I/Os.

use super::{
    random::{Distribution, Rng, Zipf, scale},
    sizes::Sizes,
};
use clap::ValueEnum;

/// Value of `--rw`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Workload {
    /// Sequential reads
    Read,
    /// Sequential writes; destroy the data in the range
    Write,
    /// Random reads
    RandRead,
    /// Random writes; destroy data in the range
    RandWrite,
    /// Random reads and writes, mixed by --mix
    RandRw,
    /// Sequential deallocations (Dataset Management); destroy the data in the range
    Trim,
    /// Random deallocations; destroy data in the range
    RandTrim,
}

impl Workload {
    /// Returns true if it overwrites blocks.
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::RandWrite | Self::RandRw)
    }

    /// Returns true if it reads blocks.
    pub fn reads(self) -> bool {
        matches!(self, Self::Read | Self::RandRead | Self::RandRw)
    }

    /// Returns true if it deallocates blocks.
    pub fn trims(self) -> bool {
        matches!(self, Self::Trim | Self::RandTrim)
    }

    /// Returns true if it uses blocks in random order.
    pub fn is_random(self) -> bool {
        matches!(self, Self::RandRead | Self::RandWrite | Self::RandRw | Self::RandTrim)
    }

    /// Returns the number of reads among 65536 I/Os, for a percentage of reads in a mix.
    fn read_share(self, mix: u8) -> u64 {
        match self {
            Self::Read | Self::RandRead => 1 << 16,
            Self::Write | Self::RandWrite | Self::Trim | Self::RandTrim => 0,
            Self::RandRw => ((u64::from(mix) << 16) + 50) / 100,
        }
    }

    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::RandRead => "randread",
            Self::RandWrite => "randwrite",
            Self::RandRw => "randrw",
            Self::Trim => "trim",
            Self::RandTrim => "randtrim",
        }
    }
}

/// One I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// First block, counted from the start of the queue pair's part.
    pub block: u64,
    /// Index of its size.
    pub size: u8,
    /// True for a write or trim, false for a read.
    pub write: bool,
}

/// Description of a workload.
#[derive(Debug, Clone)]
pub struct Mixture {
    /// Kind of I/Os.
    pub rw: Workload,
    /// Percentage of reads in a mix.
    pub mix: u8,
    /// Distribution of random I/Os.
    pub random: Distribution,
    /// Sizes of I/Os.
    pub sizes: Sizes,
}

/// One of the sizes, in blocks.
#[derive(Debug, Clone)]
struct Size {
    blocks: u64,
    /// Number of places in the part.
    places: u64,
    zipf: Option<Zipf>,
}

/// Generates `left` I/Os. A random one starts at a multiple of its size. A sequential one starts at the end
/// of the last one, or at block 0 if it does not fit behind it.
#[derive(Debug, Clone)]
pub struct Source {
    /// Number of blocks in the part.
    blocks: u64,
    next: u64,
    random: bool,
    /// Number of reads among 65536 I/Os.
    reads: u64,
    left: u64,
    rng: Rng,
    /// First of the sizes.
    size: Size,
    more: Option<Box<More>>,
}

/// Fields of workloads with several sizes or a distribution.
#[derive(Debug, Clone)]
struct More {
    sizes: Vec<Size>,
    size_table: [u8; 100],
}

impl Source {
    /// Makes the measured workload over `blocks` blocks of `block_size` bytes.
    pub fn measured(mixture: &Mixture, blocks: u64, block_size: u64, seed: u64) -> Self {
        let size = |bytes: u64| {
            let each = bytes / block_size;
            let places = blocks / each;
            let zipf = match mixture.random {
                Distribution::Zipf(theta) => Some(Zipf::new(places, theta)),
                Distribution::Uniform => None,
            };
            Size { blocks: each, places, zipf }
        };
        let sizes: Vec<Size> = mixture.sizes.shares().iter().map(|share| size(share.bytes)).collect();
        let more = (sizes.len() > 1 || mixture.random != Distribution::Uniform)
            .then(|| Box::new(More { sizes: sizes.clone(), size_table: mixture.sizes.size_table() }));
        Self {
            blocks,
            next: 0,
            random: mixture.rw.is_random(),
            reads: mixture.rw.read_share(mixture.mix),
            left: u64::MAX,
            rng: Rng::new(seed),
            size: sizes[0].clone(),
            more,
        }
    }

    /// Makes one pass of writes or reads over all places of `each` blocks, in order.
    pub fn sweep(blocks: u64, each: u64, write: bool) -> Self {
        let places = blocks / each;
        let reads = if write { 0 } else { 1 << 16 };
        let size = Size { blocks: each, places, zipf: None };
        Self { blocks, next: 0, random: false, reads, left: places, rng: Rng::new(0), size, more: None }
    }

    /// Returns true if no I/O is left.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Returns the number of I/Os that are left.
    #[inline(always)]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Limits the I/Os from here on to `left`.
    pub fn limit(&mut self, left: u64) {
        self.left = left;
    }

    /// Returns true if the workload needs [`next_of_many`](Self::next_of_many).
    pub fn has_many(&self) -> bool {
        self.more.is_some()
    }

    /// Generates the next I/O of a workload with one size and no distribution. The caller counts the I/Os, and
    /// [limits](Self::limit) those that are left.
    #[inline(always)]
    pub fn next(&mut self) -> Op {
        let blocks = self.size.blocks;
        let (block, write) = if self.random {
            let draw = self.rng.draw();
            // The place depends on the draw's high bits and the kind on its low bits, so they hardly depend on each other.
            (scale(draw, self.size.places) * blocks, draw & 0xffff >= self.reads)
        } else {
            (self.following(blocks), self.reads == 0)
        };
        Op { block, size: 0, write }
    }

    /// Generates the next I/O of any workload, as [`next`](Self::next) does.
    #[inline]
    pub fn next_of_many(&mut self) -> Op {
        let Some(more) = &self.more else { return self.next() };
        let class = match more.sizes.len() {
            1 => 0,
            _ => more.size_table[scale(self.rng.draw(), 100) as usize],
        };
        let size = &more.sizes[usize::from(class)];
        if !self.random {
            let blocks = size.blocks;
            return Op { block: self.following(blocks), size: class, write: self.reads == 0 };
        }
        let draw = self.rng.draw();
        let place = match &size.zipf {
            None => scale(draw, size.places),
            Some(zipf) => zipf.draw(&mut self.rng),
        };
        Op { block: place * size.blocks, size: class, write: draw & 0xffff >= self.reads }
    }

    /// Returns the first block after the last I/O, or 0 if `blocks` don't fit behind it.
    #[inline(always)]
    fn following(&mut self, blocks: u64) -> u64 {
        let block = if self.next + blocks > self.blocks { 0 } else { self.next };
        self.next = block + blocks;
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixture(rw: Workload, mix: u8, random: &str, sizes: &str) -> Mixture {
        Mixture { rw, mix, random: random.parse().unwrap(), sizes: sizes.parse().unwrap() }
    }

    fn take(mixture: &Mixture, blocks: u64, seed: u64, count: u64) -> Vec<Op> {
        let mut source = Source::measured(mixture, blocks, 512, seed);
        (0..count).map(|_| source.next_of_many()).collect()
    }

    #[test]
    fn a_seed_repeats_and_seeds_differ() {
        for (random, sizes) in [("uniform", "4k"), ("zipf:1.1", "4k"), ("uniform", "4k:60,64k:40")] {
            let mixture = mixture(Workload::RandRw, 70, random, sizes);
            let ops = take(&mixture, 8000, 1, 10_000);
            assert_eq!(ops, take(&mixture, 8000, 1, 10_000));
            assert_ne!(ops, take(&mixture, 8000, 2, 10_000));
            assert_eq!(ops.len(), 10_000);
            let reads = ops.iter().filter(|op| !op.write).count();
            assert!((6_700..7_300).contains(&reads), "{reads} of 10000 with a mix of 70");
        }
    }

    #[test]
    fn a_mix_of_one_percent_has_one_in_a_hundred() {
        let ops = take(&mixture(Workload::RandRw, 1, "uniform", "512"), 1000, 1, 1_000_000);
        let reads = ops.iter().filter(|op| !op.write).count();
        assert!((9_600..10_400).contains(&reads), "{reads} of a million");
    }

    #[test]
    fn both_generators_give_the_same_ios() {
        for rw in [Workload::RandRw, Workload::Read] {
            let mixture = mixture(rw, 50, "uniform", "4k");
            let mut source = Source::measured(&mixture, 800, 512, 3);
            assert!(!source.has_many());
            let ops: Vec<_> = (0..500).map(|_| source.next()).collect();
            assert_eq!(ops, take(&mixture, 800, 3, 500));
        }
    }

    #[test]
    fn uniform_uses_all_places_about_as_often() {
        let ops = take(&mixture(Workload::RandRead, 0, "uniform", "4k"), 100 * 8 + 7, 5, 100_000);
        let mut met = [0_f64; 100];
        for op in ops {
            assert_eq!(op.block % 8, 0);
            met[op.block as usize / 8] += 1.0;
        }
        // 99 degrees of freedom: a value above 149 has a probability of 0.1 %. The seed is fixed.
        let chi: f64 = met.iter().map(|met| (met - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 149.0, "{chi}");
    }

    #[test]
    fn zipf_prefers_few_places() {
        let ops = take(&mixture(Workload::RandRead, 0, "zipf:1.2", "4k"), 8 * 10_000, 5, 100_000);
        let mut met = std::collections::HashMap::new();
        for op in ops {
            assert!(op.block % 8 == 0 && op.block < 80_000);
            *met.entry(op.block).or_insert(0) += 1;
        }
        let mut counts: Vec<_> = met.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let all: f64 = (1..=10_000).map(|k| f64::from(k).powf(-1.2)).sum();
        let top = f64::from(counts[0]) / 100_000.0;
        assert!((top * all - 1.0).abs() < 0.03, "{top}, not {}", 1.0 / all);
    }

    #[test]
    fn sizes_come_in_their_shares_at_their_own_multiples() {
        for rw in [Workload::RandWrite, Workload::Write] {
            let ops = take(&mixture(rw, 0, "uniform", "4k:60,64k:40"), 1000, 9, 10_000);
            let large = ops.iter().filter(|op| op.size == 1).count();
            assert!((3_800..4_200).contains(&large), "{large} of 10000 are 40 %");
            for op in &ops {
                let blocks = if op.size == 1 { 128 } else { 8 };
                assert!(op.block + blocks <= 1000, "{op:?}");
                assert!(rw == Workload::Write || op.block % blocks == 0, "{op:?}");
            }
        }
    }

    #[test]
    fn a_mix_of_all_or_nothing_is_exact() {
        for (mix, write) in [(100, false), (0, true)] {
            let ops = take(&mixture(Workload::RandRw, mix, "uniform", "512"), 10, 3, 1000);
            assert!(ops.iter().all(|op| op.write == write));
        }
    }

    #[test]
    fn sequential_ios_wrap_and_a_sweep_ends() {
        let mixture = mixture(Workload::Write, 0, "uniform", "1k");
        let mut source = Source::measured(&mixture, 7, 512, 0);
        let blocks: Vec<_> = (0..5).map(|_| source.next().block).collect();
        assert_eq!(blocks, [0, 2, 4, 0, 2]);
        assert_eq!(Source::sweep(9, 2, false).left(), 4);
    }
}
