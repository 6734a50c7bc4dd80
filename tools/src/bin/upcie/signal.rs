//! Reasons to end early: Ctrl-C (the first asks for an end with what there is, the second ends at once), and a kernel
//! that wants a device back.

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
/// The device that the kernel wants back.
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

/// Asks for an end when the kernel wants the device back: its removal, or the unbinding of its driver, waits for that.
pub fn watch(controller: &Controller) -> anyhow::Result<()> {
    let Some(fd) = controller.wanted_back_fd() else { return Ok(()) };
    let (fd, name) = (fd.try_clone_to_owned()?, controller.name().to_owned());
    thread::Builder::new().name("upcie-wanted".into()).spawn(move || {
        // Nobody else reads it, so only a failing poll(2) ends this without a request.
        if wait_readable(std::os::fd::AsFd::as_fd(&fd), Duration::MAX).unwrap_or(false) {
            cli::say(&format!("upcie: the kernel wants {name} back (a removal, or an unbinding): stopping"));
            let _ = WANTED_BACK.set(name);
            ASKED.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(())
}

/// The device that ended the run because the kernel wanted it back.
pub fn wanted_back() -> Option<&'static str> {
    WANTED_BACK.get().map(String::as_str)
}
