//! The progress bar, on stderr and only on a terminal.

use super::{series::Interval, shared::Shared, tally::Tally};
use crate::{cli, units};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Length of time that the displayed rate and latency cover, in nanoseconds.
const WINDOW: u64 = 500_000_000;
/// Width of the bar in characters.
const BAR: u64 = 30;

/// Draws the bar. It comes last in the line, because the library cuts off the end of a line that is too long.
fn bar(position: u64, length: u64) -> String {
    let done = (u128::from(position.min(length)) * u128::from(BAR) / u128::from(length.max(1))) as usize;
    format!("[{:<width$}]", format!("{}>", "=".repeat(done)), width = BAR as usize + 1)
}

/// Shows the progress of a phase, and its current rate and latency.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    time: Option<Duration>,
    length: u64,
    /// Text of the current rate and latency.
    rate: String,
    start: Instant,
    done: u64,
    errors: u64,
    /// The last intervals: length, I/Os, and sum of their latencies.
    last: VecDeque<(u64, u64, f64)>,
}

impl Progress {
    /// Makes a bar for a number of I/Os.
    pub fn counted(what: &'static str, count: u64) -> Self {
        Self::new(what, None, count)
    }

    /// Makes a bar for a time.
    pub fn timed(what: &'static str, time: Duration) -> Self {
        Self::new(what, Some(time), time.as_millis() as u64)
    }

    fn new(what: &'static str, time: Option<Duration>, length: u64) -> Self {
        // The library hides the bar if stderr is not a terminal.
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

    /// Adds an interval.
    pub fn add(&mut self, interval: &Interval, tally: &Tally) {
        if self.bar.is_hidden() {
            return;
        }
        self.done += interval.ios;
        self.errors += interval.errors;
        let mean = tally.all().map_or(0.0, |latency| latency.mean());
        let sum = mean * interval.ios as f64;
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

    /// Moves the bar.
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

    /// Prints a line on stderr, above the bar.
    pub fn message(&self, line: &str) {
        self.bar.suspend(|| cli::message(line));
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
