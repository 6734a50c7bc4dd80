//! The owner's side.

use super::message::Description;
use crate::{
    Error, Result,
    dma::Region,
    socket::{Fault, poll_for, send_some},
};
use nix::poll::{PollFd, PollFlags};
use std::{
    os::{fd::AsFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

/// The longest deadline there is: later ones are the same, and no instant.
const LATEST: Duration = Duration::from_secs(1 << 31);

const SENDING: &str = "sending a region to another process";

impl Region {
    /// Sends it to the process at the other end of `to`, which takes it by
    /// [`SharedRegion::import`](crate::share::SharedRegion::import): the descriptor of its file and the table of its device
    /// addresses. Closing `to` takes it back, as far as the other process agrees to that; the other one holds on to the
    /// memory as long as it likes, but not to the device.
    ///
    /// The region can be sent to several processes, over a connection each, and several regions over one connection.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for memory that is not [shared](Self::is_shared), or in a device; [`Error::Timeout`] when the
    /// other side does not take the message within `timeout`, [`Error::Gone`] when it is gone. After an error in the midst of
    /// a message the connection is of no more use.
    pub fn export(&self, to: &UnixStream, timeout: Duration) -> Result<()> {
        let device = self.space().device();
        let refuse = |reason: &str| Error::Unsupported {
            device: device.into(),
            what: "sharing a region with another process".into(),
            reason: reason.into(),
        };
        let memory = self.memory().ok_or_else(|| {
            refuse("it is memory of a device, which has no file of its own: copy, or open the device there")
        })?;
        if !memory.is_shared() {
            return Err(refuse(
                "its buffers deref to their bytes, which nobody else may change then: make it with \
                 DmaSpace::allocate_shared",
            ));
        }
        if memory.is_dma_buf() {
            return Err(refuse("it is behind a dma-buf, whose descriptor its importer has: send that"));
        }
        let message = Description {
            id: self.id(),
            len: self.len(),
            page: memory.page_size(),
            physical: self.space().is_physical(),
            addresses: self.addresses().clone(),
            device: device.into(),
        };
        let bytes = message.encode().ok_or_else(|| refuse("it has too many pages: use larger ones"))?;
        // SAFETY: it is shared memory, to whose bytes no reference is formed. What a process does with the pages of a named file
        // is between it and the owner (see the module).
        let file = unsafe { memory.file() };
        let (end, mut sent) = (deadline(timeout), 0);
        while sent < bytes.len() {
            // Beside the first byte, and only there.
            let fds = if sent == 0 { &[file][..] } else { &[] };
            sent += match send_some(to, &bytes[sent..], fds) {
                Ok(0) => {
                    wait(to, PollFlags::POLLOUT, end)
                        .map_err(|fault| explain(fault, device, SENDING, timeout))?;
                    0
                }
                Ok(more) => more,
                Err(fault) => return Err(explain(fault, device, SENDING, timeout)),
            };
        }
        Ok(())
    }
}

/// When `timeout` is over.
pub(super) fn deadline(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(LATEST)
}

/// Waits for `events`, until `end`.
pub(super) fn wait(socket: &UnixStream, events: PollFlags, end: Instant) -> Result<(), Fault> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Fault::Late);
    }
    poll_for(&mut [PollFd::new(socket.as_fd(), events)], left).map_err(Fault::Os)
}

/// A fault of the connection as an error.
pub(super) fn explain(fault: Fault, device: &str, operation: &str, after: Duration) -> Error {
    let (device, operation) = (device.to_owned(), operation.to_owned());
    match fault {
        Fault::Closed => {
            Error::Gone { device, operation: format!("{operation} (which has closed the connection)") }
        }
        Fault::Late => Error::Timeout { device, operation, after },
        Fault::Garbage(reason) => Error::Protocol { device, operation, reason: reason.into() },
        Fault::Os(errno) => Error::os(device, operation, errno),
    }
}
