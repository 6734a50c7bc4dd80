//! Raises a client's eventfds without ever waiting for the client.
//!
//! `write(2)` waits while an eventfd's counter is full, unless `O_NONBLOCK` is set. The client shares the file
//! description and can change both at any time, so no check before the write helps. The kernel itself raises eventfds
//! by `eventfd_signal`, which adds to the counter up to its maximum and never waits. Programs reach it through
//! asynchronous I/O (`io_submit(2)`): a request that completes at once, here a read of no bytes, signals the eventfd in
//! its `aio_resfd`.

use crate::process::PerProcess;
use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The number of finished requests that may wait for collection; each counts against the system-wide `fs.aio-max-nr`.
const REQUESTS: libc::c_long = 128;
/// Limit on the collections for one request. Each makes room for as many requests as are collected at once.
const TRIES: u32 = 64;
/// `IOCB_CMD_PREAD`.
const PREAD: u16 = 0;
/// `IOCB_FLAG_RESFD`: `resfd` is signalled on completion.
const SIGNAL: u32 = 1;

/// `struct iocb` of `linux/aio_abi.h` on little-endian machines.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}
const _: () = assert!(size_of::<Request>() == 64);

/// `struct io_event`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Event {
    data: u64,
    request: u64,
    result: i64,
    more: i64,
}
const _: () = assert!(size_of::<Event>() == 32);

/// Signals eventfds. One serves the whole process and is never closed, because closing it takes the kernel
/// milliseconds.
#[derive(Debug)]
pub struct Raiser {
    context: libc::c_ulong,
    /// An empty file, from which no bytes are read.
    empty: OwnedFd,
}

