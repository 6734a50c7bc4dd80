//! Describes the I/Os of a run, their kind, sizes and distribution, and generates them.

#[cfg(test)]
mod tests;

use super::random::{Distribution, Rng, Zipf, scale};
use crate::units;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// I/Os among which the reads of a mix are counted.
const ALL: u64 = 1 << 16;
/// Largest number of sizes.
const MOST_SIZES: usize = 16;

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
    /// Sequential reads and writes, mixed by --mix; destroy the data in the range
    #[value(alias = "readwrite")]
    Rw,
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
        matches!(self, Self::Write | Self::RandWrite | Self::Rw | Self::RandRw)
    }

    /// Returns true if it reads blocks.
    pub fn reads(self) -> bool {
        matches!(self, Self::Read | Self::RandRead | Self::Rw | Self::RandRw)
    }

    /// Returns true if it deallocates blocks.
    pub fn trims(self) -> bool {
        matches!(self, Self::Trim | Self::RandTrim)
    }

    /// Returns true if it uses blocks in random order.
    pub fn is_random(self) -> bool {
        matches!(self, Self::RandRead | Self::RandWrite | Self::RandRw | Self::RandTrim)
    }

    /// Returns the number of reads among [`ALL`] I/Os, for a percentage of reads in a mix.
    fn read_share(self, mix: u8) -> u64 {
        match self {
            Self::Read | Self::RandRead => ALL,
            Self::Write | Self::RandWrite | Self::Trim | Self::RandTrim => 0,
            Self::Rw | Self::RandRw => (u64::from(mix) * ALL + 50) / 100,
        }
    }

    /// Returns the name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::RandRead => "randread",
            Self::RandWrite => "randwrite",
            Self::Rw => "rw",
            Self::RandRw => "randrw",
            Self::Trim => "trim",
            Self::RandTrim => "randtrim",
        }
    }
}

/// A size and its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Bytes of an I/O.
    pub bytes: u64,
    /// Percentage of the I/Os that have this size.
    pub percent: u8,
}

/// One or several sizes: all different, 100 % together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes {
    shares: Vec<Share>,
    /// Text of each size on the command line, for messages.
    typed: Vec<String>,
}

impl Sizes {
    /// Makes a single size.
    pub fn one(bytes: u64) -> Self {
        Self { shares: vec![Share { bytes, percent: 100 }], typed: vec![bytes.to_string()] }
    }

    /// Returns the size if there is only one.
    pub fn single(&self) -> Option<u64> {
        match self.shares.as_slice() {
            [share] => Some(share.bytes),
            _ => None,
        }
    }

    /// Returns all sizes with their shares.
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    /// Lists the bytes of each size, and its text on the command line.
    pub fn typed(&self) -> impl Iterator<Item = (u64, &str)> {
        self.shares.iter().zip(&self.typed).map(|(share, typed)| (share.bytes, typed.as_str()))
    }

    /// Returns the largest size in bytes.
    pub fn largest(&self) -> u64 {
        self.shares.iter().map(|share| share.bytes).max().unwrap_or(0)
    }

    /// Makes a table of a hundred I/Os that holds the index of each one's size.
    pub fn size_table(&self) -> [u8; 100] {
        let mut table = [0; 100];
        let indices = (0_u8..).zip(&self.shares).flat_map(|(i, share)| (0..share.percent).map(move |_| i));
        for (place, index) in table.iter_mut().zip(indices) {
            *place = index;
        }
        table
    }
}

impl FromStr for Sizes {
    type Err = String;

    /// Parses `4096`, `4K`, `4k:60,64k:40`, or the same in fio's form, `4k/60:64k/40`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut shares: Vec<Share> = Vec::new();
        let mut typed = Vec::new();
        let (between, within) = if text.contains('/') { (':', '/') } else { (',', ':') };
        let several = text.contains(between);
        for item in text.split(between) {
            let (size, percent) = match item.split_once(within) {
                Some((size, percent)) => (size, percent),
                None if several => {
                    return Err(format!(
                        "{item:?} lacks its share of the I/Os: use SIZE:PERCENT, as in 4k:60,64k:40"
                    ));
                }
                None => (item, "100"),
            };
            let bytes = units::parse_bytes(size)?;
            if bytes == 0 {
                return Err(format!("{item:?}: an I/O must have at least one block"));
            }
            let percent: u8 =
                percent.parse().ok().filter(|percent| (1..=100).contains(percent)).ok_or_else(|| {
                    format!(
                        "{item:?}: {percent:?} is not a share of the I/Os: use a whole number from 1 to 100"
                    )
                })?;
            if shares.iter().any(|share| share.bytes == bytes) {
                return Err(format!("{} is given twice", units::bytes(bytes)));
            }
            shares.push(Share { bytes, percent });
            typed.push(size.to_owned());
        }
        let sum: u32 = shares.iter().map(|share| u32::from(share.percent)).sum();
        match sum {
            100 if shares.len() <= MOST_SIZES => Ok(Self { shares, typed }),
            100 => Err(format!("{} sizes are given: the most is {MOST_SIZES}", shares.len())),
            sum => Err(format!("the shares add up to {sum} %, not to 100 %")),
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_shares(&self.shares, f)
    }
}

/// Writes `4 KiB`, or `60 % 4 KiB + 40 % 64 KiB`.
pub fn write_shares(shares: &[Share], f: &mut impl fmt::Write) -> fmt::Result {
    if let [share] = shares {
        return f.write_str(&units::bytes(share.bytes));
    }
    for (i, share) in shares.iter().enumerate() {
        let plus = if i == 0 { "" } else { " + " };
        write!(f, "{plus}{} % {}", share.percent, units::bytes(share.bytes))?;
    }
    Ok(())
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
    /// Number of reads among [`ALL`] I/Os.
    reads: u64,
    left: u64,
    rng: Rng,
    /// First of the sizes.
    size: Size,
    more: Option<Box<More>>,
}

/// Fields of workloads with several sizes, a distribution, or a mix in order.
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
        let is_uncommon = mixture.random != Distribution::Uniform || mixture.rw == Workload::Rw;
        let more = (sizes.len() > 1 || is_uncommon)
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
        let reads = if write { 0 } else { ALL };
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

    /// Generates the next I/O of a workload with one size, no distribution and no mix in order. The caller counts the I/Os, and
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
            let write = match self.reads {
                0 => true,
                ALL => false,
                reads => self.rng.draw() & 0xffff >= reads,
            };
            return Op { block: self.following(blocks), size: class, write };
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
