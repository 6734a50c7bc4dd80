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

/// Which processes have a file open whose path, as the kernel shows it, `is_it` accepts: as far as this user may see.
pub(crate) fn holders_where(is_it: impl Fn(&Path) -> bool) -> Vec<u32> {
    let has = |pid: &u32| {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        links.filter_map(|link| fs::read_link(link.path()).ok()).any(|target| is_it(&target))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(has).collect()
}

/// The same, but for `ours` descriptors that this process itself has for a reason.
pub(crate) fn holders_but(paths: &[PathBuf], ours: usize) -> Vec<u32> {
    let open = |pid: u32| -> io::Result<usize> {
        let links = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
        Ok(links
            .filter(|link| fs::read_link(link.path()).is_ok_and(|target| paths.contains(&target)))
            .count())
    };
    // A BAR outlives the descriptor that it was mapped by.
    let is_mapped = |pid: u32| -> io::Result<bool> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        Ok(maps.lines().any(|line| paths.iter().any(|path| line.ends_with(&format!(" {}", path.display())))))
    };
    if paths.is_empty() {
        return Vec::new();
    }
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A process that has ended meanwhile, or is another user's, can't be looked at.
    pids.filter(|&pid| {
        let ours = if pid == std::process::id() { ours } else { 0 };
        open(pid).unwrap_or(0) > ours || is_mapped(pid).unwrap_or(false)
    })
    .collect()
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
