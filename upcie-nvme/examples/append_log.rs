//! An append-only log on the last blocks of a namespace: records survive a loss of power once `append` has returned, and
//! `open` finds the end of the log again.
//!
//!     cargo run --example append_log -- emu
//!
//! A record begins at a block: 8 bytes magic, 8 bytes sequence number, 8 bytes length, 8 bytes checksum, then the text. A
//! torn record has a wrong checksum, and an erased block no magic: both end the log.

use upcie_nvme::{Address, Controller, DmaBuf, IoFlags, Namespace};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const MAGIC: u64 = u64::from_le_bytes(*b"upcielog");
const HEADER: usize = 32;
/// Bytes of the longest record.
const MAX_TEXT: usize = 16 << 10;
/// Bytes of the log, at the end of the namespace.
const LOG: usize = 128 << 10;

fn main() -> Result<()> {
    let address: Address = std::env::args().nth(1).as_deref().unwrap_or("emu").parse()?;
    let controller = Controller::open(&address)?;
    let namespace = controller.namespace(1)?;
    namespace.check_usable()?;

    // An empty log: no block holds a record, not even of an earlier log.
    let start = namespace.blocks() - (LOG / namespace.block_size()) as u64;
    namespace.write_at(start * namespace.block_size() as u64, &vec![0; LOG])?;
    let mut log = Log::open(&controller, &namespace, start)?;
    for text in ["the first record", &"a long record ".repeat(500), "the last record"] {
        log.append(text.as_bytes())?;
    }
    // Open the log like a restarted program.
    let mut reopened = Log::open(&controller, &namespace, start)?;
    assert_eq!((reopened.sequence, reopened.end), (3, log.end));

    // Fill it to the last block of the namespace: a short record takes one block.
    while reopened.end < namespace.blocks() {
        reopened.append(b"a short record")?;
    }
    let full = Log::open(&controller, &namespace, start)?;
    assert_eq!((full.sequence, full.end), (reopened.sequence, namespace.blocks()));
    println!("{} records in {} blocks survived", full.sequence, full.end - start);
    Ok(())
}

struct Log<'n> {
    namespace: &'n Namespace,
    /// Room for the longest record: memory that the controller can reach.
    buffer: DmaBuf,
    /// The first block after the last record.
    end: u64,
    /// The sequence number of the next record.
    sequence: u64,
}

impl<'n> Log<'n> {
    /// Reads records from a block on until one is not whole.
    fn open(controller: &Controller, namespace: &'n Namespace, start: u64) -> Result<Self> {
        let longest = (HEADER + MAX_TEXT).next_multiple_of(namespace.block_size());
        let buffer = controller.alloc(longest)?;
        let mut log = Self { namespace, buffer, end: start, sequence: 0 };
        while let Some(text) = log.read_next()? {
            log.end += log.blocks(text.len());
            log.sequence += 1;
        }
        Ok(log)
    }

    /// Appends a record. When it returns, the record is durable.
    fn append(&mut self, text: &[u8]) -> Result<()> {
        if text.len() > MAX_TEXT || self.end + self.blocks(text.len()) > self.namespace.blocks() {
            return Err("the record is too long, or the log is full".into());
        }
        let header = [MAGIC, self.sequence, text.len() as u64, checksum(self.sequence, text)];
        let len = self.blocks(text.len()) as usize * self.namespace.block_size();
        let mut record = vec![0; len];
        for (bytes, word) in record.chunks_exact_mut(8).zip(header) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        record[HEADER..HEADER + text.len()].copy_from_slice(text);
        self.namespace.write_at(self.end * self.namespace.block_size() as u64, &record)?;
        // Only now is the record safe: a write may still be in the controller's volatile cache.
        self.namespace.flush()?;
        self.end += self.blocks(text.len());
        self.sequence += 1;
        Ok(())
    }

    /// Returns the text of the record at the end of the log, if there is a whole one.
    fn read_next(&mut self) -> Result<Option<Vec<u8>>> {
        // The blocks of the longest record, or those that are left.
        let room = (self.namespace.blocks() - self.end) as usize * self.namespace.block_size();
        let mut bytes = vec![0; room.min(self.buffer.len())];
        if bytes.is_empty() {
            return Ok(None);
        }
        self.namespace.read_with(self.end, &mut self.buffer, 0..bytes.len(), IoFlags::empty())?;
        self.buffer.read_at(0, &mut bytes);
        let word = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().expect("8 bytes"));
        let len = word(2) as usize;
        if word(0) != MAGIC || word(1) != self.sequence || len > MAX_TEXT {
            return Ok(None);
        }
        let Some(text) = bytes.get(HEADER..HEADER + len) else { return Ok(None) };
        Ok((word(3) == checksum(self.sequence, text)).then(|| text.to_vec()))
    }

    fn blocks(&self, text: usize) -> u64 {
        (HEADER + text).div_ceil(self.namespace.block_size()) as u64
    }
}

/// FNV-1a over the sequence number and the text.
fn checksum(sequence: u64, text: &[u8]) -> u64 {
    let bytes = sequence.to_le_bytes();
    let all = bytes.iter().chain(text);
    all.fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
