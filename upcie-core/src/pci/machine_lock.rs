//! A lock that the containers of a machine share.
//!
//! Each container can have a sysfs of its own (it goes with the network namespace), a /dev of its own, and hugetlbfs mounts of
//! its own, so that a lock on a file there is seen inside only. The kernel has one devtmpfs, though, whoever mounts it: it
//! is mounted here without a place in the directory tree (fsmount(2)), which takes CAP_SYS_ADMIN, as reading physical
//! addresses does.

use super::Bdf;
use nix::{errno::Errno, fcntl::OFlag};
use std::{
    fs::File,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// The file, which stays: an empty one in devtmpfs, mode 0600. Each function has a byte of it.
const NAME: &std::ffi::CStr = c"upcie.lock";

/// A function's byte of the file, held until it is [released](Self::release), or all who share the descriptor have
/// closed it.
#[derive(Debug)]
pub(super) struct MachineLock {
    file: File,
    at: i64,
}

impl MachineLock {
    /// Takes the byte of `bdf`; [`Errno::EAGAIN`] when somebody else has it, and other errors where there is no such
    /// lock: no devtmpfs, no right to mount it, or a kernel older than 5.2.
    pub(super) fn take(bdf: Bdf) -> Result<Self, Errno> {
        let number = i64::from(bdf.domain) << 16
            | i64::from(bdf.bus) << 8
            | i64::from(bdf.device) << 3
            | i64::from(bdf.function);
        let lock = Self { file: file()?, at: number };
        lock.set(libc::F_WRLCK)?;
        Ok(lock)
    }

    /// Releases it, for whoever shares the descriptor too.
    pub(super) fn release(&self) -> Result<(), Errno> {
        self.set(libc::F_UNLCK)
    }

    fn set(&self, kind: libc::c_int) -> Result<(), Errno> {
        let range = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: self.at,
            l_len: 1,
            l_pid: 0,
        };
        // Of the open file, not of the process: it goes with the descriptor, as flock(2) does.
        // SAFETY: reads `range`, and locks a file that is held.
        let set = unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) };
        Errno::result(set).map(drop)
    }
}

/// The machine's file, made if it is not there.
fn file() -> Result<File, Errno> {
    // Of linux/mount.h.
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    let none = std::ptr::null::<libc::c_char>();
    let held = |fd: libc::c_long| {
        // SAFETY: the kernel has just given the descriptor to us; nobody else knows of it.
        Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
    };
    // SAFETY: reads the name, and takes numbers.
    let context = held(unsafe { libc::syscall(libc::SYS_fsopen, c"devtmpfs".as_ptr(), FSOPEN_CLOEXEC) })?;
    let raw = context.as_raw_fd();
    // SAFETY: takes numbers, and no text for this command.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, raw, FSCONFIG_CMD_CREATE, none, none, 0) })?;
    // SAFETY: takes numbers only.
    let mount = held(unsafe { libc::syscall(libc::SYS_fsmount, raw, FSMOUNT_CLOEXEC, 0) })?;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
    nix::fcntl::openat(&mount, NAME, flags, mode).map(File::from)
}
