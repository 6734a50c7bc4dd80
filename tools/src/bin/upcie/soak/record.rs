//! The record of what each block may hold. It is a file, so that a worker that is killed leaves it behind.

use anyhow::{Context, ensure};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// First bytes of the file.
const MAGIC: &[u8; 8] = b"upSOAK01";
/// Position of the number of begun and ended losses of a volatile cache.
const LOSSES: u64 = 48;
/// Position of the number of losses after which a worker has last found all blocks.
const SEEN: u64 = 56;
/// Position of the counters, [`COUNTERS`] for each lane.
const COUNTS: u64 = 64;
const COUNTERS: usize = 8;
/// Most lanes of a record.
pub const LANES: usize = 62;
/// Position of the first block's entry.
const ENTRIES: u64 = 4096;
const ENTRY: usize = 16;

/// Versions of a block; 0 is its content before the first write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry {
    /// Oldest version that can be there after a power cut.
    pub durable: u32,
    /// Oldest version that can be there now.
    pub acked: u32,
    /// Newest version that can be there: the one in flight, or that of the last write.
    pub started: u32,
    /// Newest version that was ever sent; later writes have larger ones.
    pub last: u32,
}

/// Counts of a lane's operations, over all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    /// Commands that completed with an error status.
    pub errors: u64,
    pub bytes: u64,
    /// Blocks that a new worker found as they had to be.
    pub verified: u64,
    /// Times that a worker had to open the controller again.
    pub reopened: u64,
    /// Commands that a reset of the controller gave back, of which it is not known whether they were executed.
    pub given_back: u64,
}

impl Counts {
    fn words(self) -> [u64; COUNTERS] {
        let Self { reads, writes, flushes, errors, bytes, verified, reopened, given_back } = self;
        [reads, writes, flushes, errors, bytes, verified, reopened, given_back]
    }

    fn of(words: [u64; COUNTERS]) -> Self {
        let [reads, writes, flushes, errors, bytes, verified, reopened, given_back] = words;
        Self { reads, writes, flushes, errors, bytes, verified, reopened, given_back }
    }

    /// Returns the sum of two.
    pub fn plus(self, other: Self) -> Self {
        let mut sum = self.words();
        sum.iter_mut().zip(other.words()).for_each(|(sum, word)| *sum += word);
        Self::of(sum)
    }
}

/// The tested range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub seed: u64,
    pub slba: u64,
    pub blocks: u64,
    pub block_size: u64,
}

/// An open record. Each thread writes the entries of its own blocks only.
#[derive(Debug)]
pub struct Record {
    file: File,
    path: PathBuf,
    pub range: Range,
}

