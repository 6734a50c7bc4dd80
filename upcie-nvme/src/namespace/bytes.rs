//! Bytes of a namespace at any offset: this file translates them to blocks.

use super::Namespace;
use crate::{Error, Result, controller::Limit, engine::Io, spec::NvmOpcode};
use upcie_core::dma::DmaBuf;

/// The most bytes to read or write at once.
const CHUNK: usize = 1 << 20;

impl Namespace {
    /// Returns the size in bytes; 0 if this driver can't address the format's blocks.
    pub fn len_bytes(&self) -> u64 {
        self.blocks().saturating_mul(self.block_size() as u64)
    }

    /// Reads from a byte offset into all of `bytes`, and waits for it, as long as [`read`](Self::read) does at most. Offset and
    /// length are arbitrary.
    ///
    /// ```
    /// # let namespace = upcie_nvme::Controller::open("emu:size=1M")?.namespace(1)?;
    /// namespace.write_at(1000, b"somewhere in a block")?;
    /// let mut word = [0; 9];
    /// namespace.read_at(1000, &mut word)?;
    /// assert_eq!(&word, b"somewhere");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The range exceeds the namespace (nothing is read then). Otherwise those of [`read`](Self::read), after
    /// which a part of `bytes` may be read.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let mut limit = self.controller.limit_for(bytes.len() as u64);
        self.read_at_limited(offset, bytes, &mut limit)
    }

    /// Reads like [`read_at`](Self::read_at), as a part of a call.
    pub(super) fn read_at_limited(&self, offset: u64, bytes: &mut [u8], limit: &mut Limit<'_>) -> Result<()> {
        self.check_bytes(NvmOpcode::READ, offset, bytes.len())?;
        let block = self.block_size();
        let mut read = 0;
        while read < bytes.len() {
            let (slba, skip) = self.split(offset + read as u64);
            let len = (bytes.len() - read).min(CHUNK - skip);
            let mut buffer = self.buffer((skip + len).next_multiple_of(block), limit)?;
            let all = 0..buffer.total_len();
            self.transfer_limited(Io::read(self, slba), &mut buffer, all, limit)?;
            buffer.read_at(skip, &mut bytes[read..read + len]);
            read += len;
        }
        Ok(())
    }

    /// Writes all of `bytes` at a byte offset, and waits for it, as long as [`write`](Self::write) does at most. Offset and length
    /// are arbitrary. A block that is written in part is read first, and written back. No other `write_at` of this process on the
    /// same controller can come between, and the wait for it counts; if a [`write`](Self::write), a command on a queue or another
    /// host writes that block meanwhile, its data is lost. It takes no flags: [`flush`](Self::flush) makes the data durable.
    ///
    /// # Errors
    /// The range exceeds the namespace (nothing is written then). Otherwise those of [`write`](Self::write),
    /// after which a part of `bytes` may be written.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut limit = self.controller.limit_for(bytes.len() as u64);
        self.write_at_limited(offset, bytes, &mut limit)
    }

    /// Writes like [`write_at`](Self::write_at), as a part of a call.
    pub(super) fn write_at_limited(&self, offset: u64, bytes: &[u8], limit: &mut Limit<'_>) -> Result<()> {
        self.check_bytes(NvmOpcode::WRITE, offset, bytes.len())?;
        let block = self.block_size();
        let what = || self.bytes_text(NvmOpcode::WRITE, offset, bytes.len());
        self.controller.check_owner_of(&what)?;
        let _alone = self.controller.enter_edges(limit, &what)?;
        let mut written = 0;
        while written < bytes.len() {
            let (slba, skip) = self.split(offset + written as u64);
            let rest = bytes.len() - written;
            let partial = skip != 0 || rest < block;
            let len = if partial { rest.min(block - skip) } else { rest.min(CHUNK) / block * block };
            let mut buffer = self.buffer(if partial { block } else { len }, limit)?;
            let all = 0..buffer.total_len();
            if partial {
                self.transfer_limited(Io::read(self, slba), &mut buffer, all.clone(), limit)?;
            }
            buffer.write_at(skip, &bytes[written..written + len]);
            self.transfer_limited(Io::write(self, slba), &mut buffer, all, limit)?;
            written += len;
        }
        Ok(())
    }

    /// Allocates a buffer, which is not zeroed.
    fn buffer(&self, len: usize, limit: &mut Limit<'_>) -> Result<DmaBuf> {
        let _budget = limit.budget();
        Ok(self.controller.heap().alloc_unzeroed(len)?)
    }

    /// Returns the block of a byte, and the byte's offset in it.
    fn split(&self, offset: u64) -> (u64, usize) {
        let block = self.block_size() as u64;
        (offset / block, (offset % block) as usize)
    }

    fn bytes_text(&self, opcode: NvmOpcode, offset: u64, len: usize) -> String {
        format!("{opcode} of {len} bytes at byte {offset} of namespace {}", self.nsid())
    }

    fn check_bytes(&self, opcode: NvmOpcode, offset: u64, len: usize) -> Result<()> {
        self.check_usable()?;
        let size = self.len_bytes();
        if offset.checked_add(len as u64).is_some_and(|end| end <= size) {
            return Ok(());
        }
        let operation = self.bytes_text(opcode, offset, len);
        Err(Error::argument_of(self.controller.name(), operation, format!("the namespace has {size} bytes")))
    }
}
