//! Access to a region of a device's file by system calls.

use super::abi;
use crate::{Error, Result, mmio::RegionIo};
use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

/// Makes the error of a failed system call on a device.
pub(super) fn failed(device: &str, operation: &str, e: io::Error) -> Error {
    match e.raw_os_error() {
        Some(libc::ENODEV) => Error::gone(device, operation),
        _ => Error::os(device, operation, e),
    }
}

/// A region of a device's file, accessed by system calls.
#[derive(Debug)]
pub(super) struct Region {
    device: String,
    what: String,
    file: Arc<File>,
    offset: u64,
    size: u64,
    writable: bool,
}

impl Region {
    pub(super) fn new(device: &str, what: &str, file: &Arc<File>, info: &abi::RegionInfo) -> Self {
        let writable = info.flags & abi::REGION_WRITE != 0;
        let (offset, size) = (info.offset, info.size);
        Self { device: device.into(), what: what.into(), file: file.clone(), offset, size, writable }
    }

    /// Returns the offset in the file of `len` bytes at `offset` in the region.
    fn locate(&self, operation: &str, offset: u64, len: usize) -> Result<u64> {
        let end = offset.checked_add(len as u64).filter(|&end| end <= self.size);
        end.and_then(|_| self.offset.checked_add(offset)).ok_or_else(|| {
            Error::out_of_range(
                self.device.clone(),
                format!("{operation} {}", self.what),
                offset,
                len as u64,
                self.size,
            )
        })
    }

    fn failed(&self, operation: &str, offset: u64, e: io::Error) -> Error {
        failed(&self.device, &format!("{operation} {} at {offset:#x}", self.what), e)
    }
}

// SAFETY: accesses go only to this region's checked range of the device's file, and the kernel performs them.
unsafe impl RegionIo for Region {
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<()> {
        let at = self.locate("reading", offset, data.len())?;
        self.file.read_exact_at(data, at).map_err(|e| self.failed("reading", offset, e))
    }

    unsafe fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let at = self.locate("writing", offset, data.len())?;
        if !self.writable {
            return Err(Error::unsupported(
                self.device.clone(),
                format!("writing {}", self.what),
                "the region is read-only",
            ));
        }
        self.file.write_all_at(data, at).map_err(|e| self.failed("writing", offset, e))
    }
}
