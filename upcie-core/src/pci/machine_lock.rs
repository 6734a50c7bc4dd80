//! A lock that the containers of a machine share.
//!
//! A container can have its own sysfs (one per network namespace), /dev and hugetlbfs mounts, so a lock on a file in
//! these is seen only inside. The kernel has one devtmpfs, whoever mounts it. Here it is mounted without a place in the
//! directory tree (fsmount(2)), which needs CAP_SYS_ADMIN, as reading physical addresses does.

use super::Bdf;
use nix::{errno::Errno, fcntl::OFlag};
use std::{
    fs::File,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// The lock's file, which is never removed: an empty one in devtmpfs, mode 0600. Each function has one byte of it.
const NAME: &std::ffi::CStr = c"upcie.lock";

/// A function's byte of the file, locked until it is [released](Self::release), or all holders of the descriptor have
/// closed it.
#[derive(Debug)]
pub(super) struct MachineLock {
    file: File,
    at: i64,
}

impl MachineLock {
    /// Locks the byte of `bdf`. Returns [`Errno::EAGAIN`] when another process holds it, and other errors when the lock
    /// is not available: no devtmpfs, no right to mount it, or a kernel older than 5.2.
    pub(super) fn take(bdf: Bdf) -> Result<Self, Errno> {
        let number = i64::from(bdf.domain) << 16
            | i64::from(bdf.bus) << 8
            | i64::from(bdf.device) << 3
            | i64::from(bdf.function);
        let lock = Self { file: file()?, at: number };
        lock.set(libc::F_WRLCK)?;
        Ok(lock)
    }

    /// Releases the lock, also for other holders of the descriptor.
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
        // The lock belongs to the open file, not to the process, so it lasts as long as the descriptor, as with flock(2).
        // SAFETY: the call reads `range`, and locks a file that is open.
        let set = unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) };
        Errno::result(set).map(drop)
    }
}

/// Opens the machine's file, and makes it if it does not exist.
fn file() -> Result<File, Errno> {
    // Constants of linux/mount.h.
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    let none = std::ptr::null::<libc::c_char>();
    let held = |fd: libc::c_long| {
        // SAFETY: the kernel has just returned the new descriptor, and nobody else uses it.
        Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
    };
    // SAFETY: the call reads the name, and takes numbers.
    let context = held(unsafe { libc::syscall(libc::SYS_fsopen, c"devtmpfs".as_ptr(), FSOPEN_CLOEXEC) })?;
    let raw = context.as_raw_fd();
    // SAFETY: the call takes numbers, and no text for this command.
    Errno::result(unsafe { libc::syscall(libc::SYS_fsconfig, raw, FSCONFIG_CMD_CREATE, none, none, 0) })?;
    // SAFETY: the call takes numbers only.
    let mount = held(unsafe { libc::syscall(libc::SYS_fsmount, raw, FSMOUNT_CLOEXEC, 0) })?;
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mode = nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR;
    nix::fcntl::openat(&mount, NAME, flags, mode).map(File::from)
}
