//! Raises eventfds that a client owns, without ever waiting for the client.
//!
//! `write(2)` waits while an eventfd's counter is full, unless `O_NONBLOCK` is set. Both are the client's to change at any
//! time, for it shares the file description: no check before the write helps. The kernel itself raises eventfds another way,
//! which adds to the counter up to its maximum and never waits (`eventfd_signal`). Asynchronous I/O (`io_submit(2)`) offers
//! it to programs: a request that is complete at once, here a read of no bytes, signals the eventfd in its `aio_resfd`.

use crate::process::Owner;
use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
};
use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

/// Finished requests that are kept until they are collected; each costs the system-wide `fs.aio-max-nr` one.
const REQUESTS: libc::c_long = 128;
/// `IOCB_CMD_PREAD`
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

/// Signals eventfds. One serves a whole process and stays until that ends: to close it takes the kernel milliseconds.
#[derive(Debug)]
pub struct Raiser {
    context: libc::c_ulong,
    /// An empty file, of which no bytes are read.
    empty: OwnedFd,
    owner: Owner,
}

impl Raiser {
    /// The process's.
    ///
    /// # Errors
    /// The kernel's: `ENOSYS` without asynchronous I/O, `EAGAIN` when `fs.aio-max-nr` is used up.
    pub fn shared() -> Result<&'static Self, Errno> {
        static SHARED: Mutex<Option<&'static Raiser>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        // A forked child has its parent's memory, but not the kernel's side of it.
        if let Some(raiser) = shared.filter(|raiser| raiser.owner.is_current()) {
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
        Ok(Self { context, empty, owner: Owner::current() })
    }

    /// Adds 1 to `eventfd`'s counter, or leaves it at its maximum, and wakes all that wait for it. Never waits.
    ///
    /// # Errors
    /// `EINVAL` when it is no eventfd.
    pub fn raise(&self, eventfd: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut request = Request {
            opcode: PREAD,
            fd: self.empty.as_fd().as_raw_fd() as u32,
            flags: SIGNAL,
            resfd: eventfd.as_raw_fd() as u32,
            ..Request::default()
        };
        match self.submit(&mut request) {
            Err(Errno::EAGAIN) => {
                self.collect()?;
                self.submit(&mut request)
            }
            other => other,
        }
    }

    /// Takes one signal back, if nobody has read it: `true` if so. A counter above 1 keeps at least 1, for the client may
    /// have added to it. Never waits. Before Linux 5.8 it takes nothing back.
    pub fn withdraw(&self, eventfd: BorrowedFd<'_>) -> bool {
        let mut count = 0_u64;
        let buffer = libc::iovec { iov_base: (&raw mut count).cast(), iov_len: size_of::<u64>() };
        // SAFETY: one buffer, which the kernel writes before the call returns. -1 stands for the current position, which an
        // eventfd does not have; with RWF_NOWAIT the call fails where a read would wait, whatever the client has set.
        let read = unsafe { libc::preadv2(eventfd.as_raw_fd(), &raw const buffer, 1, -1, libc::RWF_NOWAIT) };
        if read != size_of::<u64>() as isize {
            return false;
        }
        if count == 1 {
            return true;
        }
        if let Err(error) = self.raise(eventfd) {
            tracing::debug!(%error, "raising a client's interrupt again");
        }
        false
    }

    fn submit(&self, request: &mut Request) -> Result<(), Errno> {
        let mut requests = [&raw mut *request];
        // SAFETY: one request, which the kernel has copied when the call returns; it reads no bytes into no buffer, so
        // nothing of this process is written later.
        let sent =
            unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1_usize, requests.as_mut_ptr()) };
        Errno::result(sent).map(drop)
    }

    /// Makes room for more requests: all results are the same, and nobody wants them.
    fn collect(&self) -> Result<(), Errno> {
        let mut events = [Event::default(); REQUESTS as usize];
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: room for as many events as are asked for, and a time to wait of nothing.
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

    #[test]
    fn more_interrupts_than_requests_all_arrive() {
        let (raiser, irq) = (Raiser::shared().unwrap(), EventFd::new().unwrap());
        let count = 20 * REQUESTS as u64;
        (0..count).for_each(|_| raiser.raise(irq.as_fd()).unwrap());
        assert_eq!(irq.take().unwrap(), count);
        let file = memfd_create(c"upcie-test", MFdFlags::MFD_CLOEXEC).unwrap();
        assert_eq!(raiser.raise(file.as_fd()), Err(Errno::EINVAL), "the kernel's word");
    }

    #[test]
    fn only_what_nobody_has_read_is_taken_back() {
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
        assert!(!raiser.withdraw(irq.as_fd()), "a blocking eventfd is no wait");
    }

    /// Soundness finding 6: with `write(2)` this waits for ever.
    #[test]
    fn a_full_blocking_eventfd_is_no_wait() {
        let full = nix::sys::eventfd::EventFd::from_value_and_flags(1, EfdFlags::EFD_NONBLOCK).unwrap();
        full.write(u64::MAX - 2).unwrap();
        fcntl(full.as_fd(), FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        let raiser = Raiser::shared().unwrap();
        (0..300).for_each(|_| raiser.raise(full.as_fd()).unwrap());
        assert_eq!(full.read(), Ok(u64::MAX), "as full as can be");
    }
}
