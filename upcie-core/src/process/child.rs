//! A child process for system calls that a driver may block.

use super::PerProcess;
use crate::{
    deadline::{Backoff, Stopwatch},
    irq::wait_readable,
};
use nix::{errno::Errno, fcntl::OFlag};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::Path,
    sync::MutexGuard,
    thread,
    time::Duration,
};

/// Writes `value` to a file of sysfs within `deadline`; [`io::ErrorKind::TimedOut`] if the kernel has not finished then.
pub(crate) fn write_within(path: &Path, value: &str, deadline: Duration) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    in_child(file.as_fd(), None, deadline, || {
        // SAFETY: the call reads the bytes of a string, of which the child has a copy.
        unsafe { libc::write(0, value.as_ptr().cast(), value.len()) }
    })
}

/// Reads a file of sysfs, up to a page, within `deadline`; [`io::ErrorKind::TimedOut`] as for a write.
pub(crate) fn read_within(path: &Path, deadline: Duration) -> io::Result<String> {
    let file = File::open(path)?;
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    in_child(file.as_fd(), Some(writer.as_fd()), deadline, || {
        let mut page = [0_u8; 4096];
        // SAFETY: the call writes to the array, within its length.
        let len = unsafe { libc::read(0, page.as_mut_ptr().cast(), page.len()) };
        let Ok(count) = usize::try_from(len) else { return len };
        // SAFETY: the call reads the bytes just written to the array. A pipe accepts a page at once.
        unsafe { libc::write(1, page.as_ptr().cast(), count) }
    })?;
    // Without waiting for the pipe's end: a process that another thread has forked meanwhile has it open as well.
    let mut page = vec![0; 4096];
    let len = match File::from(reader).read(&mut page) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        read => read?,
    };
    page.truncate(len);
    String::from_utf8(page).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Lets a [`Child`] make the system calls of `work`, and waits until it has ended.
fn in_child(
    input: BorrowedFd<'_>,
    output: Option<BorrowedFd<'_>>,
    deadline: Duration,
    work: impl FnOnce() -> isize,
) -> io::Result<()> {
    let (child, result) = Child::run(input, output, deadline, work)?;
    child.reap();
    result
}

/// The running children, from before they have a process id until they have been reaped.
static RUNNING: PerProcess<Vec<libc::pid_t>> = PerProcess::new();

fn running() -> MutexGuard<'static, Vec<libc::pid_t>> {
    RUNNING.lock()
}

/// Returns whether `pid` is one of this process's children made here: until it closes its inherited files, it has all of
/// its parent's files open, and uses none.
pub(super) fn is_running(pid: u32) -> bool {
    running().iter().any(|child| child.unsigned_abs() == pid)
}

/// A child that has made its system calls, and is about to end.
#[derive(Debug)]
pub(crate) struct Child(libc::pid_t);

