//! One thread's blocks: what each may hold, the commands in flight to them, and the check of what comes back.

use super::record::{Counts, Entry, Record};
use crate::{
    contents,
    perf::{
        random::{Rng, scale},
        verify,
    },
};
use std::{collections::HashSet, fmt, ops::Range};
use upcie_nvme::{DmaBuf, Namespace, Refusal, Refused, Turn, spec::Status};

/// Commands between two updates of the counts in the record.
const COUNT_EVERY: u64 = 256;

/// The evidence that the controller or its driver has lost something, or made it up.
#[derive(Debug)]
pub enum Wrong {
    /// The content of a block that can't be there.
    Block {
        lba: u64,
        /// Versions that can be there.
        wanted: Range<u32>,
        found: String,
    },
    /// A command that came back and was not in flight.
    Twice(u64),
    /// So many commands that did not come back from a queue that has none in flight.
    Lost(usize),
}

impl std::error::Error for Wrong {}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block { lba, wanted, found } => {
                let (least, most) = (wanted.start, wanted.end - 1);
                if least == most {
                    write!(f, "block {lba} must hold version {least}, but {found}")
                } else {
                    write!(f, "block {lba} must hold one of the versions {least} to {most}, but {found}")
                }
            }
            Self::Twice(number) => write!(f, "command {number} came back, and was not in flight"),
            Self::Lost(count) => {
                write!(f, "{count} commands did not come back, and the queue has none in flight")
            }
        }
    }
}

/// A command in flight, and its number in its lane.
pub struct Sent {
    number: u64,
    command: Sort,
}

enum Sort {
    Read {
        first: usize,
        count: usize,
    },
    Write {
        first: usize,
        count: usize,
    },
    /// With the blocks that were written before, and their versions.
    Flush(Vec<(usize, u32)>),
}

/// Record of the blocks of a lane.
pub struct Book<'a> {
    record: &'a Record,
    /// Number of the lane.
    number: usize,
    /// Number of the first block in the record's range.
    start: u64,
    pub entries: Vec<Entry>,
    /// True for blocks with a command in flight.
    busy: Vec<bool>,
    /// Blocks written since the last Flush was sent.
    dirty: Vec<usize>,
    pub idle: Vec<DmaBuf>,
    pub counts: Counts,
    pub rng: Rng,
    /// The numbers of the commands in flight, and the last one.
    out: HashSet<u64>,
    last: u64,
}

impl<'a> Book<'a> {
    /// Opens the record of lane `number` and its blocks; `seed` is the start of the random numbers.
    pub fn new(record: &'a Record, number: usize, blocks: &Range<u64>, seed: u64) -> anyhow::Result<Self> {
        let length = (blocks.end - blocks.start) as usize;
        Ok(Self {
            record,
            number,
            start: blocks.start,
            entries: record.entries(blocks.start, length)?,
            busy: vec![false; length],
            dirty: Vec::new(),
            idle: Vec::new(),
            counts: record.counts(number)?,
            rng: Rng::new(seed),
            out: HashSet::new(),
            last: 0,
        })
    }

    pub fn lba(&self, at: usize) -> u64 {
        self.record.range.slba + self.start + at as u64
    }

    /// Sends a random command; returns false if there is no buffer, all blocks that it tried are in use, or the queue is closed.
    pub fn send(&mut self, turn: &mut Turn<'_, Sent>, namespace: &Namespace) -> anyhow::Result<bool> {
        let block = namespace.block_size();
        let draw = self.rng.draw() % 1000;
        if draw < 4 {
            let mut dirty = std::mem::take(&mut self.dirty);
            dirty.sort_unstable();
            dirty.dedup();
            let written = dirty.into_iter().map(|at| (at, self.entries[at].acked)).collect();
            let sent = turn.flush(namespace, self.numbered(Sort::Flush(written)));
            return self.is_sent(sent, block);
        }
        let Some(buffer) = self.idle.pop() else { return Ok(false) };
        let most = (buffer.len() / block).min(self.entries.len());
        // Small commands are the most frequent.
        let count = 1 + scale(self.rng.draw(), (most as u64).min(1 << (self.rng.draw() % 8))) as usize;
        let free = (0..8).find_map(|_| {
            let first = scale(self.rng.draw(), (self.entries.len() - count + 1) as u64) as usize;
            (!self.busy[first..first + count].contains(&true)).then_some(first)
        });
        let Some(first) = free else {
            self.idle.push(buffer);
            return Ok(false);
        };
        let mut buffer = if count * block < buffer.len() { buffer.slice(0..count * block) } else { buffer };
        self.busy[first..first + count].fill(true);
        let slba = self.lba(first);
        if draw < 500 {
            let sent = turn.read(namespace, slba, buffer, self.numbered(Sort::Read { first, count }));
            return self.is_sent(sent, block);
        }
        contents::change(&mut buffer, |data| {
            for (at, data) in (first..).zip(data.chunks_exact_mut(block)) {
                let entry = &mut self.entries[at];
                entry.last += 1;
                entry.started = entry.last;
                verify::fill(
                    data,
                    self.record.range.slba + self.start + at as u64,
                    self.record.range.seed,
                    entry.last,
                );
            }
        });
        // Before the device can write: a killed worker's successor has to know what may be there.
        self.save(first, count)?;
        let sent = turn.write(namespace, slba, buffer, self.numbered(Sort::Write { first, count }));
        self.is_sent(sent, block)
    }

