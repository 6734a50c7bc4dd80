//! The socket path on which a server listens.

use crate::{
    Error, Result,
    process::Owner,
    vfio_user::socket::{address, connect, poll_for},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags},
    sys::{
        socket::{AddressFamily, Backlog, SockFlag, SockType, bind, listen, socket},
        stat::{Mode, fchmod},
    },
};
use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Interval at which a server without a client checks whether it is to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Mode of a new socket, before its access is set.
const PRIVATE: u32 = 0o600;

/// Access to a socket: write permission on its file is needed to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Permission bits, independent of the umask.
    pub mode: u32,
    /// The new owner of the file, if any.
    pub uid: Option<u32>,
    /// The new group of the file, if any.
    pub gid: Option<u32>,
}

impl Default for Access {
    /// Allows the process's own user only: mode 0600.
    fn default() -> Self {
        Self { mode: PRIVATE, uid: None, gid: None }
    }
}

/// A listening socket at a path, removed when dropped.
///
/// ```no_run
/// use std::sync::atomic::AtomicBool;
/// use upcie_core::vfio_user::server::{Backend, Listener, Server};
///
/// fn serve(device: &mut dyn Backend, stop: &AtomicBool) -> upcie_core::Result<()> {
///     let listener = Listener::bind("/run/device.sock")?;
///     Server::new().serve(&listener, device, stop)
/// }
/// ```
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file: another file that has replaced it is not removed.
    file: Option<(u64, u64)>,
    owner: Owner,
}

impl Listener {
    /// Listens at `path` for clients of the process's own user (mode 0600). Replaces a socket file whose server is gone.
    ///
    /// # Errors
    /// Another server listens there, the path is too long or belongs to another file, or the system's errors.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        Self::bind_for(path, Access::default())
    }

    /// Listens at `path` for clients allowed by `access`.
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind); only root can give a file to another user.
    pub fn bind_for(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        let path = path.as_ref();
        let fail = |e: Errno| Error::os(path.display().to_string(), "listening there", e);
        let socket = match open(path)? {
            Err(Errno::EADDRINUSE) => {
                remove_stale(path)?;
                open(path)?
            }
            other => other,
        };
        let this = Self {
            socket: socket.map_err(fail)?,
            path: path.into(),
            file: identity(path),
            owner: Owner::current(),
        };
        this.admit(access)?;
        Ok(this)
    }

    /// Gives the socket file the owner and mode of `access`.
    fn admit(&self, access: Access) -> Result<()> {
        let name = || self.path.display().to_string();
        let fail = |operation: &'static str| move |e: io::Error| (operation, e);
        let set = || -> std::result::Result<(), (&'static str, io::Error)> {
            // Opens the file itself, so that a later change of the path has no effect.
            let file = fs::OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
                .open(&self.path)
                .map_err(fail("looking at the socket"))?;
            let metadata = file.metadata().map_err(fail("looking at the socket"))?;
            if Some((metadata.dev(), metadata.ino())) != self.file {
                return Err(("looking at the socket", io::Error::other("another file has taken its place")));
            }
            let link = format!("/proc/self/fd/{}", file.as_raw_fd());
            if access.uid.is_some() || access.gid.is_some() {
                std::os::unix::fs::chown(&link, access.uid, access.gid)
                    .map_err(fail("giving the socket to its owner (root may give it to anybody)"))?;
            }
            if metadata.mode() & 0o7777 != access.mode {
                fs::set_permissions(&link, fs::Permissions::from_mode(access.mode))
                    .map_err(fail("setting the socket's mode"))?;
            }
            Ok(())
        };
        set().map_err(|(operation, error)| Error::os(name(), operation, error))
    }

    /// Returns the socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the next client until `stop`.
    pub(super) fn next(&self, stop: &AtomicBool) -> Result<Option<UnixStream>> {
        let fail = |e: io::Error| Error::os(self.path.display().to_string(), "waiting for a client", e);
        let mut short = false;
        while !stop.load(Ordering::Relaxed) {
            match self.accept() {
                Ok(stream) => return Ok(Some(stream)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    poll_for(&mut [self.poll_fd()], POLL_INTERVAL).map_err(|e| fail(e.into()))?;
                }
                Err(e) if transient(&e) => {}
                Err(e) if is_shortage(&e) => {
                    if !std::mem::replace(&mut short, true) {
                        tracing::warn!(path = %self.path.display(), error = %e, "a client can't be accepted until the system has resources again");
                    }
                    // The client stays in the queue, so polling the socket would return at once.
                    poll_for(&mut [], POLL_INTERVAL).map_err(|e| fail(e.into()))?;
                }
                Err(e) => return Err(fail(e)),
            }
        }
        Ok(None)
    }

    /// A client that is there, without waiting.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().map(|(stream, _)| stream)
    }

    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.owner.is_current() && self.file.is_some() && identity(&self.path) == self.file {
            if let Err(error) = fs::remove_file(&self.path) {
                tracing::warn!(path = %self.path.display(), %error, "removing the socket failed");
            }
        }
    }
}

/// Makes a listening socket at `path` for its user alone; the inner error is the system's.
fn open(path: &Path) -> Result<std::result::Result<UnixListener, Errno>> {
    let address = address(path).map_err(|reason| Error::unusable(path.display().to_string(), reason))?;
    let open = || {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        // `bind` gives the file the mode of its socket, so nobody else can connect before `admit` sets the access.
        fchmod(&fd, Mode::from_bits_truncate(PRIVATE))?;
        bind(fd.as_raw_fd(), &address)?;
        listen(&fd, Backlog::MAXCONN)?;
        Ok(fd.into())
    };
    Ok(open())
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Returns whether the client caused the error, not the listener.
fn transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted)
}

/// Returns whether the system lacks a resource for an open file, which others may release.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

/// Removes a socket file without a listener.
fn remove_stale(path: &Path) -> Result<()> {
    let device = path.display().to_string();
    let unusable = |reason: &str| Error::unusable(device.clone(), reason);
    let before = identity(path);
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if !is_socket {
        return Err(unusable("something else than a socket is there: choose another path"));
    }
    let address = address(path).map_err(|reason| unusable(&reason))?;
    match connect(&address, Duration::from_secs(1)) {
        Err(Errno::ECONNREFUSED) if before == identity(path) => {
            fs::remove_file(path).map_err(|e| Error::os(&device, "removing a socket that nobody serves", e))
        }
        // The file was removed meanwhile.
        Err(Errno::ENOENT) => Ok(()),
        _ => Err(unusable("in use: another server listens there, end it or choose another path")),
    }
}
