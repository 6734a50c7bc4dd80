//! A namespace as a stream of bytes: `std::io`'s traits over [`Namespace::read_at`] and [`Namespace::write_at`].

use super::Namespace;
use crate::{Result, controller::Limit};
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};

/// Bytes to read ahead, and to collect before a write.
const BUFFER: usize = 1 << 20;

/// A namespace's bytes with a position, buffered on both sides: [`Read`], [`BufRead`], [`Write`] and [`Seek`].
///
/// Written bytes reach the controller when a MiB has been collected, when the position moves or is read from,
/// on [`flush`](Write::flush), and on drop, which logs an error because it can't return one.
/// [`sync`](Self::sync) makes them durable.
///
/// A call takes the controller's timeout and a second for each MiB at most: of the bytes that were written before, and of those
/// that it reads ahead. [`read_exact`](Read::read_exact), [`write_all`](Write::write_all) and their like make several calls.
///
/// ```
/// use std::io::{Read, Seek, Write};
/// let namespace = upcie_nvme::Controller::open("emu:size=1M")?.namespace(1)?;
/// let mut stream = namespace.stream();
/// stream.write_all(b"a log begins\n")?;
/// stream.sync()?;
/// stream.rewind()?;
/// let mut text = [0; 5];
/// stream.read_exact(&mut text)?;
/// assert_eq!(&text, b"a log");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Stream {
    namespace: Namespace,
    position: u64,
    /// The bytes read last, from `ahead_at` on.
    ahead: Vec<u8>,
    ahead_at: u64,
    /// Bytes written and not sent yet; they end at `position`.
    pending: Vec<u8>,
}

impl Namespace {
    /// Returns the namespace's bytes as a stream, from the first on.
    pub fn stream(&self) -> Stream {
        Stream { namespace: self.clone(), position: 0, ahead: Vec::new(), ahead_at: 0, pending: Vec::new() }
    }
}

impl Stream {
    /// Sends the written bytes, and makes them durable ([`Namespace::flush`]).
    ///
    /// # Errors
    /// Those of [`Namespace::write_at`] and [`Namespace::flush`].
    pub fn sync(&mut self) -> Result<()> {
        let controller = self.namespace.controller.clone();
        let mut limit = controller.limit_for(self.pending.len() as u64);
        self.send_limited(&mut limit)?;
        self.namespace.flush_limited(&mut limit)
    }

    /// Sends the written bytes. After an error the next try sends them again.
    fn send(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let controller = self.namespace.controller.clone();
        self.send_limited(&mut controller.limit_for(self.pending.len() as u64))
    }

    /// Sends the written bytes like [`send`](Self::send), as a part of a call.
    fn send_limited(&mut self, limit: &mut Limit<'_>) -> Result<()> {
        if !self.pending.is_empty() {
            let from = self.position - self.pending.len() as u64;
            self.namespace.write_at_limited(from, &self.pending, limit)?;
            self.pending.clear();
        }
        Ok(())
    }

    /// Sends the written bytes, and reads ahead from the position on: nothing at the namespace's end.
    fn refill(&mut self) -> Result<()> {
        let len = self.left().min(BUFFER as u64) as usize;
        let controller = self.namespace.controller.clone();
        let mut limit = controller.limit_for((self.pending.len() + len) as u64);
        self.send_limited(&mut limit)?;
        self.ahead.clear();
        if len > 0 {
            let mut ahead = std::mem::take(&mut self.ahead);
            ahead.resize(len, 0);
            self.namespace.read_at_limited(self.position, &mut ahead, &mut limit)?;
            (self.ahead, self.ahead_at) = (ahead, self.position);
        }
        Ok(())
    }

    /// Returns the bytes that were read ahead from the position on.
    fn fetched(&self) -> &[u8] {
        let from = self.position.wrapping_sub(self.ahead_at);
        usize::try_from(from).ok().and_then(|from| self.ahead.get(from..)).unwrap_or_default()
    }

    /// Returns the number of bytes from the position to the namespace's end.
    fn left(&self) -> u64 {
        self.namespace.len_bytes().saturating_sub(self.position)
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // While bytes wait to be sent, none were read ahead.
        if self.fetched().is_empty() {
            self.refill()?;
        }
        Ok(self.fetched())
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount as u64;
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(bytes)?;
        self.consume(read);
        Ok(read)
    }
}

impl Write for Stream {
    /// Takes the bytes that fit before the namespace's end; at the end returns an error of the kind
    /// [`StorageFull`](io::ErrorKind::StorageFull).
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pending.len() == BUFFER {
            self.send()?;
        }
        let room = self.left().min((BUFFER - self.pending.len()) as u64) as usize;
        if room == 0 && !bytes.is_empty() {
            let size = self.namespace.len_bytes();
            let text = format!("namespace {} ends after {size} bytes", self.namespace.nsid());
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        let taken = bytes.len().min(room);
        self.ahead.clear();
        self.pending.extend_from_slice(&bytes[..taken]);
        self.position += taken as u64;
        Ok(taken)
    }

    /// Sends the written bytes; [`sync`](Stream::sync) also makes them durable.
    fn flush(&mut self) -> io::Result<()> {
        Ok(self.send()?)
    }
}

impl Seek for Stream {
    /// Moves the position. It may exceed the end: no bytes are there.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.send()?;
        self.ahead.clear();
        let (base, offset) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::End(offset) => (self.namespace.len_bytes(), offset),
            SeekFrom::Current(offset) => (self.position, offset),
        };
        let position = base.checked_add_signed(offset);
        self.position = position.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("a seek by {offset} from byte {base}"))
        })?;
        Ok(self.position)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let len = self.pending.len();
        if let Err(error) = self.send() {
            tracing::error!(%error, "the last {len} bytes of a stream were not written");
        }
    }
}
