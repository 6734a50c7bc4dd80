//! Named files of huge pages, which outlive the process that made them.

use super::{Mount, mounts, pool::pools, short_size};
use crate::{Error, Result, page::fill, pci::Bdf};
use nix::errno::Errno;
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{DirEntryExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A file of huge pages with a name. It stays when this is dropped, and when the process ends: see
/// [`remove`](Self::remove).
#[derive(Debug)]
pub struct NamedFile {
    file: File,
    path: PathBuf,
    len: u64,
}

/// A named file that a process left behind, or still has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftover {
    /// The device that may access it.
    pub bdf: Bdf,
    /// The process that made it; another process may have its id by now.
    pub pid: u32,
    /// The file's path.
    pub path: PathBuf,
    /// The file's length in bytes.
    pub bytes: u64,
    /// Bytes of its pages.
    pub page_bytes: u64,
}

/// Makes a new file of at least `len` bytes, rounded up to whole pages, for the device at `bdf`: zeroed, with all of its
/// pages present, mode 0600, named as the [module](super) says.
///
/// # Errors
/// [`Failure::Memory`](crate::Failure::Memory) when too few pages are free: it says how many there are and how to get more. After every error no
/// file is left.
pub fn create_file(mount: &Mount, bdf: Bdf, len: u64) -> Result<NamedFile> {
    let (path, file) = new_file(&mount.path, bdf)?;
    let len = len
        .max(1)
        .div_ceil(mount.page_bytes)
        .checked_mul(mount.page_bytes)
        .filter(|&len| i64::try_from(len).is_ok());
    let filled = len.ok_or(Errno::EFBIG).and_then(|len| {
        nix::unistd::ftruncate(&file, len as i64)?;
        fill(file.as_fd(), len as i64).map(|()| len)
    });
    match filled {
        Ok(len) => Ok(NamedFile { file, path, len }),
        Err(error) => {
            unlink(&path)?;
            // Frees the pages that it got, so that the message counts them.
            drop(file);
            Err(Error::memory(
                format!("{} in {} pages of memory for {bdf}", path.display(), short_size(mount.page_bytes)),
                shortage(mount, len.unwrap_or(u64::MAX)),
                error,
            ))
        }
    }
}

/// Lists all named files on all hugetlbfs mounts, whether or not their processes live.
///
/// # Errors
/// Those of [`mounts`], and [`Failure::Os`](crate::Failure::Os) when a mount can't be listed, because its files are unknown then.
pub fn leftovers() -> Result<Vec<Leftover>> {
    let mut found = Vec::new();
    let mut seen = Vec::new();
    for mount in mounts()? {
        // The same file system may be mounted a second time.
        for leftover in mount.leftovers()? {
            let name = (mount.device, leftover.path.file_name().map(ToOwned::to_owned));
            if !seen.contains(&name) {
                seen.push(name);
                found.push(leftover);
            }
        }
    }
    Ok(found)
}

impl Mount {
    /// Lists the named files in this mount.
    ///
    /// # Errors
    /// [`Failure::Os`](crate::Failure::Os) when its directory can't be listed.
    pub fn leftovers(&self) -> Result<Vec<Leftover>> {
        let failed = |e| Error::os(self.path.display().to_string(), "listing the files of DMA memory", e);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some((bdf, pid)) = entry.file_name().to_str().and_then(parse_name) else { continue };
            let data = match entry.metadata() {
                Ok(data) => data,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            };
            if data.is_file() {
                let path = entry.path();
                found.push(Leftover { bdf, pid, path, bytes: data.size(), page_bytes: self.page_bytes });
            }
        }
        found.sort_by(|a, b| (a.bdf, &a.path).cmp(&(b.bdf, &b.path)));
        Ok(found)
    }
}

impl Leftover {
    /// Removes the file. Its pages are freed when the last process unmaps it.
    ///
    /// The caller knows that the device does not write to them any more: its bus mastering is off, or its controller has
    /// stopped.
    ///
    /// # Errors
    /// The system's errors; a file that is already gone is not an error.
    pub fn remove(self) -> Result<()> {
        unlink(&self.path)
    }

