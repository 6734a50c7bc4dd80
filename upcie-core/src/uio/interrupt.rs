//! The interrupt of uio_pci_generic: a thread reads its count and signals an eventfd.

use crate::{Error, Result, events::emit, irq::EventFd, process::Worker};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

/// Deadline for the thread's end. The thread ends quickly, unless the caller's "eventfd" is another file, which blocks.
const END: Duration = Duration::from_secs(5);

/// Forwards each interrupt until it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    stop: Arc<EventFd>,
    thread: Option<Worker>,
}

impl Relay {
    /// Forwards interrupts of `device` from `uio`, a `/dev/uioN`, to `to`, an eventfd.
    pub(super) fn start(device: &str, uio: &Arc<File>, to: OwnedFd) -> Result<Self> {
        let stop = Arc::new(EventFd::new()?);
        let (ends, uio, device) = (stop.clone(), uio.clone(), device.to_owned());
        let failed = |e| Error::os(&device, "starting a thread for its interrupt", e);
        let name = device.clone();
        let work = move || {
            if let Err(error) = relay(&uio, &to, &ends) {
                tracing::warn!(device = name, %error, "its interrupt is not forwarded any more");
            }
        };
        let thread = Worker::start("upcie-uio", work).map_err(failed)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

fn relay(mut uio: &File, to: &OwnedFd, stop: &EventFd) -> std::io::Result<()> {
    loop {
        let mut fds =
            [PollFd::new(uio.as_fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        if fds[1].any() != Some(false) {
            return Ok(());
        }
        // The number of interrupts since the last read; the first of them has masked the function. Reading gives EIO once
        // the driver has been unbound.
        let mut count = [0; 4];
        uio.read_exact(&mut count)?;
        match nix::unistd::write(to, &1_u64.to_ne_bytes()) {
            // The counter is at its maximum, which wakes its waiter, too.
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Err(error) = self.stop.signal() {
            emit(move || tracing::warn!(%error, "stopping the thread of an interrupt failed"));
            return;
        }
        if self.thread.take().is_some_and(|thread| !thread.join_within(END)) {
            emit(|| tracing::warn!("the thread of an interrupt did not end, and is left running"));
        }
    }
}
