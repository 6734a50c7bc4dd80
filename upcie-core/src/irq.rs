//! Interrupts as file descriptors.

use crate::{Error, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd as Inner},
};
use std::{
    fmt,
    io::Write,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr,
    time::{Duration, Instant},
};

/// The interrupts of a PCI function, numbered as in the kernel's `VFIO_PCI_*_IRQ_INDEX` and in vfio-user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum IrqKind {
    /// The legacy pin: one level-triggered interrupt, which the kernel masks when it fires.
    Intx = 0,
    /// Message signalled interrupts.
    Msi = 1,
    /// Extended message signalled interrupts: up to 2048 vectors.
    Msix = 2,
    /// An uncorrectable error was reported (AER).
    Error = 3,
    /// A request to close the device: from the kernel (it is being removed or unbound), or from a vfio-user server (it is
    /// being stopped).
    Request = 4,
}

impl fmt::Display for IrqKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Intx => "INTx",
            Self::Msi => "MSI",
            Self::Msix => "MSI-X",
            Self::Error => "ERR",
            Self::Request => "REQ",
        })
    }
}

/// A counter that an interrupt increments: close-on-exec and non-blocking. [`signal`](Self::signal) waits if somebody else who
/// has the descriptor has made it blocking and the counter is full; nothing else does.
///
/// ```
/// use std::time::Duration;
/// use upcie_core::irq::EventFd;
///
/// let event = EventFd::new()?;
/// event.signal()?; // a device does this by `set_irqs(kind, &[event.as_fd()])`
/// assert!(event.wait(Duration::from_secs(1))?);
/// assert_eq!(event.take()?, 1);
/// # Ok::<(), upcie_core::Error>(())
/// ```
#[derive(Debug)]
pub struct EventFd(Inner);

impl EventFd {
    /// Makes a counter at zero.
    ///
    /// # Errors
    /// The system's errors, mostly too many open files.
    pub fn new() -> Result<Self> {
        Inner::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map(Self)
            .map_err(|e| Error::os("eventfd", "creating it (raise `ulimit -n` if too many are open)", e))
    }

    /// Adds one, as a device does.
    ///
    /// # Errors
    /// The system's errors.
    pub fn signal(&self) -> Result<()> {
        match self.0.write(1) {
            // The counter is at its maximum, which wakes its waiter, too.
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(e) => Err(Error::os("eventfd", "signalling it", e)),
        }
    }

    /// Returns the count and sets it to zero; zero if there was no interrupt.
    ///
    /// # Errors
    /// The system's errors.
    pub fn take(&self) -> Result<u64> {
        let mut count = 0_u64;
        let buffer = libc::iovec { iov_base: (&raw mut count).cast(), iov_len: size_of::<u64>() };
        let fd = self.0.as_fd().as_raw_fd();
        // Another process that has the descriptor may have cleared O_NONBLOCK; RWF_NOWAIT holds all the same.
        // SAFETY: the kernel writes the one buffer before the call returns. -1 stands for the current position.
        let read = unsafe { libc::preadv2(fd, &raw const buffer, 1, -1, libc::RWF_NOWAIT) };
        let taken = match Errno::result(read) {
            Ok(_) => Ok(count),
            // Before Linux 5.8.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => self.0.read(),
            Err(e) => Err(e),
        };
        match taken {
            Err(Errno::EAGAIN) => Ok(0),
            taken => taken.map_err(|e| Error::os("eventfd", "reading it", e)),
        }
    }

    /// Waits until the count is not zero, at most `timeout`; `false` if it stayed zero. The count is not changed.
    ///
    /// # Errors
    /// The system's errors.
    pub fn wait(&self, timeout: Duration) -> Result<bool> {
        wait_readable(self.as_fd(), timeout)
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until `fd` is readable, at most `timeout`; `false` if it is not readable then. A signal handler that runs
/// meanwhile does not end the wait.
///
/// # Errors
/// The system's errors.
pub fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> Result<bool> {
    let end = Instant::now().checked_add(timeout);
    loop {
        let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        // Rounded up to whole milliseconds, to avoid a busy loop in the last one.
        let ms = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)) {
            Ok(0) if left.is_zero() || end.is_some_and(|end| Instant::now() >= end) => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(e) => return Err(Error::os("poll", "waiting for a file descriptor", e)),
        }
    }
}

