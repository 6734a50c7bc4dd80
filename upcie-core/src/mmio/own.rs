//! Memory files that only this process's devices may share.
//!
//! The descriptor of such a file is not handed out, but the file can be opened by a path: a huge page file by its name,
//! any file through `/proc/self/fd`. A second mapping would alias the bytes of which buffers give slices, so it is refused.
//! A forked child inherits mappings and list.

use super::slots::{Slot, Slots};
use crate::{Error, Result};
use std::os::fd::BorrowedFd;

/// Device and inode of each file.
static OWN: Slots<()> = Slots::new();

/// A file that is mapped once in this process; once this is dropped, it may be mapped again.
#[derive(Debug)]
pub(crate) struct OwnFile(&'static Slot<()>);

impl OwnFile {
    pub(crate) fn of(fd: BorrowedFd<'_>, what: &str) -> Result<Self> {
        let (device, inode) = identity(fd, what)?;
        let slot = OWN.take();
        slot.set(device, inode);
        Ok(Self(slot))
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Returns an error if `fd` is such a file.
pub(crate) fn refuse_own(fd: BorrowedFd<'_>, what: &str) -> Result<()> {
    let file = identity(fd, what)?;
    if OWN.iter().all(|slot| slot.get() != Some(file)) {
        return Ok(());
    }
    Err(Error::unusable(
        what,
        "the file is DMA memory of this process, whose buffers nobody else may change: make memory to be shared with \
                 DmaSpace::allocate_shared",
    ))
}

fn identity(fd: BorrowedFd<'_>, what: &str) -> Result<(u64, u64)> {
    let stat = nix::sys::stat::fstat(fd).map_err(|e| Error::os(what, "identifying the file", e))?;
    Ok((stat.st_dev, stat.st_ino))
}