impl Record {
    /// Makes a record in which no block was written.
    pub fn create(path: &Path, range: Range) -> anyhow::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path);
        let file = file.with_context(|| format!("creating the record {}", path.display()))?;
        let record = Self { file, path: path.to_owned(), range };
        let Range { seed, slba, blocks, block_size } = range;
        record.put(MAGIC, 0)?;
        record.put(&bytes(&[seed, slba, blocks, block_size]), 8)?;
        let length = ENTRIES + blocks * ENTRY as u64;
        record
            .file
            .set_len(length)
            .with_context(|| format!("making {} {length} bytes long", path.display()))?;
        Ok(record)
    }

    /// Opens a record that another process has made.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().read(true).write(true).open(path);
        let file = file.with_context(|| format!("opening the record {}", path.display()))?;
        let mut head = [0; 40];
        file.read_exact_at(&mut head, 0).with_context(|| format!("reading {}", path.display()))?;
        ensure!(head[..8] == *MAGIC, "{} is no record of a soak", path.display());
        let [seed, slba, blocks, block_size] = words(&head[8..]);
        Ok(Self { file, path: path.to_owned(), range: Range { seed, slba, blocks, block_size } })
    }

    /// Returns a second handle, for another thread.
    pub fn share(&self) -> anyhow::Result<Self> {
        let file = self.file.try_clone().with_context(|| format!("sharing {}", self.path.display()))?;
        Ok(Self { file, path: self.path.clone(), range: self.range })
    }

    /// Counts the begin or the end of a loss of the volatile cache: the number is odd while the server is being killed.
    pub fn count_loss(&self) -> anyhow::Result<()> {
        self.put(&(self.losses()? + 1).to_le_bytes(), LOSSES)
    }

    /// Returns the number of begun and ended losses.
    pub fn losses(&self) -> anyhow::Result<u64> {
        self.word(LOSSES)
    }

    /// Returns the number of losses after which all blocks were found.
    pub fn seen(&self) -> anyhow::Result<u64> {
        self.word(SEEN)
    }

    /// Says that all blocks were found after so many losses.
    pub fn set_seen(&self, losses: u64) -> anyhow::Result<()> {
        self.put(&losses.to_le_bytes(), SEEN)
    }

    fn word(&self, offset: u64) -> anyhow::Result<u64> {
        let mut word = [0; 8];
        self.get(&mut word, offset)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Reads the entries of `count` blocks from number `first` of the range on.
    pub fn entries(&self, first: u64, count: usize) -> anyhow::Result<Vec<Entry>> {
        let mut raw = vec![0; count * ENTRY];
        self.get(&mut raw, ENTRIES + first * ENTRY as u64)?;
        let entry = |raw: &[u8]| {
            let word = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().expect("four bytes"));
            Entry { durable: word(0), acked: word(4), started: word(8), last: word(12) }
        };
        Ok(raw.chunks_exact(ENTRY).map(entry).collect())
    }

    /// Writes the entries of blocks from number `first` of the range on.
    pub fn set_entries(&self, first: u64, entries: &[Entry]) -> anyhow::Result<()> {
        let raw: Vec<u8> = entries
            .iter()
            .flat_map(|entry| [entry.durable, entry.acked, entry.started, entry.last])
            .flat_map(u32::to_le_bytes)
            .collect();
        self.put(&raw, ENTRIES + first * ENTRY as u64)
    }

    /// Returns a lane's counts.
    pub fn counts(&self, lane: usize) -> anyhow::Result<Counts> {
        let mut raw = [0; COUNTERS * 8];
        self.get(&mut raw, COUNTS + (lane * COUNTERS * 8) as u64)?;
        Ok(Counts::of(words(&raw)))
    }

    /// Writes a lane's counts.
    pub fn set_counts(&self, lane: usize, counts: Counts) -> anyhow::Result<()> {
        self.put(&bytes(&counts.words()), COUNTS + (lane * COUNTERS * 8) as u64)
    }

    /// Returns the sum of all lanes' counts.
    pub fn total(&self) -> anyhow::Result<Counts> {
        (0..LANES).try_fold(Counts::default(), |sum, lane| Ok(sum.plus(self.counts(lane)?)))
    }

    fn put(&self, bytes: &[u8], offset: u64) -> anyhow::Result<()> {
        let written = self.file.write_all_at(bytes, offset);
        written.with_context(|| format!("writing the record {}", self.path.display()))
    }

    fn get(&self, bytes: &mut [u8], offset: u64) -> anyhow::Result<()> {
        let read = self.file.read_exact_at(bytes, offset);
        read.with_context(|| format!("reading the record {}", self.path.display()))
    }
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn words<const N: usize>(raw: &[u8]) -> [u64; N] {
    std::array::from_fn(|i| u64::from_le_bytes(raw[i * 8..i * 8 + 8].try_into().expect("eight bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_outlives_its_writer() {
        let path = std::env::temp_dir().join(format!("upcie-soak-record-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let range = Range { seed: 7, slba: 64, blocks: 100, block_size: 512 };
        let entry = Entry { durable: 1, acked: 2, started: 3, last: 4 };
        let counts = Counts::of([1, 2, 3, 4, 5, 6, 7, 8]);
        {
            let record = Record::create(&path, range).unwrap();
            assert!(Record::create(&path, range).is_err(), "another's record is not overwritten");
            record.set_entries(98, &[entry, entry]).unwrap();
            record.set_counts(LANES - 1, counts).unwrap();
            record.count_loss().unwrap();
            record.set_seen(5).unwrap();
        }
        let record = Record::open(&path).unwrap();
        assert_eq!(record.range, range);
        assert_eq!(record.entries(97, 3).unwrap(), [Entry::default(), entry, entry]);
        assert!(record.entries(98, 3).is_err(), "there are 100 blocks");
        assert_eq!(record.total().unwrap(), counts);
        assert_eq!((record.losses().unwrap(), record.seen().unwrap()), (1, 5));
        std::fs::write(&path, [0; 100]).unwrap();
        assert!(Record::open(&path).unwrap_err().to_string().contains("no record of a soak"));
        std::fs::remove_file(&path).unwrap();
    }
}
