//! Bytes of a namespace at any offset: this file translates them to blocks.

use super::Namespace;
use crate::{Error, Result, spec::NvmOpcode};

/// The most bytes to read or write at once.
const CHUNK: usize = 1 << 20;

impl Namespace {
    /// Returns the size in bytes; 0 if this driver can't address the format's blocks.
    pub fn len_bytes(&self) -> u64 {
        self.blocks().saturating_mul(self.block_size() as u64)
    }

    /// Reads from a byte offset into all of `bytes`, and waits for it. Offset and length are arbitrary.
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
        self.check_bytes(NvmOpcode::READ, offset, bytes.len())?;
        let block = self.block_size();
        let mut read = 0;
        while read < bytes.len() {
            let (slba, skip) = self.split(offset + read as u64);
            let len = (bytes.len() - read).min(CHUNK - skip);
            let mut buffer = self.controller.heap().alloc_unzeroed((skip + len).next_multiple_of(block))?;
            self.read(slba, &mut buffer)?;
            buffer.read_at(skip, &mut bytes[read..read + len]);
            read += len;
        }
        Ok(())
    }

    /// Writes all of `bytes` at a byte offset, and waits for it. Offset and length are arbitrary. A block
    /// that is written in part is read first, and written back. No other `write_at` of this process on the
    /// same controller can come between; if a [`write`](Self::write), a command on a queue or another host
    /// writes that block meanwhile, its data is lost.
    ///
    /// # Errors
    /// The range exceeds the namespace (nothing is written then). Otherwise those of [`write`](Self::write),
    /// after which a part of `bytes` may be written.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check_bytes(NvmOpcode::WRITE, offset, bytes.len())?;
        let block = self.block_size();
        let limit = self.controller.timeout();
        let what = self.bytes_text(NvmOpcode::WRITE, offset, bytes.len());
        self.controller.check_owner(&what)?;
        let _alone = self.controller.enter_edges(&mut self.controller.stopwatch(), limit, &what)?;
        let mut written = 0;
        while written < bytes.len() {
            let (slba, skip) = self.split(offset + written as u64);
            let rest = bytes.len() - written;
            let partial = skip != 0 || rest < block;
            let len = if partial { rest.min(block - skip) } else { rest.min(CHUNK) / block * block };
            let mut buffer = self.controller.heap().alloc_unzeroed(if partial { block } else { len })?;
            if partial {
                self.read(slba, &mut buffer)?;
            }
            buffer.write_at(skip, &bytes[written..written + len]);
            self.write(slba, &mut buffer)?;
            written += len;
        }
        Ok(())
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
        let reason = format!("{operation}: the namespace has {size} bytes");
        Err(Error::argument(self.controller.name(), reason))
    }
}
