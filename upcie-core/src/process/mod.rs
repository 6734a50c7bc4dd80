//! Ownership of handles across forks, the processes that have a file open, and a child process for calls that may block.
//!
//! A forked child inherits every handle: the same device, container and connection, shared with the parent. All of it
//! still belongs to the parent: the child's operations are refused ([`Failure::Forked`](crate::Failure::Forked)), and its
//! drops undo nothing on the device. The bytes of DMA memory, and of an open turn, are shared with the parent too, so a
//! child must not write to them. This is an obligation of the caller of fork(2), which is unsafe.

mod child;
mod owner;
mod per_process;
mod worker;

pub(crate) use child::{Child, read_within, write_within};
pub use owner::{Owner, ProcessWord};
pub use per_process::PerProcess;
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

/// Deadline for the inspection of one process, which usually takes microseconds. A process that waits in the kernel, for
/// example for a file system that does not answer, can block readers of its files in /proc as long as it waits.
const INSPECTION_DEADLINE: Duration = Duration::from_secs(2);
/// The search ends after this many processes that do not answer.
const MAX_SILENT: usize = 3;

/// Lists the processes that have one of `paths` open or mapped, as far as this user can see them: all of them for root,
/// the user's own for others. Each path is one that the kernel shows, without symbolic links. A process that can't be
/// inspected within 2 s is skipped and logged.
pub fn holders(paths: &[PathBuf]) -> Vec<u32> {
    holders_but(paths, 0)
}

/// Lists the holders as [`holders`] does, but ignores `ours` descriptors that this process itself has open.
pub(crate) fn holders_but(paths: &[PathBuf], ours: usize) -> Vec<u32> {
    if paths.is_empty() {
        return Vec::new();
    }
    let paths = paths.to_vec();
    find(move |pid| {
        let ours = if pid == std::process::id() { ours } else { 0 };
        let open = open_files(pid).filter(|target| paths.contains(target)).count();
        // A BAR may be mapped without an open descriptor. A process that has ended meanwhile, or belongs to another user,
        // can't be inspected.
        let is_mapped = || {
            let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
            maps.lines().any(|line| paths.iter().any(|path| line.ends_with(&format!(" {}", path.display()))))
        };
        open > ours || is_mapped()
    })
}

/// Lists the processes that have a file open whose path, as the kernel shows it, `is_it` accepts, as far as this user can
/// see them.
pub(crate) fn holders_where(is_it: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Vec<u32> {
    find(move |pid| open_files(pid).any(|target| is_it(&target)))
}

/// Lists the processes for which `is_it` holds, without this process's own children that are about to close their files.
fn find(is_it: impl Fn(u32) -> bool + Send + Sync + 'static) -> Vec<u32> {
    let is_it = Arc::new(is_it);
    let inspect = is_it.clone();
    let mut found =
        look_at(processes().collect(), INSPECTION_DEADLINE, move |pid| inspect(pid).then_some(pid));
    found.retain(|&pid| !child::is_running(pid));
    // Checked again, because a former child that has been reaped does not exist any more.
    look_at(found, INSPECTION_DEADLINE, move |pid| is_it(pid).then_some(pid))
}

/// Collects the result of `inspect` for each process, in a thread, so that a process that does not answer within `limit`
/// blocks nobody: it is skipped and logged. After three such processes the remaining ones are skipped, too.
pub fn look_at<T: Send + 'static>(
    pids: Vec<u32>,
    limit: Duration,
    inspect: impl Fn(u32) -> Option<T> + Send + Sync + 'static,
) -> Vec<T> {
    let (inspect, mut rest, mut found) = (Arc::new(inspect), VecDeque::from(pids), Vec::new());
    for _ in 0..MAX_SILENT {
        let (send, seen) = channel();
        let (inspect, batch) = (inspect.clone(), rest.clone());
        let work = move || batch.into_iter().try_for_each(|pid| send.send(inspect(pid)));
        if let Err(error) = thread::Builder::new().name("upcie-inspect".into()).spawn(work) {
            emit(move || tracing::warn!(%error, "inspecting processes failed"));
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
            tracing::warn!(pid = silent, "the process can't be inspected: its open files are unknown");
        });
    }
    found
}

/// Lists the ids of all processes that this one sees.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Lists the paths of a process's open files, as the kernel shows them; none if it has ended, or belongs to another user.
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
    fn holders_of_a_file_are_found() {
        let path = path("holders");
        let file = File::create(&path).unwrap();
        let me = std::process::id();
        assert!(holders(&["/nowhere".into(), path.clone()]).contains(&me));
        drop(file);
        assert!(!holders(std::slice::from_ref(&path)).contains(&me));
        fs::remove_file(path).unwrap();
    }

    /// Regression: a process that waits in the kernel for a file system blocks all readers of its files in /proc.
    #[test]
    fn a_silent_process_does_not_block_the_search() {
        let (go, wait) = channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let inspect = move |pid| {
            if pid == 2 || pid > 4 {
                let _ = wait.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
            }
            Some(pid)
        };
        // Long enough for a thread of a busy machine to inspect the others.
        let found = look_at(vec![1, 2, 3, 4], Duration::from_secs(2), inspect);
        assert_eq!(found, [1, 3, 4]);
        drop(go);
        let (_go, wait) = channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        let silent = move |_| -> Option<u32> { wait.lock().unwrap().recv().ok().map(|()| 1) };
        assert!(look_at((0..100).collect(), Duration::from_millis(1), silent).is_empty());
    }
}