impl Child {
    /// Lets a child make the system calls of `work`, with `input` as descriptor 0 and `output` as 1. Also returns the
    /// result of `work`.
    ///
    /// A driver may block a read or write of a sysfs file as long as it likes: not even SIGKILL ends that, and a process
    /// with such a thread can't exit. The child holds no other open files of its parent. After a timeout it is left
    /// running.
    ///
    /// The result comes through a pipe, as an error number or 0, because the parent may never see the child's exit
    /// status: the system discards it if SIGCHLD is ignored, and another thread may wait for any child.
    pub(crate) fn run(
        input: BorrowedFd<'_>,
        output: Option<BorrowedFd<'_>>,
        deadline: Duration,
        work: impl FnOnce() -> isize,
    ) -> io::Result<(Self, io::Result<()>)> {
        let (result, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let output = output.unwrap_or(writer.as_fd());
        let fds = [input.as_raw_fd(), output.as_raw_fd(), writer.as_raw_fd()];
        let mut children = running();
        // SAFETY: until it exits, the child only makes system calls, on values that were computed before.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // Moved to high numbers first: each may already be 0, 1 or 2, in a program that has closed those.
            // SAFETY: the call takes numbers only; the child may close its own descriptors.
            let moved = fds.map(|fd| unsafe { libc::fcntl(fd, libc::F_DUPFD, RESULT + 1) });
            let (mut code, mut report_to) = (Errno::last_raw(), fds[2]);
            if !moved.contains(&-1) {
                for (fd, wanted) in moved.into_iter().zip([0, 1, RESULT]) {
                    // SAFETY: the call takes numbers only.
                    unsafe { libc::dup2(fd, wanted) };
                }
                // SAFETY: the call takes numbers only. On a kernel without it, the files stay open while the child lives.
                unsafe { libc::syscall(libc::SYS_close_range, RESULT + 1, u32::MAX, 0) };
                report_to = RESULT;
                code = if work() < 0 { Errno::last_raw() } else { 0 };
            }
            // SAFETY: the call reads the bytes of `code`. A pipe accepts them at once.
            unsafe { libc::write(report_to, (&raw const code).cast(), size_of_val(&code)) };
            // SAFETY: exits the child at once, without the parent's exit handlers.
            unsafe { libc::_exit(0) };
        }
        if child < 0 {
            return Err(io::Error::last_os_error());
        }
        children.push(child);
        drop(children);
        drop(writer);
        let in_time = wait_readable(result.as_fd(), deadline).map_err(io::Error::other);
        if !matches!(in_time, Ok(true)) {
            // Reaped in the background, because nobody else will.
            Self(child).reap_later(|| {});
            return Err(in_time.err().unwrap_or_else(|| io::ErrorKind::TimedOut.into()));
        }
        let mut code = [0; size_of::<i32>()];
        let told = File::from(result).read_exact(&mut code);
        let result = match (told, i32::from_ne_bytes(code)) {
            (Err(_), _) => Err(io::Error::other("the child process for it was killed")),
            (Ok(()), 0) => Ok(()),
            (Ok(()), errno) => Err(io::Error::from_raw_os_error(errno)),
        };
        Ok((Self(child), result))
    }

    /// Waits until the child has ended.
    pub(crate) fn reap(self) {
        reap(self.0);
    }

    /// Waits until the child has ended, at most `limit`.
    ///
    /// # Errors
    /// The child, if it has not ended.
    pub(crate) fn reap_within(self, limit: Duration) -> Result<(), Self> {
        let mut backoff = Backoff::new(Stopwatch::new(), limit);
        loop {
            // An error means that another thread has reaped the child, which has ended, too.
            if waited(self.0, libc::WNOHANG) != 0 {
                return Ok(());
            }
            if !backoff.pause() {
                return Err(self);
            }
        }
    }

    /// Reaps the child in the background when it ends, then calls `then`.
    pub(crate) fn reap_later(self, then: impl FnOnce() + Send + 'static) {
        let child = self.0;
        let wait = move || {
            reap(child);
            then();
        };
        // Without the thread the child stays a zombie after its end, which is harmless.
        if let Err(error) = thread::Builder::new().name("upcie-reap".into()).spawn(wait) {
            tracing::warn!(child, %error, "a child left running will stay a zombie");
        }
    }
}

/// The child's descriptor for its result.
const RESULT: i32 = 2;

/// Waits until `child` has ended, if no other thread has reaped it.
fn reap(child: libc::pid_t) {
    waited(child, 0);
}

