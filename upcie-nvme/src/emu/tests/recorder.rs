//! A medium that tells the test what the controller has done with it.

use crate::{
    emu::{HostMemory, Media},
    spec::Status,
};

/// An operation: what was done, the offset, and the bytes.
pub type Operation = (Kind, u64, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Zero,
    Flush,
}

/// A medium without blocks, of any size: it reads as zeros.
#[derive(Debug, Default)]
pub struct Recorder {
    pub done: Vec<Operation>,
    /// Completed writes may be lost without a flush.
    pub is_volatile: bool,
    /// The byte that can't be written or zeroed.
    pub broken: Option<u64>,
    pub flushes_fail: bool,
}

impl Recorder {
    fn note(&mut self, kind: Kind, offset: u64, len: u64) -> Result<(), Status> {
        let is_broken = self.broken.is_some_and(|at| (offset..offset + len).contains(&at));
        if is_broken && kind != Kind::Read {
            return Err(Status::WRITE_FAULT);
        }
        self.done.push((kind, offset, len));
        Ok(())
    }

    /// Returns the number of operations of a kind, and their bytes, and forgets all operations.
    pub fn take(&mut self, kind: Kind) -> (usize, u64) {
        let done = std::mem::take(&mut self.done);
        let of_kind: Vec<_> = done.iter().filter(|done| done.0 == kind).collect();
        (of_kind.len(), of_kind.iter().map(|done| done.2).sum())
    }
}

// SAFETY: one copy of the call's bytes in `read` and one in `write`.
unsafe impl Media for Recorder {
    fn is_volatile(&self) -> bool {
        self.is_volatile
    }

    fn read(&mut self, host: &mut impl HostMemory, offset: u64, iova: u64, len: usize) -> Result<(), Status> {
        self.note(Kind::Read, offset, len as u64)?;
        host.write(iova, &vec![0; len]).map_err(|_| Status::DATA_TRANSFER_ERROR)
    }

    fn write(
        &mut self,
        host: &mut impl HostMemory,
        offset: u64,
        iova: u64,
        len: usize,
    ) -> Result<(), Status> {
        host.read(iova, &mut vec![0; len]).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        self.note(Kind::Write, offset, len as u64)
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<(), Status> {
        self.note(Kind::Zero, offset, len)
    }

    fn flush(&mut self) -> Result<(), Status> {
        if self.flushes_fail {
            return Err(Status::WRITE_FAULT.with_do_not_retry());
        }
        self.note(Kind::Flush, 0, 0)
    }
}