/// Waits until one of several descriptors is readable. It keeps its list, so a wait for as many descriptors as before
/// allocates nothing.
///
/// ```
/// use std::{os::fd::AsFd, time::Duration};
/// use upcie_core::irq::{EventFd, PollSet};
///
/// let events = [EventFd::new()?, EventFd::new()?];
/// let mut set = PollSet::default();
/// assert!(!set.wait(events.iter().map(AsFd::as_fd), Duration::ZERO)?);
/// events[1].signal()?;
/// assert!(set.wait(events.iter().map(AsFd::as_fd), Duration::from_secs(1))?);
/// # Ok::<(), upcie_core::Error>(())
/// ```
#[derive(Default)]
pub struct PollSet(Vec<libc::pollfd>);

impl PollSet {
    /// Waits until one of `fds` is readable, at most `timeout`; `false` if none is then, or if a signal handler ran
    /// meanwhile.
    ///
    /// # Errors
    /// The system's errors.
    pub fn wait<'f>(
        &mut self,
        fds: impl IntoIterator<Item = BorrowedFd<'f>>,
        timeout: Duration,
    ) -> Result<bool> {
        self.0.clear();
        // They stay open during the call: each is borrowed for `'f`, which lasts at least as long.
        let entry =
            |fd: BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        self.0.extend(fds.into_iter().map(entry));
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let (entries, len) = (self.0.as_mut_ptr(), self.0.len() as libc::nfds_t);
        // SAFETY: `entries` points to `len` initialised entries, which only the call accesses meanwhile; the timeout is a
        // local variable, and a null signal mask leaves the mask as it is.
        let ready = unsafe { libc::ppoll(entries, len, &raw const timeout, ptr::null()) };
        match Errno::result(ready) {
            Ok(count) => Ok(count > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(e) => Err(Error::os("poll", "waiting for one of several file descriptors", e)),
        }
    }
}

impl fmt::Debug for PollSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollSet").finish_non_exhaustive()
    }
}

/// Returns whether the kernel calls `fd` an eventfd (in `/proc`). Makes only system calls.
pub(crate) fn is_eventfd(fd: BorrowedFd<'_>) -> bool {
    const NAME: &[u8] = b"anon_inode:[eventfd]";
    let (mut path, mut link) = ([0_u8; 32], [0_u8; NAME.len() + 1]);
    // The path is followed by a zero byte, because the buffer's last byte is not written.
    if write!(&mut path[..31], "/proc/self/fd/{}", fd.as_raw_fd()).is_err() {
        return false;
    }
    // SAFETY: the path ends with a zero byte, and `link` is as long as the given length.
    let len = unsafe { libc::readlink(path.as_ptr().cast(), link.as_mut_ptr().cast(), link.len()) };
    // The link of a file of a file system begins with a slash, so it can't be this name.
    usize::try_from(len).is_ok_and(|len| link.get(..len) == Some(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{
        fcntl::{FcntlArg, OFlag, fcntl},
        sys::memfd::{MFdFlags, memfd_create},
    };
    use std::sync::mpsc;

    /// Another process that has the descriptor may make it blocking: the read of an empty counter waited for ever.
    #[test]
    fn an_empty_counter_is_not_waited_for() {
        let event = EventFd::new().unwrap();
        fcntl(event.as_fd(), FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        let (tells, told) = mpsc::channel();
        std::thread::spawn(move || {
            let empty = event.take().unwrap();
            event.signal().unwrap();
            tells.send((empty, event.take().unwrap())).unwrap();
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok((0, 1)));
    }

    #[test]
    fn only_eventfds_are_taken_for_eventfds() {
        assert!(is_eventfd(EventFd::new().unwrap().as_fd()));
        let (pipe, _write) = nix::unistd::pipe().unwrap();
        let timer = nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::empty()).unwrap();
        let memfd = memfd_create(c"anon_inode:[eventfd]", MFdFlags::MFD_CLOEXEC).unwrap();
        for other in [pipe.as_fd(), timer.0.as_fd(), memfd.as_fd()] {
            assert!(!is_eventfd(other), "{other:?}");
        }
    }
}
