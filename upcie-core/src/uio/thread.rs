//! Threads that signal an eventfd: one forwards the interrupt of uio_pci_generic, one notices that the function was taken.

use crate::{Error, Result, events::emit, irq::EventFd, pci::link_name, process::Worker};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Deadline for a thread's end. It ends quickly, unless the caller's "eventfd" is another file, which blocks.
const END: Duration = Duration::from_secs(5);

/// Interval between two looks at the function's driver.
const LOOK: Duration = Duration::from_millis(100);

/// A thread that signals an eventfd until it is dropped.
#[derive(Debug)]
pub(super) struct Signaller {
    stop: Arc<EventFd>,
    thread: Option<Worker>,
}

impl Signaller {
    /// Forwards each interrupt of `device` from `uio`, a `/dev/uioN`, to `to`, an eventfd.
    pub(super) fn interrupts(device: &str, uio: &Arc<File>, to: BorrowedFd<'_>) -> Result<Self> {
        let uio = uio.clone();
        Self::start("upcie-uio", device, to, move |to, stop| forward(&uio, to, stop))
    }

    /// Signals `to`, an eventfd, once the function at `path` is gone or has another driver than `driver`.
    pub(super) fn removal(
        device: &str,
        path: PathBuf,
        driver: Option<String>,
        to: BorrowedFd<'_>,
    ) -> Result<Self> {
        Self::start("upcie-removal", device, to, move |to, stop| {
            while !stop.wait(LOOK).map_err(io::Error::other)? {
                if is_taken(&path, driver.as_deref()) {
                    return signal(to);
                }
            }
            Ok(())
        })
    }

    fn start(
        name: &str,
        device: &str,
        to: BorrowedFd<'_>,
        work: impl FnOnce(&OwnedFd, &EventFd) -> io::Result<()> + Send + 'static,
    ) -> Result<Self> {
        let to = to.try_clone_to_owned();
        let to = to.map_err(|e| Error::os(device, "keeping the eventfd of its interrupt", e))?;
        let stop = Arc::new(EventFd::new()?);
        let (ends, for_log) = (stop.clone(), device.to_owned());
        let thread = Worker::start(name, move || {
            if let Err(error) = work(&to, &ends) {
                tracing::warn!(device = for_log, %error, "its interrupt is not forwarded any more");
            }
        });
        let thread = thread.map_err(|e| Error::os(device, "starting a thread for its interrupt", e))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

/// Returns whether the function at `path` is gone, or has another driver than `driver`.
fn is_taken(path: &Path, driver: Option<&str>) -> bool {
    // An error says nothing of the function: the next look may.
    link_name(&path.join("driver"))
        .is_ok_and(|now| now.as_deref() != driver || (now.is_none() && !path.exists()))
}

fn forward(mut uio: &File, to: &OwnedFd, stop: &EventFd) -> io::Result<()> {
    loop {
        let mut fds =
            [PollFd::new(uio.as_fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        if fds[1].any() != Some(false) {
            return Ok(());
        }
        // The number of interrupts since the last read; the first of them has masked the function. Reading gives EIO once
        // the driver has been unbound.
        let mut count = [0; 4];
        uio.read_exact(&mut count)?;
        signal(to)?;
    }
}

fn signal(to: &OwnedFd) -> io::Result<()> {
    match nix::unistd::write(to, &1_u64.to_ne_bytes()) {
        // The counter is at its maximum, which wakes its waiter, too.
        Ok(_) | Err(Errno::EAGAIN) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

impl Drop for Signaller {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSysfs;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn a_removal_and_another_driver_are_seen() {
        let sysfs = FakeSysfs::new("removal");
        let function = sysfs.add("0000:01:00.0", "0x010802\n", None, None);
        assert!(!is_taken(&function, None), "it has no driver, as before");
        assert!(is_taken(&function, Some("uio_pci_generic")), "unbound");
        symlink("../../../bus/pci/drivers/uio_pci_generic", function.join("driver")).unwrap();
        assert!(!is_taken(&function, Some("uio_pci_generic")));
        assert!(is_taken(&function, None), "a driver took it");
        assert!(is_taken(&function, Some("nvme")), "another driver took it");
        fs::remove_dir_all(&function).unwrap();
        assert!(is_taken(&function, None) && is_taken(&function, Some("uio_pci_generic")), "removed");
    }
}
