//! Which process a handle belongs to, which ones have a file open, and a child for writes that may block.
//!
//! A forked child inherits every handle: the same device, container and connection, shared with the parent. What its
//! drops would undo (mappings, queues, the controller itself) is the parent's, so a drop asks first.

use crate::irq::wait_readable;
use nix::{errno::Errno, fcntl::OFlag};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// The process that made a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(u32);

impl Owner {
    /// The calling process.
    pub fn current() -> Self {
        Self(std::process::id())
    }

    /// Whether the calling process made the handle: `false` in a child that was forked since.
    pub fn is_current(self) -> bool {
        self == Self::current()
    }
}

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

/// Writes `value` to a file of sysfs within `deadline`; [`io::ErrorKind::TimedOut`] when the kernel is not done then.
pub(crate) fn write_within(path: &Path, value: &str, deadline: Duration) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    in_child(file.as_fd(), None, deadline, || {
        // SAFETY: reads the bytes of a string that the child has a copy of.
        unsafe { libc::write(0, value.as_ptr().cast(), value.len()) }
    })
}

/// Reads what a file of sysfs says, up to a page, within `deadline`; [`io::ErrorKind::TimedOut`] as for a write.
pub(crate) fn read_within(path: &Path, deadline: Duration) -> io::Result<String> {
    let file = File::open(path)?;
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    in_child(file.as_fd(), Some(writer.as_fd()), deadline, || {
        let mut page = [0_u8; 4096];
        // SAFETY: writes to the array, no more than it has.
        let len = unsafe { libc::read(0, page.as_mut_ptr().cast(), page.len()) };
        let Ok(count) = usize::try_from(len) else { return len };
        // SAFETY: reads what was just written to the array. A pipe takes a page at once.
        unsafe { libc::write(1, page.as_ptr().cast(), count) }
    })?;
    drop(writer);
    io::read_to_string(File::from(reader))
}

/// Has a child make the system calls of `work`, with `input` as descriptor 0 and `output` as 1.
///
/// A file of sysfs may keep whoever reads or writes it for as long as a driver likes: not even SIGKILL ends that, and a
/// process with such a thread can't exit. The child holds nothing else that its parent has open. It is left behind after
/// a timeout.
fn in_child(
    input: BorrowedFd<'_>,
    output: Option<BorrowedFd<'_>>,
    deadline: Duration,
    work: impl FnOnce() -> isize,
) -> io::Result<()> {
    let (input, output) = (input.as_raw_fd(), output.map(|fd| fd.as_raw_fd()));
    let last_to_keep = if output.is_some() { 1 } else { 0 };
    // SAFETY: until it exits, the child makes system calls only, on values that were computed before.
    let child = unsafe { libc::fork() };
    if child == 0 {
        if let Some(output) = output {
            // SAFETY: takes numbers only; whatever is open in this child is its own to close.
            unsafe { libc::dup2(output, 1) };
        }
        // SAFETY: as above.
        unsafe { libc::dup2(input, 0) };
        // SAFETY: as above. Where the kernel has no such call, the files stay open for as long as the child lives.
        unsafe { libc::syscall(libc::SYS_close_range, last_to_keep + 1, u32::MAX, 0) };
        let done = work();
        let code = if done < 0 { Errno::last_raw() } else { 0 };
        // SAFETY: ends the child here, without what the parent registered to happen at its end.
        unsafe { libc::_exit(code) };
    }
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    wait_for(child, deadline)
}

/// Waits for a child of [`in_child`].
fn wait_for(child: libc::pid_t, deadline: Duration) -> io::Result<()> {
    let reap = move || {
        let mut status = 0;
        loop {
            // SAFETY: `status` is a valid place for the answer.
            match unsafe { libc::waitpid(child, &raw mut status, 0) } {
                -1 if io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
                -1 => return Err(io::Error::last_os_error()),
                _ => return Ok(status),
            }
        }
    };
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child, 0) };
    let Ok(fd @ 0..) = i32::try_from(fd) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the kernel has just given it to us, close-on-exec; nobody else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(fd) };
    if !wait_readable(pidfd.as_fd(), deadline).map_err(io::Error::other)? {
        // Nobody else will ask how it ended.
        thread::Builder::new().name("upcie-reap".into()).spawn(reap)?;
        return Err(io::ErrorKind::TimedOut.into());
    }
    match reap()? {
        status if !libc::WIFEXITED(status) => Err(io::Error::other("the child that writes it was killed")),
        status => match libc::WEXITSTATUS(status) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

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

    #[test]
    fn a_write_arrives_and_its_error_comes_back() {
        let path = path("write");
        fs::write(&path, "").unwrap();
        write_within(&path, "vfio-pci", Duration::MAX).unwrap();
        assert_eq!(read_within(&path, Duration::from_secs(30)).unwrap(), "vfio-pci");
        fs::remove_file(&path).unwrap();
        let error = write_within(&path, "x", Duration::from_secs(30)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let error = write_within(Path::new("/dev/full"), "x", Duration::from_secs(30)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    }

    #[test]
    fn a_write_that_blocks_is_left_behind_at_the_deadline() {
        let path = path("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Opened both ways, so that opening it never blocks; the second write finds it full.
        let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let text = "x".repeat(65536);
        write_within(&path, &text, Duration::from_secs(30)).unwrap();
        let error = write_within(&path, &text, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // What was left behind goes on, and ends.
        reader.read_exact(&mut vec![0; 2 * 65536]).unwrap();
        fs::remove_file(path).unwrap();
    }
}
