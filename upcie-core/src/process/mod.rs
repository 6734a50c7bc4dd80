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

use crate::events::emit;
use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

/// What one process may take to be looked at: it takes microseconds. One that waits in the kernel, for a file system that does
/// not answer say, may hold whoever reads its files in /proc for as long.
const LOOK: Duration = Duration::from_secs(2);
/// So many processes that don't answer end the search.
const MOST_SILENT: usize = 3;

/// Which processes have one of `paths` open or mapped, as far as this user may see: all of them for root, one's own for others.
/// Each path is one that the kernel shows, without symbolic links in it. A process that can't be looked at within 2 s is left
/// out, and logged.
pub fn holders(paths: &[PathBuf]) -> Vec<u32> {
    holders_but(paths, 0)
}

/// The same, but for `ours` descriptors that this process itself has for a reason.
pub(crate) fn holders_but(paths: &[PathBuf], ours: usize) -> Vec<u32> {
    if paths.is_empty() {
        return Vec::new();
    }
    let paths = paths.to_vec();
    find(move |pid| {
        let ours = if pid == std::process::id() { ours } else { 0 };
        let open = open_files(pid).filter(|target| paths.contains(target)).count();
        // A BAR outlives the descriptor that it was mapped by. A process that has ended meanwhile, or is another user's,
        // can't be looked at.
        let is_mapped = || {
            let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
            maps.lines().any(|line| paths.iter().any(|path| line.ends_with(&format!(" {}", path.display()))))
        };
        open > ours || is_mapped()
    })
}

/// Lists the processes that have a file open whose path, as the kernel shows it, `is_it` accepts: as far as this user may
/// see.
pub(crate) fn holders_where(is_it: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Vec<u32> {
    find(move |pid| open_files(pid).any(|target| is_it(&target)))
}

/// The processes for which `is_it` holds. This process's own children that are about to close its files don't count.
fn find(is_it: impl Fn(u32) -> bool + Send + Sync + 'static) -> Vec<u32> {
    let is_it = Arc::new(is_it);
    let look = is_it.clone();
    let mut found = look_at(processes().collect(), LOOK, move |pid| look(pid).then_some(pid));
    found.retain(|&pid| !child::is_running(pid));
    // One that was a child, and has been waited for since, is not there any more.
    look_at(found, LOOK, move |pid| is_it(pid).then_some(pid))
}

/// What `look` finds of each process, in a thread, so that one that does not answer within `limit` holds up nobody: it is left
/// out, and logged. After three of those the rest is left out, too.
pub fn look_at<T: Send + 'static>(
    pids: Vec<u32>,
    limit: Duration,
    look: impl Fn(u32) -> Option<T> + Send + Sync + 'static,
) -> Vec<T> {
    let (look, mut rest, mut found) = (Arc::new(look), VecDeque::from(pids), Vec::new());
    for _ in 0..MOST_SILENT {
        let (send, seen) = channel();
        let (look, batch) = (look.clone(), rest.clone());
        let work = move || batch.into_iter().try_for_each(|pid| send.send(look(pid)));
        if let Err(error) = thread::Builder::new().name("upcie-look".into()).spawn(work) {
            emit(move || tracing::warn!(%error, "processes can't be looked at"));
            return found;
        }
        loop {
            match seen.recv_timeout(limit) {
                Ok(one) => {
                    rest.pop_front();
                    found.extend(one);
                }
                Err(RecvTimeoutError::Disconnected) => return found,
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        let silent = rest.pop_front();
        emit(move || {
            tracing::warn!(
                pid = silent,
                "the process does not let itself be looked at: what it has open is not known"
            );
        });
    }
    found
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

    /// A process that a file system holds in the kernel holds all who read its files in /proc.
    #[test]
    fn a_silent_process_holds_up_nobody() {
        let (go, wait) = channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let look = move |pid| {
            if pid == 2 || pid > 4 {
                let _ = wait.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
            }
            Some(pid)
        };
        // Long enough for a thread of a busy machine to answer for the others.
        let found = look_at(vec![1, 2, 3, 4], Duration::from_secs(2), look);
        assert_eq!(found, [1, 3, 4]);
        drop(go);
        let (_go, wait) = channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let silent = move |_| -> Option<u32> { wait.lock().unwrap().recv().ok().map(|()| 1) };
        assert!(look_at((0..100).collect(), Duration::from_millis(1), silent).is_empty());
    }
}