/// Calls waitpid(2) for `child` and returns its result: 0 if the child has not ended and `options` say not to wait.
fn waited(child: libc::pid_t, options: i32) -> libc::pid_t {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for the result.
        let ended = unsafe { libc::waitpid(child, &raw mut status, options) };
        if ended >= 0 || Errno::last() != Errno::EINTR {
            if ended != 0 {
                running().retain(|&other| other != child);
            }
            return ended;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{thread_number, wait_until_asleep};
    use std::{fs, io::Write, path::PathBuf, sync::mpsc};

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("upcie-process-{name}-{}", std::process::id()))
    }

    #[test]
    fn writes_arrive_and_errors_are_returned() {
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
    fn a_blocked_write_is_left_running_at_the_deadline() {
        let path = path("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Opened for both directions, so that opening does not block; the second write finds the pipe full.
        let mut reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let text = "x".repeat(65536);
        write_within(&path, &text, Duration::from_secs(30)).unwrap();
        let error = write_within(&path, &text, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // The child left running continues, and ends.
        reader.read_exact(&mut vec![0; 2 * 65536]).unwrap();
        fs::remove_file(path).unwrap();
    }

    /// A reader waited for the end of a process that another thread had forked meanwhile.
    #[test]
    fn a_process_forked_meanwhile_keeps_no_reader() {
        let path = path("held");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Opened for both directions, so that opening does not block.
        let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let ((tells, told), (sends, read)) = (mpsc::channel(), mpsc::channel());
        let reads = path.clone();
        let thread = thread::spawn(move || {
            tells.send(thread_number()).unwrap();
            sends.send(read_within(&reads, Duration::from_secs(60))).unwrap();
        });
        // Its child waits for the file's bytes.
        wait_until_asleep(told.recv().unwrap());
        // SAFETY: the child only makes system calls until it is killed.
        let holder = unsafe { libc::fork() };
        if holder == 0 {
            // SAFETY: ends a child that nobody kills.
            unsafe { libc::alarm(300) };
            loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            }
        }
        assert!(holder > 0);
        file.write_all(b"held").unwrap();
        let text = read.recv_timeout(Duration::from_secs(90));
        // SAFETY: kills the child made here.
        unsafe { libc::kill(holder, libc::SIGKILL) };
        // SAFETY: waits for the child made here, without a place for the status.
        unsafe { libc::waitpid(holder, std::ptr::null_mut(), 0) };
        thread.join().unwrap();
        fs::remove_file(path).unwrap();
        assert_eq!(text.expect("it waits for no other process").unwrap(), "held");
    }

    /// Soundness R4: the kernel's result arrives in a program that has closed its standard files, ignores SIGCHLD, or
    /// waits for any child.
    #[test]
    fn results_arrive_in_unusual_programs() {
        let path = path("odd");
        let attempt = |close: bool, ignore: bool, steal: bool| {
            fs::write(&path, "").unwrap();
            // SAFETY: glibc makes its allocator usable in the child. The child takes no other lock that a thread may
            // hold, and exits by `_exit`.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: sets the child's own alarm.
                unsafe { libc::alarm(60) };
                for fd in if close { 0..3 } else { 0..0 } {
                    // SAFETY: closes the child's own file.
                    unsafe { libc::close(fd) };
                }
                if ignore {
                    // SAFETY: sets the child's own signal action.
                    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
                }
                if steal {
                    thread::spawn(|| {
                        loop {
                            // SAFETY: waits for any child, without a place for the status.
                            unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
                        }
                    });
                }
                let deadline = Duration::from_secs(30);
                let good = (0..20).all(|_| {
                    write_within(&path, "odd", deadline).is_ok()
                        && read_within(&path, deadline).is_ok_and(|text| text == "odd")
                        && write_within(Path::new("/dev/full"), "x", deadline)
                            .is_err_and(|error| error.raw_os_error() == Some(libc::ENOSPC))
                });
                // SAFETY: exits the child without the parent's exit handlers.
                unsafe { libc::_exit(if good { 0 } else { 1 }) };
            }
            let mut status = 0;
            // SAFETY: waits for the child process made here.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "close {close}, ignore {ignore}, steal {steal}");
        };
        attempt(true, false, false);
        attempt(false, true, false);
        attempt(false, false, true);
        attempt(true, true, true);
        fs::remove_file(path).unwrap();
    }
}
