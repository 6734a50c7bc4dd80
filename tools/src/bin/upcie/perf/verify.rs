//! The data of `--verify`, and the record of the last writes.
//!
//! Each block holds its address, the seed, a version (the number of writes to its unit in this run) and words
//! computed from the three. So a read can tell lost writes, old data and data of another block from each
//! other.

use super::{
    random::{GOLDEN, mix},
    workload::Op,
};
use std::fmt;

/// Set while an I/O on the unit is in flight.
const BUSY: u32 = 1 << 31;
/// Set after a failed write: the unit holds old or new data.
const UNKNOWN: u32 = 1 << 30;
const COUNT: u32 = UNKNOWN - 1;

/// Expected contents of each unit of a queue pair's part.
#[derive(Debug)]
pub struct Ledger {
    /// Version and flags of each unit; version 0 means never written.
    units: Vec<u32>,
    seed: u64,
    /// First block of the part.
    slba: u64,
    blocks_per_unit: u64,
    block_size: usize,
}

/// A block that differs from its last write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    lba: u64,
    offset: usize,
    version: u32,
    found: Found,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Version(u32),
    OtherBlock(u64),
    Zeros,
    Other,
}

impl Ledger {
    /// Makes a ledger in which no unit is written. A unit's number must fit 32 bits.
    pub fn new(units: u64, seed: u64, slba: u64, blocks_per_unit: u64, block_size: usize) -> Self {
        Self { units: vec![0; units as usize], seed, slba, blocks_per_unit, block_size }
    }

    /// Takes a unit for an I/O: the unit of `op`, or the next one without an I/O in flight (one must exist).
    /// Fills `data` for a write. Returns the I/O on that unit, and the unit's number.
    pub fn begin(&mut self, op: Op, data: &mut [u8]) -> (Op, u32) {
        let mut unit = (op.block / self.blocks_per_unit) as usize;
        while self.units[unit] & BUSY != 0 {
            unit = if unit + 1 == self.units.len() { 0 } else { unit + 1 };
        }
        let state = &mut self.units[unit];
        if op.write {
            *state = ((*state & COUNT) + 1) & COUNT;
        }
        *state |= BUSY;
        if op.write {
            let (version, slba) = (*state & COUNT, self.lba(unit));
            for (block, lba) in data.chunks_exact_mut(self.block_size).zip(slba..) {
                fill(block, lba, self.seed, version);
            }
        }
        (Op { block: unit as u64 * self.blocks_per_unit, ..op }, unit as u32)
    }

    /// Ends an I/O on a unit, and checks `data` after a successful read.
    pub fn end(&mut self, unit: u32, write: bool, ok: bool, data: &[u8]) -> Result<(), Mismatch> {
        let unit = unit as usize;
        let state = &mut self.units[unit];
        *state &= !BUSY;
        if write && !ok {
            *state |= UNKNOWN;
        }
        if write || !ok || !self.is_known(unit) {
            return Ok(());
        }
        let (version, slba) = (self.units[unit], self.lba(unit));
        for (block, lba) in data.chunks_exact(self.block_size).zip(slba..) {
            check(block, lba, self.seed, version)?;
        }
        Ok(())
    }

    /// Returns true if the contents of the unit are known.
    fn is_known(&self, unit: usize) -> bool {
        let state = self.units[unit];
        state & COUNT != 0 && state & UNKNOWN == 0
    }

    fn lba(&self, unit: usize) -> u64 {
        self.slba + unit as u64 * self.blocks_per_unit
    }
}

fn key(lba: u64, seed: u64, version: u32) -> u64 {
    mix(mix(seed ^ GOLDEN) ^ mix(lba) ^ (u64::from(version) << 17))
}

/// Lists a block's words: address, seed, version, then an arithmetic progression from their key.
fn words(lba: u64, seed: u64, version: u32) -> impl Iterator<Item = u64> {
    let key = key(lba, seed, version);
    let rest = (0_u64..).map(move |i| key.wrapping_add(i.wrapping_mul(GOLDEN)));
    [lba, seed, u64::from(version)].into_iter().chain(rest)
}

