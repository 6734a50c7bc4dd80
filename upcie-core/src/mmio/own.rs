//! Memory files that only this process's devices may share.
//!
//! The descriptor of such a file is not handed out, but the file can be opened by a path: a huge page file by its name,
//! any file through `/proc/self/fd`. A second mapping would alias the bytes of which buffers give slices, so it is refused.

use crate::{Error, Result, process::Owner};
use std::{
    os::fd::BorrowedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Device and inode of each file.
static OWN: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

/// A file that is mapped once in this process; once this is dropped, it may be mapped again.
#[derive(Debug)]
pub(crate) struct OwnFile {
    file: (u64, u64),
    owner: Owner,
}

impl OwnFile {
    pub(crate) fn of(fd: BorrowedFd<'_>, what: &str) -> Result<Self> {
        let file = identity(fd, what)?;
        own().push(file);
        Ok(Self { file, owner: Owner::current() })
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let Some(mut own) = self.owner.lock(&OWN) else { return };
        if let Some(at) = own.iter().position(|file| *file == self.file) {
            own.swap_remove(at);
        }
    }
}

/// Returns an error if `fd` is such a file.
pub(crate) fn refuse_own(fd: BorrowedFd<'_>, what: &str) -> Result<()> {
    if !own().contains(&identity(fd, what)?) {
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

fn own() -> MutexGuard<'static, Vec<(u64, u64)>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}
