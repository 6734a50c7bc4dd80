//! Reasons to end early: Ctrl-C (the first asks for an end with what there is, the second ends at once), and a kernel
//! or a vfio-user server that wants a device back.

use crate::{cli, outcome};
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};
use upcie_core::irq::wait_readable;
use upcie_nvme::Controller;

/// How long a server's answer may still take after the first: it may be stopped, or hang.
const HURRY: Duration = Duration::from_secs(1);

static ASKED: AtomicBool = AtomicBool::new(false);
/// The device that is wanted back.
static WANTED_BACK: OnceLock<String> = OnceLock::new();

/// Takes over SIGINT, SIGTERM and SIGHUP. For commands that look at [`interrupted`] while they run.
pub fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(outcome::INTERRUPTED.into());
        }
        upcie_core::deadline::hurry(HURRY);
    })?;
    Ok(())
}

/// Whether an end was asked for.
#[inline]
pub fn interrupted() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Asks for an end when the device is wanted back: its removal, the unbinding of its driver, or the end of its vfio-user
/// server waits for that.
pub fn watch(controller: &Controller) -> anyhow::Result<()> {
    let Some(fd) = controller.wanted_back_fd() else { return Ok(()) };
    let (fd, name) = (fd.try_clone_to_owned()?, controller.name().to_owned());
    thread::Builder::new().name("upcie-wanted".into()).spawn(move || {
        // Nobody else reads it, so only a failing poll(2) ends this without a request.
        if wait_readable(std::os::fd::AsFd::as_fd(&fd), Duration::MAX).unwrap_or(false) {
            let (who, why) = match name.starts_with("vfio-user:") {
                true => ("its server", "it is being stopped"),
                false => ("the kernel", "a removal, or an unbinding"),
            };
            cli::say(&format!("upcie: {who} wants {name} back ({why}): stopping"));
            let _ = WANTED_BACK.set(name);
            ASKED.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(())
}

/// The device that ended the run because it was wanted back.
pub fn wanted_back() -> Option<&'static str> {
    WANTED_BACK.get().map(String::as_str)
}