/// Fills a block with its content.
pub fn fill(block: &mut [u8], lba: u64, seed: u64, version: u32) {
    for (bytes, word) in block.chunks_exact_mut(8).zip(words(lba, seed, version)) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

/// Returns the version that a block holds; `None` if it holds anything else, or parts of several.
pub fn version(block: &[u8], lba: u64, seed: u64) -> Option<u32> {
    let version = u64::from_le_bytes(block.get(16..24)?.try_into().ok()?);
    let version = u32::try_from(version).ok()?;
    check(block, lba, seed, version).ok().map(|()| version)
}

fn check(block: &[u8], lba: u64, seed: u64, version: u32) -> Result<(), Mismatch> {
    let wrong = block
        .chunks_exact(8)
        .zip(words(lba, seed, version))
        .position(|(bytes, word)| bytes != word.to_le_bytes());
    match wrong {
        None => Ok(()),
        Some(word) => Err(diagnose(block, lba, seed, version, word * 8)),
    }
}

#[cold]
fn diagnose(block: &[u8], lba: u64, seed: u64, version: u32, offset: usize) -> Mismatch {
    let word = |at: usize| u64::from_le_bytes(block[at * 8..at * 8 + 8].try_into().expect("eight bytes"));
    let (at, other) = (word(0), word(2));
    let is = |lba: u64, version: u32| {
        block.chunks_exact(8).zip(words(lba, seed, version)).all(|(bytes, word)| bytes == word.to_le_bytes())
    };
    let found = match u32::try_from(other) {
        Ok(other) if at == lba && is(at, other) => Found::Version(other),
        Ok(other) if is(at, other) => Found::OtherBlock(at),
        _ if block.iter().all(|&byte| byte == 0) => Found::Zeros,
        _ => Found::Other,
    };
    Mismatch { lba, offset, version, found }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lba, offset, version, found } = self;
        write!(f, "block {lba}: differs from the last write (version {version}) from byte {offset} on: ")?;
        match found {
            Found::Version(other) => write!(f, "it holds version {other} of this block"),
            Found::OtherBlock(other) => write!(f, "it holds block {other}"),
            Found::Zeros => f.write_str("it is all zeros"),
            Found::Other => f.write_str("it holds other data"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(unit: u64, blocks: u64, write: bool) -> Op {
        Op { block: unit * blocks, size: 0, write }
    }

    fn written(ledger: &mut Ledger, unit: u64) -> Vec<u8> {
        let mut data = vec![0; 4096];
        let (_, unit) = ledger.begin(op(unit, 8, true), &mut data);
        ledger.end(unit, true, true, &[]).unwrap();
        data
    }

    fn read(ledger: &mut Ledger, unit: u64, data: &[u8]) -> Result<(), String> {
        let (_, unit) = ledger.begin(op(unit, 8, false), &mut []);
        ledger.end(unit, false, true, data).map_err(|mismatch| mismatch.to_string())
    }

    #[test]
    fn only_the_last_write_passes() {
        let mut ledger = Ledger::new(8, 7, 100, 8, 512);
        let old = written(&mut ledger, 1);
        let other = written(&mut ledger, 2);
        let new = written(&mut ledger, 1);
        assert_eq!(read(&mut ledger, 1, &new), Ok(()));
        let error = read(&mut ledger, 1, &old).unwrap_err();
        assert!(error.contains("block 108") && error.contains("version 1 of this block"), "{error}");
        let error = read(&mut ledger, 1, &other).unwrap_err();
        assert!(error.contains("holds block 116"), "{error}");
        assert!(read(&mut ledger, 1, &[0; 4096]).unwrap_err().contains("all zeros"));
        let mut torn = new.clone();
        torn[4095] ^= 1;
        let error = read(&mut ledger, 1, &torn).unwrap_err();
        assert!(error.contains("block 115") && error.contains("byte 504"), "{error}");
        assert_eq!(read(&mut ledger, 5, &torn), Ok(()), "never written, so not compared");
    }

    #[test]
    fn seeds_tell_runs_apart() {
        let (mut first, mut second) = (Ledger::new(1, 1, 0, 8, 512), Ledger::new(1, 2, 0, 8, 512));
        let data = written(&mut first, 0);
        written(&mut second, 0);
        assert!(read(&mut second, 0, &data).is_err());
    }

    #[test]
    fn a_unit_in_flight_is_skipped() {
        let mut ledger = Ledger::new(3, 0, 0, 1, 512);
        let mut data = [0; 512];
        let write = |unit| op(unit, 1, true);
        assert_eq!(ledger.begin(write(2), &mut data), (write(2), 2));
        assert_eq!(ledger.begin(write(2), &mut data), (write(0), 0), "the next one, wrapping around");
        assert_eq!(ledger.begin(write(2), &mut data), (write(1), 1));
    }

    #[test]
    fn a_failed_write_leaves_its_unit_unknown() {
        let mut ledger = Ledger::new(1, 0, 0, 8, 512);
        written(&mut ledger, 0);
        let (_, unit) = ledger.begin(op(0, 8, true), &mut [0; 4096]);
        ledger.end(unit, true, false, &[]).unwrap();
        assert!(!ledger.is_known(0));
        assert_eq!(read(&mut ledger, 0, &[0; 4096]), Ok(()));
        let data = written(&mut ledger, 0);
        assert!(ledger.is_known(0));
        assert_eq!(read(&mut ledger, 0, &data), Ok(()));
    }
}
