//! The owner's side of a shared region.

use super::message::Description;
use crate::{
    Error, Result,
    deadline::Stopwatch,
    dma::Region,
    socket::{Fault, poll_for, send_some},
};
use nix::poll::{PollFd, PollFlags};
use std::{
    os::{fd::AsFd, unix::net::UnixStream},
    time::Duration,
};

/// The longest sleep between two looks at the time: an interval that is much longer counts as a stop of the process.
const NAP: Duration = Duration::from_millis(100);

const SENDING: &str = "sending a region to another process";

impl Region {
    /// Sends it to the process at the other end of `to`, which receives it with
    /// [`SharedRegion::import`](crate::share::SharedRegion::import): the descriptor of its file and the table of its
    /// device addresses. Closing `to` asks for the region back. The other process can keep the memory as long as it
    /// likes, but not the device.
    ///
    /// The region can be sent to several processes, over one connection each, and several regions over one connection.
    ///
    /// # Errors
    /// [`Failure::Unsupported`](crate::Failure::Unsupported) for memory that is not [shared](Self::is_shared), or in a device; [`Failure::Timeout`](crate::Failure::Timeout) when
    /// the other side does not receive the message within `timeout`, [`Failure::Gone`](crate::Failure::Gone) when it is gone. After an error in
    /// the middle of a message the connection is unusable.
    pub fn export(&self, to: &UnixStream, timeout: Duration) -> Result<()> {
        let device = self.space().device();
        let refuse =
            |reason: &str| Error::unsupported(device, "sharing a region with another process", reason);
        let memory = self.memory().ok_or_else(|| {
            refuse("it is memory of a device, which has no file of its own: copy it, or open the device in the other process")
        })?;
        if !memory.is_shared() {
            return Err(refuse(
                "its buffers give slices of their bytes, so nobody else may change them: make it with \
                 DmaSpace::allocate_shared",
            ));
        }
        if memory.is_dma_buf() {
            return Err(refuse("it is behind a dma-buf: send the descriptor from which it was imported"));
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
        // SAFETY: the memory is shared, so no reference to its bytes is formed. The module's docs say what a process may
        // do with the pages of a named file.
        let file = unsafe { memory.file() };
        let (mut patience, mut sent) = (Patience::new(timeout), 0);
        while sent < bytes.len() {
            // The descriptor goes with the first byte only.
            let fds = if sent == 0 { &[file][..] } else { &[] };
            sent += match send_some(to, &bytes[sent..], fds) {
                Ok(0) => {
                    patience
                        .wait(to, PollFlags::POLLOUT)
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

/// The time that a message may take, which does not run while the process is stopped.
pub(super) struct Patience {
    watch: Stopwatch<'static>,
    timeout: Duration,
}

impl Patience {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { watch: Stopwatch::new(), timeout }
    }

    /// Waits for `events`, a moment at most: the caller looks, and waits again.
    pub(super) fn wait(&mut self, socket: &UnixStream, events: PollFlags) -> Result<(), Fault> {
        let left = self.timeout.saturating_sub(self.watch.waited());
        if left.is_zero() {
            return Err(Fault::Late);
        }
        poll_for(&mut [PollFd::new(socket.as_fd(), events)], left.min(NAP)).map_err(Fault::Os)
    }
}

/// Converts a fault of the connection to an error.
pub(super) fn explain(fault: Fault, device: &str, operation: &str, after: Duration) -> Error {
    let (device, operation) = (device.to_owned(), operation.to_owned());
    match fault {
        Fault::Closed => Error::gone(device, format!("{operation} (which has closed the connection)")),
        Fault::Late => Error::timeout(device, operation, after),
        Fault::Garbage(reason) => Error::protocol(device, operation, reason),
        Fault::Os(errno) => Error::os(device, operation, errno),
    }
}
