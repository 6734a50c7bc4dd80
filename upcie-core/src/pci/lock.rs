//! A lock for functions that the kernel does not give to one user only.

use super::{Bdf, machine_lock::MachineLock};
use crate::{Error, Result, events::emit, process::Owner};
use nix::errno::Errno;
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::Path,
};

/// A lock on a PCI function, taken by uPCIe's transports without VFIO before they access a function. It is advisory.
///
/// It lasts until it is dropped or the process has ended, even by a signal; a drop in a forked child does not release it.
/// It consists of two locks. The first is flock(2) on the function's `config` file in sysfs, which shows the holder. The
/// second is a byte of the file `upcie.lock` in devtmpfs, which all containers of the machine share, while a sysfs is
/// shared only within a network namespace. The second needs CAP_SYS_ADMIN and Linux 5.2. Without it a warning is logged,
/// and a user in another network namespace is not detected.
///
/// The `config` file is open for writing, so the lock does not give it out:
/// ```compile_fail
/// use std::os::fd::{AsFd, BorrowedFd};
/// fn file(lock: &upcie_core::pci::FunctionLock) -> BorrowedFd<'_> { lock.as_fd() }
/// ```
#[derive(Debug)]
#[must_use = "the function is unlocked when it is dropped"]
pub struct FunctionLock {
    config: File,
    /// `None` if the system has no such lock.
    machine: Option<MachineLock>,
    owner: Owner,
}

impl FunctionLock {
    /// Locks the function at `bdf`.
    ///
    /// # Errors
    /// [`Failure::NotFound`](crate::Failure::NotFound) when the function does not exist, [`Failure::Unusable`](crate::Failure::Unusable) when it is locked: the message names the
    /// holder if the kernel shows it. [`Failure::Os`](crate::Failure::Os) when its configuration space can't be opened for reading and writing.
    pub fn take(bdf: Bdf) -> Result<Self> {
        let directory = format!("/sys/bus/pci/devices/{bdf}");
        if !Path::new(&directory).exists() {
            return Err(Error::not_found(
                bdf.to_string(),
                format!("there is no {directory}; see `upcie list --all`, or echo 1 > /sys/bus/pci/rescan"),
            ));
        }
        Self::take_file(bdf, &Path::new(&directory).join("config"))
    }

    fn take_file(bdf: Bdf, path: &Path) -> Result<Self> {
        let device = bdf.to_string();
        let config = OpenOptions::new().read(true).write(true).open(path).map_err(|e| {
            let way_out = match e.kind() {
                io::ErrorKind::PermissionDenied => " to read and write (only root may, or the file's owner)",
                _ => "",
            };
            Error::os(&device, format!("opening {}{way_out}", path.display()), e)
        })?;
        loop {
            // SAFETY: a system call on a descriptor that is open.
            let locked = unsafe { libc::flock(config.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
            match Errno::result(locked) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(Errno::EWOULDBLOCK) => {
                    let reason = busy(holder(&config, Path::new("/proc/locks")));
                    return Err(Error::unusable(device, reason));
                }
                Err(e) => return Err(Error::os(device, format!("locking {}", path.display()), e)),
            }
        }
        let machine = match MachineLock::take(bdf) {
            Ok(lock) => Some(lock),
            // The first lock has shown that no process in this network namespace is the holder.
            Err(Errno::EAGAIN | Errno::EACCES) => return Err(Error::unusable(device, busy(None))),
            Err(error) => {
                tracing::warn!(device, %error, "locking it for other containers failed: make sure that none of them drives it too");
                None
            }
        };
        Ok(Self { config, machine, owner: Owner::current() })
    }
}

impl Drop for FunctionLock {
    fn drop(&mut self) {
        // A forked child shares the lock, and only closes its descriptor.
        if self.owner.is_current() {
            // SAFETY: a system call on a descriptor that is open.
            let unlocked = unsafe { libc::flock(self.config.as_raw_fd(), libc::LOCK_UN) };
            if let Err(error) = Errno::result(unlocked) {
                let config = format!("{:?}", self.config);
                emit(move || tracing::warn!(config, %error, "unlocking failed"));
            }
            if let Some(Err(error)) = self.machine.as_ref().map(MachineLock::release) {
                let machine = format!("{:?}", self.machine);
                emit(move || tracing::warn!(machine, %error, "unlocking failed"));
            }
        }
    }
}

fn busy(holder: Option<u32>) -> String {
    match holder {
        Some(id) if id == std::process::id() => "it is in use by this process; close it first".into(),
        Some(id) if !Path::new("/proc").join(id.to_string()).exists() => {
            format!("it is in use, held by a child of process {id}, which has ended; end that first")
        }
        Some(id) => format!("it is in use, held by process {id}; end it first"),
        None => "it is in use, held by a process that this one can't see (another container?); end it first"
            .into(),
    }
}

/// Returns the process that holds the lock on `file`, from /proc/locks (proc_locks(5)): kind, mode, process,
/// `major:minor:inode` with the device in hexadecimal.
fn holder(file: &File, locks: &Path) -> Option<u32> {
    let data = file.metadata().ok()?;
    let (device, inode) = (data.dev(), data.ino());
    let (major, minor) = (libc::major(device), libc::minor(device));
    fs::read_to_string(locks).ok()?.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        // A waiting process has an arrow before the kind, so its line does not match.
        let [_, "FLOCK", _, _, process, place, ..] = words[..] else { return None };
        let mut parts = place.split(':');
        let on_device = u32::from_str_radix(parts.next()?, 16).ok()? == major
            && u32::from_str_radix(parts.next()?, 16).ok()? == minor;
        (on_device && parts.next()?.parse() == Ok(inode)).then(|| process.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("upcie-lock-{name}-{}", std::process::id()));
        fs::write(&path, "").unwrap();
        path
    }

