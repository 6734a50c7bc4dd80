//! Connections to a server's socket by its path, with the way out of each failure.

use super::{
    connection::is_busy,
    device::{DEADLINE, VfioUserDevice},
};
use crate::{
    Error, Result,
    deadline::Stopwatch,
    vfio_user::socket::{address, connect},
};
use nix::errno::Errno;
use std::{os::unix::fs::FileTypeExt, path::Path, thread, time::Duration};

/// Time in which the last client of a server may still be leaving, and the pause between two attempts.
const LEAVING: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(10);

impl VfioUserDevice {
    /// Connects to the server that listens at `path`. If it has a client already, tries again for 250 ms: that client may
    /// be leaving.
    ///
    /// # Errors
    /// The socket does not exist, nobody listens on it, the server has another client, or the listener is not a vfio-user
    /// server: each error says what to do.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self> {
        Self::connect_within(path, DEADLINE)
    }

    /// Connects as [`connect`](Self::connect) does, with a deadline for each of the server's answers (there 5 s).
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    pub fn connect_within(path: impl AsRef<Path>, deadline: Duration) -> Result<Self> {
        let path = path.as_ref();
        let device = format!("vfio-user:{}", path.display());
        let address = address(path).map_err(|reason| Error::unusable(device.clone(), reason))?;
        // A client that was killed counts as connected while a child process of it ends (`inspect`).
        let mut watch = Stopwatch::new();
        loop {
            let stream =
                connect(&address, deadline).map_err(|errno| refusal(path, &device, errno, deadline))?;
            match Self::with_deadline(stream, device.clone(), None, deadline) {
                Err(error) if is_busy(&error) && watch.waited() < LEAVING => thread::sleep(PAUSE),
                done => return done,
            }
        }
    }
}

/// Makes the error of a failed connection to `path`, with what to do.
fn refusal(path: &Path, device: &str, errno: Errno, after: Duration) -> Error {
    let not_found = |reason: &str| Error::not_found(device, reason);
    match errno {
        Errno::ENOENT => not_found("there is no such socket: start its server first"),
        Errno::ECONNREFUSED if !path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket()) => {
            not_found("the path is not a socket")
        }
        Errno::ECONNREFUSED => not_found("nobody listens on the socket any more: start its server again"),
        Errno::EAGAIN => Error::timeout(
            device,
            "connecting: its server accepts nobody, so it may be stopped or hung",
            after,
        ),
        Errno::EACCES => Error::os(device, "connecting (you need write permission on the socket)", errno),
        Errno::EPROTOTYPE => not_found("the socket is not a stream socket: not a vfio-user server's"),
        _ => Error::os(device, "connecting", errno),
    }
}
