//! The progress bar: on stderr, and on a terminal only.

use super::{series::Interval, shared::Shared, tally::Tally};
use crate::{cli, units};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The rate and the latency shown are those of about this long.
const WINDOW: u64 = 500_000_000;
/// The bar's width.
const BAR: u64 = 30;

/// A bar of a line's length at most: what does not fit into the terminal is cut off by the library, so that it comes last.
fn bar(position: u64, length: u64) -> String {
    let done = (u128::from(position.min(length)) * u128::from(BAR) / u128::from(length.max(1))) as usize;
    format!("[{:<width$}]", format!("{}>", "=".repeat(done)), width = BAR as usize + 1)
}

/// Shows how far a phase is, and its rate and latency of late.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    time: Option<Duration>,
    length: u64,
    /// The rate and the latency of late.
    rate: String,
    start: Instant,
    done: u64,
    errors: u64,
    /// The last intervals: length, I/Os, and the sum of their latencies.
    last: VecDeque<(u64, u64, f64)>,
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
        if let Ok(style) = ProgressStyle::with_template("{prefix:>10} {percent:>3} %  {wide_msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            time,
            length,
            rate: String::new(),
            start: Instant::now(),
            done: 0,
            errors: 0,
            last: VecDeque::new(),
        }
    }

    /// Shows nothing from here on.
    pub fn hide(&mut self) {
        self.bar.finish_and_clear();
        self.bar = ProgressBar::hidden();
    }

    /// Takes an interval into account.
    pub fn add(&mut self, interval: &Interval, tally: &Tally) {
        if self.bar.is_hidden() {
            return;
        }
        self.done += interval.ios;
        self.errors += interval.errors;
        let sum: f64 = tally.latency.iter().map(|latency| latency.mean() * latency.len() as f64).sum();
        self.last.push_back((interval.end_ns - interval.start_ns, interval.ios, sum));
        let length = |last: &VecDeque<(u64, u64, f64)>| last.iter().map(|(length, ..)| length).sum::<u64>();
        while self.last.len() > 1 && length(&self.last) > WINDOW {
            self.last.pop_front();
        }
        let ios: u64 = self.last.iter().map(|(_, ios, _)| ios).sum();
        let rate = units::count(ios as f64 * 1e9 / length(&self.last).max(1) as f64);
        let mean = match ios {
            0 => "-".into(),
            ios => units::nanos(self.last.iter().map(|(_, _, sum)| sum).sum::<f64>() / ios as f64),
        };
        let errors = if self.errors > 0 { format!("  {} errors", self.errors) } else { String::new() };
        self.rate = format!("{rate} IOPS  {mean}{errors}");
    }

    /// Moves it.
    pub fn show(&self, _: &Shared<'_>) {
        if self.bar.is_hidden() {
            return;
        }
        let position = match self.time {
            Some(time) => self.start.elapsed().min(time).as_millis() as u64,
            None => self.done + self.errors,
        };
        self.bar.set_message(format!("{:<24} {}", self.rate, bar(position, self.length)));
        self.bar.set_position(position);
    }

    /// Says something on stderr, above it.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| cli::say(line));
    }

    /// Takes it away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
