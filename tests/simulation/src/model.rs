//! The blocks that a correct driver and medium may have.
//!
//! Every block has a set of versions that a read may return, and a set that a power cut may leave. Both hold the truth,
//! and are as small as the order of submissions and completions allows.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

/// A moment: the number of events before it.
pub type Moment = u64;

#[derive(Debug, Clone, Default)]
struct Block {
    /// The versions that the block may have, with the moment at which each was last completed.
    done: BTreeMap<u64, Moment>,
    /// The versions of writes in flight, by the moments of their submission.
    flying: BTreeMap<Moment, u64>,
    /// The versions that may be left by a power cut, beside those in flight.
    stable: BTreeSet<u64>,
}

/// All blocks of a namespace.
#[derive(Debug)]
pub struct Model {
    blocks: Vec<Block>,
    now: Moment,
}

/// A flush in flight: for each block the versions of which it may make one stable.
#[derive(Debug)]
pub struct Flush(Vec<BTreeSet<u64>>);

/// A read in flight: for each of its blocks the versions that it may return.
#[derive(Debug, Clone)]
pub struct Read {
    pub lba: u64,
    pub allowed: Vec<BTreeSet<u64>>,
}

impl Model {
    /// Makes blocks of zeros.
    pub fn new(blocks: u64) -> Self {
        let block = Block { done: [(0, 0)].into(), flying: BTreeMap::new(), stable: [0].into() };
        Self { blocks: vec![block; blocks as usize], now: 0 }
    }

    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    fn range(&mut self, lba: u64, blocks: u32) -> &mut [Block] {
        &mut self.blocks[lba as usize..][..blocks as usize]
    }

    /// Notes a write that is submitted; returns the moment. `reads` and `flushes` in flight may see it.
    pub fn write<'m>(
        &mut self,
        (lba, blocks): (u64, u32),
        version: u64,
        reads: impl Iterator<Item = &'m mut Read>,
        flushes: impl Iterator<Item = &'m mut Flush>,
    ) -> Moment {
        let now = self.tick();
        for block in self.range(lba, blocks) {
            block.flying.insert(now, version);
        }
        let written = lba..lba + u64::from(blocks);
        for read in reads {
            for (at, allowed) in (read.lba..).zip(&mut read.allowed) {
                if written.contains(&at) {
                    allowed.insert(version);
                }
            }
        }
        for Flush(flush) in flushes {
            for allowed in &mut flush[as_index(&written)] {
                allowed.insert(version);
            }
        }
        now
    }

    /// Notes the completion of a write that was submitted at `since`: with success, or in doubt.
    pub fn written(&mut self, (lba, blocks): (u64, u32), version: u64, since: Moment, success: bool) {
        let now = self.tick();
        for block in self.range(lba, blocks) {
            block.flying.remove(&since);
            if success {
                // Only versions that were completed meanwhile may have come after this one.
                block.done.retain(|_, completed| *completed > since);
            }
            block.done.insert(version, now);
            block.stable.insert(version);
        }
    }

    /// Returns the versions that a read submitted now may return.
    pub fn read(&self, lba: u64, blocks: u32) -> Read {
        let range = &self.blocks[lba as usize..][..blocks as usize];
        Read { lba, allowed: range.iter().map(Block::present).collect() }
    }

    /// Notes a flush that is submitted.
    pub fn flush(&self) -> Flush {
        Flush(self.blocks.iter().map(Block::present).collect())
    }

    /// Notes a flush that has succeeded.
    pub fn flushed(&mut self, Flush(flush): Flush) {
        for (block, may_be_stable) in self.blocks.iter_mut().zip(flush) {
            block.stable = may_be_stable;
        }
    }

    /// Notes a power cut: writes in flight may have been done, or not.
    pub fn lose_power(&mut self) {
        let now = self.tick();
        for block in &mut self.blocks {
            block.stable.extend(std::mem::take(&mut block.flying).into_values());
            block.done = block.stable.iter().map(|&version| (version, now)).collect();
        }
    }

    /// Notes that a block was read with no write in flight, after a power cut or an orderly end: it is what it is.
    pub fn settle(&mut self, lba: u64, version: u64) {
        let now = self.tick();
        let block = &mut self.blocks[lba as usize];
        (block.done, block.stable) = ([(version, now)].into(), [version].into());
    }
}

impl Block {
    fn present(&self) -> BTreeSet<u64> {
        self.done.keys().chain(self.flying.values()).copied().collect()
    }
}

fn as_index(range: &Range<u64>) -> Range<usize> {
    range.start as usize..range.end as usize
}
