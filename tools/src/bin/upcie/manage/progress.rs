//! Waits for something that a controller does by itself, with a progress bar.

use crate::signal;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    panic::resume_unwind,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

/// The time between two looks, at first and at most.
const FIRST: Duration = Duration::from_millis(20);
const MOST: Duration = Duration::from_secs(1);

/// Positions of a bar for each percent.
const SCALE: f64 = 10.0;

fn bar(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(1000).with_prefix(what);
    if let Ok(style) = ProgressStyle::with_template("{prefix:>9} [{bar:30}] {percent:>3} %  {elapsed}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Asks `done` for the share in percent until it is `None`, and shows it on stderr if that is a terminal. Returns `false` if
/// the user asks for an end first.
pub fn follow(
    what: &'static str,
    mut done: impl FnMut() -> anyhow::Result<Option<f64>>,
) -> anyhow::Result<bool> {
    let bar = bar(what);
    let mut pause = FIRST;
    let ended = loop {
        if signal::interrupted() {
            break false;
        }
        let Some(percent) = done()? else { break true };
        bar.set_position((percent * SCALE) as u64);
        thread::sleep(pause);
        pause = (pause * 2).min(MOST);
    };
    bar.finish_and_clear();
    Ok(ended)
}

/// Runs `work`, a command that ends when the controller is done. Meanwhile asks `done` for the share in percent, and shows it on
/// stderr if that is a terminal; nobody is asked otherwise.
pub fn beside<T: Send>(
    what: &'static str,
    work: impl FnOnce() -> T + Send,
    mut done: impl FnMut() -> Option<f64>,
) -> T {
    let bar = bar(what);
    let (end, ended) = mpsc::channel::<()>();
    let result = thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let result = work();
            // The other end wakes.
            drop(end);
            result
        });
        let mut pause = FIRST;
        while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            if let Some(percent) = (!bar.is_hidden()).then(&mut done).flatten() {
                bar.set_position((percent * SCALE) as u64);
            }
            pause = (pause * 2).min(MOST);
        }
        worker.join()
    });
    bar.finish_and_clear();
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_the_work_is_returned() {
        assert_eq!(beside("work", || 7, || None), 7);
        let (sender, receiver) = mpsc::channel();
        let work = move || receiver.recv();
        // The work ends while it is watched.
        let helper = thread::spawn(move || sender.send(8));
        assert_eq!(beside("work", work, || Some(50.0)), Ok(8));
        helper.join().unwrap().unwrap();
    }
}