    fn numbered(&mut self, command: Sort) -> Sent {
        self.last += 1;
        self.out.insert(self.last);
        Sent { number: self.last, command }
    }

    fn is_sent(&mut self, sent: Result<(), Refused<Sent>>, block: usize) -> anyhow::Result<bool> {
        match sent {
            Ok(()) => Ok(true),
            // A completion of this turn was forged: the command is like one that a reset gives back.
            Err(refused) if matches!(refused.reason, Refusal::Closed) => {
                self.end(refused.tag, None, refused.buffer, block)?;
                Ok(false)
            }
            Err(refused) => Err(refused.reason.into()),
        }
    }

    /// Ends a command; without a result it is not known whether it was executed.
    pub fn end(
        &mut self,
        sent: Sent,
        result: Option<Result<(), Status>>,
        buffer: DmaBuf,
        block: usize,
    ) -> anyhow::Result<()> {
        if !self.out.remove(&sent.number) {
            return Err(Wrong::Twice(sent.number).into());
        }
        let is_ok = result == Some(Ok(()));
        match sent.command {
            Sort::Read { first, count } => {
                self.busy[first..first + count].fill(false);
                self.counts.reads += 1;
                self.counts.bytes += (count * block) as u64;
                if is_ok {
                    let data = contents::of(&buffer);
                    for (at, data) in (first..).zip(data.chunks_exact(block)) {
                        if self.entries[at].last > 0 {
                            self.check(at, data, self.entries[at].acked)?;
                        }
                    }
                }
                self.idle.push(whole(buffer));
            }
            Sort::Write { first, count } => {
                self.busy[first..first + count].fill(false);
                self.counts.writes += 1;
                self.counts.bytes += (count * block) as u64;
                if is_ok {
                    for at in first..first + count {
                        self.entries[at].acked = self.entries[at].started;
                        self.dirty.push(at);
                    }
                    self.save(first, count)?;
                }
                self.idle.push(whole(buffer));
            }
            Sort::Flush(written) => {
                self.counts.flushes += 1;
                if is_ok {
                    for &(at, version) in &written {
                        self.entries[at].durable = self.entries[at].durable.max(version);
                    }
                    for run in written.chunk_by(|(a, _), (b, _)| a + 1 == *b) {
                        self.save(run[0].0, run.len())?;
                    }
                } else {
                    self.dirty.extend(written.iter().map(|&(at, _)| at));
                }
            }
        }
        self.counts.errors += u64::from(matches!(result, Some(Err(_))));
        self.counts.given_back += u64::from(result.is_none());
        if (self.counts.reads + self.counts.writes).is_multiple_of(COUNT_EVERY) {
            self.save_counts()?;
        }
        Ok(())
    }

    /// Checks a queue without commands in flight: all have come back.
    pub fn check_all_back(&self) -> Result<(), Wrong> {
        if self.out.is_empty() { Ok(()) } else { Err(Wrong::Lost(self.out.len())) }
    }

    /// Writes the counts to the record.
    pub fn save_counts(&self) -> anyhow::Result<()> {
        self.record.set_counts(self.number, self.counts)
    }

    /// Writes entries to the record.
    pub fn save(&self, first: usize, count: usize) -> anyhow::Result<()> {
        self.record.set_entries(self.start + first as u64, &self.entries[first..first + count])
    }

    /// Checks that a block holds a version from `least` on; returns it.
    pub fn check(&self, at: usize, data: &[u8], least: u32) -> anyhow::Result<u32> {
        let entry = self.entries[at];
        let lba = self.lba(at);
        let found = verify::version(data, lba, self.record.range.seed);
        match found {
            Some(version) if (least..=entry.started).contains(&version) => Ok(version),
            // The content from before the first write.
            None if least == 0 => Ok(0),
            _ => Err(Wrong::Block {
                lba,
                wanted: least..entry.started + 1,
                found: match found {
                    Some(version) => format!("it holds version {version}"),
                    None if data.iter().all(|&byte| byte == 0) => "it is all zeros".to_owned(),
                    None => "it holds other data".to_owned(),
                },
            }
            .into()),
        }
    }
}

/// Returns the buffer that a part was cut from.
fn whole(mut buffer: DmaBuf) -> DmaBuf {
    loop {
        match buffer.try_reunite() {
            Ok(larger) => buffer = larger,
            Err(all) => return all,
        }
    }
}
