//! The progress bar: on stderr, and on a terminal only.

use super::worker::Shared;
use crate::units;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    cell::Cell,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// How often it moves.
pub const INTERVAL: Duration = Duration::from_millis(100);
/// The rate and the latency shown are those of about this long.
const WINDOW: Duration = Duration::from_millis(500);

/// Shows how far a phase is, and its rate and latency of late.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    time: Option<Duration>,
    start: Instant,
    /// When the figures were taken last, and the counts then.
    last: Cell<(Instant, u64, u64)>,
}

impl Progress {
    /// Of a number of I/Os.
    pub fn counted(what: &'static str, count: u64) -> Self {
        Self::new(what, None, count)
    }

    /// Of a time.
    pub fn timed(what: &'static str, time: Duration) -> Self {
        Self::new(what, Some(time), time.as_millis() as u64)
    }

    fn new(what: &'static str, time: Option<Duration>, length: u64) -> Self {
        // Hidden by the library itself when stderr is no terminal.
        let bar = ProgressBar::new(length).with_prefix(what);
        if let Ok(style) = ProgressStyle::with_template("{prefix:>9} [{bar:30}] {percent:>3} %  {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        let start = Instant::now();
        Self { bar, time, start, last: Cell::new((start, 0, 0)) }
    }

    /// Brings it up to date.
    pub fn show(&self, shared: &Shared) {
        if self.bar.is_hidden() {
            return;
        }
        let sum = |field: fn(&super::worker::Live) -> u64| shared.live.iter().map(field).sum::<u64>();
        let done = sum(|live| live.done.load(Ordering::Relaxed));
        let latency = sum(|live| live.latency_ns.load(Ordering::Relaxed));
        let errors = sum(|live| live.errors.load(Ordering::Relaxed));
        self.bar.set_position(match self.time {
            Some(time) => self.start.elapsed().min(time).as_millis() as u64,
            None => done + errors,
        });
        let (then, done_then, latency_then) = self.last.get();
        let elapsed = then.elapsed();
        if elapsed < WINDOW {
            return;
        }
        self.last.set((Instant::now(), done, latency));
        let count = done.saturating_sub(done_then);
        let rate = units::count(count as f64 / elapsed.as_secs_f64());
        let mean = match count {
            0 => "-".into(),
            count => units::nanos(latency.saturating_sub(latency_then) as f64 / count as f64),
        };
        let errors = if errors > 0 { format!("  {errors} errors") } else { String::new() };
        self.bar.set_message(format!("{rate} IOPS  {mean}{errors}"));
    }

    /// Takes it away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
