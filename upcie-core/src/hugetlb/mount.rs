//! The mounts of hugetlbfs (proc_pid_mountinfo(5)).

use super::short_size;
use crate::{Error, Result, page::PageSize};
use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    unistd::{AccessFlags, faccessat},
};
use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

/// A hugetlbfs mount.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mount {
    /// The mount's directory.
    pub path: PathBuf,
    /// Bytes of the pages of its files.
    pub page_bytes: u64,
    /// Set if this process may create files directly in it.
    pub is_writable: bool,
    /// The device number of the file system, as in `st_dev`.
    pub device: u64,
}

/// Lists the hugetlbfs mounts that this process sees, in the order of the kernel's list, without mounts that another
/// mount hides.
///
/// # Errors
/// `/proc` can't be read, or has an unexpected format.
pub fn mounts() -> Result<Vec<Mount>> {
    mounts_in(Path::new("/proc/self/mountinfo"))
}

/// Returns the first mount with pages of this size in which this process can create files, and nobody but its user and
/// root can rename or remove them. A device still writes to the pages of a file when its process has been killed, and
/// only the file's name keeps the system from reusing them.
///
/// # Errors
/// [`Failure::Unusable`](crate::Failure::Unusable) when no mount qualifies: it says why each one does not, and how to make one. Those of [`mounts`].
pub fn mount_for(page: PageSize) -> Result<Mount> {
    choose(mounts()?, page)
}

impl Mount {
    /// Returns the total bytes of files in it and how many of them are left, if the mount limits them (`size=`);
    /// otherwise only the pool is a limit.
    ///
    /// # Errors
    /// The system's errors.
    pub fn limit(&self) -> Result<Option<(u64, u64)>> {
        let stat = nix::sys::statvfs::statvfs(&self.path)
            .map_err(|e| Error::os(self.path.display().to_string(), "querying its space", e))?;
        // Without a limit the kernel reports 0 blocks; with a minimum but no maximum it reports -1.
        let blocks = stat.blocks();
        let limited = blocks != 0 && blocks.checked_mul(self.page_bytes).is_some();
        Ok(limited.then(|| (blocks * self.page_bytes, stat.blocks_free().saturating_mul(self.page_bytes))))
    }
}

pub(super) fn choose(mounts: Vec<Mount>, page: PageSize) -> Result<Mount> {
    let bytes = page.bytes() as u64;
    let unusable = |reason| Error::unusable(format!("a hugetlbfs of {page} pages"), reason);
    if page == PageSize::Small {
        return Err(unusable("it has huge pages only: 2 MiB or 1 GiB".into()));
    }
    let size = short_size(bytes);
    let mut refused = Vec::new();
    let mut open_to_others = Vec::new();
    for mount in mounts.into_iter().filter(|mount| mount.page_bytes == bytes) {
        if !mount.is_writable {
            refused.push(mount.path.display().to_string());
            continue;
        }
        match others(&mount.path)? {
            None => return Ok(mount),
            Some(who) => open_to_others.push(format!("{}: {who}", mount.path.display())),
        }
    }
    Err(unusable(match (open_to_others.is_empty(), refused.first()) {
        (false, _) => format!(
            "others could rename or remove its files, so that the system would reuse pages to which a device still writes \
             ({}); as root: hugepages mount --size {size} DIRECTORY, with a new directory that only root may \
             write to, such as /dev/hugepages{size}-root",
            open_to_others.join("; ")
        ),
        (true, None) => format!("none is mounted; as root: hugepages mount --size {size} --owner USER"),
        (true, Some(path)) => format!(
            "this process may not create files in {}; as root: hugepages mount --size {size} --owner USER {path}",
            refused.join(", ")
        ),
    }))
}

/// Describes who besides this process's user and root can rename or remove a file of this user in `directory`, or one of
/// its parent directories (in a mount namespace of their own, which takes the mount away here, too); `None` if nobody
/// can.
fn others(directory: &Path) -> Result<Option<String>> {
    let me = nix::unistd::geteuid().as_raw();
    for path in directory.ancestors() {
        let data = fs::metadata(path)
            .map_err(|e| Error::os(path.display().to_string(), "checking who may write to it", e))?;
        let (user, mode) = (data.uid(), data.mode());
        let whose = if path == directory { "it".into() } else { path.display().to_string() };
        if user != me && user != 0 {
            return Ok(Some(format!("{whose} belongs to user {user}")));
        }
        // In a sticky directory only the owners of the file and of the directory can.
        if mode & 0o022 != 0 && mode & libc::S_ISVTX == 0 {
            return Ok(Some(format!("{whose} has mode {:04o}", mode & 0o7777)));
        }
    }
    Ok(None)
}

pub(super) fn mounts_in(mountinfo: &Path) -> Result<Vec<Mount>> {
    let text = fs::read(mountinfo)
        .map_err(|e| Error::os(mountinfo.display().to_string(), "reading the list of mounts", e))?;
    let mut found = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        let Some(entry) = Entry::parse(line) else { continue };
        // The mount is gone, hidden by another mount, or behind a directory that this process may not search.
        if fs::metadata(&entry.path).map(|data| data.dev()).ok() != Some(entry.device) {
            continue;
        }
        let page_bytes = match entry.page_bytes {
            Some(bytes) => bytes,
            None => match nix::sys::statvfs::statvfs(&entry.path) {
                Ok(stat) => stat.block_size(),
                Err(e) => {
                    return Err(Error::os(entry.path.display().to_string(), "querying its page size", e));
                }
            },
        };
        let access = AccessFlags::W_OK | AccessFlags::X_OK;
        let is_writable = faccessat(AT_FDCWD, &entry.path, access, AtFlags::AT_EACCESS).is_ok();
        found.push(Mount { path: entry.path, page_bytes, is_writable, device: entry.device });
    }
    Ok(found)
}

struct Entry {
    path: PathBuf,
    device: u64,
    page_bytes: Option<u64>,
}

impl Entry {
    /// Parses a line of mountinfo; `None` for other file systems.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|&byte| byte == b' ');
        let device = std::str::from_utf8(words.nth(2)?).ok()?;
        let path = unescape(words.nth(1)?);
        let mut rest = words.skip_while(|word| word != b"-").skip(1);
        if rest.next()? != b"hugetlbfs" {
            return None;
        }
        let options = std::str::from_utf8(rest.nth(1)?).ok()?;
        let (major, minor) = device.split_once(':')?;
        let page = options.split(',').find_map(|option| option.strip_prefix("pagesize="));
        Some(Self {
            path,
            device: libc::makedev(major.parse().ok()?, minor.parse().ok()?),
            page_bytes: page.and_then(parse_size),
        })
    }
}

/// Parses a page size as hugetlbfs shows it: `2M`, `1024M`, `64K`.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Decodes a path, in which spaces, tabs, newlines and backslashes are `\` and three octal digits.
fn unescape(word: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = || u8::from_str_radix(std::str::from_utf8(tail.get(..3)?).ok()?, 8).ok();
        match octal().filter(|_| first == b'\\') {
            Some(byte) => {
                path.push(byte);
                rest = &tail[3..];
            }
            None => {
                path.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(path).into()
}
