//! Bytes of a namespace at any offset, for people: blocks are an affair of this file.

use super::Namespace;
use crate::{Error, Patience, Result, spec::NvmOpcode};

/// The most bytes that are read or written at once.
const CHUNK: usize = 1 << 20;

impl Namespace {
    /// Its size in bytes; 0 where the format has no blocks that this driver can address.
    pub fn len_bytes(&self) -> u64 {
        self.blocks().saturating_mul(self.block_size() as u64)
    }

    /// Reads bytes from a byte offset on into all of `bytes`, and waits for them. Offset and length may be any.
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
    /// The range is beyond the namespace (nothing is read then); as [`read`](Self::read), and a part of `bytes` may be read.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        self.check_bytes(NvmOpcode::READ, offset, bytes.len())?;
        let block = self.block_size();
        let mut read = 0;
        while read < bytes.len() {
            let (slba, skip) = self.split(offset + read as u64);
            let len = (bytes.len() - read).min(CHUNK - skip);
            let mut buffer = self.controller.heap().alloc((skip + len).next_multiple_of(block))?;
            self.read(slba, &mut buffer)?;
            buffer.read_at(skip, &mut bytes[read..read + len]);
            read += len;
        }
        Ok(())
    }

    /// Writes all of `bytes` at a byte offset, and waits for it. Offset and length may be any: of a block that is written
    /// in part the rest is read, and written back. No other `write_at` of this process's on the same controller comes
    /// between; a [`write`](Self::write), a command on a queue or another host's that does is undone in that block.
    ///
    /// # Errors
    /// The range is beyond the namespace (nothing is written then); as [`write`](Self::write), and a part of `bytes` may
    /// be written.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.check_bytes(NvmOpcode::WRITE, offset, bytes.len())?;
        let block = self.block_size();
        let limit = self.controller.timeout();
        let what = self.bytes_text(NvmOpcode::WRITE, offset, bytes.len());
        let _alone = self.controller.enter_edges(&mut Patience::new(), limit, &what)?;
        let mut written = 0;
        while written < bytes.len() {
            let (slba, skip) = self.split(offset + written as u64);
            let rest = bytes.len() - written;
            let partial = skip != 0 || rest < block;
            let len = if partial { rest.min(block - skip) } else { rest.min(CHUNK) / block * block };
            let mut buffer = self.controller.heap().alloc(if partial { block } else { len })?;
            if partial {
                self.read(slba, &mut buffer)?;
            }
            buffer.write_at(skip, &bytes[written..written + len]);
            self.write(slba, &mut buffer)?;
            written += len;
        }
        Ok(())
    }

    /// The block of a byte, and the byte's place in it.
    fn split(&self, offset: u64) -> (u64, usize) {
        let block = self.block_size() as u64;
        (offset / block, (offset % block) as usize)
    }

    fn bytes_text(&self, opcode: NvmOpcode, offset: u64, len: usize) -> String {
        format!("{opcode} of {len} bytes at byte {offset} of namespace {}", self.nsid())
    }

    fn check_bytes(&self, opcode: NvmOpcode, offset: u64, len: usize) -> Result<()> {
        self.usable()?;
        let size = self.len_bytes();
        if offset.checked_add(len as u64).is_some_and(|end| end <= size) {
            return Ok(());
        }
        let operation = self.bytes_text(opcode, offset, len);
        let reason = format!("{operation}: the namespace has {size} bytes");
        Err(Error::Argument { device: self.controller.name().into(), reason })
    }
}