    /// Returns an address that no machine has, for one test.
    fn function(number: u8) -> Bdf {
        Bdf { domain: 0xfffe, bus: number, device: 31, function: 7 }
    }

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder() {
        let path = file("second");
        let first = FunctionLock::take_file(function(0), &path).unwrap();
        let flags = nix::fcntl::fcntl(&first.config, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, libc::FD_CLOEXEC);
        let error = FunctionLock::take_file(function(0), &path).unwrap_err();
        assert!(matches!(error.failure(), crate::Failure::Unusable { .. }), "{error}");
        assert!(error.to_string().contains("this process"), "{error}");
        assert_eq!(holder(&first.config, Path::new("/proc/locks")), Some(std::process::id()));
        drop(first);
        drop(FunctionLock::take_file(function(0), &path).expect("released"));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_drop_in_a_forked_child_keeps_the_lock() {
        let path = file("fork");
        let lock = FunctionLock::take_file(function(1), &path).unwrap();
        // SAFETY: the child only drops its handle and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop(lock);
            // SAFETY: exits the child without the parent's exit handlers.
            unsafe { libc::_exit(0) };
        }
        let mut status = -1;
        // SAFETY: waits for the child process made here.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        FunctionLock::take_file(function(1), &path).unwrap_err();
        drop(lock);
        fs::remove_file(path).unwrap();
    }

    /// Soundness R2: each of two containers has its own sysfs, so that their locks on `config` are on two files.
    #[test]
    fn another_container_is_locked_out() {
        let (mine, theirs) = (file("mine"), file("theirs"));
        let lock = FunctionLock::take_file(function(2), &mine).unwrap();
        if lock.machine.is_none() {
            println!("skipped: this user may not mount devtmpfs, or the kernel has none");
            return;
        }
        let error = FunctionLock::take_file(function(2), &theirs).unwrap_err();
        assert!(error.to_string().contains("another container"), "{error}");
        drop(FunctionLock::take_file(function(3), &theirs).expect("another function"));
        drop(lock);
        let lock = FunctionLock::take_file(function(2), &theirs).expect("released");
        // A forgotten lock is held until the process ends.
        std::mem::forget(lock);
        FunctionLock::take_file(function(2), &mine).unwrap_err();
        FunctionLock::take_file(function(2), &theirs).unwrap_err();
        fs::remove_file(mine).unwrap();
        fs::remove_file(theirs).unwrap();
    }

    #[test]
    fn only_the_holder_of_the_same_file_is_named() {
        let path = file("told");
        let held = File::open(&path).unwrap();
        let data = held.metadata().unwrap();
        let place =
            |inode: u64| format!("{:02x}:{:02x}:{inode}", libc::major(data.dev()), libc::minor(data.dev()));
        let list = path.with_extension("list");
        let other = format!("1: FLOCK  ADVISORY  WRITE 11 {} 0 EOF\n", place(data.ino() + 1));
        let waiting = format!("2: -> FLOCK  ADVISORY  WRITE 12 {} 0 EOF\n", place(data.ino()));
        let posix = format!("3: POSIX  ADVISORY  WRITE 13 {} 0 EOF\n", place(data.ino()));
        fs::write(&list, [&*other, &waiting, &posix, "garbage\n"].concat()).unwrap();
        assert_eq!(holder(&held, &list), None);
        let ours = format!("4: FLOCK  ADVISORY  WRITE 14 {} 0 EOF\n", place(data.ino()));
        fs::write(&list, [other, waiting, posix, ours].concat()).unwrap();
        assert_eq!(holder(&held, &list), Some(14));
        fs::remove_file(path).unwrap();
        fs::remove_file(list).unwrap();
    }

    #[test]
    fn each_kind_of_holder_has_its_message() {
        assert!(busy(None).contains("can't see"));
        assert!(busy(Some(1)).contains("held by process 1; end it first"));
        assert!(busy(Some(u32::MAX)).contains("a child of process"));
    }

    #[test]
    fn an_absent_function_is_not_found() {
        let error = FunctionLock::take("fffe:ff:1f.7".parse().unwrap()).unwrap_err();
        assert!(matches!(error.failure(), crate::Failure::NotFound { .. }), "{error}");
    }
}
