//! The socket path that a server listens on.

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

/// How often a server without a client looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// The socket's own, before anybody else may have it.
const PRIVATE: u32 = 0o600;

/// Who may connect to a socket: whoever may write to its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Permission bits, whatever the umask.
    pub mode: u32,
    /// The user that the file is given to, if it is.
    pub uid: Option<u32>,
    /// The group that the file is given to, if it is.
    pub gid: Option<u32>,
}

impl Default for Access {
    /// The process's own user only: mode 0600.
    fn default() -> Self {
        Self { mode: PRIVATE, uid: None, gid: None }
    }
}

/// A listening socket at a path, removed when dropped.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file: a file that has taken its place since is not removed.
    file: Option<(u64, u64)>,
    owner: Owner,
}

impl Listener {
    /// Listens at `path`, for clients of the process's own user (mode 0600). A socket file whose server is gone is replaced.
    ///
    /// # Errors
    /// Another server listens there, the path is taken by something else or too long, or the system's.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        Self::bind_for(path, Access::default())
    }

    /// The same, for those that `access` lets in.
    ///
    /// # Errors
    /// As [`bind`](Self::bind); only root gives a file to another user.
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
            // The file itself, whatever the path leads to a moment later.
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

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next client, waited for until `stop`.
    pub(super) fn next(&self, stop: &AtomicBool) -> Result<Option<UnixStream>> {
        let fail = |e: io::Error| Error::os(self.path.display().to_string(), "waiting for a client", e);
        let mut short = false;
        while !stop.load(Ordering::Relaxed) {
            match self.accept() {
                Ok(stream) => return Ok(Some(stream)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    poll_for(&mut [self.poll_fd()], PATIENCE).map_err(|e| fail(e.into()))?;
                }
                Err(e) if transient(&e) => {}
                Err(e) if is_shortage(&e) => {
                    if !std::mem::replace(&mut short, true) {
                        tracing::warn!(path = %self.path.display(), error = %e, "a client has to wait until there is more");
                    }
                    // The client is still in line, so the socket would wake nobody but us.
                    poll_for(&mut [], PATIENCE).map_err(|e| fail(e.into()))?;
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
                tracing::warn!(path = %self.path.display(), %error, "removing the socket");
            }
        }
    }
}

/// A listening socket at `path` that is its user's alone; the inner error is the system's.
fn open(path: &Path) -> Result<std::result::Result<UnixListener, Errno>> {
    let address =
        address(path).map_err(|reason| Error::Unusable { device: path.display().to_string(), reason })?;
    let open = || {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        // The file that `bind` makes has the mode of its socket: nobody else connects before `admit` says who may.
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

/// The client's doing, not the listener's.
fn transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted)
}

/// Too little of what an open file takes, which others may give back.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

/// Removes a socket file that nobody listens on.
fn remove_stale(path: &Path) -> Result<()> {
    let device = path.display().to_string();
    let unusable = |reason: &str| Error::Unusable { device: device.clone(), reason: reason.into() };
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
        // Gone by itself.
        Err(Errno::ENOENT) => Ok(()),
        _ => Err(unusable("in use: another server listens there, end it or choose another path")),
    }
}
