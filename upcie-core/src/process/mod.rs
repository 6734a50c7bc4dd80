//! Which process a handle belongs to, which ones have a file open, and a child for writes that may block.
//!
//! A forked child inherits every handle: the same device, container and connection, shared with the parent. All of it is
//! the parent's still: in the child operations are refused ([`Error::Forked`](crate::Error::Forked)), and drops undo nothing on the
//! device. The bytes of DMA memory are shared with the parent too, as are those of a turn that was open: a child writes to
//! neither. That is part of what whoever calls fork(2), which is unsafe, answers for.

mod child;
mod owner;
mod worker;

pub(crate) use child::{Child, read_within, write_within};
pub use owner::{Owner, ProcessWord};
pub use worker::Worker;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Which processes have one of `paths` open or mapped, as far as this user may see: all of them for root, one's own for others.
/// Each path is one that the kernel shows, without symbolic links in it.
pub fn holders(paths: &[PathBuf]) -> Vec<u32> {
    holders_but(paths, 0)
}

/// The same, but for `ours` descriptors that this process itself has for a reason.
pub(crate) fn holders_but(paths: &[PathBuf], ours: usize) -> Vec<u32> {
    let open = |pid: u32| open_files(pid).filter(|target| paths.contains(target)).count();
    // A BAR outlives the descriptor that it was mapped by.
    let is_mapped = |pid: u32| -> io::Result<bool> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        Ok(maps.lines().any(|line| paths.iter().any(|path| line.ends_with(&format!(" {}", path.display())))))
    };
    if paths.is_empty() {
        return Vec::new();
    }
    // A process that has ended meanwhile, or is another user's, can't be looked at.
    processes()
        .filter(|&pid| {
            let ours = if pid == std::process::id() { ours } else { 0 };
            open(pid) > ours || is_mapped(pid).unwrap_or(false)
        })
        .collect()
}

/// Lists the processes that have a file open whose path, as the kernel shows it, `is_it` accepts: as far as this user may
/// see.
pub(crate) fn holders_where(is_it: impl Fn(&Path) -> bool) -> Vec<u32> {
    processes().filter(|&pid| open_files(pid).any(|target| is_it(&target))).collect()
}

/// The ids of all processes that this one sees.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The paths of a process's open files, as the kernel shows them; none where it has ended, or is another user's.
fn open_files(pid: u32) -> impl Iterator<Item = PathBuf> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    links.filter_map(|link| fs::read_link(link.path()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("upcie-process-{name}-{}", std::process::id()))
    }

    #[test]
    fn who_has_a_file_open_is_found() {
        let path = path("holders");
        let file = File::create(&path).unwrap();
        let me = std::process::id();
        assert!(holders(&["/nowhere".into(), path.clone()]).contains(&me));
        drop(file);
        assert!(!holders(std::slice::from_ref(&path)).contains(&me));
        fs::remove_file(path).unwrap();
    }
}
