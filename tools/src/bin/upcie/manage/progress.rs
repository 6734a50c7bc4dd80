//! Waits for something that a controller does by itself, with a progress bar.

use crate::signal;
use indicatif::{ProgressBar, ProgressStyle};
use std::{thread, time::Duration};

/// The time between two looks, at first and at most.
const FIRST: Duration = Duration::from_millis(20);
const MOST: Duration = Duration::from_secs(1);

/// Asks `done` for the share in percent until it is `None`, and shows it on stderr if that is a terminal. Returns `false` if
/// the user asks for an end first.
pub fn follow(
    what: &'static str,
    mut done: impl FnMut() -> anyhow::Result<Option<f64>>,
) -> anyhow::Result<bool> {
    let bar = ProgressBar::new(1000).with_prefix(what);
    if let Ok(style) = ProgressStyle::with_template("{prefix:>9} [{bar:30}] {percent:>3} %  {elapsed}") {
        bar.set_style(style.progress_chars("=> "));
    }
    let mut pause = FIRST;
    let ended = loop {
        if signal::interrupted() {
            break false;
        }
        let Some(percent) = done()? else { break true };
        bar.set_position((percent * 10.0) as u64);
        thread::sleep(pause);
        pause = (pause * 2).min(MOST);
    };
    bar.finish_and_clear();
    Ok(ended)
}