impl Raiser {
    /// Returns the process's instance.
    ///
    /// # Errors
    /// The kernel's errors: `ENOSYS` without asynchronous I/O, `EAGAIN` when `fs.aio-max-nr` is used up.
    pub fn shared() -> Result<&'static Self, Errno> {
        /// A forked child inherits the memory, but not the kernel's context.
        static SHARED: PerProcess<Option<&'static Raiser>> = PerProcess::new();
        let mut shared = SHARED.lock();
        if let Some(raiser) = *shared {
            return Ok(raiser);
        }
        let raiser: &'static Self = Box::leak(Box::new(Self::new()?));
        *shared = Some(raiser);
        Ok(raiser)
    }

    fn new() -> Result<Self, Errno> {
        let empty = memfd_create(c"upcie-raise", MFdFlags::MFD_CLOEXEC)?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes one word, the context's id, to `context`.
        Errno::result(unsafe { libc::syscall(libc::SYS_io_setup, REQUESTS, &raw mut context) })?;
        Ok(Self { context, empty })
    }

    /// Adds 1 to `eventfd`'s counter, or leaves it at its maximum, and wakes all waiting threads. Never waits.
    ///
    /// # Errors
    /// `EINVAL` when the file is not an eventfd.
    pub fn raise(&self, eventfd: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut request = Request {
            opcode: PREAD,
            fd: self.empty.as_fd().as_raw_fd() as u32,
            flags: SIGNAL,
            resfd: eventfd.as_raw_fd() as u32,
            ..Request::default()
        };
        self.submit_or(&mut request, || self.collect())
    }

    /// Submits a request. If there is no room for it, calls `make_room` and tries again: other threads may use up the
    /// room of before.
    fn submit_or(
        &self,
        request: &mut Request,
        make_room: impl Fn() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        for _ in 0..TRIES {
            match self.submit(request) {
                Err(Errno::EAGAIN) => make_room()?,
                other => return other,
            }
        }
        self.submit(request)
    }

    /// Takes one signal back and returns `true`, if nobody has read it. A counter above 1 keeps at least 1, because the
    /// client may have added to it. Never waits. Before Linux 5.8 it takes nothing back.
    pub fn withdraw(&self, eventfd: BorrowedFd<'_>) -> bool {
        let mut count = 0_u64;
        let buffer = libc::iovec { iov_base: (&raw mut count).cast(), iov_len: size_of::<u64>() };
        // SAFETY: the kernel writes the one buffer before the call returns. -1 stands for the current position, which
        // an eventfd does not have; RWF_NOWAIT makes the call fail where a read would wait, even if the client has
        // cleared O_NONBLOCK.
        let read = unsafe { libc::preadv2(eventfd.as_raw_fd(), &raw const buffer, 1, -1, libc::RWF_NOWAIT) };
        if read != size_of::<u64>() as isize {
            return false;
        }
        if count == 1 {
            return true;
        }
        if let Err(error) = self.raise(eventfd) {
            tracing::debug!(%error, "raising a client's interrupt again failed");
        }
        false
    }

    fn submit(&self, request: &mut Request) -> Result<(), Errno> {
        let mut requests = [&raw mut *request];
        // SAFETY: the kernel copies the one request before the call returns; the request reads no bytes, so the kernel
        // writes nothing to this process later.
        let sent =
            unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1_usize, requests.as_mut_ptr()) };
        Errno::result(sent).map(drop)
    }

    /// Collects finished requests, so that more can be submitted. Their results are all the same and not used.
    fn collect(&self) -> Result<(), Errno> {
        let mut events = [Event::default(); REQUESTS as usize];
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `events` has room for the requested number of events, and the timeout is zero.
        let got = unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.context,
                0_usize,
                events.len(),
                events.as_mut_ptr(),
                &raw mut now,
            )
        };
        Errno::result(got).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::irq::EventFd;
    use nix::{
        fcntl::{FcntlArg, OFlag, fcntl},
        sys::eventfd::EfdFlags,
    };
    use std::cell::Cell;

    #[test]
    fn more_interrupts_than_aio_requests_all_arrive() {
        let (raiser, irq) = (Raiser::shared().unwrap(), EventFd::new().unwrap());
        let count = 20 * REQUESTS as u64;
        (0..count).for_each(|_| raiser.raise(irq.as_fd()).unwrap());
        assert_eq!(irq.take().unwrap(), count);
        let file = memfd_create(c"upcie-test", MFdFlags::MFD_CLOEXEC).unwrap();
        assert_eq!(raiser.raise(file.as_fd()), Err(Errno::EINVAL), "the kernel's error");
    }

    /// An interrupt was lost if other threads used up the room that its thread had just made.
    #[test]
    fn room_that_other_threads_use_up_is_made_again() {
        let (raiser, irq, other) = (Raiser::new().unwrap(), EventFd::new().unwrap(), EventFd::new().unwrap());
        let request = |eventfd: &EventFd| Request {
            fd: raiser.empty.as_fd().as_raw_fd() as u32,
            flags: SIGNAL,
            resfd: eventfd.as_fd().as_raw_fd() as u32,
            ..Request::default()
        };
        let fill = || while raiser.submit(&mut request(&other)) != Err(Errno::EAGAIN) {};
        fill();
        let collections = Cell::new(0);
        let raised = raiser.submit_or(&mut request(&irq), || {
            raiser.collect()?;
            collections.set(collections.get() + 1);
            if collections.get() < 5 {
                fill();
            }
            Ok(())
        });
        assert_eq!((raised, irq.take().unwrap()), (Ok(()), 1));
    }

    #[test]
    fn only_unread_signals_are_taken_back() {
        let (raiser, irq) = (Raiser::shared().unwrap(), EventFd::new().unwrap());
        assert!(!raiser.withdraw(irq.as_fd()), "nothing was raised");
        raiser.raise(irq.as_fd()).unwrap();
        assert!(raiser.withdraw(irq.as_fd()));
        assert_eq!(irq.take().unwrap(), 0);
        // The client's own signal stays.
        raiser.raise(irq.as_fd()).unwrap();
        irq.signal().unwrap();
        assert!(!raiser.withdraw(irq.as_fd()));
        assert_eq!(irq.take().unwrap(), 1);
        fcntl(irq.as_fd(), FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        assert!(!raiser.withdraw(irq.as_fd()), "no wait for a blocking eventfd");
    }

    /// With `write(2)` this would wait for ever.
    #[test]
    fn raising_a_full_blocking_eventfd_does_not_wait() {
        let full = nix::sys::eventfd::EventFd::from_value_and_flags(1, EfdFlags::EFD_NONBLOCK).unwrap();
        full.write(u64::MAX - 2).unwrap();
        fcntl(full.as_fd(), FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        let raiser = Raiser::shared().unwrap();
        (0..300).for_each(|_| raiser.raise(full.as_fd()).unwrap());
        assert_eq!(full.read(), Ok(u64::MAX), "the counter's maximum");
    }
}
