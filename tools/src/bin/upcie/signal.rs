//! Requests to end early. The first Ctrl-C asks for an orderly end, the second ends at once. A kernel or a
//! vfio-user server may want a device back.

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

/// Deadline of a vfio-user server's answers after the first Ctrl-C: the server may be stopped or hang.
const HURRY: Duration = Duration::from_secs(1);

static STOP_REQUESTED: AtomicBool = AtomicBool::new(false);
static WAITS: AtomicBool = AtomicBool::new(false);
/// Name of the device that is wanted back.
static WANTED_BACK: OnceLock<String> = OnceLock::new();

/// Installs the handler of SIGINT, SIGTERM and SIGHUP, for commands that check [`interrupted`] while they
/// run.
pub fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if STOP_REQUESTED.swap(true, Ordering::Relaxed) {
            std::process::exit(outcome::INTERRUPTED.into());
        }
        upcie_core::deadline::hurry(HURRY);
        if WAITS.load(Ordering::Relaxed) {
            cli::message(
                "upcie: waiting for the command that the device has; Ctrl-C again ends this program at once",
            );
        }
    })?;
    Ok(())
}

/// Returns true if an end was asked for.
#[inline]
pub fn interrupted() -> bool {
    STOP_REQUESTED.load(Ordering::Relaxed)
}

/// Ends a verb between two commands if an end was asked for; `state` says what was done so far.
///
/// # Errors
/// An end was asked for.
pub fn check(state: &str) -> anyhow::Result<()> {
    anyhow::ensure!(!interrupted(), "interrupted: {state}");
    Ok(())
}

/// Says at the first Ctrl-C that the program waits for the command that the controller has: for verbs that are one command.
pub fn say_that_it_waits() {
    WAITS.store(true, Ordering::Relaxed);
}

/// Asks for an end when the device is wanted back. Its removal, the unbinding of its driver, and the end of
/// its vfio-user server all wait for this program to close it.
pub fn watch(controller: &Controller) -> anyhow::Result<()> {
    let Some(fd) = controller.wanted_back_fd() else { return Ok(()) };
    let (fd, name) = (fd.try_clone_to_owned()?, controller.name().to_owned());
    let reason = controller.wanted_back_reason();
    thread::Builder::new().name("upcie-wanted".into()).spawn(move || {
        // Only this thread reads the descriptor, so only a failing poll(2) ends the wait without a request.
        if wait_readable(std::os::fd::AsFd::as_fd(&fd), Duration::MAX).unwrap_or(false) {
            cli::message(&format!("upcie: {reason}: stopping"));
            let _ = WANTED_BACK.set(name);
            STOP_REQUESTED.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(())
}

/// Returns the device that was wanted back, if one ended the run.
pub fn wanted_back() -> Option<&'static str> {
    WANTED_BACK.get().map(String::as_str)
}
