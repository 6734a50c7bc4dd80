//! The interrupt of uio_pci_generic: a count to read, passed on to an eventfd by a thread.

use crate::{Error, Result, events::emit, irq::EventFd, process::Worker};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

/// How long the thread may take to end. It is quick, unless whoever gave the eventfd gave another file, which blocks.
const END: Duration = Duration::from_secs(5);

/// Passes each interrupt on until it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    stop: Arc<EventFd>,
    thread: Option<Worker>,
}

impl Relay {
    /// From `uio`, a `/dev/uioN`, to `to`, an eventfd, for `device`.
    pub(super) fn start(device: &str, uio: &Arc<File>, to: OwnedFd) -> Result<Self> {
        let stop = Arc::new(EventFd::new()?);
        let (ends, uio, device) = (stop.clone(), uio.clone(), device.to_owned());
        let failed = |e| Error::os(&device, "starting a thread for its interrupt", e);
        let name = device.clone();
        let work = move || {
            if let Err(error) = relay(&uio, &to, &ends) {
                tracing::warn!(device = name, %error, "its interrupt is of no more use");
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
        // How many there were since the last read; the function is masked since the first of them. EIO once the driver
        // has been unbound.
        let mut count = [0; 4];
        uio.read_exact(&mut count)?;
        match nix::unistd::write(to, &1_u64.to_ne_bytes()) {
            // At its maximum: whoever waits wakes all the same.
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Err(error) = self.stop.signal() {
            emit(move || tracing::warn!(%error, "the thread of an interrupt stays"));
            return;
        }
        if self.thread.take().is_some_and(|thread| !thread.join_within(END)) {
            emit(|| tracing::warn!("the thread of an interrupt does not end, and is left behind"));
        }
    }
}
