//! The socket path that a server listens on.

use super::{
    socket::{Channel, HEADERS, message, poll_for},
    wire::{Header, command, flags},
};
use crate::{Error, Result, process::Owner};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags},
};
use std::{
    fs, io,
    os::{
        fd::AsFd,
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// How often a server without a client looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(50);
/// Clients that are told to come back later, at a time.
const MAX_TURNED_AWAY: usize = 8;

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
    /// Listens at `path`. A socket file whose server is gone is replaced.
    ///
    /// # Errors
    /// Another server listens there, the path is taken by something else, or the system's.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = || path.display().to_string();
        let socket = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path)?;
                UnixListener::bind(path)
            }
            other => other,
        };
        let socket = socket.map_err(|e| Error::os(name(), "listening there", e))?;
        socket.set_nonblocking(true).map_err(|e| Error::os(name(), "listening there", e))?;
        Ok(Self { socket, path: path.into(), file: identity(path), owner: Owner::current() })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next client, waited for until `stop`.
    pub(super) fn next(&self, stop: &AtomicBool) -> Result<Option<UnixStream>> {
        let fail = |e: io::Error| Error::os(self.path.display().to_string(), "waiting for a client", e);
        while !stop.load(Ordering::Relaxed) {
            match self.socket.accept() {
                Ok((stream, _)) => return Ok(Some(stream)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    poll_for(&mut [self.poll_fd()], PATIENCE).map_err(|e| fail(e.into()))?;
                }
                Err(e) if transient(&e) => {}
                Err(e) => return Err(fail(e)),
            }
        }
        Ok(None)
    }

    fn poll_fd(&self) -> PollFd<'_> {
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

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// The client's doing, not the listener's.
fn transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted)
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
    match super::client::connect(path, Duration::from_secs(1)) {
        Err(Errno::ECONNREFUSED) if before == identity(path) => {
            fs::remove_file(path).map_err(|e| Error::os(&device, "removing a socket that nobody serves", e))
        }
        // Gone by itself.
        Err(Errno::ENOENT) => Ok(()),
        _ => Err(unusable("in use: another server listens there, end it or choose another path")),
    }
}

/// What happens at the listener while a client is served.
#[derive(Debug)]
pub struct Door<'a> {
    listener: Option<&'a Listener>,
    turned_away: Vec<(Channel, Instant)>,
    deadline: Duration,
    /// Looks until the next one at the listener.
    rest: u32,
}

/// Looks at the client's socket for one at the listener.
const LOOKS: u32 = 16;

impl<'a> Door<'a> {
    /// There is no listener.
    pub fn closed() -> Self {
        Self { listener: None, turned_away: Vec::new(), deadline: Duration::ZERO, rest: 0 }
    }

    /// Others knock at `listener`.
    pub fn open(listener: &'a Listener, deadline: Duration) -> Self {
        Self { listener: Some(listener), deadline, ..Self::closed() }
    }

    /// What to wake up for.
    pub fn poll_fds<'b>(&'b self, fds: &mut Vec<PollFd<'b>>) {
        fds.extend(self.listener.map(Listener::poll_fd));
        fds.extend(self.turned_away.iter().map(|(channel, _)| channel.poll_fd()));
    }

    /// Tells whoever came that the device is busy: in answer to their VERSION, whose id the answer needs. When `client`,
    /// who is served, has left, they are not second but next, and wait for the listener.
    pub fn look(&mut self, client: PollFd<'_>) {
        let Some(listener) = self.listener else { return };
        if self.rest > 0 {
            self.rest -= 1;
            return;
        }
        self.rest = LOOKS;
        let mut fds = [listener.poll_fd(), client];
        // An error: nobody is told now, which the next look makes up for.
        let looked = poll_for(&mut fds, Duration::ZERO);
        let [came, left] = [(0, PollFlags::POLLIN), (1, PollFlags::POLLHUP)].map(|(fd, event)| {
            looked.is_ok() && fds[fd].revents().is_some_and(|found| found.contains(event))
        });
        if came && !left {
            if let Ok((stream, _)) = listener.socket.accept() {
                if self.turned_away.len() < MAX_TURNED_AWAY {
                    self.turned_away.push((Channel::new(stream, 4096 + HEADERS), Instant::now()));
                }
            }
        }
        let deadline = self.deadline;
        self.turned_away.retain_mut(|(channel, since)| match channel.try_recv() {
            Ok(None) => since.elapsed() < deadline,
            Ok(Some(request)) => {
                tracing::info!(
                    command = command::name(request.header.command),
                    "told a second client to wait"
                );
                let flags = flags::REPLY | flags::ERROR;
                let header = Header { flags, error: Errno::EBUSY as u32, ..request.header };
                // Whether it arrives is its own affair.
                let _ = channel.send(message(header, &[]), &[]);
                false
            }
            Err(_) => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_when_the_client_has_left_is_next_and_not_turned_away() {
        let path = std::env::temp_dir().join(format!("upcie-next-{}", std::process::id()));
        let listener = Listener::bind(&path).unwrap();
        let mut door = Door::open(&listener, Duration::from_secs(5));
        let (client, served) = UnixStream::pair().unwrap();
        // Not each look is at the listener.
        let mut look = || (0..=LOOKS).for_each(|_| door.look(PollFd::new(served.as_fd(), PollFlags::POLLIN)));
        let _second = UnixStream::connect(&path).unwrap();
        look();
        assert!(listener.socket.accept().is_err(), "taken, and to be told");
        drop(client);
        let _next = UnixStream::connect(&path).unwrap();
        look();
        assert!(listener.socket.accept().is_ok(), "still there");
    }
}
