//! Ctrl-C: the first asks for an end with what there is, the second ends at once.

use crate::outcome;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Takes over SIGINT, SIGTERM and SIGHUP. For commands that look at [`interrupted`] while they run.
pub fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(outcome::INTERRUPTED.into());
        }
    })?;
    Ok(())
}

/// Whether an end was asked for.
#[inline]
pub fn interrupted() -> bool {
    ASKED.load(Ordering::Relaxed)
}