    /// Adds a name for `device`, so that the file stays until both names are removed.
    ///
    /// # Errors
    /// The system's errors.
    pub(crate) fn also_for(&self, device: Bdf) -> Result<()> {
        also_for(&self.path, device)
    }
}

impl NamedFile {
    /// Returns the file, which has all of its pages.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns the file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the length in bytes: whole pages.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns `false`: there is at least one page.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a name for `device`, which may access the file too: freeing the memory of one device then leaves the file
    /// until the other's bus mastering is off, too.
    ///
    /// # Errors
    /// The system's errors.
    pub fn also_for(&self, device: Bdf) -> Result<()> {
        also_for(&self.path, device)
    }

    /// Removes its names: the pages are freed with the last descriptor and mapping of them.
    ///
    /// The caller knows that the device does not write to them any more, or keeps the memory mapped until then.
    ///
    /// # Errors
    /// The system's errors; a file that is already gone is not an error.
    pub fn remove(&self) -> Result<()> {
        unlink(&self.path)?;
        let failed = |e| Error::os(self.path.display().to_string(), "listing its other names", e);
        let data = self.file.metadata().map_err(failed)?;
        let directory = self.path.parent().filter(|_| data.nlink() > 0);
        for entry in directory.map(fs::read_dir).transpose().map_err(failed)?.into_iter().flatten() {
            let entry = entry.map_err(failed)?;
            if entry.ino() == data.ino() && entry.file_name().to_str().and_then(parse_name).is_some() {
                unlink(&entry.path())?;
            }
        }
        Ok(())
    }
}

impl AsFd for NamedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Creates a file under the next unused name.
fn new_file(directory: &Path, bdf: Bdf) -> Result<(PathBuf, File)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("upcie-{bdf}-{}-{number}", std::process::id()));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((path, file)),
            // The name belongs to a process that had this id before, or has it in another namespace.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && number < u32::MAX => {}
            Err(e) => {
                return Err(Error::os(path.display().to_string(), "creating a file of huge pages", e));
            }
        }
    }
}

/// Adds a name for `device` to the file at `path`, which has one for another device.
fn also_for(path: &Path, device: Bdf) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut parts = name.rsplitn(3, '-');
    let (number, pid) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let link = path.with_file_name(format!("upcie-{device}-{pid}-{number}"));
    let file = |path: &Path| fs::symlink_metadata(path).map(|data| (data.dev(), data.ino())).ok();
    match fs::hard_link(path, &link) {
        // The file already has this name.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && file(path) == file(&link) => Ok(()),
        other => other.map_err(|e| {
            Error::os(path.display().to_string(), format!("naming it {} too", link.display()), e)
        }),
    }
}

fn unlink(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|e| Error::os(path.display().to_string(), "removing it", e)),
    }
}

/// Explains why `wanted` bytes of pages are not available.
fn shortage(mount: &Mount, wanted: u64) -> String {
    let size = short_size(mount.page_bytes);
    if let Some(limit) = super::limit(mount.page_bytes, wanted) {
        return limit;
    }
    if let Ok(Some((total, free))) = mount.limit() {
        return format!(
            "{} is limited to {} pages of {size}, of which {} are free; the pool may have too few, too: hugepages info",
            mount.path.display(),
            total / mount.page_bytes,
            free / mount.page_bytes
        );
    }
    let global = |pool: &super::Pool| pool.page_bytes == mount.page_bytes && pool.node.is_none();
    match pools().ok().and_then(|pools| pools.into_iter().find(global)) {
        Some(pool) => format!(
            "{} of {} pages are free; {}",
            pool.available(),
            pool.total,
            super::way_out(mount.page_bytes)
        ),
        None => format!("the number of pages of {size} is unknown"),
    }
}

/// Parses the device and the process from `upcie-<bdf>-<pid>-<n>`; `None` for any other name.
pub(super) fn parse_name(name: &str) -> Option<(Bdf, u32)> {
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (rest, number) = name.strip_prefix("upcie-")?.rsplit_once('-')?;
    let (bdf, pid) = rest.rsplit_once('-')?;
    if !plain(number) || !plain(pid) {
        return None;
    }
    // Accept only the form that is written, although others would parse.
    let parsed: Bdf = bdf.parse().ok()?;
    (parsed.to_string() == bdf).then_some((parsed, pid.parse().ok()?))
}
